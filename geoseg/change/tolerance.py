"""Differences that a shift of the residual size could explain are no change."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from scipy.stats import chi2

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, Any]

LEAST_PX = 0.5
"""However well two dates lie on each other, one of them is resampled by up to half a pixel."""
MOST_PX = 2.0
"""However badly they do: what is not told from a larger shift is not told at all."""

_MARGIN = 0.25
"""Of the range of values around a pixel: what interpolation may overshoot it by."""
_LEAST_NOISE = 0.05
"""Of a band's standard deviation: smaller differences are never called a change."""
_SURE = 0.9999


def halo_px(radius_px: float) -> int:
    """How far around a pixel others are looked at."""
    return ceil(radius_px)


def unexplained(before: Array, after: Array, valid: Array, deviation: tuple[Array, Array], radius_px: float) -> Array:
    """How much of the difference of two dates (bands, h, w), of one radiometry, no shift explains; (h, w).

    A value is explained if the other date has it, or one below and one above it, within `radius_px` (Thonfeld et al.
    2016 look for the nearest value alike); what is missing is counted in standard deviations, over all bands. Either
    date must explain the other. `deviation`: of the noise and of the values of each band, (bands,) each. Valid
    neighbours alone count, (h, w) bool.
    """
    missing = np.zeros((2, *valid.shape))
    for one, other, noise, spread in zip(before, after, *deviation, strict=True):
        scale = max(noise, _LEAST_NOISE * spread)
        for side, (value, around) in enumerate(((other, one), (one, other))):
            low, high = _range(around, valid, radius_px)
            missing[side] += (np.maximum(0, np.maximum(value - high, low - value)) / scale) ** 2
    left: Array = np.sqrt(missing.max(axis=0))
    return left


def limit(bands: int) -> float:
    """What is left unexplained of noise alone is hardly ever more, in standard deviations."""
    return float(np.sqrt(chi2.ppf(_SURE, bands)))


def _range(values: Array, valid: Array, radius_px: float) -> tuple[Array, Array]:
    """The lowest and the highest value (h, w) within a radius, of parts of a pixel too, and a margin."""
    steps = ceil(radius_px)
    part = radius_px / steps
    whole = bool(valid.all())
    lowest = _extreme(values if whole else np.where(valid, values, np.inf), steps, minimum_filter1d)
    highest = _extreme(values if whole else np.where(valid, values, -np.inf), steps, maximum_filter1d)
    if not whole:
        lowest, highest = np.where(valid, lowest, values), np.where(valid, highest, values)
    margin = _MARGIN * (highest - lowest)
    return values - part * (values - lowest) - margin, values + part * (highest - values) + margin


def _extreme(values: Array, steps: int, along: Any) -> Array:
    size = 2 * steps + 1
    extreme: Array = along(along(values, size, axis=0, mode="nearest"), size, axis=1, mode="nearest")
    return extreme


def neighbours(values: Array, steps: int) -> Iterator[Array]:
    """An array (..., h, w) moved by each whole number of pixels up to `steps` each way; edges are repeated.

    The same array is filled again for each.
    """
    padded = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(steps, steps)] * 2, mode="edge")
    height, width = values.shape[-2:]
    for row in range(2 * steps + 1):
        for col in range(2 * steps + 1):
            yield padded[..., row : row + height, col : col + width]
