"""The page of an evaluation, with pictures of the windows that came out worst."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count, product
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from geoseg.errors import SceneError
from geoseg.frame import Box
from geoseg.legend import LAND_COVER, NODATA
from geoseg.report import ScoreReport, WorstWindow, preview_picture, render_scores
from geoseg.scene import inspect_scene
from geoseg.scene.info import read_window
from geoseg.training.evaluate import codes_of, open_classes, open_truth, renaming
from geoseg.write import read_legend
from geoseg.write.atomic import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.legend import Legend
    from geoseg.workflow.scoring import Place

    Codes = np.ndarray[Any, np.dtype[np.uint8]]

_SIDE = 256
"""Of the windows, in pixels."""
_SHOWN = 6
_LEAST = 0.1
"""Windows of which less is known are passed over."""
_ERROR = np.array([[217, 212, 199], [176, 42, 48], [255, 255, 255]], np.uint8)
"""Right, wrong, unknown."""


@dataclass(frozen=True)
class _Window:
    place: Place
    box: Box
    accuracy: float
    predicted: Codes
    truth: Codes


def write_page(path: Path, places: list[Place], scores: dict[str, Any], remap: dict[int, int]) -> None:
    """Write the page of an evaluation, whole or not at all."""
    legend = read_legend(places[0].predicted) or LAND_COVER
    worst = [] if "areas" in scores else [_shown(window, legend) for window in _worst(places, legend, remap)]
    title = places[0].name if len(places) == 1 else f"{len(places)} places"
    named = [(place.name, str(place.predicted), str(place.truth)) for place in places]
    write_text(path, render_scores(ScoreReport(title, legend, scores, worst, named)))


def _worst(places: list[Place], legend: Legend, remap: dict[int, int]) -> list[_Window]:
    """The windows of all places with the smallest share of right pixels, the worst first."""
    kept: list[tuple[float, int, _Window]] = []
    number = count()
    for place in places:
        raster = open_classes(place.predicted)
        truth = open_truth(place.truth, raster.frame, legend)
        rename = renaming(legend, remap, str(place.truth))
        height, width = raster.frame.shape
        for row, col in product(range(0, height, _SIDE), range(0, width, _SIDE)):
            box = Box(row, col, _SIDE, _SIDE) & raster.frame.box
            found, real = codes_of(raster, box), rename(codes_of(truth, box))
            known = real != NODATA
            if known.mean() < _LEAST:
                continue
            accuracy = float((found == real)[known].mean())
            heapq.heappush(kept, (-accuracy, next(number), _Window(place, box, accuracy, found, real)))
            if len(kept) > _SHOWN:
                heapq.heappop(kept)
    return [window for _, _, window in sorted(kept, reverse=True)]


def _shown(window: _Window, legend: Legend) -> WorstWindow:
    box, pictures = window.box, {}
    imagery = _imagery(window)
    if imagery is not None:
        pictures["Imagery"] = imagery
    wrong = np.where(window.truth == NODATA, 2, window.predicted != window.truth)
    pictures |= {
        "Truth": _painted(window.truth, legend),
        "Predicted": _painted(window.predicted, legend),
        "Errors": _enlarged(_ERROR[wrong]),
    }
    where = f"rows {box.row}–{box.bottom - 1}, columns {box.col}–{box.right - 1}"
    return WorstWindow(window.place.name, where, window.accuracy, pictures)


def _imagery(window: _Window) -> Image.Image | None:
    """The scene in the window, where a run tells of one on the same grid that can still be read."""
    place = window.place
    if place.scene is None:
        return None
    try:
        info = inspect_scene(place.scene)
        if info.frame.shape != inspect_scene(place.predicted).frame.shape:
            return None
        pixels = read_window(info.path, [min(band, info.count) for band in place.shown], window.box)
    except SceneError:
        return None
    return preview_picture(pixels, np.ones(window.box.shape, bool))


def _painted(codes: Codes, legend: Legend) -> Image.Image:
    colors = np.full((256, 3), 255, np.uint8)
    for entry in legend.classes:
        colors[entry.code] = entry.rgb
    return _enlarged(colors[codes])


def _enlarged(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Image.Image:
    picture = Image.fromarray(pixels)
    factor = max(1, 2 * _SIDE // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
