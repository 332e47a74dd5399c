"""Rasters: parts written by workers, and one cloud-optimised GeoTIFF streamed together from them."""

from __future__ import annotations

import json
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET
from zlib import crc32

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.windows import Window

from geoseg.errors import EnvironmentFault
from geoseg.frame import Box, Frame, parse_crs
from geoseg.legend import NODATA, Legend
from geoseg.write.atomic import replacing
from geoseg.write.cog import SPOOL, lay_out
from geoseg.write.pyramid import BLOCK, Pyramid, Resampling, halve, pyramid_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyproj
    from rasterio.io import DatasetWriter

Array = np.ndarray[Any, Any]
Part = tuple[Path, Box, int]
"""A GTiff, the box of the frame that it fills, and the first of its bands to take (from 1)."""

LEGEND_TAG = "GEOSEG_LEGEND"
"""The tag of a class raster that holds its legend as JSON."""

_WINDOWS_AT_ONCE = 4
"""Read from a COG before it is opened anew: what was read of an open file, GDAL keeps as long as it finds room."""

_FILTERS = Lock()

_ANYWHERE = Affine.scale(2)
"""Of files that are only tiles: a transform, for rasterio warns where there is none."""

_SAME_PX = 1e-3
"""Two CRS that move no corner of a frame by so many pixels are one."""

_GDAL_TYPES = {
    "uint8": "Byte",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}


