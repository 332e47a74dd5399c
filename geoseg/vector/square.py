"""Buildings squared as a change of arcs: what touches a building moves with it, so that the coverage stays one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoseg.vector.arcs import Arcs
from geoseg.vector.footprints import Directions, Fit, Outlines, Rings, Walls, common_directions, fit, unfitted

Array = np.ndarray[Any, Any]

_GRID = 1024
"""New vertices lie on this part of half a pixel: exact in float64, and fine enough for right angles at short walls."""

_APART_PX = 0.25
"""Nodes of a ring are kept apart by this."""

_CORNER_PX = 1.0
"""A node that is nearer to a corner is put on it: a boundary that ends there can leave to either side."""

_STAIRS_PX = 1.0
"""A vertex that is nearer to the line past it is none of a building: stairs leave the line that they draw by 0.7."""

_CLEAR = 0.5
"""Half pixels by which other boundaries keep clear of new outlines between their nodes."""

_STRAIGHT_PX = 1.5
"""A wall between two buildings that leaves its line by more is not one wall."""

_OBLIQUE_PRICE = 3
"""How many times the price of a wall an oblique one costs: it must be plain to be drawn."""

_FREE_PRICE = 4
"""And a side that has no direction in common with any other, such as those of round outlines."""

_TURNS = (1, 0, 3)
"""Left first: where a component meets itself at a corner only, its outline stays with the pixel that it goes round."""


@dataclass(frozen=True)
class SquareRule:
    """How far a building may be changed to make it regular."""

    least_iou: float = 0.8
    """Intersection over union with the footprint that pixels draw; below it the building stays as it was."""
    most_shift_px: float = 2.0
    """How far a node, where another boundary ends at the building, may be moved."""
    price_px2: float = 1.5
    """The area that may be misplaced to save a vertex."""


def square(
    arcs: Arcs, raw: Arcs, buildings: Array, fixed: Array, rule: SquareRule, pixel_m: tuple[float, float]
) -> Arcs:
    """Buildings get few straight walls at right angles on the ground, and no gap or overlap opens.

    `raw` are the same arcs as pixels drew them; `buildings` (n,) bool says which components are buildings; `fixed`
    (m,) bool which arcs must not change: a building that has one, or a node of one, is not squared. `pixel_m` is
    (height, width) of a pixel on the ground, in any unit. Buildings that touch are squared together. Round and oblique
    walls stay so where squares would misplace too much. All arcs, in their order, with xy float64.
    """
    arcs = replace(arcs, xy=np.asarray(arcs.xy, np.float64))
    coverage = _Coverage.of(arcs, raw, fixed)
    group = _groups(coverage, buildings)
    if not (group >= 0).any():
        return arcs
    group = _one_group_a_node(coverage, group)
    plan = _Plan.of(coverage, group, rule, pixel_m)
    accepted = plan.fits & ~_unlike(coverage, plan, plan.apply(plan.fits)[0], rule.least_iou)
    while True:
        changed, due = plan.apply(accepted)
        bad = _offences(coverage, plan, changed, due)
        if not bad.any():
            return changed
        accepted = accepted & ~bad


@dataclass(frozen=True)
class _Coverage:
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
    def of(cls, arcs: Arcs, raw: Arcs, fixed: Array) -> _Coverage:
        """Nodes are where arcs begin and end."""
        tips = np.stack([arcs.xy[arcs.ends[:-1]], arcs.xy[arcs.ends[1:] - 1]], axis=1)  # (m, 2, 2)
        places, node = np.unique(tips[..., 0] + 1j * tips[..., 1], return_inverse=True)
        return cls(arcs, raw, fixed, node.reshape(-1, 2), np.stack([places.real, places.imag], axis=1))

    @cached_property
    def degree(self) -> Array:
        """Number of arcs' ends at each node."""
        return np.bincount(self.node.ravel(), minlength=len(self.node_xy))

    def sides(self, of_component: Array) -> Array:
        """(m, 2): what an array says of the components to the left and right of each arc, -1 of the outside."""
        both = np.stack([self.arcs.left, self.arcs.right], axis=1)
        return np.where(both < 0, -1, of_component[both])


