"""Laws of outlines without stairs: the same faces meet at the same nodes, no line runs over another, none strays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from scipy import ndimage

from geoseg.frame import Box
from geoseg.vector.arcs import OUTSIDE, Arcs
from geoseg.vector.simplify import cut_corners, rings_of, simplify
from geoseg.vector.trace import components_of, trace

TOLERANCE_PX = 1.25
REACH_PX = 4.0
KINDS = ("noise", "speckled", "blobs")


def codes_of(kind, seed, size=36):
    random = np.random.default_rng(seed)
    noise = random.integers(0, 3, (size, size))
    if kind == "noise":
        return noise
    blobs = ndimage.gaussian_filter(random.normal(size=(3, size, size)), (0, 3, 3)).argmax(axis=0)
    return np.where(random.random(blobs.shape) < 0.08, noise, blobs) if kind == "speckled" else blobs


def traced(codes):
    """The arcs between the components of a raster of codes."""
    codes = np.asarray(codes, np.uint8)
    numbers, _ = components_of(codes, np.zeros_like(codes))
    return trace(numbers, Box(0, 0, *codes.shape), codes.shape)


def inner(arcs):
    """The arcs that are not the edge of the scene."""
    return (arcs.left != OUTSIDE) & (arcs.right != OUTSIDE)


def simplified(arcs, tolerance_px=TOLERANCE_PX, reach_px=REACH_PX, obstacles=None):
    return simplify(arcs, np.where(inner(arcs), tolerance_px, 0.0), reach_px=reach_px, obstacles=obstacles)


def lines_of(arcs):
    return shapely.linestrings(arcs.xy / 2, indices=np.repeat(np.arange(len(arcs)), arcs.sizes))


def polygons(arcs):
    """The polygon of each component, pixels."""
    lines, count = lines_of(arcs), max(arcs.left.max(), arcs.right.max()) + 1
    own = [np.flatnonzero((arcs.left == k) | (arcs.right == k)) for k in range(count)]
    return np.array([shapely.build_area(shapely.multilinestrings(lines[k])) for k in own])


def sorted_wkb(shapes):
    return sorted(shapely.to_wkb(shapely.normalize(shapes)))


def vertices(arcs, k):
    return arcs.xy[arcs.ends[k] : arcs.ends[k + 1]]


def triangles_of(arcs):
    """The inner vertices of arcs, which arc, and the doubled area in half pixels of each with its neighbours."""
    rows = []
    for k, ring in enumerate(rings_of(arcs)):
        line = vertices(arcs, k).astype(int)
        line = np.concatenate([line, line[1:2]]) if ring else line
        for a, b, c in zip(line[:-2], line[1:-1], line[2:], strict=True):
            rows.append((k, a, b, c, abs((b - a)[0] * (c - b)[1] - (b - a)[1] * (c - b)[0])))
    return rows


def assert_is_coverage(found, before, area):
    """Each component is one face, the faces tile the scene, and lines meet in common vertices alone."""
    np.testing.assert_array_equal(found.sides, before.sides)
    np.testing.assert_array_equal(found.tips[~rings_of(before)], before.tips[~rings_of(before)])
    of_components = polygons(found)
    assert (shapely.get_type_id(of_components) == shapely.GeometryType.POLYGON).all()
    assert shapely.is_valid(of_components).all()
    assert shapely.area(of_components).sum() == pytest.approx(area)
    assert shapely.coverage_is_valid(of_components)
    faces = shapely.get_parts(shapely.polygonize(lines_of(found)))
    assert sorted_wkb(faces) == sorted_wkb(of_components)
    one, other = shapely.STRtree(of_components).query(of_components, "touches")
    shared = shapely.length(shapely.intersection(of_components[one], of_components[other])) > 0
    pairs = set(zip(one[shared].tolist(), other[shared].tolist(), strict=True))
    assert {pair for pair in pairs if pair[0] < pair[1]} == set(
        map(tuple, np.sort(before.sides[inner(before)]).tolist())
    )
    stops = np.delete(np.arange(len(found.xy)), found.ends[1:] - 1)
    edges = shapely.linestrings(np.stack([found.xy[stops], found.xy[stops + 1]], axis=1))
    one, other = shapely.STRtree(edges).query(edges, "intersects")
    one, other = one[one < other], other[one < other]
    common = shapely.intersection(edges[one], edges[other])
    assert (shapely.get_type_id(common) == shapely.GeometryType.POINT).all()
    for edge in (one, other):
        assert (shapely.distance(common, shapely.boundary(edges[edge])) == 0).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tolerance_px", [0.5, TOLERANCE_PX, 40])
def test_a_coverage_stays_a_coverage(kind, seed, tolerance_px):
    raw = traced(codes_of(kind, seed))
    soft = inner(raw) & (np.random.default_rng(seed).random(len(raw)) < 0.8)
    cut = cut_corners(raw, soft)
    assert_is_coverage(cut, raw, 36**2)
    found = simplified(cut, tolerance_px, reach_px=100)
    assert_is_coverage(found, raw, 36**2)
    assert len(found.xy) < len(cut.xy)
    assert found.xy.dtype == cut.xy.dtype == np.int32


@pytest.mark.parametrize("seed", range(40))
def test_little_scenes_without_any_mercy_stay_coverages(seed):
    raw = traced(np.random.default_rng(seed).integers(0, 2 + seed % 2, (7, 7)))
    everything = np.ones(len(raw), bool)
    found = simplify(cut_corners(raw, everything), np.full(len(raw), 100.0), reach_px=100)
    of_components = polygons(found)
    assert shapely.is_valid(of_components).all()
    assert (shapely.get_type_id(of_components) == shapely.GeometryType.POLYGON).all()
    assert shapely.coverage_is_valid(of_components)
    assert len(shapely.get_parts(shapely.polygonize(lines_of(found)))) == len(of_components)


@pytest.mark.parametrize("seed", range(3))
def test_a_closed_line_loses_half_a_pixel_with_its_corners(seed):
    raw = traced(codes_of("speckled", seed))
    cut = cut_corners(raw, np.ones(len(raw), bool))
    rings = np.flatnonzero(rings_of(raw))
    assert len(rings)
    for k in rings:
        before, after = (shapely.Polygon(vertices(arcs, k) / 2) for arcs in (raw, cut))
        assert after.area == before.area - 0.5  # an eighth at each of four more convex corners than others
    assert all(area > 0 for *_, area in triangles_of(cut))


def test_corners_are_cut_at_midpoints_of_pixel_edges():
    codes = np.zeros((6, 6))
    codes[2, 2:4] = 1
    raw = traced(codes)
    cut = cut_corners(raw, inner(raw))
    (ring,) = np.flatnonzero(inner(raw))
    outline = {tuple(place) for place in vertices(cut, ring)}
    assert outline == {(5, 4), (7, 4), (8, 5), (7, 6), (5, 6), (4, 5)}
    np.testing.assert_array_equal(vertices(cut, 1 - ring), vertices(raw, 1 - ring))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hard_or_held_stays_bit_for_bit(kind):
    raw = traced(codes_of(kind, 7))
    random = np.random.default_rng(7)
    soft, held = random.random((2, len(raw))) < 0.5
    line = vertices(raw, 0)
    middle = (line[:1] + line[1:2]) // 2  # where it does not bend
    raw = replace(raw, xy=np.insert(raw.xy, 1, middle, axis=0), ends=raw.ends + (np.arange(len(raw) + 1) > 0))
    soft[0], held[0] = False, True
    cut = cut_corners(raw, soft)
    found = simplify(cut, np.where(held, 0, TOLERANCE_PX), reach_px=REACH_PX)
    for k in range(len(raw)):
        if not soft[k]:
            np.testing.assert_array_equal(vertices(cut, k), vertices(raw, k))
        if held[k]:
            np.testing.assert_array_equal(vertices(found, k), vertices(cut, k))
    assert len(found.xy) < len(cut.xy)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_neither_order_nor_direction_of_arcs_matters(kind, seed):
    raw = traced(codes_of(kind, seed))
    random = np.random.default_rng(seed)
    order, turned = random.permutation(len(raw)), random.random(len(raw)) < 0.5
    lines = []
    for k, ring in enumerate(rings_of(raw)):
        line = vertices(raw, k)[:: -1 if turned[k] else 1]
        lines.append(
            np.append(np.roll(line[1:], k, axis=0), np.roll(line[1:], k, axis=0)[:1], axis=0) if ring else line
        )
    ends = np.cumsum([0, *(len(lines[k]) for k in order)])
    mixed = Arcs(np.concatenate([lines[k] for k in order]), ends, raw.left[order], raw.right[order])
    for tolerance_px in (TOLERANCE_PX, 3.0):
        one, other = (simplified(cut_corners(arcs, inner(arcs)), tolerance_px) for arcs in (raw, mixed))
        in_order = np.empty(len(raw), int)
        in_order[order] = np.arange(len(raw))
        rings = rings_of(raw)
        for found, again, ring in zip(lines_of(one), lines_of(other)[in_order], rings, strict=True):
            shape = shapely.Polygon if ring else shapely.LineString
            assert shapely.normalize(shape(found)) == shapely.normalize(shape(again))


@pytest.mark.parametrize("reach_px", [0.4, 0.8, 1.5])
@pytest.mark.parametrize("kind", ["speckled", "blobs"])
def test_no_line_strays_further_than_allowed(kind, reach_px):
    raw = traced(codes_of(kind, 11, 60))
    cut = cut_corners(raw, inner(raw))
    before, after, free = (lines_of(a) for a in (cut, simplified(cut, 5.0, reach_px), simplified(cut, 5.0, 100)))
    far = shapely.hausdorff_distance(before, after, densify=0.02)
    assert far.max() <= reach_px + 1e-9
    assert far.max() > reach_px / 2
    assert shapely.hausdorff_distance(before, free, densify=0.02).max() > reach_px


@pytest.mark.parametrize("grid", [1, 2, 1024])
@pytest.mark.parametrize("seed", range(4))
def test_obstacles_stay_on_their_side(seed, grid):
    raw = traced(codes_of("blobs", seed, 60))
    cut = cut_corners(raw, inner(raw))
    places = np.random.default_rng(seed).integers(grid, 119 * grid, (1500, 2)) / grid
    dots = shapely.points(places / 2)
    off = shapely.distance(dots, shapely.union_all(lines_of(cut))) > 0
    places, dots = places[off], dots[off]

    def owners(arcs):
        dot, owner = shapely.STRtree(polygons(arcs)).query(dots, "within")
        return dict(zip(dot.tolist(), owner.tolist(), strict=True))

    assert len(owners(cut)) == len(dots)
    assert owners(simplified(cut, 2.0, obstacles=places)) == owners(cut)
    assert owners(simplified(cut, 2.0)) != owners(cut)


@pytest.mark.parametrize(
    ("place", "in_the_way"),
    [
        ((14.5, 8.75), True),  # rounded down it is outside
        ((15.0, 8.5 - 2**-9), False),  # by a hair
        ((15.0, 8.5 + 2**-9), True),
        ((20.5, 10.5), False),  # rounded down it is on the line that is to be
        ((20.0, 10.0), True),
        ((50.5, 10.0), False),
    ],
)
@pytest.mark.parametrize("far", [0, 1_000_000])
def test_obstacles_count_where_they_are(place, in_the_way, far):
    line = np.array([[10, 10], [20, 7], [30, 10]]) + far
    arc = Arcs(line.astype(np.int32), np.array([0, 3]), np.array([0]), np.array([1]))
    found = simplify(arc, np.array([5.0]), reach_px=9, obstacles=np.array([place]) + far)
    assert len(found.xy) == 2 + in_the_way


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_what_could_go_has_gone(kind, seed):
    raw = traced(codes_of(kind, seed, 24))
    found = simplified(cut_corners(raw, inner(raw)), TOLERANCE_PX, reach_px=100)
    tree = shapely.STRtree(shapely.points(np.unique(found.xy, axis=0)))
    rings, loops = rings_of(found), (found.tips[:, 0] == found.tips[:, 1]).all(axis=1)
    nodes = [frozenset(map(tuple, tips)) for tips in found.tips.tolist()]
    least = np.array([5 if ring else 4 if loop else 3 for ring, loop in zip(rings, loops, strict=True)])
    least[[nodes.count(pair) == 1 and len(pair) == 2 for pair in nodes]] = 2
    for k, a, b, c, area in triangles_of(found):
        if not inner(found)[k] or area >= 8 * TOLERANCE_PX**2 or found.sizes[k] <= least[k]:
            continue
        corners = [tuple(corner) for corner in (a, b, c)]
        inside = tree.query(shapely.Polygon(corners), "intersects")
        assert any(tuple(place) not in corners for place in shapely.get_coordinates(tree.geometries[inside]))


def one_by_one(line, limit):
    """Visvalingam's simplification of a line, the vertex of the smallest triangle first."""
    line = line.astype(int)
    while len(line) > 2:
        before, after = line[1:-1] - line[:-2], line[2:] - line[1:-1]
        area = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0])
        if area.min() >= limit:
            break
        line = np.delete(line, 1 + area.argmin(), axis=0)
    return line


