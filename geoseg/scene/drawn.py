"""Class labels drawn as polygons, as a raster on the grid of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from rasterio.features import rasterize

from geoseg.errors import InputError
from geoseg.legend import NODATA
from geoseg.scene.aoi import VECTOR_SUFFIXES, read_zones

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd

    from geoseg.frame import Box, Frame
    from geoseg.legend import Legend
    from geoseg.scene.reading import Array

COLUMN = "class"
UNLABELLED = ("unlabelled", "unlabeled", "unknown", "ignore", str(NODATA))
"""What a polygon is called about which nothing is said."""


@dataclass(frozen=True)
class DrawnLabels:
    """Polygons with a code each; a pixel has the code of the last one that its centre lies in.

    Reads like a scene of one band, `class`, of uint8; every pixel is valid, and `NODATA` means unlabelled.
    """

    path: str
    frame: Frame
    polygons: np.ndarray[Any, np.dtype[np.object_]]
    codes: tuple[int, ...]
    outside: int = 0
    """The code of pixels in no polygon."""

    roles = ("class",)
    dtype = "uint8"
    stored_scaling = None

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.polygons)

    def read(self, box: Box) -> tuple[Array, Array]:
        """Codes (1, height, width) uint8, and valid (height, width) bool."""
        part = self.frame.crop(box)
        drawn = np.sort(self._tree.query(shapely.box(*part.bounds)))
        codes = np.full((1, *box.shape), self.outside, np.uint8)
        if drawn.size:
            shapes = [(self.polygons[k], self.codes[k]) for k in drawn]
            rasterize(shapes, out=codes[0], transform=part.transform)
        return codes, np.ones(box.shape, bool)


def is_drawn(path: Path) -> bool:
    """Whether a file of labels holds polygons, by its suffix."""
    return path.suffix.lower() in VECTOR_SUFFIXES


def open_drawn(path: Path, frame: Frame, legend: Legend, *, column: str = COLUMN, outside: int = 0) -> DrawnLabels:
    """Labels from the polygons of a vector file, of all its layers, for a frame.

    The column holds names or codes of classes; polygons that are `UNLABELLED` there lie above all others. Raises
    InputError for a column that is missing, a class that the legend lacks, or a file without polygons.
    """
    layer = read_zones(path, frame, "labels", every_layer=True)
    layer = layer[layer.geometry.area > 0]
    if layer.empty:
        raise InputError(f"labels {path} hold no polygon")
    codes = _codes(path, layer, legend, column)
    order = np.argsort(codes == NODATA, kind="stable")
    polygons = layer.geometry.array.to_numpy()[order]
    return DrawnLabels(str(path), frame, polygons, tuple(int(code) for code in codes[order]), outside)


@dataclass(frozen=True)
class LabelledPoints:
    """Places in a frame and what is there: rows, columns and codes, each (points,)."""

    rows: np.ndarray[Any, np.dtype[np.int64]]
    cols: np.ndarray[Any, np.dtype[np.int64]]
    codes: np.ndarray[Any, np.dtype[np.int64]]


def read_points(path: Path, frame: Frame, legend: Legend, *, column: str = COLUMN) -> LabelledPoints | None:
    """The points of a vector file that lie in a frame, with their codes; None where it holds anything else."""
    layer = read_zones(path, frame, "labels", every_layer=True)
    if layer.empty or set(layer.geometry.geom_type) != {"Point"}:
        return None
    codes = _codes(path, layer, legend, column)
    cols, rows = ~frame.transform @ (layer.geometry.x.to_numpy(), layer.geometry.y.to_numpy())
    rows, cols = np.floor(rows).astype(np.int64), np.floor(cols).astype(np.int64)
    inside = (rows >= 0) & (cols >= 0) & (rows < frame.shape[0]) & (cols < frame.shape[1]) & (codes != NODATA)
    return LabelledPoints(rows[inside], cols[inside], codes[inside])


def _codes(path: Path, layer: gpd.GeoDataFrame, legend: Legend, column: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The code of each feature, by a column of names or codes."""
    names = {str(name).lower(): name for name in layer.columns}
    if column.lower() not in names:
        there = ", ".join(sorted(set(names) - {"geometry"})) or "none"
        raise InputError(f"labels {path} have no column {column!r} that names the class; there are {there}")
    of_value = {str(code): code for code in range(NODATA)} | dict.fromkeys(UNLABELLED, NODATA)
    of_value |= {name.lower(): code for name, code in zip(legend.names, legend.codes, strict=True)}
    values = [_text(value) for value in layer[names[column.lower()]]]
    strange = sorted({value for value in values if value not in of_value})
    if strange:
        raise InputError(
            f"labels {path}: {column} is {strange[0]!r} somewhere; it takes {', '.join(legend.names)}, a code or "
            f"{UNLABELLED[0]}"
        )
    return np.array([of_value[value] for value in values], np.int64)


def _text(value: Any) -> str:
    """As names are compared; whole numbers come as floats from files where another row has none."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip().lower()