def _groups(coverage: _Coverage, buildings: Array) -> Array:
    """(n,): one number for buildings that touch along an arc; -1 for all that is not squared."""
    arcs, node = coverage.arcs, coverage.node
    stiff = np.zeros(len(coverage.node_xy), bool)
    stiff[node[coverage.fixed]] = True
    held = coverage.fixed | stiff[node].any(axis=1)
    free = buildings.copy()
    touching = np.concatenate([arcs.left[held], arcs.right[held]])
    free[touching[touching >= 0]] = False
    shared = (coverage.sides(free.astype(np.int64)) > 0).all(axis=1)
    graph = coo_array((np.ones(shared.sum(), bool), (arcs.left[shared], arcs.right[shared])), shape=(len(free),) * 2)
    _, group = connected_components(graph, directed=False)
    numbers = np.full(len(free), -1)
    numbers[free] = np.unique(group[free], return_inverse=True)[1]
    return numbers


def _one_group_a_node(coverage: _Coverage, group: Array) -> Array:
    """Where two groups touch at a corner, the one with the longer outline is squared: a node can go one way only."""
    sides = coverage.sides(group)
    edge = np.flatnonzero((sides.max(axis=1) >= 0) & (sides.min(axis=1) < 0))
    owner, raw = sides.max(axis=1)[edge], coverage.raw
    node, member = np.unique(np.stack([coverage.node[edge].ravel(), np.repeat(owner, 2)]), axis=1)
    # the place of an outline decides between those of one length, whatever the order of arcs
    sums = [np.add.reduceat(part, raw.ends[:-1])[edge] for part in (*raw.xy.T.astype(np.float64), np.ones(len(raw.xy)))]
    rank = np.argsort(np.lexsort([np.bincount(owner, part, group.max() + 1) for part in sums]))
    best = np.full(len(coverage.node_xy), -1)
    np.maximum.at(best, node, rank[member])
    kept = np.ones(len(rank), bool)
    kept[member[rank[member] < best[node]]] = False
    return np.where((group >= 0) & kept[group], (np.cumsum(kept) - 1)[group], -1)


def _best_fit(rings: Rings, groups: int, rule: SquareRule) -> tuple[Walls, Array, Array]:
    """The walls (w) of the best fit of each ring, the corners (w, 2) at which they end, the direction (g,) of groups.

    Squares compete with outlines that have oblique walls as well, and with such as have no direction. Area misplaced
    and vertices are weighed against each other. Rings that are too small to have a fit are missing.
    """
    outlines = Outlines(rings)
    main, other = common_directions(outlines, groups)
    plain = Directions(main, main + np.pi / 4, oblique=False, locked=True)
    families = (plain, replace(plain, oblique=True), Directions(main, other, oblique=True, locked=False))
    fits = [*(fit(outlines, directions, rule.price_px2) for directions in families), unfitted(outlines)]
    best = np.full(len(rings), -1)
    least = np.full(len(rings), np.inf)
    for k, found in enumerate(fits):
        dear = np.where(found.walls.label > 1, _OBLIQUE_PRICE, 1) if len(found.main) else _FREE_PRICE
        price = np.broadcast_to(rule.price_px2 * dear, found.walls.ring.shape)
        cost = found.misplaced + np.bincount(found.walls.ring, price, len(rings))
        cost[~_simple(found, len(rings))] = np.inf
        best = np.where(cost < least, k, best)
        least = np.minimum(cost, least)
    chosen = [best[found.walls.ring] == k for k, found in enumerate(fits)]
    parts = [found.walls.select(own) for own, found in zip(chosen, fits, strict=True)]
    walls = Walls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("ring", "start", "label")))
    corners = np.concatenate([found.corners[own] for own, found in zip(chosen, fits, strict=True)])
    order = np.lexsort([walls.start, walls.ring])
    return walls.select(order), corners[order], fits[0].main


def _simple(found: Fit, count: int) -> Array:
    """(r,) bool: which rings have a new outline, and one that does not meet itself."""
    ring = found.walls.ring
    enough = np.bincount(ring, minlength=count) > 2
    good = np.zeros(count, bool)
    if enough.any():
        number = np.cumsum(enough) - 1
        lines = shapely.linearrings(found.corners[enough[ring]], indices=number[ring[enough[ring]]])
        good[enough] = shapely.is_simple(lines)
    return good


