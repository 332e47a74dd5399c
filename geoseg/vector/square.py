"""Buildings squared as a change of arcs: what touches a building moves with it, so that the coverage stays one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely

from geoseg.vector.arcs import Arcs, groups_of, runs_of, twice_area
from geoseg.vector.footprints import Directions, Fit, Outlines, Rings, Walls, common_directions, fit, unfitted
from geoseg.vector.outlines import Course, Coverage, Lines, Party, Steps, cut, raw_rings

Array = np.ndarray[Any, Any]

_GRID = 1024
"""New vertices lie on this part of half a pixel: exact in float64, and fine enough for right angles at short walls."""

_CLEAR = 0.5
"""Half pixels by which other boundaries keep clear of new outlines between their nodes."""

_OBLIQUE_PRICE = 3
"""How many times the price of a wall an oblique one costs: it must be plain to be drawn."""

_FREE_PRICE = 4
"""And a side that has no direction in common with any other, such as those of round outlines."""


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
    coverage = Coverage.of(arcs, raw, fixed)
    group = _groups(coverage, buildings)
    if not (group >= 0).any():
        return arcs
    group = _one_group_a_node(coverage, group)
    plan = _Plan.of(coverage, group, rule, pixel_m)
    accepted = plan.fits & ~_unlike(coverage, plan, plan.apply(plan.fits)[0], rule.least_iou)
    while True:
        changed, due = plan.apply(accepted)
        bad = _offences(coverage, plan, changed, due) | _resized(coverage, plan, changed, due, rule.least_iou)
        bad &= accepted
        if not bad.any():
            return changed
        accepted = accepted & ~bad


def _groups(coverage: Coverage, buildings: Array) -> Array:
    """(n,): one number for buildings that touch along an arc; -1 for all that is not squared."""
    arcs, node = coverage.arcs, coverage.node
    stiff = np.zeros(len(coverage.node_xy), bool)
    stiff[node[coverage.fixed]] = True
    held = coverage.fixed | stiff[node].any(axis=1)
    free = buildings.copy()
    touching = np.concatenate([arcs.left[held], arcs.right[held]])
    free[touching[touching >= 0]] = False
    shared = (coverage.sides(free.astype(np.int64)) > 0).all(axis=1)
    group = groups_of(arcs.sides[shared], len(free))[1]
    numbers = np.full(len(free), -1)
    numbers[free] = np.unique(group[free], return_inverse=True)[1]
    return numbers


def _one_group_a_node(coverage: Coverage, group: Array) -> Array:
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

    coverage: Coverage
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
    def of(cls, coverage: Coverage, group: Array, rule: SquareRule, pixel_m: tuple[float, float]) -> _Plan:
        """The best outlines of all groups."""
        height, width = pixel_m
        scale = np.array([width, height]) / np.sqrt(height * width) / 2
        rings, steps = raw_rings(coverage, group, scale)
        groups = int(group.max()) + 1
        walls, corners, angle = _best_fit(rings, groups, rule)
        course = Course(walls, corners, len(rings))
        lines, places, party = _drawn(rings, steps, coverage, course, Party.of(coverage, group, angle, scale))
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
        xy = lines.xy[runs_of(begin, count, np.where(lines.forward, 1, -1))] / scale
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
        xy = np.concatenate([arcs.xy, self.xy])[runs_of(begin, count, np.ones_like(count))]
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


def _drawn(rings: Rings, steps: Steps, coverage: Coverage, course: Course, party: Party) -> tuple[Lines, Array, Party]:
    """New lines, the places (k, 2) of all nodes, in pixels on the ground, and the party walls between them."""
    places = party.meet(party.places)
    lines = cut(rings, steps, coverage, course, places)
    places[lines.node] = lines.xy[lines.ends[:-1]]
    party = party.drawn_to(places)  # nodes that are corners of the outline stay there: walls follow
    places = party.meet(party.places)
    lines = cut(rings, steps, coverage, course, places)
    places[lines.node] = lines.xy[lines.ends[:-1]]
    return lines, places, party


def _unlike(coverage: Coverage, plan: _Plan, changed: Arcs, least_iou: float) -> Array:
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
    at = runs_of(begin, count, np.ones_like(count))
    lines = shapely.linestrings(arcs.xy[at], indices=np.repeat(np.arange(len(count)), count))
    return lines, owner


def _offences(coverage: Coverage, plan: _Plan, changed: Arcs, due: Array) -> Array:
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


def _resized(coverage: Coverage, plan: _Plan, changed: Arcs, due: Array, least_iou: float) -> Array:
    """(g,) bool: whether a building has become so much smaller or larger that it cannot be the same.

    Or whether anything has been turned inside out, which crosses nothing where two do it together.
    """
    before, after = (_areas(arcs, len(plan.group)) for arcs in (coverage.raw, changed))
    wrong = (plan.group >= 0) & ~((after >= least_iou * before) & (least_iou * after <= before))
    resized = np.zeros(len(plan.fits) + 1, bool)  # the last for what is due to none
    resized[plan.group[wrong]] = True
    resized[due[coverage.sides((before > 0) & (after <= 0)).max(axis=1) > 0]] = True
    return resized[:-1]


def _areas(arcs: Arcs, count: int) -> Array:
    """(count,) float64: the area of each component, negative where it is inside out; an open one has no area."""
    swept = -twice_area(arcs.xy, arcs.ends) / 2  # to the left, where the component lies, as rows run downwards
    areas = np.zeros(count)
    for side, sign in ((arcs.left, 1), (arcs.right, -1)):
        inner = side >= 0
        areas += np.bincount(side[inner], sign * swept[inner], count)
    return areas


def _overrun(coverage: Coverage, plan: _Plan, changed: Arcs) -> Array:
    """(g,) bool: whether what lies apart, such as an island, has come to lie inside a building, or outside."""
    net = groups_of(coverage.node, len(coverage.node_xy))[1][coverage.node[:, 0]]
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
