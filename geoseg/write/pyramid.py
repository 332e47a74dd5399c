"""The levels of a raster: itself and its overviews, each half as high and wide as the one before."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geoseg.frame import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, Any]
Resampling = Literal["mode", "nearest", "average"]

BLOCK = 512
"""Side of a tile, and of what needs no overview."""

_SIDES = (BLOCK, 256, 1024, 128, 2048, 64, 4096)
"""Sides of a COG's tiles, the first that will do; powers of two, since GDAL takes others for the first level alone."""

_WINDOW_BYTES = 8 << 20
"""What is held in memory of a level at a time, or one tile if that is more."""

_STRIP = 128
"""Rows that are halved at a time, so that what is computed on the way stays in the processor's cache."""

_WIDE = {"uint8": np.uint16, "uint16": np.uint32, "int16": np.int32, "float32": np.float64}
"""Where four values of a type can be added."""


@dataclass(frozen=True)
class Pyramid:
    """The shape of each level, the raster itself first, and the sides of their tiles and windows.

    A window is a square of whole tiles, cut by the frame; four of one level make one of the next.
    """

    shapes: tuple[tuple[int, int], ...]
    block: int
    window: int

    def top(self) -> Iterator[Box]:
        """The windows of the last level."""
        return self._windows(len(self.shapes) - 1, Box(0, 0, *self.shapes[-1]))

    def below(self, level: int, box: Box) -> Iterator[tuple[Box, Box]]:
        """The windows of the level before that make a window of this one, each with the part of it that it makes.

        >>> [made for _, made in pyramid_of((3000, 1025), 1).below(1, Box(0, 0, 1500, 513))]
        [Box(row=0, col=0, height=1024, width=513), Box(row=1024, col=0, height=476, width=513)]
        """
        for finer in self._windows(level - 1, Box(2 * box.row, 2 * box.col, 2 * box.height, 2 * box.width)):
            yield finer, Box(finer.row // 2, finer.col // 2, -(-finer.height // 2), -(-finer.width // 2))

    def _windows(self, level: int, inside: Box) -> Iterator[Box]:
        inside &= Box(0, 0, *self.shapes[level])
        for row in range(inside.row, inside.bottom, self.window):
            for col in range(inside.col, inside.right, self.window):
                yield Box(row, col, self.window, self.window) & inside


def pyramid_of(shape: tuple[int, int], pixel_bytes: int) -> Pyramid:
    """Levels of half the size, rounded up, until 512 pixels hold the raster, or one pixel its width.

    A level as wide as a tile, but higher, is taken for striped by some readers, hence other sides where that would be.

    >>> pyramid_of((2000, 1501), 1)
    Pyramid(shapes=((2000, 1501), (1000, 751), (500, 376)), block=512, window=2048)
    >>> [(made.block, len(made.shapes)) for made in (pyramid_of(shape, 1) for shape in [(8192, 4096), (4000, 2)])]
    [(256, 5), (512, 2)]
    """
    shapes = [shape]
    while max(shapes[-1]) > BLOCK and shapes[-1][1] > 1:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    widths = {width for height, width in shapes if height > BLOCK}
    block = next((side for side in _SIDES if side not in widths), BLOCK)
    window = block
    while (2 * window) ** 2 * pixel_bytes <= _WINDOW_BYTES:
        window *= 2
    return Pyramid(tuple(shapes), block, window)


def halve(pixels: Array, nodata: float, resampling: Resampling) -> Array:
    """Pixels (bands, height, width) at half the size, rounded up: one for each square of four.

    Of a square only the valid pixels count, and without any it is nodata. `mode` takes the most frequent value, of
    equals the one that comes first by rows; `average` rounds half up, and is valid; `nearest` takes the first of four.
    """
    if resampling == "nearest":
        return np.ascontiguousarray(pixels[:, ::2, ::2])
    bands, height, width = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=nodata)
    combine = _mode if resampling == "mode" else _average
    out = np.empty((bands, -(-height // 2), -(-width // 2)), pixels.dtype)
    for top in range(0, height, _STRIP):
        strip = pixels[:, top : top + _STRIP]
        quad = [np.ascontiguousarray(strip[:, row::2, col::2]) for row in (0, 1) for col in (0, 1)]
        out[:, top // 2 : (top + _STRIP) // 2] = combine(quad, nodata)
    return out


def _mode(quad: list[Array], nodata: float) -> Array:
    out = quad[0].copy()
    mixed = np.flatnonzero((out != quad[1]) | (out != quad[2]) | (out != quad[3]))  # few, in a map of classes
    a, b, c, d = quad = [member.ravel()[mixed] for member in quad]
    valid = _valid(quad, nodata)
    voted = _first(quad, valid)
    # The last to be set wins: no value that occurs twice is outvoted by one that comes after it.
    for index, twice in ((2, c == d), (1, (b == c) | (b == d)), (0, (a == b) | (a == c) | (a == d))):
        np.copyto(voted, quad[index], where=twice & valid[index])
    out.ravel()[mixed] = voted
    return out


def _average(quad: list[Array], nodata: float) -> Array:
    dtype, valid = quad[0].dtype, _valid(quad, nodata)
    wide = np.dtype(_WIDE.get(dtype.name, np.float64 if dtype.kind == "f" else np.int64))
    total, count = np.zeros(quad[0].shape, wide), wide.type(4)
    if all(holds.all() for holds in valid):
        for member in quad:
            total += member
    else:
        count = sum(holds.astype(wide) for holds in valid)
        for member, holds in zip(quad, valid, strict=True):
            total += np.where(holds, member, dtype.type(0))
    some = np.maximum(count, wide.type(1))
    mean = (total / some if dtype.kind == "f" else (2 * total + some) // (2 * some)).astype(dtype)
    # A mean that happens to be the nodata value would say that nothing is there.
    lost = (count == 0) | (mean == dtype.type(nodata))
    return np.where(lost, _first(quad, valid), mean) if lost.any() else mean


def _valid(quad: list[Array], nodata: float) -> list[Array]:
    return [~np.isnan(member) if isnan(nodata) else member != member.dtype.type(nodata) for member in quad]


def _first(quad: list[Array], valid: list[Array]) -> Array:
    """The first valid pixel of each square; nodata where there is none."""
    out = quad[3].copy()
    for member, holds in zip(quad[2::-1], valid[2::-1], strict=True):
        np.copyto(out, member, where=holds)
    return out
