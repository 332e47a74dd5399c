"""An area of interest: outside of it, nothing is valid."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from rasterio.features import geometry_mask

from geoseg.errors import InputError, MissingCrsError

if TYPE_CHECKING:
    import geopandas as gpd

    from geoseg.frame import Box, Frame
    from geoseg.scene.reading import Array, Scene

Mask = np.ndarray[Any, np.dtype[np.bool_]]

_MAGIC = {
    ".gpkg": b"SQLite format 3\0",
    ".shp": b"\0\0\x27\x0a",
    ".fgb": b"fgb\x03fgb",
    ".parquet": b"PAR1",
}
"""What a file of each suffix begins with. GDAL goes by content: a text of another kind could name hosts and files."""
VECTOR_SUFFIXES = (*_MAGIC, ".geojson", ".json")


@dataclass(frozen=True)
class ClippedScene:
    """A scene of which only the pixels are valid whose centre lies in an area (WKB, in the scene's CRS)."""

    scene: Scene
    area: bytes

    @property
    def frame(self) -> Frame:
        """The frame of the whole scene: results lie on its grid."""
        return self.scene.frame

    @property
    def roles(self) -> tuple[str, ...]:
        """As the scene's."""
        return self.scene.roles

    @property
    def dtype(self) -> str:
        """As the scene's."""
        return self.scene.dtype

    @property
    def stored_scaling(self) -> tuple[tuple[float, float], ...] | None:
        """As the scene's."""
        return self.scene.stored_scaling

    def read(self, box: Box) -> tuple[Array, Array]:
        """As the scene's, with the area's mask."""
        inside = inside_area(self.area, self.frame.crop(box))
        if not inside.any():
            return np.zeros((len(self.roles), *box.shape), self.dtype), np.zeros(box.shape, bool)
        pixels, valid = self.scene.read(box)
        return pixels, valid & inside


def inside_area(area: bytes, frame: Frame) -> Mask:
    """Which pixels of a frame have their centre in an area (WKB, in the frame's CRS): (height, width) bool."""
    part = shapely.intersection(_geometry(area), shapely.box(*_around(frame)))
    if part.is_empty or part.area == 0:
        return np.zeros(frame.shape, bool)
    inside: Mask = ~geometry_mask([part], frame.shape, frame.transform)
    return inside


def grown_area(area: bytes, frame: Frame, by_m: float) -> bytes:
    """An area (WKB) and what lies within some metres of it; within as many pixels where nothing is known of metres."""
    gsd = frame.gsd_m
    pixels = by_m if gsd is None else by_m / max(min(gsd), 1e-9)
    return bytes(shapely.to_wkb(shapely.buffer(shapely.from_wkb(area), pixels * frame.pixel_size)))


def clip_scene(scene: Scene, path: str | Path) -> ClippedScene:
    """Clip a scene to the polygons of a vector file. Raises InputError where they do not meet it."""
    area = read_area(Path(path), scene.frame)
    if not area.intersects(shapely.box(*scene.frame.bounds)):
        raise InputError(f"--aoi {path} lies outside of the scene; check its CRS")
    return ClippedScene(scene, shapely.to_wkb(area))


def read_area(path: Path, frame: Frame) -> shapely.Geometry:
    """The union of all polygons of a vector file, in the CRS of a frame."""
    area = shapely.union_all(read_zones(path, frame, "--aoi").geometry.array)
    if not area.area:
        raise InputError(f"--aoi {path} holds no polygon")
    return area


def read_zones(path: Path, frame: Frame, option: str, *, every_layer: bool = False) -> gpd.GeoDataFrame:
    """The features of a vector file with their columns, valid, in the CRS of a frame; `option` names it in messages.

    Of a file with layers the first is taken, or all of them, one after the other.
    """
    if path.suffix.lower() not in VECTOR_SUFFIXES or not path.is_file():
        raise InputError(f"{option} {path} is not a file of {', '.join(VECTOR_SUFFIXES)}")
    layer = _read_layer(path, option, every_layer=every_layer)
    if (layer.crs is None) != (frame.crs is None):
        raise MissingCrsError(
            f"{option} {path}: of it and the scene one has no CRS; assign it, so that they can be matched"
        )
    if frame.crs is not None:
        layer = layer.to_crs(frame.crs)
    return layer.set_geometry(shapely.make_valid(layer.geometry.array))


def _read_layer(path: Path, option: str, *, every_layer: bool) -> gpd.GeoDataFrame:
    """The features of a vector file, of which only its own content is read."""
    import geopandas as gpd  # noqa: PLC0415  # 1.5 s, and only with an area
    from pyogrio.errors import DataSourceError  # noqa: PLC0415

    suffix = path.suffix.lower()
    try:
        if suffix not in _MAGIC:
            return _read_geojson(path, option)
        with path.open("rb") as file:
            as_named = file.read(16).startswith(_MAGIC[suffix])
        if as_named:
            if suffix == ".gpkg" and every_layer:
                return _read_layers(path)
            return gpd.read_parquet(path) if suffix == ".parquet" else gpd.read_file(path)
    except InputError:  # a ValueError, and a whole sentence already
        raise
    except (AttributeError, DataSourceError, ValueError, OSError) as error:
        raise InputError(f"{option} {path} cannot be read: {str(error).splitlines()[0]}") from error
    raise InputError(f"{option} {path} does not hold what its suffix {suffix} says; export it again")


def _read_layers(path: Path) -> gpd.GeoDataFrame:
    """The features of all layers of a GeoPackage that have any, in the CRS of the first."""
    import geopandas as gpd  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415
    from pyogrio import list_layers  # noqa: PLC0415

    layers = [gpd.read_file(path, layer=name) for name, kind in list_layers(path) if kind is not None]
    layers = [layer for layer in layers if len(layer)] or layers[:1]
    crs = layers[0].crs
    moved = [layer if layer.crs == crs else layer.to_crs(crs) for layer in layers]
    return gpd.GeoDataFrame(pd.concat(moved, ignore_index=True), geometry=moved[0].geometry.name, crs=crs)


def _read_geojson(path: Path, option: str) -> gpd.GeoDataFrame:
    """The features of a GeoJSON file, read without GDAL: to it, other texts in JSON are orders to fetch something."""
    import geopandas as gpd  # noqa: PLC0415
    from pyproj.exceptions import CRSError  # noqa: PLC0415
    from shapely.errors import ShapelyError  # noqa: PLC0415
    from shapely.geometry import shape  # noqa: PLC0415

    try:
        data = json.loads(path.read_bytes())
        features = data["features"] if data["type"] == "FeatureCollection" else [data]
        features = [feature if feature["type"] == "Feature" else {"geometry": feature} for feature in features]
        there = [feature for feature in features if feature["geometry"]]
        crs = data.get("crs", {"properties": {"name": "OGC:CRS84"}})
        columns = [dict(feature.get("properties") or {}) for feature in there]
        geometry = [shape(feature["geometry"]) for feature in there]
        return gpd.GeoDataFrame(columns, geometry=geometry, crs=crs and crs["properties"]["name"])
    except (AttributeError, CRSError, LookupError, TypeError, ValueError, ShapelyError) as error:
        raise InputError(
            f"{option} {path} is not GeoJSON ({type(error).__name__}: {error}); export it again"
        ) from error


@lru_cache(maxsize=4)
def _geometry(wkb: bytes) -> shapely.Geometry:
    geometry = shapely.from_wkb(wkb)
    shapely.prepare(geometry)
    return geometry


def _around(frame: Frame) -> tuple[float, float, float, float]:
    """The bounds of a frame and a pixel more, so that clipping does not move the edge."""
    west, south, east, north = frame.bounds
    return west - frame.pixel_size, south - frame.pixel_size, east + frame.pixel_size, north + frame.pixel_size
