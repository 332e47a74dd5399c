"""Scores of one class raster against another that holds the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import FrameMismatchError, InputError, UsageError
from geoseg.frame import Box, Frame, parse_crs
from geoseg.legend import LAND_COVER, NODATA, Legend
from geoseg.scene import BandNeeds, FileScene, Scene, is_drawn, open_drawn, open_scene
from geoseg.training.scores import confusion_matrix, pixel_scores, score_arrays

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
    whole: bool = True,
) -> dict[str, Any]:
    """Pixel, object and boundary scores of the class raster `predicted` against `truth`, both uint8 codes of `legend`.

    The truth may be polygons too, as `open_drawn` reads them; a pixel in none of them is of code 0. The result is plain
    dicts, lists and numbers, as `score_arrays` gives them. Truth of 255 and pixels that the truth masks count nowhere;
    `remap` renames codes of the truth first. A predicted 255 counts as wrong where the truth is known. Pixels are
    counted strip by strip; with `whole` off objects and outlines, which need both rasters in memory, are left out.
    Raises FrameMismatchError where the rasters lie on different grids, InputError where the truth holds a code that the
    legend lacks, or is too large for `whole`.
    """
    first = open_classes(predicted)
    second = open_drawn(Path(truth), first.frame, legend) if is_drawn(Path(truth)) else open_classes(truth)
    require_one_grid(first.frame, second.frame, str(predicted), str(truth))
    rename = renaming(legend, remap or {}, str(truth))
    height, width = second.frame.shape
    rows = max(1, _STRIP_PIXELS // width)
    strips = [Box(top, 0, min(rows, height - top), width) for top in range(0, height, rows)]
    if whole:
        if height * width > _WHOLE_PIXELS:
            raise InputError(
                f"{truth} has {height} x {width} pixels, too many to score objects and outlines at once; "
                "cut it into pieces or score pixels alone"
            )
        return score_arrays(
            np.concatenate([codes_of(first, strip) for strip in strips]),
            np.concatenate([rename(codes_of(second, strip)) for strip in strips]),
            legend,
        )
    confusion = sum(
        (confusion_matrix(codes_of(first, strip), rename(codes_of(second, strip)), legend.codes) for strip in strips),
        start=np.zeros((len(legend.codes), len(legend.codes) + 1), np.int64),
    )
    return {"pixels": pixel_scores(confusion, legend.names), "objects": {}, "boundaries": {}}


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