@dataclass(frozen=True)
class _Plan:
    """New outlines of all groups, cut into arcs; any of them can be put back."""

    coverage: _Coverage
    group: Array
    """(n,): the group of each component, -1 for none."""
    fits: Array
    """(g,) bool: whether a group has a new outline."""
    arc: Array
    """(a,): arcs with a new line, one after the other."""
    arc_group: Array
    """(a,): the group of each."""
    arc_ends: Array
    """(a + 1,): as `Arcs.ends`."""
    xy: Array
    """(n, 2): the vertices of the new lines, in half pixels."""
    node: Array
    """(b,): nodes with a new place."""
    node_group: Array
    """(b,): the group of each."""
    node_xy: Array
    """(b, 2): the places, in half pixels."""
    areas: Array
    """(g,): polygons of the groups, in half pixels."""
    raw_areas: Array
    """(g,): as pixels drew them."""

    @classmethod
    def of(cls, coverage: _Coverage, group: Array, rule: SquareRule, pixel_m: tuple[float, float]) -> _Plan:
        """The best outlines of all groups."""
        height, width = pixel_m
        scale = np.array([width, height]) / np.sqrt(height * width) / 2
        rings, steps = _raw_rings(coverage, group, scale)
        groups = int(group.max()) + 1
        walls, corners, angle = _best_fit(rings, groups, rule)
        course = _Course(walls, corners, len(rings))
        lines, places, party = _drawn(rings, steps, coverage, course, _Party.of(coverage, group, angle, scale))
        owner = rings.group[lines.ring]
        shift = np.hypot(*(places - coverage.node_xy * scale).T)[lines.node]
        far = (shift > rule.most_shift_px) & (coverage.degree[lines.node] > 2)
        torn = np.bincount(lines.node, minlength=len(places))[lines.node] > 1  # its outline meets itself at this node
        fits = np.bincount(rings.group, course.around > 0, groups) > 0
        fits[owner[far | ~lines.ordered | torn]] = False
        places = np.round(places / scale * _GRID) / _GRID
        inner, inner_owner = party.inner(lines.node)
        node = np.concatenate([lines.node, inner])
        count = np.diff(lines.ends)
        begin = np.where(lines.forward, lines.ends[:-1], lines.ends[1:] - 1)
        xy = lines.xy[_runs(begin, count, np.where(lines.forward, 1, -1))] / scale
        kept = (course.around == 0)[rings.of_vertex]  # rings that stay as they are
        ring, corner = np.append(walls.ring, rings.of_vertex[kept]), np.concatenate([corners, rings.xy[kept]])
        order = np.argsort(ring, kind="stable")
        return cls(
            coverage=coverage,
            group=group,
            fits=fits,
            arc=np.append(lines.arc, party.arc),
            arc_group=np.append(owner, party.owner),
            arc_ends=np.append(lines.ends, lines.ends[-1] + 2 * np.arange(1, len(party.arc) + 1)),
            xy=np.concatenate([np.round(xy * _GRID) / _GRID, np.zeros((2 * len(party.arc), 2))]),
            node=node,
            node_group=np.append(owner, inner_owner),
            node_xy=places[node],
            areas=_assembled(rings.group, corner[order] / scale, ring[order]),
            raw_areas=_assembled(rings.group, rings.xy / scale, rings.of_vertex),
        )

    def apply(self, accepted: Array) -> tuple[Arcs, Array]:
        """All arcs with the outlines of the groups that are accepted, and (m, 4) to which groups a change is due.

        An arc is changed by the groups at its nodes, by that of which it is an outline, and by one that has taken the
        vertices that lie where a building is now; -1 stands for no change.
        """
        arcs, node = self.coverage.arcs, self.coverage.node
        mine, moved = accepted[self.arc_group], accepted[self.node_group]
        count, begin = np.diff(arcs.ends), arcs.ends[:-1].copy()
        count[self.arc[mine]] = np.diff(self.arc_ends)[mine]
        begin[self.arc[mine]] = self.arc_ends[:-1][mine] + len(arcs.xy)
        xy = np.concatenate([arcs.xy, self.xy])[_runs(begin, count, np.ones_like(count))]
        ends = np.append(0, np.cumsum(count))
        places, by_node = self.coverage.node_xy.copy(), np.full(len(self.coverage.node_xy), -1)
        places[self.node[moved]], by_node[self.node[moved]] = self.node_xy[moved], self.node_group[moved]
        xy[ends[:-1]], xy[ends[1:] - 1] = places[node].transpose(1, 0, 2)
        by_line = np.full(len(count), -1)
        by_line[self.arc[mine]] = self.arc_group[mine]
        lost, by_area = self._overbuilt(xy, ends, accepted)
        kept = np.append(0, np.cumsum(~lost))
        due = np.column_stack([by_node[node], by_line, by_area])
        return Arcs(xy[~lost], kept[ends], arcs.left, arcs.right), due

    def _overbuilt(self, xy: Array, ends: Array, accepted: Array) -> tuple[Array, Array]:
        """Which vertices (n,) of other arcs lie in a new building or close to it; and in which (m,), -1 for none."""
        loose = ~self.coverage.fixed & (self.coverage.sides(self.group) < 0).all(axis=1)
        owner = np.repeat(np.arange(len(loose)), np.diff(ends))
        inner = loose[owner]
        inner[ends[:-1]] = inner[ends[1:] - 1] = False
        at, groups = np.flatnonzero(inner), np.flatnonzero(accepted)
        tree = shapely.STRtree(shapely.points(xy[at]))
        hit, vertex = tree.query(self.areas[groups], predicate="dwithin", distance=_CLEAR)
        lost = np.zeros(len(xy), bool)
        lost[at[vertex]] = True
        left = np.diff(ends) - np.bincount(owner, lost, len(loose)).astype(np.int64)
        lost &= ((left > 3) | (self.coverage.node[:, 0] != self.coverage.node[:, 1]))[owner]  # a ring stays a ring
        by = np.full(len(loose), -1)
        by[owner[at[vertex]]] = groups[hit]
        return lost, by


