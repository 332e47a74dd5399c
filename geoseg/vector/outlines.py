"""Outlines of groups of components as arcs, and new outlines cut into arcs again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geoseg.vector.arcs import follow, runs_of
from geoseg.vector.footprints import Rings

if TYPE_CHECKING:
    from geoseg.vector.arcs import Arcs
    from geoseg.vector.footprints import Walls

Array = np.ndarray[Any, Any]

_STRAIGHT_PX = 1.5
"""A wall between two buildings that leaves its line by more is not one wall."""

_APART_PX = 0.25
"""Nodes of a ring are kept apart by this."""

_CORNER_PX = 1.0
"""A node that is nearer to a corner is put on it: a boundary that ends there can leave to either side."""

_STAIRS_PX = 1.0
"""A vertex that is nearer to the line past it is none of a building: stairs leave the line that they draw by 0.7."""

_TURNS = (1, 0, 3)
"""Left first: where a component meets itself at a corner only, its outline stays with the pixel that it goes round."""


@dataclass(frozen=True)
class Coverage:
    """Arcs with their nodes."""

    arcs: Arcs
    raw: Arcs
    """The same arcs as pixels drew them."""
    fixed: Array
    """(m,) bool: which must not change."""
    node: Array
    """(m, 2): the node at which each arc begins and ends; closed arcs that meet nothing have one of their own."""
    node_xy: Array
    """(k, 2): where nodes are, in half pixels."""

    @classmethod
    def of(cls, arcs: Arcs, raw: Arcs, fixed: Array) -> Coverage:
        """Nodes are where arcs begin and end."""
        tips = arcs.tips
        places, node = np.unique(tips[..., 0] + 1j * tips[..., 1], return_inverse=True)
        return cls(arcs, raw, fixed, node.reshape(-1, 2), np.stack([places.real, places.imag], axis=1))

    @cached_property
    def degree(self) -> Array:
        """Number of arcs' ends at each node."""
        return np.bincount(self.node.ravel(), minlength=len(self.node_xy))

    def sides(self, of_component: Array) -> Array:
        """(m, 2): what an array says of the components to the left and right of each arc, -1 of the outside."""
        both = self.arcs.sides
        return np.where(both < 0, -1, of_component[both])


@dataclass(frozen=True)
class Steps:
    """Arcs in the order in which the outlines of groups run along them, the group to their left."""

    arc: Array
    """(h,) int64."""
    forward: Array
    """(h,) bool: whether the outline runs along the arc or against it."""
    ring: Array
    """(h,) int64."""
    position: Array
    """(h,) int64: the vertex of the ring at which the arc begins."""


def _steps(coverage: Coverage, group: Array) -> Steps:
    """The outlines of all groups, as arcs; `position` is not known yet."""
    sides = coverage.sides(group)
    forward = (sides[:, 0] >= 0) & (sides[:, 1] < 0)
    backward = (sides[:, 1] >= 0) & (sides[:, 0] < 0)
    arc = np.concatenate([np.flatnonzero(forward), np.flatnonzero(backward)])
    along = np.arange(len(arc)) < forward.sum()
    owner = sides.max(axis=1)[arc]
    tail, head = np.where(along, coverage.node[arc].T, coverage.node[arc].T[::-1])
    raw = coverage.raw
    first = _heading(raw.xy[raw.ends[:-1] + 1] - raw.xy[raw.ends[:-1]])[arc]
    last = _heading(raw.xy[raw.ends[1:] - 1] - raw.xy[raw.ends[1:] - 2])[arc]
    leave, arrive = np.where(along, first, (last + 2) % 4), np.where(along, last, (first + 2) % 4)
    base = owner * len(coverage.node_xy)
    keys = (base + tail) * 4 + leave
    order = np.argsort(keys)
    following = np.full(len(arc), -1)
    for turn in _TURNS:
        wanted = (base + head) * 4 + (arrive + turn) % 4
        at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(arc) - 1)]
        following = np.where((following < 0) & (keys[at] == wanted), at, following)
    sequence, ends = follow(following)
    ring = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    return Steps(arc[sequence], along[sequence], ring, np.zeros(len(arc), np.int64))


def _heading(step: Array) -> Array:
    """0 for east, 1 north, 2 west, 3 south, on an image with row 0 on top."""
    return np.where(step[:, 1] == 0, np.where(step[:, 0] > 0, 0, 2), np.where(step[:, 1] < 0, 1, 3))