@dataclass(frozen=True)
class RasterSpec:
    """What a raster is, apart from its pixels."""

    frame: Frame
    dtype: str
    nodata: float
    bands: tuple[str, ...]
    """A description for each band."""
    resampling: Resampling
    """How overviews are made: `mode` or `nearest` for codes, `average` for quantities."""
    legend: Legend | None = None
    """Of a raster of one band of codes: gives it a colour table and category names."""
    scales: tuple[float, ...] | None = None
    """A factor for each band that turns stored numbers into `units`."""
    units: tuple[str, ...] | None = None
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what GDAL would write wrongly or not at all."""
        if self.dtype not in _GDAL_TYPES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(_GDAL_TYPES)}")
        kind = np.dtype(self.dtype)
        if kind.kind != "f" and not (np.iinfo(kind).min <= self.nodata <= np.iinfo(kind).max and self.nodata % 1 == 0):
            raise ValueError(f"nodata {self.nodata} is no {self.dtype}")
        if self.legend is not None and (len(self.bands) != 1 or self.dtype != "uint8"):
            raise ValueError("a legend goes with one band of uint8 codes")
        for name, values in (("scales", self.scales), ("units", self.units)):
            if values is not None and len(values) != len(self.bands):
                raise ValueError(f"{len(values)} {name} for {len(self.bands)} bands")


def write_block(path: Path, arrays: Array, frame: Frame, nodata: float) -> None:
    """Write pixels (bands, height, width) as a plain tiled GTiff, fast rather than small, and read it back.

    Atomic, and safe where two workers write the same block. Raises EnvironmentFault where it cannot be written.
    """
    bands, height, width = arrays.shape
    with replacing(path) as partial:
        with _open(
            partial, "w", count=bands, height=height, width=width, dtype=arrays.dtype, nodata=nodata,
            crs=frame.crs, transform=frame.transform, tiled=True, blockxsize=BLOCK, blockysize=BLOCK,
            interleave="band", bigtiff="if_safer",
        ) as raster:  # fmt: skip
            raster.write(arrays)
        # A full disk may show here alone: GTiff's close reports nothing.
        with _open(partial) as raster:
            if not _same(raster.read(), arrays):
                raise EnvironmentFault(f"{path} does not hold what was written to it; the disk is full or faulty")


def write_cog(out: Path, parts: Sequence[Part], spec: RasterSpec) -> None:
    """Stream parts into one cloud-optimised GeoTIFF whose bytes do not depend on how it was cut into parts.

    Parts must not overlap (ValueError); what none covers is nodata. Memory does not grow with the raster. The file
    and its `.aux.xml` (category names) appear only after every pixel, those of overviews too, was read back.
    Raises EnvironmentFault where it cannot be written.
    """
    levels = pyramid_of(spec.frame.shape, np.dtype(spec.dtype).itemsize * len(spec.bands))
    with rasterio.Env(GDAL_PAM_ENABLED=True), replacing(out) as partial:
        with TemporaryDirectory(dir=partial.parent) as folder:
            paths = [Path(folder) / f"{level}.tif" for level in range(len(levels.shapes))]
            sums = _write_tiles(paths, Mosaic(parts, spec), levels)
            _describe(partial, spec, levels)
            lay_out(partial, paths)
        _check(partial, out, spec, levels)
        if not all(_holds(partial, level, expected) for level, expected in enumerate(sums)):
            raise EnvironmentFault(f"{out} does not hold what was written to it; the disk is full or faulty")


def read_legend(path: Path) -> Legend | None:
    """The legend that `write_cog` stored in a class raster; None where there is none, or the file is no GeoTIFF."""
    with _open(path, driver=None, sharing=False) as raster:
        if raster.driver != "GTiff":
            return None
        stored = raster.tags().get(LEGEND_TAG)
    return None if stored is None else Legend.from_json(json.loads(stored))


def same_crs(first: str | None, second: str | None, frame: Frame) -> bool:
    """Whether two CRS (as WKT, or None) lay a frame on the same ground, however they are spelled.

    GeoTIFF stores a CRS by its own keys: names, order of axes and what goes by default may come back otherwise.
    """
    if first is None or second is None:
        return first is second
    if CRS.from_user_input(first) == CRS.from_user_input(second):
        return True
    one, other = parse_crs(first), parse_crs(second)
    return one.equals(other, ignore_axis_order=True) or _moved_px(one, other, frame) < _SAME_PX


def _moved_px(one: pyproj.CRS, other: pyproj.CRS, frame: Frame) -> float:
    """How far, in pixels, the farthest corner of a frame moves from one CRS to another; infinite if it gets lost."""
    from pyproj import Transformer  # noqa: PLC0415
    from pyproj.exceptions import ProjError  # noqa: PLC0415

    height, width = frame.shape
    x, y = np.transpose([frame.xy(row, col) for row in (0, height) for col in (0, width)])
    try:
        moved_x, moved_y = Transformer.from_crs(one, other, always_xy=True).transform(x, y)
    except ProjError:  # there is no way from one to the other
        return np.inf
    moved = float(np.hypot(moved_x - x, moved_y - y).max()) / frame.pixel_size
    return moved if np.isfinite(moved) else np.inf


def color_table(legend: Legend) -> list[tuple[int, int, int, int]]:
    """256 entries (red, green, blue, alpha): the legend's colours, opaque; all other codes, and nodata, transparent."""
    table = [(0, 0, 0, 0)] * (NODATA + 1)
    for entry in legend.classes:
        table[entry.code] = (*entry.rgb, 255)
    return table


class Mosaic:
    """Parts laid over a frame."""

    def __init__(self, parts: Sequence[Part], spec: RasterSpec) -> None:
        """Raises ValueError where two parts share a pixel: which of them wins would be left to chance."""
        self.spec = spec
        self._parts = parts
        edges = [(box.row, box.col, box.bottom, box.right) for _, box, _ in parts]
        self._edges = np.array(edges, np.int64).reshape(-1, 4)
        for index, (_, box, _) in enumerate(parts):
            if len(meeting := self._meeting(box)) > 1:
                other = next(parts[other][1] for other in meeting if other != index)
                raise ValueError(f"parts overlap: {box} and {other}")

    def read(self, box: Box) -> Array:
        """Pixels (bands, height, width) of a box; nodata where there is no part."""
        bands = len(self.spec.bands)
        pixels = np.full((bands, *box.shape), self.spec.nodata, self.spec.dtype)
        for index in self._meeting(box):
            path, whole, first = self._parts[index]
            inside = whole & box
            window = _window(Box(inside.row - whole.row, inside.col - whole.col, *inside.shape))
            with _open(path) as part:
                if part.shape != whole.shape:
                    raise ValueError(f"{path} has {part.shape} pixels, but its box is {whole}")
                pixels[(slice(None), *inside.slices(box))] = part.read([*range(first, first + bands)], window=window)
        return pixels

    def _meeting(self, box: Box) -> Sequence[int]:
        rows, cols, bottoms, rights = self._edges.T
        meets = (rows < box.bottom) & (bottoms > box.row) & (cols < box.right) & (rights > box.col)
        found: list[int] = np.flatnonzero(meets).tolist()
        return found


