"""`evaluate`: a class raster against the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoseg.errors import UsageError
from geoseg.legend import LAND_COVER, NODATA
from geoseg.scene import inspect_scene
from geoseg.training import evaluate_rasters
from geoseg.write import read_legend

if TYPE_CHECKING:
    from pathlib import Path

_WHOLE_PIXELS = 1 << 28
"""Up to so many pixels objects and outlines are scored as well; they need both rasters in memory."""


def parse_remap(text: str) -> dict[int, int]:
    """Read `--remap`: code of the truth to the code it counts as.

    >>> parse_remap("5=0, 6=255")
    {5: 0, 6: 255}
    """
    remap: dict[int, int] = {}
    for part in filter(None, text.split(",")):
        old, equals, new = (piece.strip() for piece in part.partition("="))
        if not (equals and old.isdigit() and new.isdigit() and int(old) <= NODATA and int(new) <= NODATA):
            raise UsageError(f"--remap: {part.strip()!r} is not CODE=CODE, both 0 to 255; write for example 5=0")
        remap[int(old)] = int(new)
    return remap


def score_rasters(predicted: Path, truth: Path, *, remap: dict[int, int] | None = None) -> dict[str, Any]:
    """Pixel, object and boundary scores of `predicted` against `truth`, as JSON values.

    The legend is the one stored in `predicted`, else that of the embedded model; `remap` renames codes of the truth,
    255 leaves them out. Beyond 268 million pixels objects and
    boundaries are left out. Raises FrameMismatchError or InputError.
    """
    height, width = inspect_scene(predicted).frame.shape
    legend = read_legend(predicted) or LAND_COVER
    return evaluate_rasters(predicted, truth, legend=legend, remap=remap, whole=height * width <= _WHOLE_PIXELS)


def scores_text(scores: dict[str, Any]) -> str:
    """`score_rasters` for people."""
    pixels = scores["pixels"]
    lines = [f"{'class':14} {'IoU':>6} {'F1':>6} {'prec.':>6} {'recall':>6}"]
    for name, row in pixels["classes"].items():
        shown = [f"{_number(row[key]):>6}" for key in ("iou", "f1", "precision", "recall")]
        lines.append(f"{name:14} {' '.join(shown)}")
    lines.append(f"mean IoU {_number(pixels['mean_iou'])}, overall accuracy {_number(pixels['accuracy'])}")
    for name, row in scores["objects"].items():
        found = ", ".join(f"{key} {_number(row[key])}" for key in ("precision", "recall", "f1"))
        lines.append(f"objects of {name} at IoU 0.5: {found}")
    for name, rows in scores["boundaries"].items():
        near = ", ".join(f"{_number(row['f1'])} within {row['tolerance_px']} px" for row in rows)
        lines.append(f"boundary F1 of {name}: {near}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