def raw_rings(coverage: Coverage, group: Array, scale: Array) -> tuple[Rings, Steps]:
    """The outlines of all groups, each beginning at its topmost, leftmost vertex, and the arcs along them."""
    steps = _steps(coverage, group)
    raw, arc = coverage.raw, steps.arc
    count = np.diff(raw.ends)[arc] - 1
    begin = np.where(steps.forward, raw.ends[:-1][arc], raw.ends[1:][arc] - 1)
    xy = raw.xy[runs_of(begin, count, np.where(steps.forward, 1, -1))].astype(np.float64)
    size = np.bincount(steps.ring, count).astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(size)])
    ring = np.repeat(np.arange(len(size)), size)
    shift = np.lexsort([xy[:, 0], xy[:, 1], ring])[ends[:-1]] - ends[:-1]
    turned = ends[ring] + (np.arange(len(ring)) - ends[ring] + shift[ring]) % size[ring]
    position = (np.cumsum(count) - count - ends[steps.ring] - shift[steps.ring]) % size[steps.ring]
    xy = xy[turned] * scale
    coarse = shapely.simplify(shapely.linearrings(xy, indices=ring), _STAIRS_PX, preserve_topology=False)
    corners = shapely.get_coordinates(coarse)
    kept = np.isin(xy[:, 0] + 1j * xy[:, 1], corners[:, 0] + 1j * corners[:, 1])
    owner = np.empty(len(size), np.int64)
    owner[steps.ring] = coverage.sides(group).max(axis=1)[arc]
    return Rings(xy, ends, kept, owner), replace(steps, position=position)


class Course:
    """New outlines, and how far along them each wall begins."""

    def __init__(self, walls: Walls, corners: Array, count: int) -> None:
        """Of `count` rings; `corners` (w, 2) are where walls end, in pixels on the ground."""
        self.walls = walls
        self.corners = corners
        self.begin = corners[walls.before]
        self.run = corners - self.begin
        self.length = np.hypot(*self.run.T)
        self.around = np.bincount(walls.ring, self.length, count)
        self.start = np.cumsum(self.length) - self.length
        self.start -= self.start[walls.first][np.cumsum(walls.first) - 1]
        self.gap = 4 * (self.around.max() + 1)  # apart from each other, all rings lie on one line

    def nearest(self, wall: Array, xy: Array) -> Array:
        """How far along its outline that place of a wall is that is nearest to a point, or the corner beside it."""
        length = self.length[wall]
        along = ((xy - self.begin[wall]) * self.run[wall]).sum(axis=1) / np.maximum(length, 1e-9)
        along = np.where(along > length - _CORNER_PX, length, np.where(along < _CORNER_PX, 0, along))
        station: Array = self.start[wall] + along
        return station

    def xy(self, ring: Array, along: Array) -> Array:
        """The points (a, 2) that lie so far along the outlines of rings."""
        along = along % self.around[ring]
        line = self.walls.ring * self.gap + self.start
        wall = np.searchsorted(line, ring * self.gap + along + 1e-6, side="right") - 1
        part = np.clip((along - self.start[wall]) / np.maximum(self.length[wall], 1e-9), 0, 1)
        points: Array = self.begin[wall] + part[:, None] * self.run[wall]
        return points


@dataclass(frozen=True)
class Lines:
    """New lines of arcs, in the order and direction in which outlines run along them."""

    arc: Array
    """(a,) int64."""
    forward: Array
    """(a,) bool."""
    ring: Array
    """(a,) int64."""
    node: Array
    """(a,) int64: the node at which each begins."""
    ordered: Array
    """(a,) bool: whether the nodes of its ring have found room in their order."""
    xy: Array
    """(n, 2): vertices, line after line."""
    ends: Array
    """(a + 1,) int64: as `Arcs.ends`."""


def cut(rings: Rings, steps: Steps, coverage: Coverage, course: Course, places: Array) -> Lines:
    """New outlines cut where arcs begin, at the points on them that are nearest to `places` (k, 2) of the nodes."""
    use = np.flatnonzero(course.around[steps.ring] > 0)
    at = use[np.lexsort([steps.position[use], steps.ring[use]])]
    arc, ring = steps.arc[at], steps.ring[at]
    node = np.where(steps.forward[at], coverage.node[arc, 0], coverage.node[arc, 1])
    head, tail = np.diff(ring, prepend=-1) != 0, np.diff(ring, append=-1) != 0
    along = _stations(rings, course, ring, steps.position[at], places[node])
    along[coverage.degree[node] == 2] = 0  # an arc by itself may begin anywhere
    rank = np.arange(len(ring)) - np.flatnonzero(head)[np.cumsum(head) - 1]
    line = ring * course.gap - rank * _APART_PX
    ahead = np.maximum.accumulate(along + line) - line
    along = np.where(ahead - along < 1e-6, along, ahead)
    first = along[head]
    room = along[tail] <= first + course.around[ring[tail]] - _APART_PX * (rank[tail] > 0)
    xy, count = _merged(course, ring, along, first)
    index = np.cumsum(count) - count
    closing = np.append(index[1:], 0)
    closing[tail] = index[head]
    source = np.insert(np.arange(len(xy)), index + count, closing)
    ends = np.concatenate([[0], np.cumsum(count + 1)])
    return Lines(arc, steps.forward[at], ring, node, room[np.cumsum(head) - 1], xy[source], ends)


