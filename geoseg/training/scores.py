"""How well a class raster agrees with the truth: pixels, objects, outlines.

Truth of 255 is left out everywhere. A score that nothing is there to measure (0 / 0) is None, never 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from geoseg.legend import NODATA

if TYPE_CHECKING:
    from geoseg.legend import Legend

Array = np.ndarray[Any, Any]
Counts = np.ndarray[Any, np.dtype[np.int64]]

TOLERANCES_PX = (1.0, 3.0)
"""Within so many pixels of each other outlines are the same."""
SIZES_M2 = (0.0, 50.0, 100.0, 200.0, 500.0)
"""Objects are counted by size from each of these to the next."""
CONFIDENCES = 101
"""Confidences are whole percent, 0 to 100."""
_BINS = 10
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


def calibration(counts: Counts) -> dict[str, Any]:
    """How often pixels of a confidence are right, from `counts` (101, 2): pixels by confidence in %, and right ones.

    `expected_error` is the expected calibration error: the mean over pixels of the distance between confidence and
    accuracy, in ten bins of equal width (Naeini et al. 2015).

    >>> counts = np.zeros((101, 2), np.int64)
    >>> counts[80] = 10, 6
    >>> calibration(counts)["expected_error"]
    0.2
    """
    pixels, right = counts[:, 0], counts[:, 1]
    confidence = np.arange(CONFIDENCES) / (CONFIDENCES - 1)
    bin_of = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = []
    for k in range(_BINS):
        chosen = bin_of == k
        total = int(pixels[chosen].sum())
        if total:
            mean = float((confidence * pixels)[chosen].sum() / total)
            bins.append({"confidence": mean, "accuracy": float(right[chosen].sum() / total), "pixels": total})
    every = sum(row["pixels"] for row in bins)
    error = sum(row["pixels"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / every if every else None
    return {"expected_error": None if error is None else round(error, 12), "bins": bins}


def object_scores(predicted: Array, truth: Array, code: int, pixel_area_m2: float | None = None) -> dict[str, Any]:
    """Precision, recall and F1 of the objects of one class, matched one to one at an IoU of at least 0.5.

    Objects are 4-connected groups of pixels (H, W) whose truth is known; of several partners the best is taken. Where
    the area of a pixel is known, `sizes` has the same by the size of objects.
    """
    return _object_scores(_count_objects(predicted, truth, code, pixel_area_m2), sized=pixel_area_m2 is not None)


def _count_objects(predicted: Array, truth: Array, code: int, pixel_area_m2: float | None) -> Counts:
    """True objects, matched ones, predicted objects, matched ones (columns) by size (rows): (sizes, 4) int64."""
    known = truth != NODATA
    found, _ = ndimage.label((predicted == code) & known)
    real, _ = ndimage.label(truth == code)
    counts = np.zeros((len(SIZES_M2), 4), np.int64)
    matches = np.array(_matches(found, real), np.int64).reshape(-1, 2)
    for k, (objects, matched) in enumerate(((real, matches[:, 1]), (found, matches[:, 0]))):
        areas = np.bincount(objects.ravel())[1:] * (pixel_area_m2 or 0.0)
        size = np.searchsorted(SIZES_M2, areas, side="right") - 1
        counts[:, 2 * k] = np.bincount(size, minlength=len(SIZES_M2))
        counts[:, 2 * k + 1] = np.bincount(size[matched - 1], minlength=len(SIZES_M2))
    return counts


def _object_scores(counts: Counts, *, sized: bool) -> dict[str, Any]:
    real, matched, found, matched_found = counts.sum(axis=0)
    scores: dict[str, Any] = {
        "objects": int(real),
        "predicted": int(found),
        "matched": int(matched),
        "precision": _ratio(matched_found, found),
        "recall": _ratio(matched, real),
        "f1": _ratio(2 * matched, found + real),
    }
    if sized:
        scores["sizes"] = [
            {
                "from_m2": low,
                "to_m2": high,
                "objects": int(row[0]),
                "predicted": int(row[2]),
                "precision": _ratio(row[3], row[2]),
                "recall": _ratio(row[1], row[0]),
            }
            for low, high, row in zip(SIZES_M2, (*SIZES_M2[1:], None), counts, strict=True)
        ]
    return scores


def _matches(found: Array, real: Array) -> list[tuple[int, int]]:
    """The pairs of labelled objects (0 is none) that match, one to one, the best first."""
    found_area, real_area = np.bincount(found.ravel()), np.bincount(real.ravel())
    both = (found > 0) & (real > 0)
    keys, shared = np.unique(found[both].astype(np.int64) * len(real_area) + real[both], return_counts=True)
    first, second = keys // len(real_area), keys % len(real_area)
    iou = shared / (found_area[first] + real_area[second] - shared)
    partner_of: dict[int, int] = {}
    taken: set[int] = set()
    for k in np.argsort(-iou, kind="stable"):
        if iou[k] < MATCH_IOU:
            break
        if int(first[k]) not in partner_of and int(second[k]) not in taken:
            partner_of[int(first[k])] = int(second[k])
            taken.add(int(second[k]))
    return list(partner_of.items())


def boundary_scores(predicted: Array, truth: Array, code: int, tolerance: float) -> dict[str, Any]:
    """Precision, recall and F1 of the outlines of one class within `tolerance` pixels of each other.

    An outline is the pixels of the class with a 4-neighbour of another class; the raster's edge and pixels beside
    unknown truth draw none (after the boundary F measure of Csurka et al. 2013).
    """
    return _boundary_scores(_count_outlines(predicted, truth, code, (tolerance,))[0], tolerance)


def _count_outlines(predicted: Array, truth: Array, code: int, tolerances: tuple[float, ...]) -> Counts:
    """Pixels of the predicted outline, near ones, of the true outline, near ones (columns): (tolerances, 4) int64."""
    known = truth != NODATA
    found = _outline((predicted == code) & known, known)
    real = _outline(truth == code, known)
    counts = np.zeros((len(tolerances), 4), np.int64)
    counts[:, 0], counts[:, 2] = np.count_nonzero(found), np.count_nonzero(real)
    counts[:, 1], counts[:, 3] = _near(found, real, tolerances), _near(real, found, tolerances)
    return counts


def _boundary_scores(counts: Counts, tolerance: float) -> dict[str, Any]:
    precision, recall = _ratio(counts[1], counts[0]), _ratio(counts[3], counts[2])
    f1 = None
    if precision is not None and recall is not None:
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"tolerance_px": tolerance, "precision": precision, "recall": recall, "f1": f1}


def _outline(mask: Array, known: Array) -> Array:
    inner = ndimage.binary_erosion(mask | ~known, border_value=1)
    outline: Array = mask & ~inner
    return outline


def _near(pixels: Array, others: Array, tolerances: tuple[float, ...]) -> list[int]:
    """How many of `pixels` lie within each of `tolerances` of one of `others`."""
    if not others.any():
        return [0] * len(tolerances)
    distance = ndimage.distance_transform_edt(~others)[pixels]
    return [int(np.count_nonzero(distance <= tolerance)) for tolerance in tolerances]


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None


@dataclass(frozen=True)
class Tally:
    """What was counted of a class raster and its truth; tallies of several places add up."""

    legend: Legend
    confusion: Counts
    """As `confusion_matrix`."""
    confidence: Counts
    """(101, 2): pixels with a known truth by the confidence in percent that they have, and the right ones of them."""
    objects: dict[str, Counts] = field(default_factory=dict)
    outlines: dict[str, Counts] = field(default_factory=dict)
    sized: bool = False
    """Whether sizes of objects are in m2."""

    def __add__(self, other: Tally) -> Tally:
        """Both places together."""

        def both(first: dict[str, Counts], second: dict[str, Counts]) -> dict[str, Counts]:
            return {name: first[name] + second[name] for name in first if name in second}

        return Tally(
            self.legend,
            self.confusion + other.confusion,
            self.confidence + other.confidence,
            both(self.objects, other.objects),
            both(self.outlines, other.outlines),
            self.sized and other.sized,
        )

    def scores(self) -> dict[str, Any]:
        """As plain dicts, lists and numbers.

        `pixels` holds those of all classes, `confusion` the matrix (rows are the truth, the last column nodata),
        `objects` those of each class of that kind, `boundaries` those of the outlines of each foreground class at 1 and
        3 pixels, and `calibration`, where confidences are known, how far they can be relied on.
        """
        found = {
            "pixels": pixel_scores(self.confusion, self.legend.names),
            "confusion": {"classes": list(self.legend.names), "pixels": self.confusion.tolist()},
            "objects": {name: _object_scores(counts, sized=self.sized) for name, counts in self.objects.items()},
            "boundaries": {
                name: [_boundary_scores(row, tolerance) for row, tolerance in zip(counts, TOLERANCES_PX, strict=True)]
                for name, counts in self.outlines.items()
            },
        }
        return found | ({"calibration": calibration(self.confidence)} if self.confidence.any() else {})


def tally_pixels(predicted: Array, truth: Array, legend: Legend, confidence: Array | None = None) -> Tally:
    """The tally of class codes (H, W) against the truth (H, W), 255 unknown, without objects and outlines.

    `confidence` (H, W) is in percent; 255 is unknown.
    """
    counts = np.zeros((CONFIDENCES, 2), np.int64)
    if confidence is not None:
        seen = np.isin(truth, legend.codes) & (confidence < CONFIDENCES)
        right = seen & (predicted == truth)
        for k, chosen in enumerate((seen, right)):
            counts[:, k] = np.bincount(confidence[chosen], minlength=CONFIDENCES)
    return Tally(legend, confusion_matrix(predicted, truth, legend.codes), counts)


def tally_arrays(
    predicted: Array,
    truth: Array,
    legend: Legend,
    *,
    confidence: Array | None = None,
    pixel_area_m2: float | None = None,
) -> Tally:
    """The tally of class codes (H, W) against the truth (H, W), 255 unknown, as `tally_pixels`, with all else."""
    pixels = tally_pixels(predicted, truth, legend, confidence)
    objects = [entry for entry in legend.classes if entry.kind == "object"]
    return replace(
        pixels,
        objects={c.name: _count_objects(predicted, truth, c.code, pixel_area_m2) for c in objects},
        outlines={c.name: _count_outlines(predicted, truth, c.code, TOLERANCES_PX) for c in legend.foreground},
        sized=pixel_area_m2 is not None,
    )


def score_arrays(predicted: Array, truth: Array, legend: Legend) -> dict[str, Any]:
    """Scores of class codes (H, W) against the truth (H, W), 255 unknown, as `Tally.scores` gives them."""
    return tally_arrays(predicted, truth, legend).scores()