@dataclass(frozen=True)
class _Tiles:
    """Where a mosaic is written to, level by level, and the checksum of what was written to each window."""

    mosaic: Mosaic
    levels: Pyramid
    rasters: list[DatasetWriter]
    sums: list[dict[Box, int]]

    def write(self, level: int, box: Box) -> Array:
        """Write a window and all that it is made from, and return its pixels.

        Each window is written once and whole, so that neither this nor GDAL holds more than one for each level.
        """
        spec = self.mosaic.spec
        if level == 0:
            pixels = self.mosaic.read(box)
        else:
            pixels = np.empty((len(spec.bands), *box.shape), spec.dtype)
            for finer, made in self.levels.below(level, box):
                halved = halve(self.write(level - 1, finer), spec.nodata, spec.resampling)
                pixels[(slice(None), *made.slices(box))] = halved
        self.rasters[level].write(pixels, window=_window(box))
        self.sums[level][box] = crc32(pixels.data)
        return pixels


def _write_tiles(paths: Sequence[Path], mosaic: Mosaic, levels: Pyramid) -> list[dict[Box, int]]:
    """Write each level as a GTiff that is nothing but its tiles; returns checksums of its windows."""
    spec = mosaic.spec
    options = _tile_options(spec, levels) | {"dtype": spec.dtype, "count": len(spec.bands), "transform": _ANYWHERE}
    with ExitStack() as opened:
        rasters = [
            opened.enter_context(_open(path, "w", height=height, width=width, **options))
            for path, (height, width) in zip(paths, levels.shapes, strict=True)
        ]
        tiles = _Tiles(mosaic, levels, rasters, [{} for _ in paths])
        for box in levels.top():
            tiles.write(len(paths) - 1, box)
    return tiles.sums


def _holds(path: Path, level: int, sums: dict[Box, int]) -> bool:
    """Whether a level of a COG has these checksums."""
    options: dict[str, Any] = {"overview_level": level - 1} if level else {}
    rest = iter(sums.items())
    while some := list(islice(rest, _WINDOWS_AT_ONCE)):
        with _open(path, **options) as raster:
            if any(crc32(raster.read(window=_window(box))) != expected for box, expected in some):
                return False
    return True


def _description(spec: RasterSpec) -> bytes:
    """A VRT of one pixel that says of itself all that `spec` does."""
    root = ET.Element("VRTDataset", rasterXSize="1", rasterYSize="1")
    if spec.frame.crs is not None:
        ET.SubElement(root, "SRS").text = spec.frame.crs
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(value) for value in spec.frame.transform.to_gdal())
    tags = dict(spec.tags)
    if spec.legend is not None:
        tags[LEGEND_TAG] = json.dumps(spec.legend.to_json())
    _add_tags(root, tags)
    root.extend(_band(spec, index) for index in range(len(spec.bands)))
    xml: bytes = ET.tostring(root, encoding="utf-8")
    return xml


