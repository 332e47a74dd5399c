"""What a worker does to a block of a pair: passes over its cells, each by itself, so that memory goes with a cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.change.indices import difference_counts
from geoseg.change.methods import Measured
from geoseg.change.moments import Moments, cells_of
from geoseg.change.transitions import UNCHANGED
from geoseg.errors import DamagedSceneError
from geoseg.frame import Box
from geoseg.legend import NODATA
from geoseg.scene.info import sample_boxes, undamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from geoseg.change.indices import Indices
    from geoseg.change.irmad import Canonical, Lines
    from geoseg.change.methods import Method
    from geoseg.change.pair import Pair
    from geoseg.change.sieve import Sieve
    from geoseg.change.threshold import Cut

Array = np.ndarray[Any, Any]

_SAMPLE = 512
_STRIP = 64
"""Rows of a cell that are worked on at a time: what that takes should stay in the cache."""


@dataclass
class Damage:
    """The cells that could not be read, each with its cause; they count as nodata."""

    failed: dict[Box, str] = field(default_factory=dict)

    def read(self, pair: Pair, cell: Box, around: Box) -> tuple[Array, Array, Array]:
        """As `Pair.read`, with nothing valid where a file is damaged."""
        try:
            return pair.read(around)
        except DamagedSceneError as error:
            self.failed[cell] = str(error)
            both = np.zeros((2, len(pair.roles), *around.shape))
            return both[0], both[1], np.zeros(around.shape, bool)


def sample_origin(pair: Pair) -> Array:
    """(2 * bands,) about the mean of each band of both dates, of a sample."""
    total, count = np.zeros(2 * len(pair.roles)), 0
    for before, after, valid in undamaged(sample_boxes(pair.frame.shape, _SAMPLE), pair.read):
        total += np.concatenate([before, after])[:, valid].sum(axis=1)
        count += int(valid.sum())
    return total / max(count, 1)


def moments_of(pair: Pair, box: Box, origin: Array, canonical: Canonical | None) -> Array:
    """(cells, n) float64: the moments of each cell of a block, weighted by the probability of no change, if known."""
    damage = Damage()
    rows = []
    for cell in cells_of(box):
        before, after, valid = damage.read(pair, cell, cell)
        strips = [np.s_[top : top + _STRIP] for top in range(0, cell.height, _STRIP)]
        parts = [_moments(before[:, at], after[:, at], valid[at], origin, canonical) for at in strips]
        rows.append(Moments.total(parts).to_row())
    return np.stack(rows)


def _moments(before: Array, after: Array, valid: Array, origin: Array, canonical: Canonical | None) -> Moments:
    values = np.concatenate([before, after]) - origin[:, None, None]
    values[:, ~valid] = 0
    weights = valid.astype(np.float64)
    if canonical is not None:
        weights *= canonical.no_change(values)
    return Moments.of(values, weights)


def differences_of(pair: Pair, box: Box, lines: Lines, indices: Indices) -> Array:
    """(indices, bins) int64: the differences of indices in a block, counted."""
    damage = Damage()
    parts = []
    for cell in cells_of(box):
        before, after, valid = damage.read(pair, cell, cell)
        parts.append(difference_counts(indices(lines(after)) - indices(before), valid))
    total: Array = np.sum(parts, axis=0)
    return total


def measure_block(pair: Pair, box: Box, method: Method) -> tuple[Measured, dict[Box, str]]:
    """What a method finds in a block; and the cells of it that could not be read, with the cause."""
    damage, halo = Damage(), method.halo
    magnitude, code = np.zeros(box.shape, np.float32), np.full(box.shape, NODATA, np.uint8)
    states: Array | None = None
    for cell in cells_of(box):
        around = Box(cell.row - halo, cell.col - halo, cell.height + 2 * halo, cell.width + 2 * halo)
        before, after, valid = damage.read(pair, cell, around)
        if not valid.any():
            continue
        found = method(before, after, valid).crop(cell.slices(around))
        at = cell.slices(box)
        magnitude[at], code[at] = found.magnitude, found.code
        if found.states is not None:
            if states is None:
                states = np.zeros((len(found.states), *box.shape), np.uint8)
            states[(slice(None), *at)] = found.states
    return Measured(magnitude, code, states), damage.failed


@dataclass(frozen=True)
class Judged:
    """A block as it is written: code of the change, confidence in percent, magnitude; nodata as 255 and NaN."""

    codes: Array
    confidence: Array
    magnitude: Array


def judge_block(found: Measured, inside: tuple[slice, slice], cut: Cut | None, sieve: Sieve) -> Judged:
    """Which pixels of a part `inside` are changed, of what is found there and around it as far as the sieve looks.

    Without a cut the magnitude is a probability, and change is what is more probable than none.
    """
    valid = found.code != NODATA
    threshold = 0.5 if cut is None else cut.threshold
    candidate = valid & (found.code != UNCHANGED) & (found.magnitude > threshold)
    changed = sieve(candidate, valid, inside)
    seen, magnitude, code = valid[inside], found.magnitude[inside], found.code[inside]
    # Where patches were closed there is change without a kind of its own: it takes that of the change beside it.
    codes = np.where(changed, code, UNCHANGED)
    gaps = changed & (code == UNCHANGED)
    if gaps.any():
        codes[gaps] = _nearest_kind(found, candidate, inside)[gaps]
    probability = magnitude if cut is None else cut.posterior(magnitude)
    # A decision that other things than the magnitude have made is no less sure than an even chance.
    sure = np.maximum(np.where(changed, probability, 1 - probability), 0.5)
    confidence = np.rint(100 * sure)
    return Judged(
        np.where(seen, codes, NODATA).astype(np.uint8),
        np.where(seen, confidence, NODATA).astype(np.uint8),
        np.where(seen, magnitude, np.nan).astype(np.float32),
    )


def _nearest_kind(found: Measured, candidate: Array, inside: tuple[slice, slice]) -> Array:
    from scipy.ndimage import distance_transform_edt  # noqa: PLC0415

    _, (row, col) = distance_transform_edt(~candidate, return_indices=True)
    nearest: Array = found.code[row[inside], col[inside]]
    return nearest


def windows_of(box: Box, halo: int, frame: Box) -> tuple[Box, tuple[slice, slice]]:
    """A block with its halo, as far as the frame goes, and where in it the block lies."""
    around = Box(box.row - halo, box.col - halo, box.height + 2 * halo, box.width + 2 * halo) & frame
    return around, box.slices(around)


def gathered(around: Box, boxes: list[Box], read: Callable[[Box], Measured]) -> Measured:
    """What was found in a part of the frame, of the blocks that share it."""
    magnitude, code = np.zeros(around.shape, np.float32), np.full(around.shape, NODATA, np.uint8)
    states: Array | None = None
    for other in boxes:
        common = other & around
        if not common:
            continue
        found = read(other).crop(common.slices(other))
        at = common.slices(around)
        magnitude[at], code[at] = found.magnitude, found.code
        if found.states is not None:  # a block without a valid pixel has none
            if states is None:
                states = np.zeros((len(found.states), *around.shape), np.uint8)
            states[(slice(None), *at)] = found.states
    return Measured(magnitude, code, states)


def states_of(judged: Judged, states: Array) -> Iterator[Array]:
    """The classes of both dates as the decision has them, (h, w) each: of a change its own, else one for both."""
    changed = (judged.codes != UNCHANGED) & (judged.codes != NODATA)
    for date in (0, 1):
        yield np.where(changed, states[date], states[2])
