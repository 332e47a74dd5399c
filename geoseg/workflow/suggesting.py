"""`suggest`: which windows of a finished run to label next, so that a model learns most from little."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geoseg.errors import RunFolderError, UsageError
from geoseg.frame import Box
from geoseg.legend import LAND_COVER, ClassEntry
from geoseg.scene import inspect_scene
from geoseg.scene.info import read_window
from geoseg.write import read_legend, write_layers
from geoseg.write.columns import BY_NAME, schema_of
from geoseg.write.layer import Layer

if TYPE_CHECKING:
    from geoseg.frame import Frame
    from geoseg.legend import Legend
    from geoseg.scene import SceneInfo

Array = np.ndarray[Any, Any]

WINDOWS, LABELS = "windows", "labels"
"""The layers: what to label, best first, and an empty one to draw the labels into."""
_LEAST_SEEN = 0.5
"""Windows of which less is valid are passed over."""
_UNSURE_PERCENT = 60
"""Pixels of a lower confidence count as unsure."""


@dataclass(frozen=True)
class _Candidates:
    """Windows and what is known of them: mean uncertainty 0..1, share of unsure pixels, features (windows, n)."""

    boxes: list[Box]
    uncertainty: Array
    unsure: Array
    features: Array


def suggest_windows(run: Path, out: Path, *, count: int, side: int) -> Path:
    """Write the windows of a run that are best labelled next into a GeoPackage, and return it.

    Windows of `side` pixels are ranked by how unsure the model was there (1 - confidence, mean) times how unlike they
    are to the windows ranked before (the distance to the nearest in brightness, texture and shares of classes, each in
    units of its spread): uncertainty alone would give the same parking lot twenty times. The layer `windows` holds
    them, from rank 1; `labels` is empty, has a column `class`, and is what `geoseg train` reads.

    Raises RunFolderError where the folder holds no finished run, UsageError where no window has something to see.
    """
    manifest = run / "run.json"
    for path in (manifest, run / "classes.tif", run / "confidence.tif"):
        if not path.is_file():
            raise RunFolderError(f"{run} is no finished run: it has no {path.name}; segment the scene first")
    record = json.loads(manifest.read_text(encoding="utf-8"))
    classes = inspect_scene(run / "classes.tif")
    legend = read_legend(run / "classes.tif") or LAND_COVER
    candidates = _look(run, classes, legend, _imagery(record, classes), side)
    if not candidates.boxes:
        raise UsageError(f"{run} has no window of {side} px of which half is valid; take a smaller --size")
    chosen = rank(candidates.uncertainty, candidates.features, count)
    return _write(out, classes.frame, legend, candidates, chosen)


def rank(uncertainty: Array, features: Array, count: int) -> list[int]:
    """Up to `count` places of windows, best first: unsure (windows,), and unlike each other in features (windows, n).

    >>> rank(np.array([0.9, 0.8, 0.3]), np.array([[0.0], [0.0], [5.0]]), 2)
    [0, 2]
    """
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    distance = np.full(len(features), np.inf)
    chosen: list[int] = []
    for _ in range(min(count, len(features))):
        merit = uncertainty if not chosen else uncertainty * distance
        merit = np.where(np.isin(np.arange(len(features)), chosen), -1.0, merit)
        best = int(merit.argmax())
        chosen.append(best)
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[best], axis=1))
    return chosen


def _imagery(record: dict[str, Any], classes: SceneInfo) -> tuple[SceneInfo, list[int]] | None:
    """The scene of the run and its bands, where it is still there and as it was."""
    told = record.get("scene", {})
    if not Path(told.get("path", "")).is_file():
        return None
    info = inspect_scene(told["path"])
    return (info, sorted(told["bands"].values())) if info.frame.shape == classes.frame.shape else None


def _look(
    run: Path, classes: SceneInfo, legend: Legend, imagery: tuple[SceneInfo, list[int]] | None, side: int
) -> _Candidates:
    """All windows on a lattice, read one by one: memory does not grow with the scene."""
    height, width = classes.frame.shape
    boxes, uncertainty, unsure, features = [], [], [], []
    for row, col in product(range(0, height, side), range(0, width, side)):
        box = Box(row, col, side, side) & classes.frame.box
        confidence = read_window(str(run / "confidence.tif"), [1], box)[0]
        seen = confidence <= 100
        if seen.sum() < _LEAST_SEEN * side * side and seen.mean() < 1:
            continue
        codes = read_window(str(run / "classes.tif"), [1], box)[0][seen]
        boxes.append(box)
        sure = confidence[seen].astype(np.float64)
        uncertainty.append(1 - sure.mean() / 100)
        unsure.append((sure < _UNSURE_PERCENT).mean())
        shares = [float((codes == code).mean()) for code in legend.codes]
        light: list[float] = []
        if imagery is not None:
            pixels = read_window(imagery[0].path, imagery[1], box).astype(np.float64)[:, seen]
            pixels[~np.isfinite(pixels)] = 0
            light = [*pixels.mean(axis=1), *pixels.std(axis=1)]
        features.append([*shares, *light])
    return _Candidates(boxes, np.array(uncertainty), np.array(unsure), np.array(features, float))


def _write(out: Path, frame: Frame, legend: Legend, candidates: _Candidates, chosen: list[int]) -> Path:
    import geopandas as gpd  # noqa: PLC0415  # 1.5 s

    if out.suffix.lower() != ".gpkg":
        raise UsageError(f"--out {out}: windows and labels are layers of one file; name it .gpkg")
    boxes = [candidates.boxes[k] for k in chosen]
    windows = gpd.GeoDataFrame(
        {
            "rank": np.arange(1, len(boxes) + 1, dtype=np.int32),
            "uncertainty": np.round(candidates.uncertainty[chosen], 4),
            "unsure": np.round(candidates.unsure[chosen], 4),
            "row": np.array([box.row for box in boxes], np.int32),
            "col": np.array([box.col for box in boxes], np.int32),
        },
        geometry=[_outline(frame, box) for box in boxes],
        crs=frame.crs,
    )
    labels = gpd.GeoDataFrame({"class": np.array([], object)}, geometry=[], crs=frame.crs)
    marked = ClassEntry(0, WINDOWS, "#e6007e", "area")
    drawn = Layer.of(LABELS, labels, legend)
    layers = [
        replace(Layer.of(WINDOWS, windows, legend), entry=marked),
        replace(drawn, categories=legend.classes, schema=schema_of([BY_NAME["class"]])),
    ]
    [path] = write_layers(layers, out.parent, out.stem, "gpkg")
    return path


def _outline(frame: Frame, box: Box) -> shapely.Polygon:
    corners = ((box.col, box.row), (box.right, box.row), (box.right, box.bottom), (box.col, box.bottom))
    return shapely.Polygon([frame.transform @ corner for corner in corners])