@pytest.mark.parametrize("tolerance_px", [1.25, 2.5, 6.0])
def test_as_visvalingam_would(tolerance_px):
    random = np.random.default_rng(3)
    heights = np.cumsum(random.integers(-3, 4, 1500)) * 2
    xy = np.stack([2 * np.arange(1500), heights], axis=1).astype(np.int32)
    arcs = Arcs(xy, np.array([0, 1500]), np.array([0]), np.array([1]))
    found = simplify(arcs, np.array([tolerance_px]), reach_px=1000)
    expected = one_by_one(xy, 8 * tolerance_px**2)
    assert len(found.xy) == pytest.approx(len(expected), rel=0.05)
    common = {tuple(place) for place in found.xy} & {tuple(place) for place in expected}
    assert len(common) > 0.85 * len(expected)


@pytest.mark.parametrize("centre", [(50, 50), (50.5, 50.5), (50.2, 49.7)])
def test_a_disc_is_round_with_few_vertices(centre):
    y, x = np.mgrid[:100, :100] + 0.5
    raw = traced(np.hypot(x - centre[0], y - centre[1]) < 40)
    cut = cut_corners(raw, inner(raw))
    (ring,) = np.flatnonzero(inner(cut))
    assert simplified(cut).sizes[ring] < 0.4 * cut.sizes[ring]
    found = simplified(cut, 2.0)
    assert found.sizes[ring] < 30
    disc = shapely.Point(centre).buffer(40, quad_segs=64)
    drawn = shapely.Polygon(vertices(found, ring) / 2)
    assert drawn.area == pytest.approx(disc.area, rel=0.01)
    assert drawn.symmetric_difference(disc).area < 0.02 * disc.area