def _drawn(
    rings: Rings, steps: _Steps, coverage: _Coverage, course: _Course, party: _Party
) -> tuple[_Lines, Array, _Party]:
    """New lines, the places (k, 2) of all nodes, in pixels on the ground, and the party walls between them."""
    places = party.meet(party.places)
    lines = _cut(rings, steps, coverage, course, places)
    places[lines.node] = lines.xy[lines.ends[:-1]]
    party = party.drawn_to(places)  # nodes that are corners of the outline stay there: walls follow
    places = party.meet(party.places)
    lines = _cut(rings, steps, coverage, course, places)
    places[lines.node] = lines.xy[lines.ends[:-1]]
    return lines, places, party


@dataclass(frozen=True)
class _Party:
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
    def of(cls, coverage: _Coverage, group: Array, angle: Array, scale: Array) -> _Party:
        """Those walls that are straight enough, each in the nearer of its group's two directions."""
        sides = coverage.sides(group)
        arc = np.flatnonzero((sides >= 0).all(axis=1) & (coverage.node[:, 0] != coverage.node[:, 1]))
        owner, raw = sides[arc, 0], coverage.raw
        count = np.diff(raw.ends)[arc] - 1
        number = np.repeat(np.arange(len(arc)), count)
        at = _runs(raw.ends[:-1][arc], count, np.ones_like(arc))
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

    def drawn_to(self, places: Array) -> _Party:
        """Lines through the nodes that could not be put on them, for they are corners of the outline."""
        off = (places[self.node] * self.normal[:, None]).sum(axis=2) - self.offset[:, None]  # (p, 2)
        weight = np.abs(off) + 1e-9
        return replace(self, offset=self.offset + (off * weight).sum(axis=1) / weight.sum(axis=1))

    def inner(self, outer: Array) -> tuple[Array, Array]:
        """The nodes at which nothing but party walls end, and the group of each."""
        node, at = np.unique(self.node, return_index=True)
        own = ~np.isin(node, outer)
        return node[own], np.repeat(self.owner, 2)[at[own]]


