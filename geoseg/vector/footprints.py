"""Outlines of buildings as few straight walls at right angles, fitted to the pixels' own outline.

A wall is a stretch of the outline and a direction; its line lies so that as much area is won on one side of it as is
lost on the other. Walls are taken out, cheapest first, as long as the area that this moves costs less than the
vertices that it saves. Everything is done for all rings at once. Lengths are in pixels on the ground.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_BINS = 90
"""Directions are counted in degrees, modulo the right angle."""
_APART = 20.0
"""Degrees by which a second direction of walls must differ from the first."""
_SHORTEST_PX = 1.2
"""No wall is shorter: stairs are."""
_OBLIQUE_PX = 3.0
"""A shorter side has no direction of its own: pixels cut every corner obliquely."""


@dataclass(frozen=True)
class Rings:
    """Outlines as pixels drew them, ring after ring, not closed."""

    xy: Array
    """(n, 2) float64: vertices in pixels on the ground."""
    ends: Array
    """(r + 1,) int64: ring k has the vertices `xy[ends[k]:ends[k + 1]]`."""
    kept: Array
    """(n,) bool: the vertices that are left when stairs are straightened; a ring of less than three has no fit."""
    group: Array
    """(r,) int64: rings of one number are of one building, or of several that touch, and share their directions."""

    @cached_property
    def size(self) -> Array:
        """Number of vertices of each ring."""
        return np.diff(self.ends)

    @cached_property
    def of_vertex(self) -> Array:
        """The ring of each vertex."""
        return np.repeat(np.arange(len(self.size)), self.size)

    def __len__(self) -> int:
        """Number of rings."""
        return len(self.group)


@dataclass(frozen=True)
class Walls:
    """Walls of rings, ring after ring, in the order in which they are met along a ring."""

    ring: Array
    """(w,) int64."""
    start: Array
    """(w,) int64: the vertex, counted from the ring's first, at which a wall begins; it ends where the next does."""
    label: Array
    """(w,) int64: which of the four directions of its group it has."""

    def select(self, at: Array) -> Walls:
        """The walls at an index or boolean array."""
        return Walls(self.ring[at], self.start[at], self.label[at])

    @cached_property
    def first(self) -> Array:
        """Whether a wall is the first of its ring."""
        return np.asarray(np.diff(self.ring, prepend=-1) != 0)

    @cached_property
    def last(self) -> Array:
        """Whether a wall is the last of its ring."""
        return np.asarray(np.diff(self.ring, append=-1) != 0)

    @cached_property
    def after(self) -> Array:
        """The next wall along the ring."""
        index = np.arange(1, len(self.ring) + 1)
        index[self.last] = np.flatnonzero(self.first)
        return index

    @cached_property
    def before(self) -> Array:
        """The previous wall along the ring."""
        index = np.empty(len(self.ring), np.int64)
        index[self.after] = np.arange(len(self.ring))
        return index

    @cached_property
    def count(self) -> Array:
        """Number of walls of the ring of each wall."""
        return np.bincount(self.ring)[self.ring] if len(self.ring) else self.ring

    def sorted(self) -> Walls:
        """The same walls in order."""
        return self.select(np.lexsort([self.start, self.ring]))


