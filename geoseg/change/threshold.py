"""Where change begins: thresholds on a histogram of magnitudes, and what they make of how sure one can be.

The histogram has bins of equal ratio, so that one set of bins serves magnitudes of any size; counts are whole numbers,
so that their sum does not depend on how a frame was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_SMALLEST, _RATIO, _BINS = 1e-4, 1.01, 2600
"""Magnitudes from 1e-4 to 1.7e7, each bin a hundredth wider than the one before."""
_WINSORISED = 0.99
"""Magnitudes beyond this share of all count as that one: a few huge ones would draw the threshold up."""
_ROUNDS = 200
_STILL = 1e-6
_LEAST = 1e-12


def bin_of(magnitude: Array) -> Array:
    """The bin of each magnitude, from 0."""
    with np.errstate(divide="ignore"):
        place = np.log(np.maximum(magnitude, 0) / _SMALLEST) / np.log(_RATIO)
    bins: Array = np.clip(np.nan_to_num(place, neginf=0.0, posinf=_BINS), 0, _BINS - 1).astype(np.int64)
    return bins


def histogram(magnitude: Array) -> Array:
    """How many of the magnitudes (any shape) lie in each bin, int64."""
    return np.bincount(bin_of(magnitude).ravel(), minlength=_BINS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Cut:
    """A threshold: what is larger is change. slope: by how much the log-odds of change grow with the magnitude."""

    threshold: float
    slope: float

    def posterior(self, magnitude: Array) -> Array:
        """The probability of change of each magnitude: that of a linear discriminant between both sides."""
        odds = np.clip(self.slope * (magnitude.astype(np.float64) - self.threshold), -40, 40)
        probability: Array = 1 / (1 + np.exp(-odds))
        return probability


def otsu(counts: Array) -> Cut:
    """The threshold that parts magnitudes into the two groups that differ most (Otsu 1979).

    >>> counts = histogram(np.r_[np.linspace(0.8, 1.2, 900), np.linspace(9, 11, 100)])
    >>> 1.2 < otsu(counts).threshold < 9
    True
    """
    counts, values = _winsorised(counts)
    if counts.sum() == 0:
        return Cut(np.inf, 0.0)
    below, sum_below = np.cumsum(counts), np.cumsum(counts * values)
    above, sum_above = below[-1] - below, sum_below[-1] - sum_below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sum_below / below - sum_above / above) ** 2
    between = np.nan_to_num(between)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return cut_at(counts, float(np.sqrt(_edge(best[0] + 1) * _edge(best[-1] + 1))))


def mixture(counts: Array) -> Cut:
    """The threshold above which change is more probable, of two normal distributions fitted by EM.

    Bruzzone and Prieto (2000). Begins from Otsu's groups; falls back to these where the two do not part.
    """
    first = otsu(counts)
    counts, values = _winsorised(counts)
    above = values > first.threshold
    if not counts[above].sum() or not counts[~above].sum():
        return first
    groups = [_normal(counts * side, values) for side in (~above, above)]
    share = float(counts[above].sum() / counts.sum())
    for _ in range(_ROUNDS):
        one, other = (part * _density(values, *group) for part, group in zip((1 - share, share), groups, strict=True))
        changed = other / np.maximum(one + other, _LEAST)
        groups = [_normal(counts * weight, values) for weight in (1 - changed, changed)]
        before, share = share, float((counts * changed).sum() / counts.sum())
        if abs(share - before) < _STILL:
            break
    one, other = (part * _density(values, *group) for part, group in zip((1 - share, share), groups, strict=True))
    between = (values > groups[0][0]) & (values < groups[1][0]) & (other > one)
    return cut_at(counts, float(_edge(np.flatnonzero(between)[0]))) if between.any() else first


def cut_at(counts: Array, threshold: float) -> Cut:
    """The cut at a threshold, its slope from both sides of a histogram: the difference of means over the variance."""
    counts, values = _winsorised(counts)
    above = values > threshold
    sides = [_normal(counts * side, values) for side in (~above, above)]
    if not counts[above].sum() or not counts[~above].sum():
        return Cut(threshold, 1 / max(threshold, _LEAST))
    share = counts[above].sum() / counts.sum()
    variance = (1 - share) * sides[0][1] ** 2 + share * sides[1][1] ** 2
    return Cut(threshold, float((sides[1][0] - sides[0][0]) / max(variance, _LEAST)))


def _winsorised(counts: Array) -> tuple[Array, Array]:
    """Counts as floats with those of the largest magnitudes moved down, and the value of each bin."""
    values = _edge(np.arange(len(counts)) + 0.5)
    until = np.cumsum(counts)
    if not until[-1]:
        return counts.astype(np.float64), values
    last = int(np.searchsorted(until, _WINSORISED * until[-1]))
    moved = counts.astype(np.float64)
    moved[last] += moved[last + 1 :].sum()
    moved[last + 1 :] = 0
    return moved, values


def _edge(place: Any) -> Any:
    return _SMALLEST * _RATIO**place


def _normal(weights: Array, values: Array) -> tuple[float, float]:
    """Mean and standard deviation."""
    total = max(float(weights.sum()), _LEAST)
    mean = float((weights * values).sum()) / total
    return mean, float(np.sqrt(max(float((weights * (values - mean) ** 2).sum()) / total, _LEAST)))


def _density(values: Array, mean: float, deviation: float) -> Array:
    density: Array = np.exp(-0.5 * ((values - mean) / deviation) ** 2) / deviation
    return density