def _band(spec: RasterSpec, index: int) -> ET.Element:
    band = ET.Element("VRTRasterBand", dataType=_GDAL_TYPES[spec.dtype], band=str(index + 1))
    ET.SubElement(band, "Description").text = spec.bands[index]
    if spec.legend is not None:
        _add_tags(band, {f"CLASS_{entry.code}": entry.name for entry in spec.legend.classes})
    ET.SubElement(band, "NoDataValue").text = "nan" if isnan(spec.nodata) else repr(spec.nodata)
    if spec.units is not None:
        ET.SubElement(band, "UnitType").text = spec.units[index]
    if spec.scales is not None:
        ET.SubElement(band, "Offset").text = "0"
        ET.SubElement(band, "Scale").text = repr(spec.scales[index])
    ET.SubElement(band, "ColorInterp").text = "Gray" if spec.legend is None else "Palette"
    if spec.legend is not None:
        colors = ET.SubElement(band, "ColorTable")
        for color in color_table(spec.legend):
            ET.SubElement(colors, "Entry", {f"c{n}": str(value) for n, value in enumerate(color, 1)})
        names = ET.SubElement(band, "CategoryNames")
        by_code = {entry.code: entry.name for entry in spec.legend.classes}
        for code in range(max(by_code) + 1):
            ET.SubElement(names, "Category").text = by_code.get(code, "")
    return band


def _add_tags(element: ET.Element, tags: dict[str, str]) -> None:
    metadata = ET.SubElement(element, "Metadata")
    for key, value in sorted(tags.items()):
        ET.SubElement(metadata, "MDI", key=key).text = value


def _describe(path: Path, spec: RasterSpec, levels: Pyramid) -> None:
    """Write a GTiff that says, with what lies beside it, all that `spec` does; its one pixel means nothing."""
    with MemoryFile(_description(spec), ext="vrt") as vrt:
        rasterio.shutil.copy(vrt.name, path, driver="GTiff", **_tile_options(spec, levels))


def _tile_options(spec: RasterSpec, levels: Pyramid) -> dict[str, Any]:
    codes = spec.resampling != "average"
    return SPOOL | {
        "compress": "deflate",  # which every reader has; zstd is missing from some
        "zlevel": 3 if codes else 1,  # of level 6 a third, and a fifth, of the time; 1.4 and 1.1 times the bytes
        "predictor": 1 if codes else 3 if spec.dtype.startswith("float") else 2,
        "blockxsize": levels.block,
        "blockysize": levels.block,
    }


def _check(written_path: Path, out: Path, spec: RasterSpec, levels: Pyramid) -> None:
    """Raise EnvironmentFault unless a raster is what it should be, apart from its pixels."""
    with _open(written_path) as written:
        expected = {
            "shape": (spec.frame.shape, written.shape),
            "dtype": ((spec.dtype,) * len(spec.bands), written.dtypes),
            "transform": (spec.frame.transform, written.transform),
            "descriptions": (spec.bands, written.descriptions),
            "layout": ("COG", written.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")),
            "overviews": (len(levels.shapes) - 1, len(written.overviews(1))),
            "nodata": (repr(float(spec.nodata)), repr(written.nodata)),  # as text, since NaN is not NaN
        }
        crs = written.crs.to_wkt() if written.crs else None
    for what, (wanted, found) in expected.items():
        if wanted != found:
            raise EnvironmentFault(f"{out} was written with {what} {found}, not {wanted}; the file was not kept")
    if not same_crs(spec.frame.crs, crs, spec.frame):
        raise EnvironmentFault(f"{out} was written with crs {crs}, not {spec.frame.crs}; the file was not kept")


def _window(box: Box) -> Window:
    return Window(box.col, box.row, box.width, box.height)


def _same(left: Array, right: Array) -> bool:
    return np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


def _open(path: Path, mode: str = "r", *, driver: str | None = "GTiff", **options: Any) -> Any:
    """A raster, opened without a word: scenes without georeference are known as such.

    Under a lock, since filters of warnings belong to the process, and two threads may write a raster each.
    """
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, mode, driver=driver, **options)