class Outlines:
    """Sums along rings, so that what is asked of any stretch of any ring takes two look-ups."""

    def __init__(self, rings: Rings) -> None:
        """In coordinates about the middle of each ring, twice round each."""
        self.rings = rings
        size, of = rings.size, rings.of_vertex
        self.centre = np.stack([np.bincount(of, rings.xy[:, k], len(rings)) for k in (0, 1)], axis=1) / size[:, None]
        self.base = 2 * rings.ends[:-1] + np.arange(len(rings))
        at = np.arange(2 * len(of) + len(rings)) - np.repeat(self.base, 2 * size + 1)
        self.xy = (rings.xy - self.centre[of])[
            np.repeat(rings.ends[:-1], 2 * size + 1) + at % np.repeat(size, 2 * size + 1)
        ]
        x, y = self.xy.T
        to_x, to_y = np.roll(x, -1), np.roll(y, -1)
        length = np.hypot(to_x - x, to_y - y)
        length[self.base - 1] = 0
        sums = np.stack(
            [
                (x + to_x) / 2 * (to_y - y) * (length > 0),
                length,
                length * (x + to_x) / 2,
                length * (y + to_y) / 2,
                length * (x * x + x * to_x + to_x * to_x) / 3,
                length * (2 * x * y + x * to_y + to_x * y + 2 * to_x * to_y) / 6,
                length * (y * y + y * to_y + to_y * to_y) / 3,
            ]
        )
        self.sums = np.zeros_like(sums)
        np.cumsum(sums[:, :-1], axis=1, out=self.sums[:, 1:])

    def stretch(self, walls: Walls) -> tuple[Array, Array]:
        """Indices (w,) of the first and the last vertex of each wall into `xy` and `sums`."""
        stop = walls.start[walls.after] + np.where(walls.last, self.rings.size[walls.ring], 0)
        base = self.base[walls.ring]
        return base + walls.start, base + stop

    def lines(self, walls: Walls, angle: Array) -> tuple[Array, Array]:
        """Where the line of each wall lies, across its direction; and whether it runs along it, +1, or against, -1."""
        begin, end = self.stretch(walls)
        (x0, y0), (x1, y1) = self.xy[begin].T, self.xy[end].T
        xdy = self.sums[0][end] - self.sums[0][begin]
        c, s = np.cos(angle), np.sin(angle)
        xdx, ydy, ydx = (x1 * x1 - x0 * x0) / 2, (y1 * y1 - y0 * y0) / 2, x1 * y1 - x0 * y0 - xdy
        along = c * (x1 - x0) + s * (y1 - y0)
        moment = s * c * (ydy - xdx) - s * s * xdy + c * c * ydx
        short = np.abs(along) < 1e-9  # nothing that balances: the middle of the ends
        middle = (c * (y0 + y1) - s * (x0 + x1)) / 2
        return np.where(short, middle, moment / np.where(short, 1, along)), np.where(along < 0, -1.0, 1.0)

    def scatter(self, walls: Walls) -> Array:
        """(3, w): second moments xx, xy, yy of each wall's stretch about its own middle."""
        begin, end = self.stretch(walls)
        _, length, x, y, xx, xy, yy = self.sums[:, end] - self.sums[:, begin]
        length = np.maximum(length, 1e-9)
        return np.stack([xx - x * x / length, xy - x * y / length, yy - y * y / length])


@dataclass(frozen=True)
class Directions:
    """The directions that walls may have: two at right angles, and two more of which some fits make use."""

    main: Array
    """(g,): radians, of each group."""
    other: Array
    """(g,): radians; two further directions of walls are this and a right angle to it."""
    oblique: bool
    """Whether walls may have the other directions."""
    locked: bool
    """Whether the other directions halve the right angle, whatever the main one is."""

    def angle(self, group: Array, label: Array) -> Array:
        """Radians of walls."""
        return np.where(label < 2, self.main[group], self.other[group]) + np.pi / 2 * (label % 2)


@dataclass(frozen=True)
class Fit:
    """New outlines of rings."""

    walls: Walls
    corners: Array
    """(w, 2): where each wall ends, in pixels on the ground."""
    misplaced: Array
    """(r,): the area between the pixels' outline and the walls of each ring; infinite where a ring has no fit."""
    main: Array
    """(g,): radians, the direction of each group."""


