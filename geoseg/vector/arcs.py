"""Boundaries between components, each once: whatever is done to an arc is done for both its sides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

OUTSIDE = -1
"""The component number of all that lies beyond the scene."""


@dataclass(frozen=True)
class Arcs:
    """Lines between two components, from node to node; those that meet no node are closed: they end where they begin.

    Coordinates are half pixels, (2 * column, 2 * row) of pixel corners, rows downwards: whole numbers (int32) on
    corners and on midpoints of pixel edges, float64 once outlines have left those.
    """

    xy: Array
    """(n, 2): the vertices of all arcs, one arc after the other."""
    ends: Array
    """(m + 1,) int64: arc k has the vertices `xy[ends[k]:ends[k + 1]]`."""
    left: Array
    """(m,) int64: the component to the left of who walks along, on an image with row 0 on top."""
    right: Array
    """(m,) int64: the component to the right."""

    def __len__(self) -> int:
        """Number of arcs."""
        return len(self.left)

    @property
    def sides(self) -> Array:
        """(m, 2) int64: left and right."""
        return np.stack([self.left, self.right], axis=1)

    @property
    def sizes(self) -> Array:
        """(m,) int64: number of vertices."""
        return np.diff(self.ends)

    @property
    def tips(self) -> Array:
        """(m, 2, 2): where each arc begins and ends, xy."""
        tips: Array = self.xy[np.stack([self.ends[:-1], self.ends[1:] - 1], axis=1)]
        return tips

    def select(self, at: Array) -> Arcs:
        """The arcs at an index or boolean array."""
        at = np.flatnonzero(at) if at.dtype == bool else at
        xy, ends = gather(self.xy, self.ends, at)
        return Arcs(xy, ends, self.left[at], self.right[at])

    def lengths(self) -> Array:
        """(m,) int64: number of pixel edges along arcs as pixels drew them."""
        steps = np.abs(np.diff(self.xy, axis=0)).sum(axis=1)
        steps[self.ends[1:-1] - 1] = 0  # from one arc to the next
        return np.add.reduceat(np.append(steps, 0), self.ends[:-1]).astype(np.int64) // 2 if len(self) else self.left

    def relabelled(self, number: Array) -> Arcs:
        """The same lines between `number[left]` and `number[right]`; the outside stays what it is."""
        left, right = (np.where(side == OUTSIDE, OUTSIDE, number[side]) for side in (self.left, self.right))
        return replace(self, left=left, right=right)

    @classmethod
    def concatenate(cls, parts: Sequence[Arcs]) -> Arcs:
        """All arcs of all parts."""
        sizes = np.concatenate([np.zeros(1, np.int64), *(part.sizes for part in parts)])
        xy, left, right = (np.concatenate([getattr(p, name) for p in parts]) for name in ("xy", "left", "right"))
        return cls(xy, np.cumsum(sizes), left, right)

    @classmethod
    def none(cls) -> Arcs:
        """No arc at all."""
        number = np.empty(0, np.int64)
        return cls(np.empty((0, 2), np.int32), np.zeros(1, np.int64), number, number)


def gather(values: Array, ends: Array, at: Array, backwards: Array | None = None) -> tuple[Array, Array]:
    """The rows `values[ends[k]:ends[k + 1]]` for each k of `at`, from last to first where `backwards`; and their ends.

    >>> gather(np.arange(5), np.array([0, 2, 5]), np.array([1, 0]), np.array([True, False]))
    (array([4, 3, 2, 0, 1]), array([0, 3, 5]))
    """
    sizes = np.diff(ends)[at]
    first, step = ends[at], np.ones_like(sizes)
    if backwards is not None:
        first, step = np.where(backwards, ends[at + 1] - 1, first), np.where(backwards, -1, 1)
    return values[runs_of(first, sizes, step)], np.concatenate([[0], np.cumsum(sizes)])


def runs_of(start: Array, count: Array, step: Array) -> Array:
    """start, start + step, ... of each run, `count` of them, one run after the other."""
    run, place = spread(count)
    indices: Array = start[run] + step[run] * place
    return indices


def spread(counts: Array) -> tuple[Array, Array]:
    """For counts of things, the number of the owner of each thing and its number among those of its owner.

    >>> spread(np.array([2, 0, 1]))
    (array([0, 0, 2]), array([0, 1, 0]))
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def groups_of(pairs: Array, count: int) -> tuple[int, Array]:
    """How many groups things form that hang together by pairs (m, 2), and the group of each of the `count`."""
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    groups, group = connected_components(graph, directed=False)
    return int(groups), group


def first_of_group(pairs: Array, count: int) -> Array:
    """(count,) the lowest number of all that hang together by pairs (m, 2)."""
    groups, group = groups_of(pairs, count)
    first: Array = lowest_of(group, groups)[group]
    return first


def lowest_of(group: Array, groups: int) -> Array:
    """(groups,) the first member of each group; none is empty."""
    first = np.empty(groups, np.int64)
    first[group[::-1]] = np.arange(len(group))[::-1]
    return first


