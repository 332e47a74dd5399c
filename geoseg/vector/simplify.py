"""Outlines without stairs: corners cut off, then the vertices that say least taken away, and no line over another."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.vector.arcs import Arcs, bends, place_keys, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, Any]

_NEVER = np.iinfo(np.int64).max
"""The rank of a vertex that stays."""

_RANK_BITS = 33
"""Below the area, the bits of a rank that order triangles of one area."""

_CELL_BITS = 7
"""Cells of 64 pixels."""

_BAND_BITS = 2
"""Obstacles are found in bands of so many bits of y: 4 half pixels."""

_CHUNK = 1 << 18
"""How many triangles, bands or points are looked at together: what bounds the memory."""

_FEW_SPARE = 5
"""Of lines with more vertices to spare, one round cannot take too many: no two neighbours go, and 4 are to stay."""


def cut_corners(arcs: Arcs, soft: Array) -> Arcs:
    """Arcs that pixels drew, with corners cut from midpoint to midpoint of the pixel edges that meet there.

    soft: (m,) bool, which arcs; all others stay as they are. Nodes stay, closed arcs without one have all their corners
    cut and begin anywhere. A corner where just two edges meet is cut within one quarter of one pixel, so that no two
    lines can touch. Nothing remains where a line does not bend.
    """
    ring = rings_of(arcs) & soft
    xy, ends = _opened(arcs, ring)
    before, after = _neighbours(ends, ring)
    is_soft = np.repeat(soft, np.diff(ends))
    corner = is_soft & (before >= 0) & (after >= 0)
    come, go = xy - xy[before], xy[after] - xy
    points = np.stack([xy, xy], axis=1)
    points[corner, 0] -= np.sign(come[corner])
    points[corner, 1] += np.sign(go[corner])
    one_pixel = np.abs(come).sum(axis=1) == 2
    wanted = np.stack([~(corner & corner[before] & one_pixel), corner], axis=1)
    ends = np.concatenate([[0], np.cumsum(wanted.sum(axis=1))])[ends]
    cut = _closed(arcs, points[wanted], ends, ring)
    xy, ends = bends(cut.xy, cut.ends, ring, soft)
    return replace(cut, xy=xy, ends=ends)


def simplify(arcs: Arcs, tolerance_px: Array, *, reach_px: float, obstacles: Array | None = None) -> Arcs:
    """Arcs without the vertices that form small triangles with their neighbours; no line comes to cross another.

    tolerance_px: (m,), vertices whose triangle is smaller than its square are taken away, the smallest first; arcs with
    0 stay as they are. A vertex goes only if no other, and none of `obstacles` (k, 2), lies in its closed triangle;
    vertices are whole half pixels, obstacles may lie between them.
    Nodes stay; closed arcs keep four vertices where they have them, and two arcs between the same nodes do not fall
    together. No line leaves its former place by more than reach_px, and no triangle reaches further from there. The
    result depends neither on the order of arcs nor on their direction. Visvalingam and Whyatt (1993), in rounds that
    take all vertices that come before both their neighbours: as no triangle holds a vertex of another, and edges that
    do not cross leave no other way into a triangle, it is as if they went one by one.
    """
    ring = rings_of(arcs)
    xy, ends = _opened(arcs, ring)
    lines = _Lines(xy, ends, ring, np.empty((0, 2), np.int32) if obstacles is None else _whole(obstacles))
    lines.limit_to(tolerance_px, reach_px, _spare(arcs, ring))
    for level in _levels(8 * float(np.max(tolerance_px, initial=0)) ** 2):
        lines.thin(level)
    stays = lines.alive[: len(xy)]
    return _closed(arcs, xy[stays], np.concatenate([[0], np.cumsum(stays)])[ends], ring)


def rings_of(arcs: Arcs) -> Array:
    """(m,) bool: the closed arcs that begin and end where no other does."""
    _, number, count = np.unique(place_keys(arcs.tips.reshape(-1, 2)), return_inverse=True, return_counts=True)
    ring: Array = (number[::2] == number[1::2]) & (count[number[::2]] == 2)
    return ring


def _opened(arcs: Arcs, ring: Array) -> tuple[Array, Array]:
    """Vertices and ends of arcs, rings without the vertex that closes them."""
    stays = np.ones(len(arcs.xy), bool)
    stays[arcs.ends[1:][ring] - 1] = False
    return arcs.xy[stays], arcs.ends - np.concatenate([[0], np.cumsum(ring)])


def _closed(arcs: Arcs, xy: Array, ends: Array, ring: Array) -> Arcs:
    """The same arcs with other vertices, rings closed again."""
    closed = np.insert(xy, ends[1:][ring], xy[ends[:-1][ring]], axis=0)
    return replace(arcs, xy=closed, ends=ends + np.concatenate([[0], np.cumsum(ring)]))


def _neighbours(ends: Array, ring: Array) -> tuple[Array, Array]:
    """(n,) int32: the vertex before and after each along its line; -1 beyond the tips of those that are no rings."""
    number = np.arange(ends[-1], dtype=np.int32)
    before, after = number - 1, number + 1
    first, last = ends[:-1], ends[1:] - 1
    before[first] = np.where(ring, last, -1)
    after[last] = np.where(ring, first, -1)
    return before, after


def _spare(arcs: Arcs, ring: Array) -> Array:
    """(m,) int64: how many vertices each arc can lose before it falls together with itself or with another."""
    _, node = np.unique(place_keys(arcs.tips.reshape(-1, 2)), return_inverse=True)
    pair = np.sort(node.reshape(-1, 2), axis=1)
    _, number, count = np.unique(pair @ [1 << 31, 1], return_inverse=True, return_counts=True)
    loop = pair[:, 0] == pair[:, 1]
    least = np.where(ring, 5, np.where(loop, 4, np.where(count[number] > 1, 3, 2)))  # the tips are counted
    spare: Array = np.maximum(arcs.sizes - least, 0)
    return spare


def _whole(xy: Array) -> Array:
    """The same points, int32 where that is exact for all."""
    whole = np.rint(xy).astype(np.int32)
    return whole if (whole == xy).all() else np.asarray(xy, np.float64)


def _levels(limit: float) -> Iterator[int]:
    """Twice the areas up to which triangles go, one after the other: about as if each went in its turn."""
    level = 0
    while level < limit:
        yield level
        level = max(level + 1, level * 5 // 4)
    if level:
        yield level


def _cross(one: Array, other: Array) -> Array:
    """(n,) the cross products of vectors (n, 2): int64; float64, exact for what squaring draws, where those are."""
    wide = np.result_type(one, np.int64)
    product: Array = one[:, 0].astype(wide) * other[:, 1] - one[:, 1].astype(wide) * other[:, 0]
    return product


def _scattered(xy: Array) -> Array:
    """(n,) uint32: numbers in no order, no two the same within 32768 pixels (finalizer of MurmurHash3)."""
    low = (xy & 0xFFFF).astype(np.uint32)
    number: Array = low[:, 0] | low[:, 1] << np.uint32(16)
    for factor, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13)):
        number ^= number >> np.uint32(shift)
        number *= np.uint32(factor)
    number ^= number >> np.uint32(16)
    return number


def _chunks(counts: Array) -> Iterator[slice]:
    """Slices whose counts add up to about as many as are looked at together."""
    total = np.cumsum(counts)
    steps = np.arange(0, total[-1] if len(total) else 0, _CHUNK)
    bounds = np.unique(np.append(np.searchsorted(total, steps), len(counts)))
    yield from (slice(start, stop) for start, stop in pairwise(bounds))


class _Lines:
    """Lines that lose vertices: each vertex knows those before and after it, and its rank among those to go next."""

    def __init__(self, xy: Array, ends: Array, ring: Array, obstacles: Array) -> None:
        self.xy = xy
        self.arc = np.repeat(np.arange(len(ring), dtype=np.int32), np.diff(ends))
        self.before, self.after = _neighbours(ends, ring)
        self.points = np.concatenate([xy, obstacles])
        self.alive = np.ones(len(self.points), bool)
        self.scattered = _scattered(xy)
        self.left = np.zeros(len(xy))  # half pixels by which the line to the next vertex may be off
        self.rank = np.full(len(xy), _NEVER)
        self.watch = np.full(len(xy), -1, np.int32)  # a point that keeps the vertex from going
        self.held = np.empty(0, np.int64)  # the vertices that have one
        self.near = _Bands(self.points, self.alive)

    def limit_to(self, tolerance_px: Array, reach_px: float, spare: Array) -> None:
        self.limit = 8 * np.asarray(tolerance_px, np.float64) ** 2  # twice an area in half pixels
        self.reach, self.spare = 2 * reach_px, spare
        inner = np.flatnonzero((self.before >= 0) & (self.after >= 0) & (self.limit > 0)[self.arc])
        for start in range(0, len(inner), _CHUNK):
            self._rate(inner[start : start + _CHUNK])

    def thin(self, level: int) -> None:
        """Take away all vertices that may go and whose triangles, twice, are not larger than `level`."""
        bound = (level + 1) << _RANK_BITS
        self.near.renew()
        active = self._open(np.flatnonzero(self.rank < bound), bound)
        seen = np.zeros(len(self.xy), bool)
        while len(active):
            rank = self.rank[active]
            first = (rank < self.rank[self.before[active]]) & (rank < self.rank[self.after[active]])
            going = self._affordable(active[first])
            if not len(going):  # ranks are equal where neighbours lie 2**15 pixels apart
                return
            blocker = self.near.within(self._triangles(going))
            self._hold(going, blocker)
            touched = self._remove(going[blocker < 0])
            active = self._open(active, bound)
            seen[active] = True
            fresh = np.unique(touched[~seen[touched]])
            seen[active] = False
            active = np.concatenate([active, self._open(fresh, bound)])

    def _triangles(self, at: Array) -> Array:
        """(n, 3, 2) int64: vertices between their neighbours."""
        corners: Array = self.xy[np.stack([self.before[at], at, self.after[at]], axis=1)].astype(np.int64)
        return corners

    def _open(self, at: Array, bound: int) -> Array:
        """Those that are to go."""
        some: Array = at[self.alive[at] & (self.rank[at] < bound) & (self.spare[self.arc[at]] > 0)]
        return some

    def _rate(self, at: Array) -> None:
        """Give vertices their rank: that of their triangle, none if it is large or cuts off what lies too far."""
        a, b, c = self._triangles(at).transpose(1, 0, 2)
        turn = _cross(b - a, c - b)
        area = np.abs(turn)
        # Stairs become straight when equal triangles go from one side first; which one changes from cell to cell, so
        # that nothing is shifted as a whole.
        side = (turn > 0) ^ ((c - a) @ [1 << 32, 1] > 0) ^ (((b >> _CELL_BITS).sum(axis=1) & 1) > 0)
        goes = area < self.limit[self.arc[at]]
        goes &= self._left_without(at, a, b, c) <= self.reach
        self.rank[at] = np.where(goes, area << _RANK_BITS | side.astype(np.int64) << 32 | self.scattered[at], _NEVER)
        self.watch[at] = -1

    def _left_without(self, at: Array, a: Array, b: Array, c: Array) -> Array:
        """Half pixels by which the line from before to after a vertex may be off, when the vertex has gone."""
        along, to_b, from_b = c - a, b - a, c - b
        beside = ((to_b * along).sum(axis=1) > 0) & ((from_b * along).sum(axis=1) > 0)
        height = np.abs(_cross(to_b, along)) / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1)
        to_ends = np.minimum(np.hypot(to_b[:, 0], to_b[:, 1]), np.hypot(from_b[:, 0], from_b[:, 1]))
        former = np.maximum(self.left[self.before[at]], self.left[at])
        left: Array = former + np.where(beside, height, to_ends)
        return left

    def _affordable(self, going: Array) -> Array:
        """Of the vertices that are to go, those that their lines can spare, the first first."""
        spare = self.spare[self.arc[going]]
        tight = spare < _FEW_SPARE
        some = going[tight]
        some = some[np.lexsort([self.rank[some], self.arc[some]])]
        arc = self.arc[some]
        place = np.arange(len(some)) - np.searchsorted(arc, arc)
        return np.concatenate([going[~tight], some[place < self.spare[arc]]])

    def _hold(self, going: Array, blocker: Array) -> None:
        """Vertices that something stands in the way of wait for that to go."""
        blocked = blocker >= 0
        self.rank[going[blocked]] = _NEVER
        self.watch[going[blocked]] = blocker[blocked]
        self.held = np.concatenate([self.held, going[blocked]])

    def _remove(self, gone: Array) -> Array:
        """Take vertices away; those that have a new triangle or nothing in their way that was known to be, rated."""
        before, after = self.before[gone], self.after[gone]
        left = self._left_without(gone, *self._triangles(gone).transpose(1, 0, 2))
        self.left[before] = left
        self.after[before], self.before[after] = after, before
        self.alive[gone] = False
        np.subtract.at(self.spare, self.arc[gone], 1)
        beside = np.concatenate([before, after])
        beside = beside[(self.before[beside] >= 0) & (self.after[beside] >= 0)]
        self.watch[gone] = -1
        self.held = self.held[self.watch[self.held] >= 0]
        freed = self.held[~self.alive[self.watch[self.held]]]
        touched = np.concatenate([beside, freed])
        self._rate(touched)
        self.held = self.held[self.watch[self.held] >= 0]
        return touched


class _Bands:
    """Points in bands of y, by x in each: those in the way of a triangle are found by binary search."""

    def __init__(self, points: Array, alive: Array) -> None:
        self.points, self.alive = points, alive
        here = np.flatnonzero(alive).astype(np.int32)
        xy = np.floor(points[here]).astype(np.int64)
        keys = self._keys(xy[:, 1] >> _BAND_BITS, xy[:, 0]) | (xy[:, 1] & (1 << _BAND_BITS) - 1)
        order = np.argsort(keys, kind="stable")
        self.keys, self.order = keys[order], here[order]

    @staticmethod
    def _keys(band: Array, x: Array) -> Array:
        keys: Array = band << 34 | (x + (1 << 30)) << _BAND_BITS
        return keys

    def renew(self) -> None:
        """Forget the points that have gone."""
        stays = self.alive[self.order]
        self.keys, self.order = self.keys[stays], self.order[stays]

    def within(self, triangles: Array) -> Array:
        """(n,) int64: a point that lies in each closed triangle (n, 3, 2) besides its corners, -1 for none.

        The sides to and from the second corner are lines already, on which no other point lies. Of several points it is
        the same however points are ordered.
        """
        found = np.full(len(triangles), -1, np.int64)
        maybe = np.flatnonzero(_may_hold(triangles, whole=self.points.dtype.kind == "i"))
        low, high = triangles[maybe].min(axis=1), triangles[maybe].max(axis=1)
        low[:, 1] >>= _BAND_BITS
        high[:, 1] >>= _BAND_BITS
        for part in _chunks(high[:, 1] - low[:, 1] + 1):
            owner, step = spread(high[part, 1] - low[part, 1] + 1)
            band = low[part, 1][owner] + step
            start = np.searchsorted(self.keys, self._keys(band, low[part, 0][owner]))
            stop = np.searchsorted(self.keys, self._keys(band, high[part, 0][owner] + 1))
            for some in _chunks(stop - start):
                row, place = spread((stop - start)[some])
                point = self.order[start[some][row] + place]
                which = maybe[part][owner[some][row]]
                point, which = point[self.alive[point]], which[self.alive[point]]
                hit = _lies_in(self.points[point], triangles[which])
                point, which = point[hit][::-1], which[hit][::-1]
                fresh = found[which] < 0
                found[which[fresh]] = point[fresh]
        return found


def _may_hold(triangles: Array, *, whole: bool) -> Array:
    """(n,) bool: which triangles (n, 3, 2) can have a point inside or on the side opposite to the second corner.

    Where points are not `whole` that is any with an area. Else few of the small ones can: twice the area of a triangle
    is 2 * points inside + points on its sides - 2 (Pick 1899).
    """
    a, b, c = triangles.transpose(1, 0, 2)
    area = np.abs(_cross(b - a, c - b))
    if not whole:
        return area > 0
    steps = np.gcd(*np.stack([b - a, c - b, c - a]).transpose(2, 0, 1))
    inside = (area + 2 - steps.sum(axis=0)) // 2
    maybe: Array = (area > 0) & (inside + steps[2] > 1)
    return maybe


def _lies_in(points: Array, triangles: Array) -> Array:
    """(n,) bool: which points (n, 2) lie in their closed triangle (n, 3, 2), corners left out."""
    to = triangles - points[:, None]
    at_corner = (to == 0).all(axis=2).any(axis=1)
    turn = np.stack([_cross(to[:, k], to[:, (k + 1) % 3]) for k in range(3)])
    inside: Array = ((turn >= 0).all(axis=0) | (turn <= 0).all(axis=0)) & ~at_corner
    return inside
