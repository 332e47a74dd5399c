"""A reduced picture of the scene, made in passing from the pixels that the network sees: no second look at the file.

A pixel of the picture is the mean of some evenly placed samples, all from the cell of the tile that owns its centre. So
it comes from one strip of one block, and the picture depends neither on the blocks nor on their order.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from geoseg.frame import Box, Frame
from geoseg.scene.aoi import inside_area
from geoseg.segment.job import appearing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.grid import Axis, Block, Grid
    from geoseg.segment.job import SegmentJob
    from geoseg.segment.strips import Strip

MAX_SIDE = 1400
"""The longer side of a picture in pixels, at most."""

_SAMPLES = 3
"""So many a side of a pixel of the picture, or all where there are no more."""

_PIECE = 16
"""So many rows of the picture are averaged at a time: what that takes should stay in the cache."""

Array = np.ndarray[Any, Any]


def reduced_shape(shape: tuple[int, int], max_side: int = MAX_SIDE) -> tuple[int, int]:
    """The size (height, width) of a picture of a raster, whose longer side is at most `max_side`.

    >>> reduced_shape((5000, 10000), 1000), reduced_shape((300, 200), 1000)
    ((500, 1000), (300, 200))
    """
    factor = max(1.0, max(shape) / max_side)
    return max(1, round(shape[0] / factor)), max(1, round(shape[1] / factor))


def shown_bands(roles: Sequence[str]) -> tuple[int, int, int]:
    """Which bands (from 0) a picture shows: those of red, green and blue, else the first ones, the last one repeated.

    >>> shown_bands(("blue", "green", "red", "nir")), shown_bands(("red", "nir"))
    ((2, 1, 0), (0, 1, 1))
    """
    if {"red", "green", "blue"} <= set(roles):
        return roles.index("red"), roles.index("green"), roles.index("blue")
    red, green, blue = (min(band, len(roles) - 1) for band in range(3))
    return red, green, blue


class Preview:
    """What a block contributes to the picture of its scene."""

    def __init__(self, job: SegmentJob, block: Block) -> None:
        """Nothing is seen yet."""
        self._job, self._block = job, block
        self._bands = _distinct(job)
        self._box = _share(job.grid, block.box)
        self.pixels = np.zeros((len(self._bands), *self._box.shape), job.scene.dtype)
        """(bands, height, width): the mean of the samples that are valid."""
        self.seen = np.zeros(self._box.shape, bool)
        """(height, width): where one is."""

    def take(self, strip: Strip) -> None:
        """Take up what the tiles of a strip own; what a tile owns that could not be read is not seen."""
        axes, own = self._job.grid.axes, self._block.box
        top, bottom = axes[0].cells[strip.tiles[0].index[0]]
        part = _share(self._job.grid, Box(top, own.col, bottom - top, own.width))
        if not part:
            return
        height, width = reduced_shape(self._job.grid.shape)
        rows = _samples(axes[0], height)[:, part.row : part.bottom] - strip.box.row
        cols = _samples(axes[1], width)[:, part.col : part.right] - strip.box.col
        lost = [slice(*(edge - strip.box.col for edge in axes[1].cells[tile.tile[1]])) for tile in strip.failed]
        for first in range(0, part.height, _PIECE):
            some = rows[:, first : first + _PIECE]
            valid = [strip.valid[row] for row in some]
            for layer, columns in product(valid, lost):
                layer[:, columns] = False
            self._add(strip.pixels, valid, some, cols, part.row - self._box.row + first)

    def _add(self, pixels: Array, valid: list[Array], rows: Array, cols: Array, first: int) -> None:
        """Average some rows of the picture, from `first` on: `rows` and `cols` say where their samples lie."""
        whole = all(layer.all() for layer in valid)
        counts = np.full((), len(rows) * len(cols)) if whole else _added(valid, cols, np.dtype(np.int16))
        at = slice(first, first + rows.shape[1])
        self.seen[at] = counts > 0
        for layer, band in zip(self.pixels, self._bands, strict=True):
            values = [pixels[band][row] for row in rows]
            if not whole:
                values = [_masked(value, seen) for value, seen in zip(values, valid, strict=True)]
            with np.errstate(over="ignore", invalid="ignore"):  # sums of the largest doubles: `preview_picture` sees it
                mean = _added(values, cols, _sums_dtype(layer.dtype)) / np.maximum(counts, 1)
            layer[at] = np.rint(mean) if layer.dtype.kind in "iu" else mean

    def save(self) -> None:
        """Put it beside the block's sums."""
        with appearing(self._job.preview_path(self._block)) as partial, partial.open("wb") as file:
            np.savez(file, pixels=self.pixels, seen=self.seen)


