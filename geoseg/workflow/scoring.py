"""`evaluate`: class rasters against the truth, at one place or many."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import InputError, UsageError
from geoseg.frame import Box
from geoseg.legend import LAND_COVER, NODATA
from geoseg.scene import inspect_scene, is_drawn, read_points
from geoseg.training.estimates import intervals, stratified_areas
from geoseg.training.evaluate import codes_of, open_classes, tally_rasters
from geoseg.vector.measure import pixel_area_m2
from geoseg.write import read_legend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geoseg.legend import Legend
    from geoseg.scene import LabelledPoints

_STRIP_PIXELS = 1 << 24


@dataclass(frozen=True, slots=True)
class Place:
    """A class raster, what lies beside it, and its truth."""

    name: str
    predicted: Path
    truth: Path
    confidence: Path | None = None
    scene: Path | None = None
    """The imagery, where a finished run tells of it."""
    shown: tuple[int, int, int] = (1, 2, 3)
    """Its bands that are drawn as red, green and blue."""


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


def places_of(predicted: Path, truth: Path) -> list[Place]:
    """What is to be compared: one raster or finished run with its truth, or those of two folders by their names.

    A run in a folder of runs goes by the name of its folder, a raster by its stem, and so does the truth. Raises
    UsageError where no names agree.
    """
    if not predicted.is_dir() or (predicted / "classes.tif").is_file():
        return [_place(predicted, truth)]
    if not truth.is_dir():
        raise UsageError(f"{predicted} is a folder of several, so {truth} must be a folder with a truth for each")
    rasters = [path for path in sorted(predicted.glob("*.tif")) if path.is_file()]
    found = {path.stem: path for path in rasters}
    found |= {path.parent.name: path.parent for path in sorted(predicted.glob("*/classes.tif"))}
    truths = {path.stem: path for path in sorted(truth.iterdir()) if path.suffix == ".tif" or is_drawn(path)}
    both = [name for name in found if name in truths]
    if not both:
        raise UsageError(f"{predicted} and {truth} hold nothing of the same name; name the truth as the run or raster")
    return [_place(found[name], truths[name]) for name in both]


def _place(predicted: Path, truth: Path) -> Place:
    folder = predicted if predicted.is_dir() else predicted.parent
    classes = folder / "classes.tif" if predicted.is_dir() else predicted
    name = folder.name if classes.name == "classes.tif" else classes.stem
    confidence, manifest = folder / "confidence.tif", folder / "run.json"
    scene, shown = None, (1, 2, 3)
    if classes.name == "classes.tif" and manifest.is_file():
        recorded = json.loads(manifest.read_text(encoding="utf-8")).get("scene", {})
        bands = recorded.get("bands", {})
        if Path(recorded.get("path", "")).is_file():
            scene = Path(recorded["path"])
            shown = (bands.get("red", 1), bands.get("green", 1), bands.get("blue", 1))
    beside = confidence if classes.name == "classes.tif" and confidence.is_file() else None
    return Place(name or "classes", classes, truth, beside, scene, shown)


def score_places(places: list[Place], remap: dict[int, int] | None = None) -> dict[str, Any]:
    """Scores of all places together, as `Tally.scores` gives them, as JSON values.

    With several places also `places` (mean IoU and accuracy of each) and `intervals`; where the truth is a sample of
    points, `areas` instead. The legend is the one stored in the first raster, else that of the embedded model. Raises
    FrameMismatchError or InputError.
    """
    legend = _legend(places)
    first = places[0]
    if len(places) == 1 and is_drawn(first.truth):
        inspect_scene(first.predicted)
        points = read_points(first.truth, open_classes(first.predicted).frame, legend)
        if points is not None:
            return _score_points(first, points, legend, remap or {})
    tallies = [
        tally_rasters(
            place.predicted,
            place.truth,
            legend=legend,
            remap=remap,
            confidence=place.confidence,
            pixel_area_m2=pixel_area_m2(inspect_scene(place.predicted).frame),
        )
        for place in places
    ]
    scores = reduce(add, tallies).scores()
    if len(places) == 1:
        return scores
    each = {place.name: tally.scores()["pixels"] for place, tally in zip(places, tallies, strict=True)}
    told = {name: {key: pixels[key] for key in ("mean_iou", "accuracy", "pixels")} for name, pixels in each.items()}
    return scores | {
        "places": told,
        "intervals": intervals([tally.confusion for tally in tallies], legend.names),
    }


def _legend(places: list[Place]) -> Legend:
    legends = []
    for place in places:
        inspect_scene(place.predicted)
        legends.append(read_legend(place.predicted) or LAND_COVER)
    for place, legend in zip(places, legends, strict=True):
        if legend.codes != legends[0].codes or legend.names != legends[0].names:
            raise InputError(f"{place.predicted} has other classes than {places[0].predicted}; evaluate them apart")
    return legends[0]


def _score_points(place: Place, points: LabelledPoints, legend: Legend, remap: dict[int, int]) -> dict[str, Any]:
    """Accuracies and areas from a sample of points."""
    raster = open_classes(place.predicted)
    channel = np.full(256, -1)
    channel[list(legend.codes)] = np.arange(len(legend.codes))
    renamed = np.array([remap.get(int(code), int(code)) for code in points.codes], np.int64)
    mapped = np.zeros(len(legend.codes) + 1, np.int64)
    found = np.full(len(renamed), NODATA, np.int64)
    for box in _strips(raster.frame.shape):
        codes = codes_of(raster, box)
        mapped += np.bincount(channel[codes.ravel()] + 1, minlength=len(mapped))
        here = (points.rows >= box.row) & (points.rows < box.bottom)
        found[here] = codes[points.rows[here] - box.row, points.cols[here]]
    rows, cols = channel[found], channel[renamed]
    if (cols[renamed != NODATA] < 0).any():
        strange = int(renamed[(cols < 0) & (renamed != NODATA)][0])
        raise InputError(f"{place.truth} holds the code {strange}, which is no class; rename it by --remap")
    sample = np.zeros((len(legend.codes),) * 2, np.int64)
    both = (rows >= 0) & (cols >= 0)
    np.add.at(sample, (rows[both], cols[both]), 1)
    if not sample.any():
        raise InputError(f"{place.truth} has no point where {place.predicted} has a class")
    try:
        areas = stratified_areas(sample, mapped[1:], legend.names, pixel_area_m2(raster.frame))
    except ValueError as error:
        raise InputError(f"{place.truth}: {error}; draw more points there, at random within each mapped class") from (
            error
        )
    return {"areas": areas, "confusion": {"classes": list(legend.names), "points": sample.T.tolist()}}


def _strips(shape: tuple[int, int]) -> Iterator[Box]:
    height, width = shape
    rows = max(1, _STRIP_PIXELS // width)
    return (Box(top, 0, min(rows, height - top), width) for top in range(0, height, rows))


def scores_text(scores: dict[str, Any]) -> str:
    """`score_places` for people."""
    if "areas" in scores:
        return _areas_text(scores["areas"])
    pixels, spread = scores["pixels"], (scores.get("intervals") or {}).get("iou_95", {})
    lines = [f"{'class':14} {'IoU':>6} {'F1':>6} {'prec.':>6} {'recall':>6}{'  95 % of places' if spread else ''}"]
    for name, row in pixels["classes"].items():
        shown = [f"{_number(row[key]):>6}" for key in ("iou", "f1", "precision", "recall")]
        lines.append(f"{name:14} {' '.join(shown)}{_range(spread.get(name))}")
    lines.append(
        f"mean IoU {_number(pixels['mean_iou'])}{_range(spread.get('mean'))}, "
        f"overall accuracy {_number(pixels['accuracy'])}"
    )
    for name, row in scores["objects"].items():
        found = ", ".join(f"{key} {_number(row[key])}" for key in ("precision", "recall", "f1"))
        lines.append(f"objects of {name} at IoU 0.5: {found}")
        for size in row.get("sizes", []):
            if size["objects"] or size["predicted"]:
                span = f"{size['from_m2']:g} m2 and more" if size["to_m2"] is None else _span(size)
                lines.append(f"  {span:16} precision {_number(size['precision'])}, recall {_number(size['recall'])}")
    for name, rows in scores["boundaries"].items():
        near = ", ".join(f"{_number(row['f1'])} within {row['tolerance_px']:g} px" for row in rows)
        lines.append(f"boundary F1 of {name}: {near}")
    if "calibration" in scores:
        lines.append(
            f"expected calibration error of the confidence: {_number(scores['calibration']['expected_error'])}"
        )
    return "\n".join(lines)


def _areas_text(areas: dict[str, Any]) -> str:
    unit = "ha" if areas["unit"] == "m2" else "px"
    scale = 1e4 if areas["unit"] == "m2" else 1.0
    lines = [f"{'class':14} {'mapped':>12} {'estimated':>12} {'95 %':>10} {unit}  user's   producer's accuracy"]
    for name, row in areas["classes"].items():
        shown = [f"{row[key] / scale:{width}.1f}" for key, width in (("mapped", 12), ("area", 12), ("area_95", 10))]
        accuracy = [
            f"{_number(row[key])} ± {_number(row[f'{key}_95'])}" for key in ("users_accuracy", "producers_accuracy")
        ]
        lines.append(f"{name:14} {' '.join(shown)} {unit}  {'  '.join(accuracy)}")
    lines.append(
        f"overall accuracy {_number(areas['accuracy'])} ± {_number(areas['accuracy_95'])}, {areas['points']} points"
    )
    return "\n".join(lines)


def _span(size: dict[str, Any]) -> str:
    return f"{size['from_m2']:g} to {size['to_m2']:g} m2"


def _range(interval: list[float] | None) -> str:
    return f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