def fit(outlines: Outlines, directions: Directions, price_px2: float) -> Fit:
    """Walls at right angles to each other, but for those in the oblique directions where there may be any."""
    rings = outlines.rings
    for _ in range(3):
        # steps that pixels draw are joined, those of the building are not: either would turn the direction
        directions = _refine(outlines, _drop(outlines, _label(outlines, directions), directions, 0), directions)
    current = _label(outlines, directions)
    for _ in range(2):
        current = _drop(outlines, current, directions, price_px2)
        current = _break_at_corners(outlines, current, directions)
    current = _drop(outlines, current, directions, price_px2)
    angle = directions.angle(rings.group[current.ring], current.label)
    offset, _ = outlines.lines(current, angle)
    corners = _corners(current, angle, offset)
    offset = offset + _balance(outlines, current, angle, corners)
    return _fitted(outlines, current, angle, offset, directions.main)


def unfitted(outlines: Outlines) -> Fit:
    """The straightened rings as they are: a wall a side."""
    sides, angle, _ = _sides(outlines)
    end = outlines.stretch(sides)[1]
    x, y = outlines.xy[end].T
    return _fitted(outlines, sides, angle, np.cos(angle) * y - np.sin(angle) * x, np.empty(0))


def _fitted(outlines: Outlines, walls: Walls, angle: Array, offset: Array, main: Array) -> Fit:
    corners = _corners(walls, angle, offset) + outlines.centre[walls.ring]
    begin, end = outlines.stretch(walls)
    wall = np.repeat(np.arange(len(begin)), end - begin)
    at = np.arange(len(wall)) + np.repeat(begin - np.cumsum(end - begin) + (end - begin), end - begin)
    (x, y), (dx, dy) = ((outlines.xy[at] + outlines.xy[at + 1]) / 2).T, (outlines.xy[at + 1] - outlines.xy[at]).T
    c, s = np.cos(angle)[wall], np.sin(angle)[wall]
    off = np.abs(c * y - s * x - offset[wall]) * np.abs(c * dx + s * dy)
    rings = len(outlines.rings)
    fits = np.bincount(walls.ring, minlength=rings) > 2
    misplaced = np.where(fits, np.bincount(walls.ring[wall], off, rings), np.inf)
    return Fit(walls, corners, misplaced, main)


def _corners(walls: Walls, angle: Array, offset: Array) -> Array:
    """(w, 2): where the line of each wall meets that of the next."""
    to = walls.after
    c, s = np.cos(angle), np.sin(angle)
    turn = np.sin(angle[to] - angle)
    turn = np.where(np.abs(turn) < 1e-9, np.inf, turn)  # parallel walls of a ring that has no fit
    x = (offset * c[to] - offset[to] * c) / turn
    y = (offset * s[to] - offset[to] * s) / turn
    return np.stack([x, y], axis=1)


def _balance(outlines: Outlines, walls: Walls, angle: Array, corners: Array) -> Array:
    """(w,): by how much each wall is to be shifted so that each ring keeps its area."""
    rings = outlines.rings
    at = corners[walls.before]
    twice = at[:, 0] * corners[:, 1] - at[:, 1] * corners[:, 0]
    area = np.bincount(walls.ring, twice, len(rings)) / 2
    length = np.hypot(*(corners - at).T)
    around = np.maximum(np.bincount(walls.ring, length, len(rings)), 1e-9)
    whole = outlines.base + rings.size
    lost = outlines.sums[0][whole] - outlines.sums[0][outlines.base] - area
    shift = np.clip(lost / around, -0.5, 0.5)
    along = ((corners - at) * np.stack([np.cos(angle), np.sin(angle)], axis=1)).sum(axis=1)
    # the ring runs round its area anticlockwise in x and y where the area is positive: outwards is to the right
    return np.asarray(-shift[walls.ring] * np.sign(along))


def _sides(outlines: Outlines) -> tuple[Walls, Array, Array]:
    """The sides of the straightened rings: as walls without a direction yet; their angles and lengths."""
    rings = outlines.rings
    at = np.flatnonzero(rings.kept)
    ring = rings.of_vertex[at]
    sides = Walls(ring, at - rings.ends[ring], np.zeros(len(at), np.int64))
    begin, end = outlines.stretch(sides)
    dx, dy = (outlines.xy[end] - outlines.xy[begin]).T
    return sides, np.arctan2(dy, dx), np.hypot(dx, dy)


