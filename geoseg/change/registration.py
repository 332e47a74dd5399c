"""How far two dates are apart: many windows are correlated, and what they agree on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import hypot
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter

from geoseg.errors import DamagedSceneError
from geoseg.frame import Box

if TYPE_CHECKING:
    from geoseg.scene.warped import WarpedScene

Array = np.ndarray[Any, Any]

WORTH_PX = 0.25
"""Shifts below this are left alone: correcting them would blur more than it mends."""
LIMIT_PX = 25.0
"""Shifts beyond this are not believed."""

_SIDE = 256
_LEAST_SIDE = 16
_PER_AXIS = 7
_ROUNDS = 4
_VALID = 0.9
_FINE_PX, _COARSE_PX = 0.8, 3.0
_ALIKE, _SIGMAS, _PER_SAMPLE = 0.1, 6.0, 10.0
"""Windows whose pixels correlate less, once moved, have nothing in common to go by: a tenth, or six times what noise
comes to, of which ten pixels are one sample at this fineness."""
_NEAR_PX = 0.75
"""Windows that differ from the median by less agree with it."""
_MAD = 1.4826
_AROUND = np.arange(-75, 76) / 100
"""Places around the highest whole pixel at which a correlation is computed."""


@dataclass(frozen=True)
class Shift:
    """By how much the later date lies off the earlier one, (rows, columns) in pixels of the frame, and how surely."""

    row: float
    col: float
    spread_px: float
    """How far windows scatter about it (the larger scaled MAD of both axes)."""
    windows: int
    """In which there was something to go by."""
    agreeing: int
    """Of these, whose own shift is near."""

    @property
    def length_px(self) -> float:
        """How far."""
        return hypot(self.row, self.col)

    @property
    def consistent(self) -> bool:
        """Whether enough windows say the same: the others may have changed too much to tell."""
        return self.agreeing > 0 and 3 * self.agreeing >= self.windows

    def to_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return {
            "row_px": round(self.row, 4), "col_px": round(self.col, 4), "length_px": round(self.length_px, 4),
            "spread_px": round(self.spread_px, 4), "windows": self.windows, "agreeing": self.agreeing,
        }  # fmt: skip


def estimate_shift(before: WarpedScene, after: WarpedScene) -> Shift:
    """The shift between two dates on one frame with the same roles; that of `after` is not taken into account.

    Windows over the whole frame are correlated, and their correlations added up, so that what has changed in some does
    not matter; the peak is refined by an upsampled transform (Guizar-Sicairos et al. 2008). The later date is then
    moved by whole pixels and looked at again: where windows overlap in part the estimate is drawn towards zero, and
    moved by parts of a pixel it would be blurred. Then each window says what it alone would have said.
    """
    boxes = _windows(before.frame.shape)
    whole, nearest, rounds = (0, 0), (0, 0), 0
    while True:
        whole, rounds = nearest, rounds + 1
        moved = after.moved((float(whole[0]), float(whole[1])))
        windows = [window for box in boxes for window in _correlated(before, moved, box)]
        if not windows:
            return Shift(0.0, 0.0, 0.0, 0, 0)
        row, col = _peak(np.sum([window.cross for window in windows], axis=0))
        nearest = round(whole[0] + row), round(whole[1] + col)
        if nearest == whole or rounds == _ROUNDS or hypot(*nearest) > 4 * LIMIT_PX:
            break
    local = np.array([shift for window in windows for shift in window.shift()]).reshape(-1, 2)
    if not len(local):
        return Shift(0.0, 0.0, 0.0, 0, 0)
    apart = np.abs(local - (row, col))
    near = int((np.hypot(*apart.T) < _NEAR_PX).sum())
    spread = float(_MAD * np.median(apart, axis=0).max())
    return Shift(whole[0] + row, whole[1] + col, spread, len(local), near)


@dataclass(frozen=True)
class _Window:
    """A window of both dates, (side, side) each, and the transform of their correlation."""

    one: Array
    other: Array
    cross: Array

    def shift(self) -> list[tuple[float, float]]:
        """What it says alone, or nothing where there is nothing to go by."""
        row, col = _peak(self.cross)
        least = max(_ALIKE, _SIGMAS * (_PER_SAMPLE / self.one.size) ** 0.5)
        return [(row, col)] if _alike(self.one, self.other, (row, col)) > least else []


def _windows(shape: tuple[int, int]) -> list[Box]:
    """Windows of one size spread over a frame, fewer and smaller where it is small."""
    side = min(_SIDE, max(_LEAST_SIDE, min(shape) // 2), *shape)
    places = [
        np.unique(np.linspace(0, size - side, min(_PER_AXIS, max(1, 2 * size // side - 1))).astype(int))
        for size in shape
    ]
    return [Box(int(row), int(col), side, side) for row, col in product(*places)]


def _correlated(before: WarpedScene, after: WarpedScene, box: Box) -> list[_Window]:
    """The correlation of one window, or none where one of the dates is not there or shows nothing."""
    try:
        (first, first_valid), (second, second_valid) = before.read(box), after.read(box)
    except DamagedSceneError:  # there are others to go by; that it is damaged is said where it is compared
        return []
    valid = first_valid & second_valid
    if valid.mean() < _VALID:
        return []
    one, other = (_drawn(pixels, valid) for pixels in (first, second))
    if one is None or other is None:
        return []
    taper = np.outer(*(np.hanning(size + 2)[1:-1] for size in box.shape))
    a, b = np.fft.fft2(one * taper), np.fft.fft2(other * taper)
    scale = np.sqrt((np.abs(a) ** 2).sum() * (np.abs(b) ** 2).sum())
    return [_Window(one, other, np.conj(a) * b / scale)]


def _peak(cross: Array) -> tuple[float, float]:
    """Where the correlation of the transform `cross` is highest: (rows, columns), to a fraction of a pixel."""
    surface = np.fft.ifft2(cross).real
    place = np.unravel_index(int(surface.argmax()), surface.shape)
    row, col = (int(at) - size * (at > size // 2) for at, size in zip(place, surface.shape, strict=True))
    rows, cols = (centre + _AROUND for centre in (row, col))
    turns = [
        np.exp(2j * np.pi * np.outer(places, np.fft.fftfreq(size)))
        for places, size in zip((rows, cols), surface.shape, strict=True)
    ]
    fine = (turns[0] @ cross @ turns[1].T).real
    best = np.unravel_index(int(fine.argmax()), fine.shape)
    return float(rows[best[0]]), float(cols[best[1]])


def _drawn(pixels: Array, valid: Array) -> Array | None:
    """The shapes in a window, whatever gain and offset a band has; None where it shows nothing.

    Neither the coarsest, which the taper of the window holds in place, nor the finest, which aliasing does.
    """
    total = np.zeros(valid.shape)
    for band in pixels.astype(np.float64):
        values = band[valid]
        spread = values.std()
        if spread > 0:
            total += np.where(valid, (band - values.mean()) / spread, 0)
    if not total.any():
        return None
    drawn: Array = gaussian_filter(total, _FINE_PX) - gaussian_filter(total, _COARSE_PX)
    return drawn


def _alike(one: Array, other: Array, shift: tuple[float, float]) -> float:
    """How two windows correlate where they overlap once moved by whole pixels."""
    row, col = (round(part) for part in shift)
    height, width = one.shape
    if abs(row) >= height // 2 or abs(col) >= width // 2:
        return 0.0
    a = one[max(0, -row) : height - max(0, row), max(0, -col) : width - max(0, col)].ravel()
    b = other[max(0, row) : height + min(0, row), max(0, col) : width + min(0, col)].ravel()
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0
