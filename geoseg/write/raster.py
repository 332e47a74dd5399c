"""Rasters: parts written by workers, and one cloud-optimised GeoTIFF streamed together from them."""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.windows import Window

from geoseg.errors import EnvironmentFault
from geoseg.frame import Box, Frame, parse_crs
from geoseg.legend import NODATA, Legend
from geoseg.write.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyproj
    from rasterio.io import DatasetReader

Array = np.ndarray[Any, Any]
Part = tuple[Path, Box, int]
"""A GTiff, the box of the frame that it fills, and the first of its bands to take (from 1)."""

LEGEND_TAG = "GEOSEG_LEGEND"
"""The tag of a class raster that holds its legend as JSON."""

BLOCK = 512
"""Side of a part's tiles."""

_SIDES = (BLOCK, 256, 1024, 128, 2048, 64, 4096)
"""Sides of a COG's tiles, the first that will do; powers of two, since GDAL takes others for the first level alone."""

_CACHE_BYTES = 128 << 20
_CHECK = 2048
"""Side of the windows in which a written raster is compared with its parts."""

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
    resampling: Literal["mode", "nearest", "average"]
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
    with _quiet(), replacing(path) as partial:
        with rasterio.open(
            partial, "w", driver="GTiff", count=bands, height=height, width=width, dtype=arrays.dtype, nodata=nodata,
            crs=frame.crs, transform=frame.transform, tiled=True, blockxsize=BLOCK, blockysize=BLOCK,
            interleave="band", compress="zstd", zstd_level=1, bigtiff="if_safer",
        ) as raster:  # fmt: skip
            raster.write(arrays)
        # A full disk may show here alone: GTiff's close reports nothing.
        with rasterio.open(partial, driver="GTiff") as raster:
            if not _same(raster.read(), arrays):
                raise EnvironmentFault(f"{path} does not hold what was written to it; the disk is full or faulty")


def write_cog(out: Path, parts: Sequence[Part], spec: RasterSpec) -> None:
    """Stream parts into one cloud-optimised GeoTIFF whose bytes do not depend on how it was cut into parts.

    Parts must not overlap (ValueError); what none covers is nodata. Memory does not grow with the raster. The file
    and its `.aux.xml` (category names) appear only after every pixel was read back and compared with the parts.
    Raises EnvironmentFault where it cannot be written.
    """
    _refuse_overlaps([box for _, box, _ in parts])
    block, overviews = _pyramid(spec.frame.shape)
    options = {
        "compress": "DEFLATE",  # which every reader has; ZSTD is missing from some
        "predictor": "YES" if spec.resampling == "average" else "NO",
        "blocksize": block,
        "overviews": "AUTO" if overviews else "NONE",
        "overview_count": overviews,
        "overview_resampling": spec.resampling.upper(),
        "overview_compress": "DEFLATE",
        "num_threads": "ALL_CPUS",
        "bigtiff": "IF_SAFER",
    }
    environment = rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_PAM_ENABLED=True)
    with _quiet(), environment, replacing(out) as partial, MemoryFile(mosaic(parts, spec), ext="vrt") as vrt:
        rasterio.shutil.copy(vrt.name, partial, driver="COG", **options)
        with rasterio.open(vrt.name, driver="VRT") as source, rasterio.open(partial, driver="GTiff") as written:
            _check(written, source, spec, out)


def read_legend(path: Path) -> Legend | None:
    """The legend that `write_cog` stored in a class raster; None where there is none, or the file is no GeoTIFF."""
    with _quiet(), rasterio.open(path, sharing=False) as raster:
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


def mosaic(parts: Sequence[Part], spec: RasterSpec) -> bytes:
    """A VRT that lays parts over the frame of `spec` and says of them all that `spec` does."""
    height, width = spec.frame.shape
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    if spec.frame.crs is not None:
        ET.SubElement(root, "SRS").text = spec.frame.crs
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(value) for value in spec.frame.transform.to_gdal())
    tags = dict(spec.tags)
    if spec.legend is not None:
        tags[LEGEND_TAG] = json.dumps(spec.legend.to_json())
    _add_tags(root, tags)
    for index in range(len(spec.bands)):
        band = _band(spec, index)
        band.extend(_source(part, index, spec) for part in parts)
        root.append(band)
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