def read_preview(job: SegmentJob) -> tuple[Array, Array]:
    """The picture of a scene whose blocks have all been forwarded, at `reduced_shape`.

    Red, green and blue (3, height, width) in the scene's dtype, as `shown_bands` has them; where a valid pixel was
    seen (height, width) bool.
    """
    shown, distinct = shown_bands(job.scene.roles), _distinct(job)
    shape = reduced_shape(job.grid.shape)
    pixels, seen = np.zeros((len(distinct), *shape), job.scene.dtype), np.zeros(shape, bool)
    for block in job.grid.blocks:
        at = _share(job.grid, block.box).slices(Box(0, 0, *shape))
        with np.load(job.preview_path(block)) as part:
            pixels[(slice(None), *at)], seen[at] = part["pixels"], part["seen"]
    if job.area is not None:
        seen &= inside_area(job.area, _reduced(job.scene.frame, shape))
    return pixels[[distinct.index(band) for band in shown]], seen


def _reduced(frame: Frame, shape: tuple[int, int]) -> Frame:
    """The frame of a picture of another shape."""
    scale = Affine.scale(frame.shape[1] / shape[1], frame.shape[0] / shape[0])
    return Frame(shape, frame.transform * scale, frame.crs)


def _distinct(job: SegmentJob) -> list[int]:
    """The bands that are shown, each once."""
    return list(dict.fromkeys(shown_bands(job.scene.roles)))


def _masked(values: Array, seen: Array) -> Array:
    """Values, and 0 where they are not seen, by arithmetic on their bits: NaN too, and faster than `np.where`."""
    masked: Array = (values.view(f"u{values.itemsize}") * seen).view(values.dtype)
    return masked


def _added(layers: list[Array], cols: Array, dtype: np.dtype[Any]) -> Array:
    """The sum of some layers (height, all columns) at some columns of each pixel, (n, width): (height, width)."""
    across = layers[0].astype(dtype)  # whole rows first: that costs less than to pick columns from each
    for layer in layers[1:]:
        across += layer
    sums: Array = across.take(cols[0], axis=1)
    for columns in cols[1:]:
        sums += across.take(columns, axis=1)
    return sums


def _sums_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A type that holds the sum of a few pixels."""
    small = {1: np.int16, 2: np.int32} if dtype.kind in "iu" else {}
    return np.dtype(small.get(dtype.itemsize, np.float64))


def _share(grid: Grid, box: Box) -> Box:
    """The pixels of the picture whose centres lie in a box of the scene."""
    height, width = reduced_shape(grid.shape)
    top, bottom = np.searchsorted(_centres(grid.shape[0], height), (box.row, box.bottom)).tolist()
    left, right = np.searchsorted(_centres(grid.shape[1], width), (box.col, box.right)).tolist()
    return Box(top, left, bottom - top, right - left)


@lru_cache(maxsize=16)
def _centres(size: int, side: int) -> Array:
    """The place along an axis at the centre of each pixel of the picture."""
    centres: Array = (2 * np.arange(side) + 1) * size // (2 * side)
    return centres


@lru_cache(maxsize=16)
def _samples(axis: Axis, side: int) -> Array:
    """(n, side): for each pixel of the picture n even places along an axis, within the cell that holds its centre."""
    count = min(_SAMPLES, ceil(axis.size / side))
    starts, stops = np.array(axis.cells).T
    owner = np.searchsorted(stops, _centres(axis.size, side), side="right")
    places = 2 * (count * np.arange(side) + np.arange(count)[:, None]) + 1
    samples: Array = np.clip(places * axis.size // (2 * count * side), starts[owner], stops[owner] - 1)
    return samples