def _label(outlines: Outlines, directions: Directions) -> Walls:
    """Every side gets the nearest direction; neighbours of one direction are one wall."""
    sides, angle, length = _sides(outlines)
    group = outlines.rings.group[sides.ring]
    off = np.stack([np.abs(np.sin(angle - directions.angle(group, np.full(len(group), k)))) for k in range(4)])
    if directions.oblique:
        off[2:, (length < _OBLIQUE_PX) | (off[:2].min(axis=0) < np.sin(np.radians(_APART * 0.6)))] = 2
    else:
        off[2:] = 2
    walls = replace(sides, label=off.argmin(axis=0))
    return walls.select(walls.label != walls.label[walls.before])


def _drop(outlines: Outlines, walls: Walls, directions: Directions, price_px2: float) -> Walls:
    """Without the walls that cost more than they are worth; of each ring the cheapest is taken out first."""
    done: list[Walls] = []
    walls = walls.select(walls.count >= 4)
    while len(walls.ring):
        angle = directions.angle(outlines.rings.group[walls.ring], walls.label)
        gain, parallel = _gain(outlines, walls, angle, price_px2)
        best = _apart(walls, gain, np.where(parallel, 2, 1))
        busy = np.zeros(outlines.rings.size.shape, bool)
        busy[walls.ring[best]] = True
        done.append(walls.select(~busy[walls.ring]))
        gone = np.zeros(len(walls.ring), bool)
        gone[best] = True
        gone[walls.after[best[parallel[best]]]] = True
        start = walls.start.copy()
        cut = best[~parallel[best]]  # its stretch is halved between its neighbours
        begin, end = outlines.stretch(walls)
        ring = walls.ring[cut]
        start[walls.after[cut]] = ((begin[cut] + end[cut]) // 2 - outlines.base[ring]) % outlines.rings.size[ring]
        walls = replace(walls, start=start).select(busy[walls.ring] & ~gone).sorted()
    return Walls(
        *(
            np.concatenate([getattr(part, name) for part in done] or [np.empty(0, np.int64)])
            for name in ("ring", "start", "label")
        )
    ).sorted()


def _apart(walls: Walls, gain: Array, saved: Array) -> Array:
    """Walls to take out at once: each gains more than its neighbours do; where too few would be left, the best only."""
    order = np.lexsort([np.arange(len(gain)), -gain])
    rank = np.empty(len(gain), np.int64)
    rank[order] = np.arange(len(gain))  # 0 gains most
    peak = gain > 0
    up = down = np.arange(len(gain))
    for _ in range(3):
        up, down = walls.after[up], walls.before[down]
        peak &= (rank <= rank[up]) & (rank <= rank[down])
    left = walls.count - np.bincount(walls.ring, saved * peak)[walls.ring]
    best = np.minimum.reduceat(rank, np.flatnonzero(walls.first))[np.cumsum(walls.first) - 1]
    return np.flatnonzero(peak & ((left >= 4) | (rank == best)))


def _gain(outlines: Outlines, walls: Walls, angle: Array, price_px2: float) -> tuple[Array, Array]:
    """What is won by taking out each wall, in px2; and whether that joins its neighbours to one."""
    offset, sense = outlines.lines(walls, angle)
    corners = _corners(walls, angle, offset)
    before, after = walls.before, walls.after
    run = corners - corners[before]
    length = (run[:, 0] * np.cos(angle) + run[:, 1] * np.sin(angle)) * sense
    parallel = walls.label[before] == walls.label[after]
    jog = np.minimum(np.abs(length[before]), np.abs(length[after])) * np.abs(length)
    # neighbours that are not parallel are drawn out until they meet
    turn = np.abs(np.sin(angle[after] - angle[before]))
    both = np.abs(np.sin(angle - angle[before]) * np.sin(angle[after] - angle))
    chamfer = length**2 / 2 * both / np.maximum(turn, 1e-9)
    saved = np.where(parallel, 2, 1)
    gain = (saved + 2 * (walls.label > 1)) * price_px2 - np.where(length < 0, 0, np.where(parallel, jog, chamfer))
    gain = np.where(length < _SHORTEST_PX, np.maximum(gain, _SHORTEST_PX - length), gain)
    back = parallel & (sense[before] != sense[after])
    return np.where(back | (walls.count - saved < 4), -np.inf, gain), parallel


def _break_at_corners(outlines: Outlines, walls: Walls, directions: Directions) -> Walls:
    """Each wall begins at the vertex of the ring that is nearest to its first corner."""
    angle = directions.angle(outlines.rings.group[walls.ring], walls.label)
    corners = _corners(walls, angle, outlines.lines(walls, angle)[0])
    begin, end = outlines.stretch(walls)
    low = (begin + end) // 2 + 1
    size = outlines.rings.size[walls.ring]
    high = low[walls.after] + np.where(walls.last, size, 0)
    count = high - low
    first = np.cumsum(count) - count
    wall = np.repeat(np.arange(len(count)), count)
    at = np.arange(len(wall)) - first[wall] + low[wall]
    at = at - np.where(at >= outlines.base[walls.ring[wall]] + 2 * size[wall], size[wall], 0)
    away = ((outlines.xy[at] - corners[wall]) ** 2).sum(axis=1)
    nearest = at[np.lexsort([away, wall])[first]]
    start = np.empty_like(walls.start)
    start[walls.after] = (nearest - outlines.base[walls.ring]) % size
    return replace(walls, start=start).sorted()


def _refine(outlines: Outlines, walls: Walls, directions: Directions) -> Directions:
    """The directions about which the outline scatters least, given which stretches of it are walls."""
    rings = outlines.rings
    xx, xy, yy = outlines.scatter(walls)
    group = rings.group[walls.ring]
    turned = np.pi / 2 * (walls.label % 2) + np.where(directions.locked & (walls.label > 1), np.pi / 4, 0)
    cos2, sin2 = np.cos(2 * turned), np.sin(2 * turned)
    even, odd = (xx - yy) * cos2 + 2 * xy * sin2, 2 * xy * cos2 - (xx - yy) * sin2
    found = []
    for old, own in ((directions.main, (walls.label < 2) | directions.locked), (directions.other, walls.label > 1)):
        total = [np.bincount(group[own], part[own], len(old)) for part in (even, odd)]
        new = np.arctan2(total[1], total[0]) / 2
        step = (new - old + np.pi / 4) % (np.pi / 2) - np.pi / 4
        found.append(old + np.where(np.hypot(*total) > 1e-9, np.clip(step, -0.2, 0.2), 0))
    main, other = found
    near = np.abs((other - main + np.pi / 4) % (np.pi / 2) - np.pi / 4) < np.radians(_APART)
    other = np.where(near, directions.other, other)
    return replace(directions, main=main, other=main + np.pi / 4 if directions.locked else other)


def common_directions(outlines: Outlines, groups: int) -> tuple[Array, Array]:
    """The two commonest directions (g,) of the sides of each group, in radians modulo the right angle."""
    sides, angle, length = _sides(outlines)
    degrees = np.degrees(angle) % 90
    where = outlines.rings.group[sides.ring]
    votes = np.bincount(where * _BINS + degrees.astype(np.int64) % _BINS, length**1.5, groups * _BINS)
    votes = votes.reshape(groups, _BINS)
    smooth = sum(np.roll(votes, k, axis=1) * np.exp(-((k / 4) ** 2)) for k in range(-8, 9))
    main = smooth.argmax(axis=1)
    away = np.abs((np.arange(_BINS) - main[:, None] + 45) % 90 - 45)
    other = np.where(away > _APART, smooth, -1).argmax(axis=1)
    return np.radians(main + 0.5), np.radians(other + 0.5)