@pytest.mark.parametrize("slope", [0.3, 0.5, 1, 2.2])
def test_stairs_become_straight(slope):
    y, x = np.mgrid[:200, :200] + 0.5
    raw = traced(y - 100 > slope * (x - 100))
    found = simplified(cut_corners(raw, inner(raw)), 3.0)
    (line,) = np.flatnonzero(inner(found))
    assert found.sizes[line] <= 12
    truth = shapely.LineString([(-100, 100 - 200 * slope), (300, 100 + 200 * slope)])
    assert shapely.distance(shapely.points(vertices(found, line) / 2), truth).max() < 1


def test_a_single_pixel_keeps_four_vertices():
    codes = np.zeros((5, 5))
    codes[2, 2] = 1
    raw = traced(codes)
    found = simplify(cut_corners(raw, inner(raw)), np.full(2, 50.0), reach_px=100)
    assert found.sizes.tolist() == [5, 5]


def test_two_lines_between_the_same_nodes_do_not_fall_together():
    xy = np.array([[0, 0], [4, 1], [8, 0], [0, 0], [4, -1], [8, 0], [0, 0], [0, 9], [8, 9], [8, 0]], np.int32)
    arcs = Arcs(xy, np.array([0, 3, 6, 10]), np.array([0, 1, 0]), np.array([1, 2, 2]))
    found = simplify(arcs, np.full(3, 100.0), reach_px=100)
    assert found.sizes.tolist() == [3, 3, 3]
    alone = simplify(arcs.select(np.array([0])), np.full(1, 100.0), reach_px=100)
    np.testing.assert_array_equal(alone.xy, [[0, 0], [8, 0]])