def _stations(rings: Rings, course: Course, ring: Array, position: Array, xy: Array) -> Array:
    """How far along the new outline points are that were at vertices of the ring; less than 0 before the first wall."""
    walls = course.walls
    reach = int(rings.size.max()) + 1
    wall = np.searchsorted(walls.ring * reach + walls.start, ring * reach + position, side="right") - 1
    early = wall < np.searchsorted(walls.ring, ring)
    wall = np.where(early, np.searchsorted(walls.ring, ring, side="right") - 1, wall)
    along: Array = course.nearest(wall, xy) - np.where(early, course.around[ring], 0)
    return along


def _merged(course: Course, ring: Array, along: Array, first: Array) -> tuple[Array, Array]:
    """All vertices, each node followed by the corners up to the next, and how many (a,) these are with the node."""
    begin = np.zeros(len(course.around))
    begin[ring[np.diff(ring, prepend=-1) != 0]] = first
    walls = course.walls
    corner = (course.start + course.length - begin[walls.ring]) % course.around[walls.ring]
    every = np.concatenate([along - begin[ring], corner])
    owner = np.concatenate([ring, walls.ring])
    xy = np.concatenate([course.xy(ring, along), course.corners])
    order = np.lexsort([np.arange(len(every)) >= len(ring), np.round(every, 5), owner])
    every, owner, xy, is_node = every[order], owner[order], xy[order], order < len(ring)
    same = np.append(False, (owner[1:] == owner[:-1]) & (np.abs(np.diff(every)) < 1e-4))
    kept = is_node | ~(same | (course.around[owner] - every < 1e-4))
    index = np.flatnonzero(is_node[kept])
    return xy[kept], np.diff(np.append(index, kept.sum()))


@dataclass(frozen=True)
class Party:
    """Straight walls between two buildings of a group: arcs, and the line on which each lies."""

    arc: Array
    """(p,)."""
    owner: Array
    """(p,): the group of each."""
    node: Array
    """(p, 2)."""
    normal: Array
    """(p, 2)."""
    offset: Array
    """(p,): how far from the origin the line lies, along its normal."""
    places: Array
    """(k, 2): where all nodes are as pixels drew them, in pixels on the ground as all here."""

    @classmethod
    def of(cls, coverage: Coverage, group: Array, angle: Array, scale: Array) -> Party:
        """Those walls that are straight enough, each in the nearer of its group's two directions."""
        sides = coverage.sides(group)
        arc = np.flatnonzero((sides >= 0).all(axis=1) & (coverage.node[:, 0] != coverage.node[:, 1]))
        owner, raw = sides[arc, 0], coverage.raw
        count = np.diff(raw.ends)[arc] - 1
        number = np.repeat(np.arange(len(arc)), count)
        at = runs_of(raw.ends[:-1][arc], count, np.ones_like(arc))
        middle, step = (raw.xy[at] + raw.xy[at + 1]) / 2 * scale, (raw.xy[at + 1] - raw.xy[at]) * scale
        chord = (raw.xy[raw.ends[1:] - 1] - raw.xy[raw.ends[:-1]])[arc] * scale
        heading = np.arctan2(chord[:, 1], chord[:, 0])
        heading = angle[owner] + np.round((heading - angle[owner]) / (np.pi / 2)) * (np.pi / 2)
        along = np.stack([np.cos(heading), np.sin(heading)], axis=1)
        normal = along[:, ::-1] * (-1, 1)
        off = (middle * normal[number]).sum(axis=1)
        weight = (step * along[number]).sum(axis=1)
        offset = np.bincount(number, off * weight, len(arc)) / np.bincount(number, weight, len(arc))
        away = np.abs(off - offset[number])
        straight = np.bincount(number, away > _STRAIGHT_PX, len(arc)) == 0
        arc, owner, normal, offset = arc[straight], owner[straight], normal[straight], offset[straight]
        return cls(arc, owner, coverage.node[arc], normal, offset, coverage.node_xy * scale)

    def meet(self, places: Array) -> Array:
        """Nodes (k, 2) where the lines that end at them meet; on the line, where there is one only."""
        node, normal, offset = self.node.T.ravel(), np.tile(self.normal, (2, 1)), np.tile(self.offset, 2)
        a, b = np.zeros((len(places), 2, 2)), np.zeros((len(places), 2))
        np.add.at(a, node, normal[:, :, None] * normal[:, None, :])
        off = offset - (normal * places[node]).sum(axis=1)
        np.add.at(b, node, normal * off[:, None])
        met: Array = places + np.linalg.solve(a + 1e-6 * np.eye(2), b[..., None])[..., 0]
        return met

    def drawn_to(self, places: Array) -> Party:
        """Lines through the nodes that could not be put on them, for they are corners of the outline."""
        off = (places[self.node] * self.normal[:, None]).sum(axis=2) - self.offset[:, None]  # (p, 2)
        weight = np.abs(off) + 1e-9
        return replace(self, offset=self.offset + (off * weight).sum(axis=1) / weight.sum(axis=1))

    def inner(self, outer: Array) -> tuple[Array, Array]:
        """The nodes at which nothing but party walls end, and the group of each."""
        node, at = np.unique(self.node, return_index=True)
        own = ~np.isin(node, outer)
        return node[own], np.repeat(self.owner, 2)[at[own]]
