"""What scores say of more than was looked at: intervals over places, and areas from a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.training.scores import pixel_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

Counts = np.ndarray[Any, np.dtype[np.int64]]

_RESAMPLED = 2000
_NORMAL_95 = 1.959964
_FEWEST = 2
"""Points of a mapped class, or places, below which nothing is said of how much they vary."""


def intervals(confusions: Sequence[Counts], names: tuple[str, ...]) -> dict[str, Any] | None:
    """95 % intervals of the IoU of each class and of their mean, by drawing places anew (bootstrap, percentiles).

    `confusions` holds a matrix a place, as `confusion_matrix` makes them. None for less than two places: how places
    differ cannot be seen in one.
    """
    if len(confusions) < _FEWEST:
        return None
    stack = np.stack(confusions)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(_RESAMPLED):
        scores = pixel_scores(stack[random.integers(0, len(stack), len(stack))].sum(axis=0), names)
        ious = [scores["classes"][name]["iou"] for name in names]
        drawn.append([np.nan if value is None else value for value in (*ious, scores["mean_iou"])])
    table = np.array(drawn, float)
    found = {}
    for k, name in enumerate((*names, "mean")):
        column = table[~np.isnan(table[:, k]), k]
        found[name] = [float(value) for value in np.percentile(column, [2.5, 97.5])] if column.size else None
    return {"places": len(confusions), "iou_95": found}


def stratified_areas(
    sample: Counts, mapped: Counts, names: tuple[str, ...], pixel_area_m2: float | None
) -> dict[str, Any]:
    """Areas and accuracies with 95 % intervals, from points drawn at random within each mapped class.

    `sample` (classes, classes) counts points by mapped class (rows) and true class (columns), `mapped` (classes,) the
    pixels of each class on the map. After Olofsson et al. (2014), equations 1 to 11: areas are those of the truth, with
    what the map leaves out and makes up taken into account. In m2, in pixels where nothing is known of metres. Raises
    ValueError where a mapped class has less than two points.
    """
    rows = sample.sum(axis=1)
    short = [name for name, pixels, points in zip(names, mapped, rows, strict=True) if pixels and points < _FEWEST]
    if short:
        raise ValueError(f"{', '.join(short)}: on the map, but with less than {_FEWEST} points")
    unit = pixel_area_m2 or 1.0
    weight = mapped / mapped.sum()
    within = np.divide(sample, rows[:, None], out=np.zeros(sample.shape), where=rows[:, None] > 0)
    freedom = np.maximum(rows - 1, 1)
    shares = weight[:, None] * within
    share, mapped_share = shares.sum(axis=0), shares.sum(axis=1)
    error = np.sqrt((weight[:, None] ** 2 * within * (1 - within) / freedom[:, None]).sum(axis=0))
    users, hits = np.diag(within), np.diag(shares)
    users_error = np.sqrt(users * (1 - users) / freedom)
    producers = np.divide(hits, share, out=np.full(len(names), np.nan), where=share > 0)
    producers_error = _producers_error(within, weight, freedom, producers, share)
    overall_error = float(np.sqrt((weight**2 * users * (1 - users) / freedom).sum()))
    total = mapped.sum() * unit
    classes = {}
    for k, name in enumerate(names):
        classes[name] = {
            "mapped": float(mapped[k] * unit),
            "area": float(share[k] * total),
            "area_95": float(_NORMAL_95 * error[k] * total),
            "users_accuracy": _number(users[k]) if mapped_share[k] else None,
            "users_accuracy_95": _number(_NORMAL_95 * users_error[k]) if mapped_share[k] else None,
            "producers_accuracy": _number(producers[k]),
            "producers_accuracy_95": _number(_NORMAL_95 * producers_error[k]),
        }
    return {
        "unit": "m2" if pixel_area_m2 else "pixels",
        "points": int(sample.sum()),
        "accuracy": float(hits.sum()),
        "accuracy_95": _NORMAL_95 * overall_error,
        "classes": classes,
    }


def _producers_error(
    within: np.ndarray[Any, Any],
    weight: np.ndarray[Any, Any],
    freedom: np.ndarray[Any, Any],
    producers: np.ndarray[Any, Any],
    share: np.ndarray[Any, Any],
) -> np.ndarray[Any, Any]:
    """Equation 7 of Olofsson et al. (2014); NaN where a class has no true point."""
    spread = weight[:, None] ** 2 * within * (1 - within) / freedom[:, None]
    own = np.diag(spread)
    others = spread.sum(axis=0) - own
    variance = (1 - producers) ** 2 * own + producers**2 * others
    error: np.ndarray[Any, Any] = np.sqrt(
        np.divide(variance, share**2, out=np.full(len(share), np.nan), where=share > 0)
    )
    return error


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