def test_a_vertex_goes_when_what_was_in_its_way_has_gone():
    over, under = [[0, 0], [10, 6], [20, 0]], [[2, -10], [10, 2], [18, -10]]
    arcs = Arcs(np.array(over + under, np.int32), np.array([0, 3, 6]), np.array([0, 1]), np.array([1, 2]))
    both = simplify(arcs, np.full(2, 6.0), reach_px=100)
    assert both.sizes.tolist() == [2, 2]
    held = simplify(arcs, np.array([6.0, 0.0]), reach_px=100)
    np.testing.assert_array_equal(held.xy, arcs.xy)


def test_a_loop_keeps_the_node_at_which_it_begins():
    xy = np.array([[6, 6], [6, 2], [2, 2], [2, 6], [6, 6], [6, 6], [6, 10], [10, 10], [10, 6], [6, 6]], np.int32)
    pair = Arcs(xy, np.array([0, 5, 10]), np.array([0, 0]), np.array([1, 2]))
    assert not rings_of(pair).any()
    found = simplify(cut_corners(pair, np.ones(2, bool)), np.full(2, 50.0), reach_px=100)
    np.testing.assert_array_equal(found.tips, np.full((2, 2, 2), 6))
    assert found.sizes.tolist() == [4, 4]


def test_nothing_of_nothing():
    nothing = cut_corners(Arcs.none(), np.empty(0, bool))
    assert len(simplify(nothing, np.empty(0), reach_px=REACH_PX)) == 0
    assert nothing.ends.tolist() == [0]