def _source(part: Part, index: int, spec: RasterSpec) -> ET.Element:
    path, box, first = part
    source = ET.Element("SimpleSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = str(Path(path).absolute())
    ET.SubElement(source, "SourceBand").text = str(first + index)
    width, height, block = str(box.width), str(box.height), str(BLOCK)
    # Said here, GDAL need not open every part to learn it.
    ET.SubElement(
        source, "SourceProperties", RasterXSize=width, RasterYSize=height,
        DataType=_GDAL_TYPES[spec.dtype], BlockXSize=block, BlockYSize=block,
    )  # fmt: skip
    ET.SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=width, ySize=height)
    ET.SubElement(source, "DstRect", xOff=str(box.col), yOff=str(box.row), xSize=width, ySize=height)
    return source


def _add_tags(element: ET.Element, tags: dict[str, str]) -> None:
    metadata = ET.SubElement(element, "Metadata")
    for key, value in sorted(tags.items()):
        ET.SubElement(metadata, "MDI", key=key).text = value


def _check(written: DatasetReader, source: DatasetReader, spec: RasterSpec, out: Path) -> None:
    """Raise EnvironmentFault unless a raster is what it should be, to the last pixel."""
    expected = {
        "shape": (spec.frame.shape, written.shape),
        "dtype": ((spec.dtype,) * len(spec.bands), written.dtypes),
        "transform": (spec.frame.transform, written.transform),
        "descriptions": (spec.bands, written.descriptions),
        "layout": ("COG", written.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")),
        "overviews": (_pyramid(spec.frame.shape)[1], len(written.overviews(1))),
        "nodata": (repr(float(spec.nodata)), repr(written.nodata)),  # as text, since NaN is not NaN
    }
    for what, (wanted, found) in expected.items():
        if wanted != found:
            raise EnvironmentFault(f"{out} was written with {what} {found}, not {wanted}; the file was not kept")
    crs = written.crs.to_wkt() if written.crs else None
    if not same_crs(spec.frame.crs, crs, spec.frame):
        raise EnvironmentFault(f"{out} was written with crs {crs}, not {spec.frame.crs}; the file was not kept")
    for window in _windows(spec.frame.box):
        if not _same(written.read(window=window), source.read(window=window)):
            raise EnvironmentFault(f"{out} does not hold what was written to it; the disk is full or faulty")


def _pyramid(shape: tuple[int, int]) -> tuple[int, int]:
    """Side of a tile and number of overviews: until 512 pixels hold the raster, or a row cannot be halved.

    A level as wide as a tile, but higher, is taken for striped by some readers, hence other sides where that would be.

    >>> _pyramid((4000, 3000)), _pyramid((8192, 4096)), _pyramid((4000, 2))
    ((512, 3), (256, 4), (512, 1))
    """
    height, width = shape
    levels = [level for level in range(width.bit_length()) if -(-height >> level) > BLOCK]
    widths = {width >> level for level in levels} | {-(-width >> level) for level in levels}  # rounded either way
    block = next((side for side in _SIDES if side not in widths), BLOCK)
    count = 0
    while max(height, width) >> count > BLOCK:
        count += 1
    return block, min(count, width.bit_length() - 1)


def _windows(box: Box) -> Iterator[Window]:
    for row in range(0, box.height, _CHECK):
        for col in range(0, box.width, _CHECK):
            inside = Box(row, col, _CHECK, _CHECK) & box
            yield Window(inside.col, inside.row, inside.width, inside.height)


def _same(left: Array, right: Array) -> bool:
    return np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


def _refuse_overlaps(boxes: list[Box]) -> None:
    """Raise ValueError where two boxes share a pixel: which of the parts wins would be left to chance."""
    edges = np.array([(box.row, box.col, box.bottom, box.right) for box in boxes], np.int64).reshape(-1, 4)
    for index, (row, col, bottom, right) in enumerate(edges):
        after = edges[index + 1 :]
        meets = (after[:, 0] < bottom) & (after[:, 2] > row) & (after[:, 1] < right) & (after[:, 3] > col)
        if meets.any():
            other = boxes[index + 1 + int(meets.argmax())]
            raise ValueError(f"parts overlap: {boxes[index]} and {other}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Scenes without georeference are known as such; a warning for each of their files says nothing new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