def twice_area(xy: Array, ends: Array) -> Array:
    """(m,) float64: twice the area that each line sweeps, seen from the origin; of a closed one, that within it.

    Positive where it runs clockwise on an image, exact for whole half pixels.
    """
    x, y = xy.astype(np.float64).T
    cross = np.append(x[:-1] * y[1:] - x[1:] * y[:-1], 0)
    cross[ends[1:] - 1] = 0  # from one line to the next
    return np.add.reduceat(cross, ends[:-1]) if len(ends) > 1 else np.empty(0)


def bends(xy: Array, ends: Array, closed: Array, some: Array | None = None) -> tuple[Array, Array]:
    """Lines without the vertices at which they do not bend, and their ends; closed ones begin at a bend.

    xy: (n, 2) whole half pixels; closed: (m,) bool, whose last vertex is their first and may go; some: (m,) bool, which
    lines alone.
    """
    first, last = ends[:-1], ends[1:] - 1
    before, after = np.arange(len(xy)) - 1, np.arange(len(xy)) + 1
    before[first], after[last] = last - 1, first + 1  # of closed lines
    come, go = (xy - xy[before]).astype(np.int64), (xy[after] - xy).astype(np.int64)
    stays = come[:, 0] * go[:, 1] != come[:, 1] * go[:, 0]
    stays[first[~closed]] = stays[last[~closed]] = True
    if some is not None:
        stays |= np.repeat(~some, np.diff(ends))
    kept, new_ends = xy[stays], np.concatenate([[0], np.cumsum(stays)])[ends]
    # A closed line that lost its first vertex lost it at both ends: it closes with the vertex that is now its first.
    opened = closed & ~stays[first]
    kept = np.insert(kept, new_ends[1:][opened], kept[new_ends[:-1][opened]], axis=0)
    return kept, new_ends + np.concatenate([[0], np.cumsum(opened)])


def place_keys(xy: Array) -> Array:
    """(n,) int64: one number a point, the same for the same point; exact to 1/2048 pixel in scenes of a million."""
    whole = np.rint(xy * np.float64(1024)).astype(np.int64)
    return whole[:, 1] << 32 | (whole[:, 0] + (1 << 31))


def follow(after: Array) -> tuple[Array, Array]:
    """Chains of elements each of which knows the next: their elements one chain after the other, and the chains' ends.

    after: (n,) the number of the next element, negative for none; no two have the same next. Chains stand in the order
    of their lowest element; one that closes begins with it. List ranking by pointer jumping (Wyllie 1979).

    >>> follow(np.array([2, -1, 1, 3]))
    (array([0, 2, 1, 3]), array([0, 3, 4]))
    """
    count = len(after)
    tail = np.flatnonzero(after >= 0)
    chains, chain = groups_of(np.stack([tail, after[tail]], axis=1), count)
    before = np.full(count, -1, np.int64)
    before[after[tail]] = tail
    begins = np.zeros(chains, bool)
    begins[chain[before < 0]] = True
    before[lowest_of(chain, chains)[~begins]] = -1
    rank = (before >= 0).astype(np.int64)
    jump = np.where(before < 0, np.arange(count), before)
    on_the_way = np.flatnonzero(rank)
    while len(on_the_way):
        via = jump[on_the_way]
        rank[on_the_way], jump[on_the_way] = rank[on_the_way] + rank[via], jump[via]
        on_the_way = on_the_way[before[jump[on_the_way]] >= 0]
    ends = np.concatenate([[0], np.cumsum(np.bincount(chain, minlength=chains))])
    order = np.empty(count, np.int64)
    order[ends[chain] + rank] = np.arange(count)
    return order, ends


def points_along(arcs: Arcs, step: float) -> tuple[Array, Array]:
    """Points on arcs, no further apart than `step`, all vertices among them: (n, 2) float64; and the arc of each."""
    arc = np.repeat(np.arange(len(arcs)), arcs.sizes)
    go = np.zeros(arcs.xy.shape)
    go[:-1] = np.diff(arcs.xy, axis=0)
    go[arcs.ends[1:] - 1] = 0
    parts = np.maximum(1, np.ceil(np.abs(go).max(axis=1, initial=0) / step)).astype(np.int64)
    which, place = spread(parts)
    return arcs.xy[which] + (place / parts[which])[:, None] * go[which], arc[which]


def sides_in(arcs: Arcs, some: Array) -> Array:
    """(m,) bool: which arcs have one of some components, (n,) bool, to a side."""
    beside: Array = np.append(some, False)[arcs.sides]  # -1 is the outside
    return beside[:, 0] | beside[:, 1]


def sides_of(arcs: Arcs, some: Array, count: int) -> Array:
    """(count,) bool: the components to either side of some arcs."""
    beside = np.zeros(count, bool)
    sides = arcs.sides[some]
    beside[sides[sides >= 0]] = True
    return beside


def meets(arcs: Arcs, others: Arcs) -> Array:
    """(m,) bool: which arcs have a tip where one of the others has."""
    there = at_tips(arcs, others)
    return there[:, 0] | there[:, 1]


def at_tips(arcs: Arcs, others: Arcs) -> Array:
    """(m, 2) bool: at which tips of arcs one of the others has one."""
    there = np.unique(place_keys(others.tips.reshape(-1, 2)))
    found: Array = np.isin(place_keys(arcs.tips.reshape(-1, 2)), there).reshape(-1, 2)
    return found
