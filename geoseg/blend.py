"""Weighted sums of overlapping tiles, in whole numbers.

A tile adds `weight * level` to each pixel it covers, where levels are probabilities as whole numbers (see
`geoseg.model.LEVELS`) and weights are products of two whole-numbered windows, one an axis. Sums of whole numbers do
not depend on their order, so a pixel's sum is the same whichever block, worker or run adds the tiles; and because
weights are products, their total over all tiles is the product of two vectors and needs no array of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from geoseg.errors import UsageError

if TYPE_CHECKING:
    from geoseg.frame import Box
    from geoseg.grid import Axis, Grid, Tile

Blend = Literal["hann", "gaussian", "pyramid", "crop"]
BLENDS: tuple[Blend, ...] = get_args(Blend)

Ints = np.ndarray[Any, np.dtype[np.int32]]

_TOTAL = 512
"""No pixel's weights sum to more along one axis: 512 * 512 * LEVELS < 2**31."""


@lru_cache(maxsize=1024)
def axis_window(axis: Axis, index: int, blend: Blend) -> Ints:
    """Weights (tile,) int32 of the tile `index` along an axis.

    All windows but `crop` are at least 1 everywhere; `crop` is 1 in the tile's own cell and 0 elsewhere. So the total
    over the tiles is at least 1 at every pixel of the frame.
    """
    if blend == "crop":
        start, stop = (edge - axis.starts[index] for edge in axis.cells[index])
        window = np.zeros(axis.tile, np.int32)
        window[start:stop] = 1
        return _fixed(window)
    if blend not in BLENDS:
        raise UsageError(f"--blend: {blend!r} is not one of {', '.join(BLENDS)}")
    # Distance of a pixel's centre from the tile's edge, 0..1 in the middle.
    inner = 1 - np.abs((np.arange(axis.tile) + 0.5) * 2 / axis.tile - 1)
    if blend == "hann":
        shape = np.sin(inner * np.pi / 2) ** 2
    else:
        shape = inner if blend == "pyramid" else np.exp(-0.5 * ((1 - inner) / 0.5) ** 2)
    return _fixed(np.maximum(1, np.rint(shape * _peak(axis))).astype(np.int32))


def tile_weights(grid: Grid, tile: Tile, blend: Blend) -> Ints:
    """Weights (tile height, tile width) int32 of a tile."""
    rows = axis_window(grid.axes[0], tile.index[0], blend)
    cols = axis_window(grid.axes[1], tile.index[1], blend)
    return rows[:, None] * cols


def total_weights(grid: Grid, box: Box, blend: Blend) -> Ints:
    """The sum of all tiles' weights at the pixels of a box inside the frame: (height, width) int32, at least 1."""
    rows, cols = (_axis_total(axis, blend) for axis in grid.axes)
    return rows[box.row : box.bottom, None] * cols[box.col : box.right]


def add_tile(sums: Ints, area: Box, tile: Tile, levels: np.ndarray[Any, Any], weights: Ints) -> None:
    """Add a tile's levels (C, h, w), weighted, to sums (C, H, W) that lie over `area`; what is outside is left out."""
    common = tile.box & area
    rows, cols = common.slices(area)
    at = common.slices(tile.box)
    weighted = np.multiply(levels[:, at[0], at[1]], weights[at], dtype=np.int32)
    sums[:, rows, cols] += weighted


def _peak(axis: Axis) -> int:
    """The height of a window such that at most `_TOTAL` comes together where tiles are densest."""
    closest = min((b - a for a, b in zip(axis.starts, axis.starts[1:], strict=False)), default=axis.tile)
    covering = -(-axis.tile // max(closest, 1))
    return max(1, min(256, _TOTAL // covering))


@lru_cache(maxsize=8)
def _axis_total(axis: Axis, blend: Blend) -> Ints:
    """The weights of all tiles together, at each place of an axis."""
    total = np.zeros(axis.size, np.int32)
    for index, first in enumerate(axis.starts):
        low, high = max(first, 0), min(first + axis.tile, axis.size)
        total[low:high] += axis_window(axis, index, blend)[low - first : high - first]
    return _fixed(total)


def _fixed(array: Ints) -> Ints:
    """The same array, which from now on many share."""
    array.flags.writeable = False
    return array
