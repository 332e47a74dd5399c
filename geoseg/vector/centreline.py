"""Roads thinned to lines one pixel wide, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from geoseg.frame import Box

Array = np.ndarray[Any, Any]

HALO = 128
"""Pixels around a block that decide over its lines: thinning takes a pixel off each side at a time, so that roads up to
this wide are thinned alike whatever lies further away."""

_HOLE_PX = 16
"""Smaller holes, such as cars and crowns of trees, make no ring, whatever polygons do with them."""

_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""From a pixel to those neighbours that come after it, row by row."""


@dataclass(frozen=True)
class Pieces:
    """Pixels of lines, those that a block owns and those just beyond to which they are linked."""

    pixels: Array
    """(n, 2) int32: row and column in the scene."""
    half_widths: Array
    """(n,) float32: pixels from the middle of the road to its side."""
    links: Array
    """(m, 2) int32: which pixels follow each other along a line; places in `pixels`."""


def thin(road: Array, box: Box, inside: Box, hole_px: float = 0) -> Pieces:
    """The middle lines of the road pixels of a block.

    road: (h, w) bool, what lies in `box`, which reaches `HALO` beyond `inside`, the block, as far as there is a scene.
    Holes below `hole_px` pixels are closed first (below 16 always, from `HALO` on never, since no block need see them).
    Each link belongs to the block in which its first pixel lies, so that the links of all blocks are those of one pass.
    Zhang and Suen (1984).
    """
    if not road.any():
        return Pieces(np.empty((0, 2), np.int32), np.empty(0, np.float32), np.empty((0, 2), np.int32))
    from scipy.ndimage import distance_transform_edt  # noqa: PLC0415
    from skimage.morphology import skeletonize  # noqa: PLC0415

    road = _without_holes(road, min(max(hole_px, _HOLE_PX), HALO))
    lines = skeletonize(road)  # type: ignore[no-untyped-call]
    # To the nearest pixel beside the road; roads go on beyond the scene.
    width = distance_transform_edt(np.pad(road, 1, mode="edge"))[1:-1, 1:-1]
    number = np.cumsum(lines).reshape(lines.shape) - 1
    own = np.zeros_like(lines)
    own[inside.slices(box)] = True
    links = np.concatenate([_links(lines, own, number, step) for step in _STEPS])
    used, links = np.unique(links, return_inverse=True)
    rows, cols = np.nonzero(lines)
    rows, cols = rows[used], cols[used]
    pixels = np.stack([rows + box.row, cols + box.col], axis=1).astype(np.int32)
    # Half a pixel of the distance lies in the road's middle pixel or beside the road, a quarter on average in neither.
    half_widths = (width[rows, cols] - 0.25).astype(np.float32)
    return Pieces(pixels, half_widths, links.reshape(-1, 2).astype(np.int32))


def _links(lines: Array, own: Array, number: Array, step: tuple[int, int]) -> Array:
    """(m, 2) numbers of pixels that are neighbours by a step; corners only where no way leads around."""
    down, right = step
    height, width = lines.shape
    left, end = max(0, -right), width - max(0, right)
    first = (slice(0, height - down), slice(left, end))
    second = (slice(down, height), slice(left + right, end + right))
    linked = lines[first] & lines[second] & own[first]
    if down and right:
        linked &= ~lines[down:, left:end] & ~lines[: height - down, left + right : end + right]
    return np.stack([number[first][linked], number[second][linked]], axis=1)


def _without_holes(road: Array, least_px: float) -> Array:
    """The road with its small holes filled, those at the edge of the window left out."""
    from scipy.ndimage import label  # noqa: PLC0415

    holes, count = label(~road)
    small = np.bincount(holes.ravel(), minlength=count + 1) < least_px
    for edge in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        small[edge] = False
    small[0] = False
    filled: Array = road | small[holes]
    return filled
