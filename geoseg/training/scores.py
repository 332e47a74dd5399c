"""How well a class raster agrees with the truth: pixels, objects, outlines.

Truth of 255 is left out everywhere. A score that nothing is there to measure (0 / 0) is None, never 0 or 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from geoseg.legend import NODATA

if TYPE_CHECKING:
    from geoseg.legend import Legend

Array = np.ndarray[Any, Any]
Counts = np.ndarray[Any, np.dtype[np.int64]]

MATCH_IOU = 0.5
"""Two objects are one if they share at least this much of their union."""


def confusion_matrix(predicted: Array, truth: Array, codes: tuple[int, ...]) -> Counts:
    """Pixels by true class (rows) and predicted class (columns): (classes, classes + 1) int64.

    `predicted` and `truth` hold class codes in arrays of one shape. Pixels whose truth is no code of `codes` are left
    out; the last column counts pixels that have a truth but whose prediction is none of the codes (nodata).

    >>> confusion_matrix(np.array([0, 1, 1, 255]), np.array([0, 0, 1, 1]), (0, 1)).tolist()
    [[1, 1, 0], [0, 1, 1]]
    """
    count = len(codes)
    place = np.full(256, count, np.int64)
    place[list(codes)] = np.arange(count)
    rows, cols = place[truth.ravel()], place[predicted.ravel()]
    known = rows < count
    pairs = np.bincount(rows[known] * (count + 1) + cols[known], minlength=count * (count + 1))
    return pairs.reshape(count, count + 1)


def pixel_scores(confusion: Counts, names: tuple[str, ...]) -> dict[str, Any]:
    """IoU, F1, precision, recall of each class, their mean IoU and the accuracy, from a `confusion_matrix`.

    The mean runs over the classes that occur in the truth.
    """
    hits = np.diag(confusion)
    true = confusion.sum(axis=1)
    claimed = confusion[:, : len(names)].sum(axis=0)
    per_class = {
        name: {
            "iou": _ratio(hits[k], true[k] + claimed[k] - hits[k]),
            "f1": _ratio(2 * hits[k], true[k] + claimed[k]),
            "precision": _ratio(hits[k], claimed[k]),
            "recall": _ratio(hits[k], true[k]),
            "pixels": int(true[k]),
        }
        for k, name in enumerate(names)
    }
    ious = [hits[k] / (true[k] + claimed[k] - hits[k]) for k in range(len(names)) if true[k]]
    return {
        "classes": per_class,
        "mean_iou": float(np.mean(ious)) if ious else None,
        "accuracy": _ratio(hits.sum(), true.sum()),
        "pixels": int(true.sum()),
    }


def object_scores(predicted: Array, truth: Array, code: int) -> dict[str, Any]:
    """Precision, recall and F1 of the objects of one class, matched one to one at an IoU of at least 0.5.

    Objects are 4-connected groups of pixels (H, W) whose truth is known; of several partners the best is taken.
    """
    known = truth != NODATA
    found, found_count = ndimage.label((predicted == code) & known)
    real, real_count = ndimage.label(truth == code)
    matched = _matches(found, real)
    return {
        "objects": int(real_count),
        "predicted": int(found_count),
        "matched": matched,
        "precision": _ratio(matched, found_count),
        "recall": _ratio(matched, real_count),
        "f1": _ratio(2 * matched, found_count + real_count),
    }


def _matches(found: Array, real: Array) -> int:
    """How many pairs of labelled objects (0 is none) match, one to one, the best first."""
    found_area, real_area = np.bincount(found.ravel()), np.bincount(real.ravel())
    both = (found > 0) & (real > 0)
    keys, shared = np.unique(found[both].astype(np.int64) * len(real_area) + real[both], return_counts=True)
    first, second = keys // len(real_area), keys % len(real_area)
    iou = shared / (found_area[first] + real_area[second] - shared)
    taken_found: set[int] = set()
    taken_real: set[int] = set()
    for k in np.argsort(-iou, kind="stable"):
        if iou[k] < MATCH_IOU:
            break
        if int(first[k]) not in taken_found and int(second[k]) not in taken_real:
            taken_found.add(int(first[k]))
            taken_real.add(int(second[k]))
    return len(taken_found)


def boundary_scores(predicted: Array, truth: Array, code: int, tolerance: float) -> dict[str, Any]:
    """Precision, recall and F1 of the outlines of one class within `tolerance` pixels of each other.

    An outline is the pixels of the class with a 4-neighbour of another class; the raster's edge and pixels beside
    unknown truth draw none (after the boundary F measure of Csurka et al. 2013).
    """
    known = truth != NODATA
    found = _outline((predicted == code) & known, known)
    real = _outline(truth == code, known)
    precision = _ratio(_near(found, real, tolerance), np.count_nonzero(found))
    recall = _ratio(_near(real, found, tolerance), np.count_nonzero(real))
    f1 = None
    if precision is not None and recall is not None:
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"tolerance_px": tolerance, "precision": precision, "recall": recall, "f1": f1}


def _outline(mask: Array, known: Array) -> Array:
    inner = ndimage.binary_erosion(mask | ~known, border_value=1)
    outline: Array = mask & ~inner
    return outline


def _near(pixels: Array, others: Array, tolerance: float) -> int:
    """How many of `pixels` lie within `tolerance` of one of `others`."""
    if not others.any():
        return 0
    distance = ndimage.distance_transform_edt(~others)
    return int(np.count_nonzero(distance[pixels] <= tolerance))


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None


def score_arrays(predicted: Array, truth: Array, legend: Legend) -> dict[str, Any]:
    """Scores of class codes (H, W) against the truth (H, W), 255 unknown, as plain dicts, lists and numbers.

    `pixels` holds those of all classes, `objects` those of each class of that kind, `boundaries` those of the outlines
    of each foreground class at 1 and 3 pixels.
    """
    return {
        "pixels": pixel_scores(confusion_matrix(predicted, truth, legend.codes), legend.names),
        "objects": {c.name: object_scores(predicted, truth, c.code) for c in legend.classes if c.kind == "object"},
        "boundaries": {
            c.name: [boundary_scores(predicted, truth, c.code, tolerance) for tolerance in (1, 3)]
            for c in legend.foreground
        },
    }
