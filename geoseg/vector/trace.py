"""From the pixels of a block to its components and to the arcs between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.vector.arcs import OUTSIDE, Arcs, follow, groups_of, lowest_of
from geoseg.vector.features import Census

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.frame import Box

Array = np.ndarray[Any, Any]


def components_of(codes: Array, confidence: Array, further: Sequence[Array] = ()) -> tuple[Array, Census]:
    """Number the components of a raster, and count them.

    codes, confidence: (h, w) uint8, a component is what pixels of one code form that share sides; further: (h, w) of
    whole numbers each, to be added up. Returns the numbers (h, w) int32, from 0 in the order of each component's first
    pixel, row by row.
    """
    begins = np.ones(codes.shape, bool)
    np.not_equal(codes[:, 1:], codes[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    run = (np.cumsum(begins, dtype=np.int32) - 1).reshape(codes.shape)
    # Runs of one code above each other are linked once: where the later of the two begins.
    linked = (codes[1:] == codes[:-1]) & (begins[1:] | begins[:-1])
    above, below = run[:-1][linked], run[1:][linked]
    count, component = groups_of(np.stack([above, below], axis=1), len(starts))
    first = starts[lowest_of(component, count)]
    by_place = np.argsort(first)
    number = np.empty(count, np.int32)
    number[by_place] = np.arange(count, dtype=np.int32)
    component = number[component]
    stops = np.append(starts[1:], codes.size)

    def summed(raster: Array) -> Array:
        until = np.cumsum(raster, dtype=np.int64)
        return _sums(component, np.diff(until[stops - 1], prepend=0), count)

    lowest = np.full(count, 255, np.uint8)
    np.minimum.at(lowest, component, np.minimum.reduceat(confidence.ravel(), starts))
    census = Census(
        codes=codes.ravel()[first[by_place]],
        pixels=_sums(component, stops - starts, count),
        confidence_sum=summed(confidence),
        confidence_min=lowest,
        sums=np.stack([summed(raster) for raster in further], axis=1) if further else np.empty((count, 0), np.int64),
    )
    return component[run], census


def _sums(group: Array, values: Array, count: int) -> Array:
    """Exact sums of whole numbers by group: float64 counts to 2**53."""
    return np.bincount(group, values, minlength=count).astype(np.int64)


def trace(numbers: Array, box: Box, shape: tuple[int, int]) -> Arcs:
    """The arcs between the components of a block, each with the lower number to its left.

    numbers: (h, w) int32, what lies in `box` of a scene of `shape`. Along the edge of the scene the components meet the
    outside; along seams to other blocks nothing is drawn, and arcs that reach one end there.
    """
    row, col = box.row, box.col
    scene_sides = (row == 0, box.bottom == shape[0], col == 0, box.right == shape[1])
    across, down = _edges(numbers, scene_sides)
    vertices, corners = _vertices(across, down)
    tail_head_sides = [_runs(across, vertices, numbers, flat=True), _runs(down, vertices, numbers, flat=False)]
    tail, head, left, right = (np.concatenate(both) for both in zip(*tail_head_sides, strict=True))
    leaving = np.full(vertices.size, -1, np.int32)
    turning = corners.ravel()[tail]
    leaving[tail[turning]] = np.flatnonzero(turning)
    order, ends = follow(np.where(corners.ravel()[head], leaving[head], -1))
    # Each arc has the vertices in which its straight runs begin, and the one in which the last ends.
    arc = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    at = np.empty(len(order) + len(ends) - 1, np.int64)
    at[np.arange(len(order)) + arc] = tail[order]
    new_ends = ends + np.arange(len(ends))
    at[new_ends[1:] - 1] = head[order[ends[1:] - 1]]
    y, x = np.divmod(at, vertices.shape[1])
    xy = np.stack([x + col, y + row], axis=1).astype(np.int32) * 2
    firsts = order[ends[:-1]]
    return Arcs(xy, new_ends, left[firsts].astype(np.int64), right[firsts].astype(np.int64))


def _edges(numbers: Array, scene_sides: tuple[bool, bool, bool, bool]) -> tuple[Array, Array]:
    """Which edges of pixels lie between two components: (h + 1, w) those along rows, (h, w + 1) those along columns."""
    height, width = numbers.shape
    across, down = np.empty((height + 1, width), bool), np.empty((height, width + 1), bool)
    across[0], across[-1], down[:, 0], down[:, -1] = scene_sides
    np.not_equal(numbers[1:], numbers[:-1], out=across[1:-1])
    np.not_equal(numbers[:, 1:], numbers[:, :-1], out=down[:, 1:-1])
    return across, down


def _vertices(across: Array, down: Array) -> tuple[Array, Array]:
    """Which corners of pixels, (h + 1, w + 1), end straight lines, and which of these are mere turns of one line."""
    height, width = down.shape[0], across.shape[1]
    flat = np.zeros((height + 1, width + 1), np.uint8)
    flat[:, :-1] += across
    flat[:, 1:] += across
    steep = np.zeros_like(flat)
    steep[:-1] += down
    steep[1:] += down
    vertices = (flat == 1) | (steep == 1) | (flat + steep == 4)  # 4: all edges
    return vertices, (flat == 1) & (steep == 1)


def _runs(edges: Array, vertices: Array, numbers: Array, *, flat: bool) -> tuple[Array, Array, Array, Array]:
    """Straight lines from vertex to vertex, directed: tail and head (flat indices of vertices), left and right."""
    if not flat:
        edges, vertices, numbers = edges.T, vertices.T, numbers.T
    rows, begin = np.nonzero(edges & vertices[:, :-1])
    _, stop = np.nonzero(edges & vertices[:, 1:])  # in the same order: lines on one row do not overlap
    padded = np.pad(numbers, ((1, 1), (0, 0)), constant_values=OUTSIDE)
    # Who walks along a row eastwards has what is above to the left; along a column southwards, what is to the east.
    before, after = padded[rows, begin], padded[rows + 1, begin]
    ahead = (before < after) if flat else (after < before)
    tail, head = np.where(ahead, begin, stop + 1), np.where(ahead, stop + 1, begin)
    left, right = np.minimum(before, after), np.maximum(before, after)
    width = vertices.shape[1]
    if flat:
        return rows * width + tail, rows * width + head, left, right
    columns = vertices.shape[0]
    return tail * columns + rows, head * columns + rows, left, right
