"""Scores of one class raster against another that holds the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import FrameMismatchError, InputError, UsageError
from geoseg.frame import Box, Frame, parse_crs
from geoseg.legend import LAND_COVER, NODATA, Legend
from geoseg.scene import BandNeeds, FileScene, Scene, is_drawn, open_drawn, open_scene
from geoseg.scene.drawn import COLUMN
from geoseg.training.scores import Tally, tally_arrays, tally_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

Codes = np.ndarray[Any, np.dtype[np.uint8]]

_STRIP_PIXELS = 1 << 24
_WHOLE_PIXELS = 1 << 28
"""Up to so many pixels objects and outlines are scored; they need the rasters whole, at about 30 bytes a pixel."""


def evaluate_rasters(
    predicted: str | Path,
    truth: str | Path,
    *,
    legend: Legend = LAND_COVER,
    remap: dict[int, int] | None = None,
    confidence: str | Path | None = None,
) -> dict[str, Any]:
    """Scores of the class raster `predicted` against `truth`, as `Tally.scores` gives them, of `tally_rasters`."""
    return tally_rasters(predicted, truth, legend=legend, remap=remap, confidence=confidence).scores()


def tally_rasters(
    predicted: str | Path,
    truth: str | Path,
    *,
    legend: Legend = LAND_COVER,
    remap: dict[int, int] | None = None,
    confidence: str | Path | None = None,
    pixel_area_m2: float | None = None,
) -> Tally:
    """Count how the class raster `predicted` agrees with `truth`, both uint8 codes of `legend`.

    The truth may be polygons too, as `open_drawn` reads them; a pixel in none of them is of code 0. Truth of 255 and
    pixels that the truth masks count nowhere; `remap` renames codes of the truth first. A predicted 255 counts as wrong
    where the truth is known. `confidence` is the raster that lies beside the predicted one, in percent, and with
    `pixel_area_m2` objects are told by their size.

    Pixels are counted strip by strip; objects and outlines, which need both rasters in memory, up to 268 million
    pixels. Raises FrameMismatchError where the rasters lie on different grids, InputError where the truth holds a code
    that the legend lacks.
    """
    first = open_classes(predicted)
    second = open_truth(Path(truth), first.frame, legend)
    require_one_grid(first.frame, second.frame, str(predicted), str(truth))
    third = None if confidence is None else open_classes(confidence)
    if third is not None:
        require_one_grid(first.frame, third.frame, str(predicted), str(confidence))
    rename = renaming(legend, remap or {}, str(truth))
    height, width = second.frame.shape
    whole = height * width <= _WHOLE_PIXELS
    rows = height if whole else max(1, _STRIP_PIXELS // width)
    total: Tally | None = None
    for top in range(0, height, rows):
        strip = Box(top, 0, min(rows, height - top), width)
        codes, known = codes_of(first, strip), rename(codes_of(second, strip))
        percent = None if third is None else codes_of(third, strip)
        if whole:
            return tally_arrays(codes, known, legend, confidence=percent, pixel_area_m2=pixel_area_m2)
        tally = tally_pixels(codes, known, legend, percent)
        total = tally if total is None else total + tally
    assert total is not None  # noqa: S101  # a raster has rows
    return total


def require_one_grid(first: Frame, second: Frame, first_name: str, second_name: str) -> None:
    """Raise FrameMismatchError unless both frames have the same shape, transform (to 1/1000 pixel) and CRS.

    A CRS that only one of them states is no difference.
    """
    if first.shape != second.shape:
        found = f"{first.shape[0]} x {first.shape[1]} and {second.shape[0]} x {second.shape[1]} pixels"
    elif not first.transform.almost_equals(second.transform, 1e-3 * second.pixel_size):
        found = f"transforms {tuple(first.transform)[:6]} and {tuple(second.transform)[:6]}"
    elif first.crs and second.crs and not parse_crs(first.crs).equals(parse_crs(second.crs)):
        found = f"CRS {parse_crs(first.crs).name} and {parse_crs(second.crs).name}"
    else:
        return
    raise FrameMismatchError(
        f"{first_name} and {second_name} do not lie on one grid ({found}); warp one onto the other (gdalwarp -r near)"
    )


def open_truth(path: Path, frame: Frame, legend: Legend, *, column: str = COLUMN, outside: int = 0) -> Scene:
    """Labels as a raster of codes: that of a file, or of the polygons of a vector file on a frame, as `open_drawn`."""
    if is_drawn(path):
        return open_drawn(path, frame, legend, column=column, outside=outside)
    return open_classes(path)


def open_classes(path: str | Path) -> FileScene:
    """A class raster; raises InputError where it is none."""
    raster = open_scene(path, BandNeeds(("class",)), bands={"class": 1}, require_crs=False)
    if raster.dtype != "uint8":
        raise InputError(f"{path} is {raster.dtype}; a class raster holds codes in uint8")
    return raster


def codes_of(raster: Scene, box: Box) -> Codes:
    """The codes (h, w) of a box of a class raster, `NODATA` where it has none."""
    pixels, valid = raster.read(box)
    codes: Codes = pixels[0]
    codes[~valid] = NODATA
    return codes


def renaming(legend: Legend, remap: dict[int, int], name: str) -> Callable[[Codes], Codes]:
    """What turns codes of the truth into codes of a legend; it raises InputError for one that is none, naming `name`.

    Raises UsageError where `remap` leads to no class.
    """
    known = {*legend.codes, NODATA}
    table = np.arange(256, dtype=np.uint8)
    for code, target in remap.items():
        if not 0 <= code <= NODATA or target not in known:
            raise UsageError(
                f"remap: {code} to {target} is not possible; classes are {list(legend.codes)}, 255 is ignored"
            )
        table[code] = target
    strange = np.isin(np.arange(256), list(known), invert=True)

    def rename(codes: Codes) -> Codes:
        renamed: Codes = table[codes]
        if strange[renamed].any():
            raise InputError(
                f"{name} holds the code {int(renamed[strange[renamed]][0])}, which is no class of the legend "
                f"({list(legend.codes)}); rename it to a class or to 255"
            )
        return renamed

    return rename