def _unlike(coverage: _Coverage, plan: _Plan, changed: Arcs, least_iou: float) -> Array:
    """(g,) bool: the groups of which some building has too little in common with what pixels draw."""
    sides = np.concatenate([changed.left, changed.right])
    own = np.flatnonzero((sides >= 0) & (plan.group[sides] >= 0))
    own = own[np.argsort(sides[own], kind="stable")]
    members, number = np.unique(sides[own], return_inverse=True)
    polygons = []
    for arcs in (changed, coverage.raw):
        lines = shapely.linestrings(arcs.xy, indices=np.repeat(np.arange(len(arcs)), np.diff(arcs.ends)))
        polygons.append(shapely.build_area(shapely.multilinestrings(lines[own % len(arcs)], indices=number)))
    area = [shapely.area(part) for part in polygons]
    both = np.zeros(len(members))
    good = shapely.is_valid(polygons[0])
    both[good] = shapely.area(shapely.intersection(polygons[0][good], polygons[1][good]))
    iou = both / np.maximum(area[0] + area[1] - both, 1e-9)
    unlike: Array = np.isin(np.arange(len(plan.fits)), plan.group[members[iou < least_iou]])
    return unlike


def _pieces(arcs: Arcs) -> tuple[Array, Array]:
    """Lines of all arcs and the arc of each; closed arcs are two lines, so that each line has two ends."""
    count = np.diff(arcs.ends)
    closed = (arcs.xy[arcs.ends[:-1]] == arcs.xy[arcs.ends[1:] - 1]).all(axis=1) & (count > 2)
    half = np.where(closed, count // 2 + 1, count)
    begin = np.concatenate([arcs.ends[:-1], (arcs.ends[:-1] + half - 1)[closed]])
    count = np.concatenate([half, (count - half + 1)[closed]])
    owner = np.concatenate([np.arange(len(arcs)), np.flatnonzero(closed)])
    at = _runs(begin, count, np.ones_like(count))
    lines = shapely.linestrings(arcs.xy[at], indices=np.repeat(np.arange(len(count)), count))
    return lines, owner


def _offences(coverage: _Coverage, plan: _Plan, changed: Arcs, due: Array) -> Array:
    """(g,) bool: which groups have to be put back so that no two arcs meet but at their nodes."""
    bad = np.zeros(len(plan.fits) + 1, bool)  # the last for what is due to none
    is_changed = np.asarray((due >= 0).any(axis=1))
    lines, owner = _pieces(changed)
    mine = np.flatnonzero(is_changed[owner])
    at, b = shapely.STRtree(lines).query(lines[mine], predicate="intersects")
    a = mine[at]
    once = (a != b) & ((a < b) | ~is_changed[owner[b]])
    a, b = a[once], b[once]
    wrong = ~np.asarray(shapely.relate_pattern(lines[a], lines[b], "FF*F*****"))
    crooked = mine[~np.asarray(shapely.is_simple(lines[mine]))]
    bad[due[owner[np.concatenate([a[wrong], b[wrong], crooked])]]] = True
    tips = (changed.xy[changed.ends[:-1]] == changed.xy[changed.ends[1:] - 1]).all(axis=1)
    bad[due[tips & (coverage.node[:, 0] != coverage.node[:, 1])]] = True
    used = np.isin(np.arange(len(plan.fits)), due)
    return bad[:-1] | (_overrun(coverage, plan, changed) & used)


def _overrun(coverage: _Coverage, plan: _Plan, changed: Arcs) -> Array:
    """(g,) bool: whether what lies apart, such as an island, has come to lie inside a building, or outside."""
    count = len(coverage.node_xy)
    graph = coo_array((np.ones(len(coverage.node), bool), tuple(coverage.node.T)), shape=(count, count))
    net = connected_components(graph, directed=False)[1][coverage.node[:, 0]]
    nets, first = np.unique(net, return_index=True)
    code = np.int64(len(nets))
    own = np.unique(plan.arc_group * code + net[plan.arc])
    inside = []
    before, after = coverage.raw.xy[coverage.raw.ends[first]], changed.xy[changed.ends[first]]
    for areas, xy in ((plan.raw_areas, before), (plan.areas, after)):
        group, at = shapely.STRtree(shapely.points(xy)).query(areas, predicate="contains")
        inside.append(group * code + at)
    moved = np.setdiff1d(np.setxor1d(*inside), own)
    overrun: Array = np.isin(np.arange(len(plan.fits)), moved // code)
    return overrun


@dataclass(frozen=True)
class _Steps:
    """Arcs in the order in which the outlines of groups run along them, the group to their left."""

    arc: Array
    """(h,) int64."""
    forward: Array
    """(h,) bool: whether the outline runs along the arc or against it."""
    ring: Array
    """(h,) int64."""
    position: Array
    """(h,) int64: the vertex of the ring at which the arc begins."""


def _steps(coverage: _Coverage, group: Array) -> _Steps:
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
    sequence, ring = _cycles(following)
    return _Steps(arc[sequence], along[sequence], ring, np.zeros(len(arc), np.int64))


def _heading(step: Array) -> Array:
    """0 for east, 1 north, 2 west, 3 south, on an image with row 0 on top."""
    return np.where(step[:, 1] == 0, np.where(step[:, 0] > 0, 0, 2), np.where(step[:, 1] < 0, 1, 3))


def _cycles(following: Array) -> tuple[Array, Array]:
    """The members of a permutation cycle by cycle, and the number of the cycle of each."""
    after = following.tolist()
    seen = [False] * len(after)
    sequence, ring = [], []
    count = 0
    for begin in range(len(after)):
        if seen[begin]:
            continue
        at = begin
        while not seen[at]:
            seen[at] = True
            sequence.append(at)
            ring.append(count)
            at = after[at]
        count += 1
    return np.asarray(sequence, np.int64), np.asarray(ring, np.int64)


def _runs(start: Array, count: Array, step: Array) -> Array:
    """start, start + step, ... of each run, `count` of them, one run after the other."""
    first = np.cumsum(count) - count
    indices: Array = np.repeat(start - first * step, count) + np.arange(count.sum()) * np.repeat(step, count)
    return indices


def _raw_rings(coverage: _Coverage, group: Array, scale: Array) -> tuple[Rings, _Steps]:
    """The outlines of all groups, each beginning at its topmost, leftmost vertex, and the arcs along them."""
    steps = _steps(coverage, group)
    raw, arc = coverage.raw, steps.arc
    count = np.diff(raw.ends)[arc] - 1
    begin = np.where(steps.forward, raw.ends[:-1][arc], raw.ends[1:][arc] - 1)
    xy = raw.xy[_runs(begin, count, np.where(steps.forward, 1, -1))].astype(np.float64)
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


class _Course:
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
class _Lines:
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


def _cut(rings: Rings, steps: _Steps, coverage: _Coverage, course: _Course, places: Array) -> _Lines:
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
    return _Lines(arc, steps.forward[at], ring, node, room[np.cumsum(head) - 1], xy[source], ends)


def _stations(rings: Rings, course: _Course, ring: Array, position: Array, xy: Array) -> Array:
    """How far along the new outline points are that were at vertices of the ring; less than 0 before the first wall."""
    walls = course.walls
    reach = int(rings.size.max()) + 1
    wall = np.searchsorted(walls.ring * reach + walls.start, ring * reach + position, side="right") - 1
    early = wall < np.searchsorted(walls.ring, ring)
    wall = np.where(early, np.searchsorted(walls.ring, ring, side="right") - 1, wall)
    along: Array = course.nearest(wall, xy) - np.where(early, course.around[ring], 0)
    return along


def _merged(course: _Course, ring: Array, along: Array, first: Array) -> tuple[Array, Array]:
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


def _assembled(group: Array, xy: Array, ring: Array) -> Array:
    """The polygon of each group, of the rings that its outline consists of."""
    order = np.argsort(group, kind="stable")
    outlines = shapely.multilinestrings(shapely.linearrings(xy, indices=ring)[order], indices=group[order])
    try:
        areas: Array = shapely.build_area(outlines)
    except shapely.errors.GEOSException:  # outlines that cross themselves, which are no use: find out which
        areas = np.array([_assembled_or_nothing(outline) for outline in outlines])
    return areas


def _assembled_or_nothing(outline: shapely.MultiLineString) -> shapely.Geometry:
    try:
        return shapely.build_area(outline)
    except shapely.errors.GEOSException:
        return shapely.Polygon()
