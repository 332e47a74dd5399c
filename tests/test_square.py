"""Laws of squared buildings: the coverage stays one, walls are straight and right, and what must not move does not."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from scipy import ndimage
from shapely import affinity

from geoseg.vector.arcs import OUTSIDE, Arcs
from geoseg.vector.square import SquareRule, square

RULE = SquareRule()


def traced(numbers):
    """The arcs of a raster of component numbers, by walking along its edges one by one."""
    padded = np.pad(numbers.astype(np.int64), 1, constant_values=OUTSIDE)
    rows, cols = np.nonzero(padded[:-1] != padded[1:])
    edges = [((c, r + 1), (c + 1, r + 1), padded[r, c], padded[r + 1, c]) for r, c in zip(rows, cols, strict=True)]
    rows, cols = np.nonzero(padded[:, :-1] != padded[:, 1:])
    edges += [((c + 1, r + 1), (c + 1, r), padded[r, c], padded[r, c + 1]) for r, c in zip(rows, cols, strict=True)]
    at = defaultdict(list)
    for k, (tail, head, _, _) in enumerate(edges):
        at[tail].append((k, 0))
        at[head].append((k, 1))
    used: set[int] = set()
    lines, left, right = [], [], []
    starts = [end for ends in at.values() if len(ends) > 2 for end in ends]
    for k, side in [*starts, *((k, 0) for k in range(len(edges)))]:
        if k in used:
            continue
        sides = edges[k][2:]
        line, here = [edges[k][side]], (k, side)
        while here is not None:
            used.add(here[0])
            line.append(edges[here[0]][1 - here[1]])
            ends = at[line[-1]]
            here = next((end for end in ends if end[0] not in used), None) if len(ends) == 2 else None
        points = np.asarray(line)
        turns = np.ones(len(points), bool)
        turns[1:-1] = (points[2:] - points[1:-1] != points[1:-1] - points[:-2]).any(axis=1)
        lines.append(2 * (points[turns] - 1))
        left.append(sides[side])
        right.append(sides[1 - side])
    ends = np.cumsum([0, *map(len, lines)])
    return Arcs(np.concatenate(lines).astype(np.int32), ends, np.asarray(left), np.asarray(right))


def simplified(arcs, tolerance_px2=1.25):
    """Visvalingam's simplification of every arc by itself, the vertex of the smallest triangle first."""
    lines = []
    for line in np.split(arcs.xy.astype(np.int64), arcs.ends[1:-1]):
        closed = bool((line[0] == line[-1]).all())
        points = line[:-1] if closed else line
        while len(points) > (4 if closed else 2):
            before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
            area = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) / 8
            if not closed:
                area[[0, -1]] = np.inf
            if area.min() >= tolerance_px2:
                break
            points = np.delete(points, area.argmin(), axis=0)
        lines.append(np.concatenate([points, points[:1]]) if closed else points)
    return replace(arcs, xy=np.concatenate(lines).astype(np.int32), ends=np.cumsum([0, *map(len, lines)]))


def outer(arcs):
    """The arcs along the edge of the scene."""
    return (arcs.left == OUTSIDE) | (arcs.right == OUTSIDE)


def polygons(arcs, pixel_m=(1, 1)):
    """The polygon of each component, in the unit of `pixel_m`."""
    xy = arcs.xy / 2 * (pixel_m[1], pixel_m[0])
    lines = shapely.linestrings(xy, indices=np.repeat(np.arange(len(arcs)), np.diff(arcs.ends)))
    count = max(arcs.left.max(), arcs.right.max()) + 1
    own = [np.flatnonzero((arcs.left == k) | (arcs.right == k)) for k in range(count)]
    return np.array([shapely.build_area(shapely.multilinestrings(lines[k])) for k in own])


def turns(polygon):
    """Degrees by which the outer ring turns at its vertices, where it does."""
    step = np.diff(shapely.get_coordinates(polygon.exterior), axis=0)
    heading = np.degrees(np.arctan2(step[:, 1], step[:, 0]))
    turn = (np.roll(heading, -1) - heading + 180) % 360 - 180
    return turn[np.abs(turn) > 0.3]


def iou(one, other):
    return shapely.area(shapely.intersection(one, other)) / shapely.area(shapely.union(one, other))


def drawn(shapes, size=60, pixel_m=(1, 1)):
    """A raster in which each shape, in the unit of `pixel_m`, is a component of its number from 1; 0 elsewhere."""
    scaled = [affinity.scale(shape, 1 / pixel_m[1], 1 / pixel_m[0], origin=(0, 0)) for shape in shapes]
    return rasterize([(shape, k + 1) for k, shape in enumerate(scaled)], (size, size), dtype=np.int32)


def squared(numbers, buildings, rule=RULE, pixel_m=(1, 1)):
    raw = traced(numbers)
    return square(simplified(raw), raw, np.asarray(buildings), outer(raw), rule, pixel_m)


def town(seed, size=160):
    """Component numbers, and which are buildings: turned pairs of houses among blobs of three other classes.

    Pairs stand apart in a town of 160 pixels and run into each other in one of 96.
    """
    random = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(random.normal(size=(3, size, size)), (0, 4, 4)).argmax(axis=0)
    houses = []
    for k in range(16):
        width, height = random.uniform(8, 14, 2)
        pair = [shapely.box(0, 0, width, height), shapely.box(width, random.uniform(-3, 3), width * 1.8, height)]
        turned = affinity.rotate(shapely.MultiPolygon(pair), random.uniform(0, 90))
        x, y = np.array([k % 4 + 0.5, k // 4 + 0.5]) * size / 4 + random.uniform(-2, 2, 2)
        houses += affinity.translate(turned, x - turned.centroid.x, y - turned.centroid.y).geoms
    codes = rasterize([(house, 3 + k) for k, house in enumerate(houses)], out=blobs.astype(np.int32))
    numbers, kinds = labelled(codes)
    while (small := np.bincount(numbers.ravel()) < 12).any():
        nearest = ndimage.distance_transform_edt(small[numbers], return_distances=False, return_indices=True)
        codes = codes[tuple(nearest)]
        numbers, kinds = labelled(codes)
    return numbers, kinds > 2


def labelled(codes):
    """Component numbers of a raster of codes, and the code of each."""
    numbers, kinds = np.zeros(codes.shape, np.int64), []
    for code in np.unique(codes):
        found, count = ndimage.label(codes == code)
        numbers[found > 0] = found[found > 0] - 1 + len(kinds)
        kinds += [code] * count
    return numbers, np.asarray(kinds)


@settings(max_examples=60, deadline=None)
@given(
    angle=st.floats(0, 90),
    sides=st.tuples(st.floats(12, 30), st.floats(12, 30)),
    shift=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_a_rectangle_is_recovered_with_four_right_angles(angle, sides, shift):
    truth = affinity.translate(
        affinity.rotate(shapely.box(0, 0, *sides), angle, "center"), 15 + shift[0], 15 + shift[1]
    )
    raw = traced(drawn([truth]))
    found = polygons(square(simplified(raw), raw, np.array([False, True]), outer(raw), RULE, (1, 1)))[1]
    pixels = polygons(raw)[1]
    assert np.abs(turns(found)) == pytest.approx([90] * 4, abs=0.1)
    assert iou(found, truth) > 0.82  # 12 pixels, shifted by half a pixel or turned by 5 degrees, are drawn as if not
    assert iou(found, pixels) > 0.88
    assert found.area == pytest.approx(pixels.area, rel=0.005)


def test_rectangles_are_nearer_to_the_truth_than_pixels_are():
    random = np.random.default_rng(2)
    found, drawn_so, truths = [], [], []
    for angle in np.arange(0, 90, 3):
        truth = affinity.rotate(shapely.box(0, 0, *random.uniform(12, 24, 2)), angle, "center")
        truths.append(affinity.translate(truth, *random.uniform(14, 15, 2)))
        raw = traced(drawn(truths[-1:]))
        drawn_so.append(polygons(raw)[1])
        found.append(polygons(square(simplified(raw), raw, np.array([False, True]), outer(raw), RULE, (1, 1)))[1])
    assert iou(np.array(found), np.array(truths)).mean() > 0.97
    assert iou(np.array(drawn_so), np.array(truths)).mean() < 0.95


@pytest.mark.parametrize("angle", [3, 20, 38, 61, 85])
@pytest.mark.parametrize("corners", [6, 8])
def test_limbs_are_recovered(angle, corners):
    whole = shapely.box(10, 10, 44, 40) - shapely.box(26, 22, 44 if corners == 6 else 34, 40)
    truth = affinity.rotate(whole, angle, (27, 27))
    found = polygons(squared(drawn([truth]), [False, True]))[1]
    assert np.abs(turns(found)) == pytest.approx([90] * corners, abs=0.1)
    assert iou(found, truth) > 0.95


@pytest.mark.parametrize(("seed", "size"), [(k, 160) for k in range(6)] + [(k, 96) for k in range(6)])
def test_a_coverage_stays_a_coverage(seed, size):
    numbers, buildings = town(seed, size)
    raw = traced(numbers)
    arcs = simplified(raw)
    before = polygons(arcs)
    if not shapely.coverage_is_valid(before) or shapely.area(before).min() == 0:
        arcs = raw  # arcs that were simplified one by one may meet
        before = polygons(arcs)
    after = square(arcs, raw, buildings, outer(raw), RULE, (1, 1))
    assert after.xy.dtype == np.float64
    np.testing.assert_array_equal(after.left, arcs.left)
    np.testing.assert_array_equal(after.right, arcs.right)
    found = polygons(after)
    assert shapely.is_valid(found).all()
    assert (shapely.get_type_id(found) == shapely.GeometryType.POLYGON).all()
    assert shapely.area(found).sum() == pytest.approx(numbers.size, rel=1e-9)
    assert shapely.union_all(found).area == pytest.approx(numbers.size, rel=1e-9)
    assert shapely.coverage_is_valid(found)
    assert (shapely.get_num_interior_rings(found) == shapely.get_num_interior_rings(before)).all()
    changed = ~shapely.equals(before, found) & buildings
    if size == 160:
        assert changed.sum() > buildings.sum() / 2
    assert (iou(found[changed], polygons(raw)[changed]) >= RULE.least_iou).all()


@pytest.mark.parametrize("seed", range(20))
def test_noise_stays_a_coverage(seed):
    random = np.random.default_rng(seed)
    codes = np.kron(random.integers(0, 3, (6, 6)), np.ones((5, 5), int))
    codes[random.random(codes.shape) < 0.05] = 1
    numbers, kinds = labelled(codes if seed % 2 else random.integers(0, 3, (14, 14)))
    raw = traced(numbers)
    found = polygons(square(raw, raw, kinds == 1, outer(raw), RULE, (1, 1.3)))
    assert shapely.is_valid(found).all()
    assert shapely.coverage_is_valid(found)
    assert shapely.area(found).sum() == pytest.approx(numbers.size, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_fixed_does_not_move(seed):
    numbers, buildings = town(seed)
    raw = traced(numbers)
    arcs = simplified(raw)
    fixed = outer(raw) | (np.random.default_rng(seed).random(len(raw)) < 0.2)
    after = square(arcs, raw, buildings, fixed, RULE, (1, 1))
    for k in np.flatnonzero(fixed):
        np.testing.assert_array_equal(
            after.xy[after.ends[k] : after.ends[k + 1]], arcs.xy[arcs.ends[k] : arcs.ends[k + 1]]
        )


@pytest.mark.parametrize("seed", range(4))
def test_nodes_are_shared_as_before(seed):
    numbers, buildings = town(seed)
    raw = traced(numbers)
    arcs = simplified(raw)
    after = square(arcs, raw, buildings, outer(raw), RULE, (1, 1))
    before, now = (np.concatenate([a.xy[a.ends[:-1]], a.xy[a.ends[1:] - 1]]) for a in (arcs, after))
    _, node = np.unique(before, axis=0, return_inverse=True)
    _, place = np.unique(now, axis=0, return_inverse=True)
    assert len(np.unique(np.stack([node.ravel(), place.ravel()]), axis=1).T) == node.max() + 1 == place.max() + 1
    meets = np.bincount(node.ravel())[node.ravel()] > 2
    assert np.hypot(*(now - before)[meets].T).max() <= 2 * RULE.most_shift_px + 0.01


def test_buildings_that_touch_share_a_straight_wall_at_right_angles():
    pair = [affinity.rotate(shapely.box(*box), 24, (30, 30)) for box in ((14, 20, 30, 40), (30, 20, 48, 40))]
    after = squared(drawn(pair), [False, True, True])
    shared = np.flatnonzero((after.left > 0) & (after.right > 0))
    assert np.diff(after.ends)[shared] == [2]
    found = polygons(after)[1:]
    for one, truth in zip(found, pair, strict=True):
        assert np.abs(turns(one)) == pytest.approx([90] * 4, abs=0.3)
        assert iou(one, truth) > 0.93
    assert np.abs(turns(shapely.union_all(found))) == pytest.approx([90] * 4, abs=0.3)
    assert shapely.intersection(*found).area == 0


def test_a_tank_stays_round():
    tank = shapely.Point(30.3, 29.8).buffer(14)
    found = polygons(squared(drawn([tank]), [False, True]))[1]
    assert iou(found, tank) > 0.95
    assert len(turns(found)) <= 16


@pytest.mark.parametrize("pixel_m", [(1.0, 1.6), (0.5, 0.3)])
def test_angles_are_right_on_the_ground(pixel_m):
    scale = np.sqrt(pixel_m[0] * pixel_m[1])
    truth = affinity.scale(affinity.rotate(shapely.box(22, 18, 44, 36), 29), scale, scale, origin=(0, 0))
    found = polygons(squared(drawn([truth], 80, pixel_m), [False, True], pixel_m=pixel_m), pixel_m)[1]
    assert np.abs(turns(found)) == pytest.approx([90] * 4, abs=0.1)
    assert iou(found, truth) > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_arcs_and_numbers_does_not_matter(seed):
    numbers, buildings = town(seed)
    raw = traced(numbers)
    arcs = simplified(raw)
    expected = square(arcs, raw, buildings, outer(raw), RULE, (1, 1))
    random = np.random.default_rng(seed)
    order, names = random.permutation(len(raw)), random.permutation(len(buildings))
    mixed = [renamed(a, order, names) for a in (arcs, raw)]
    renamed_buildings = np.empty_like(buildings)
    renamed_buildings[names] = buildings
    found = square(*mixed, renamed_buildings, outer(mixed[1]), RULE, (1, 1))
    again = renamed(expected, order, names)
    np.testing.assert_array_equal(found.ends, again.ends)
    np.testing.assert_allclose(found.xy, again.xy, atol=0.002)


def renamed(arcs, order, names):
    """The same arcs in another order, components under other numbers."""
    lines = np.split(arcs.xy, arcs.ends[1:-1])
    named = [np.where(side == OUTSIDE, OUTSIDE, names[side])[order] for side in (arcs.left, arcs.right)]
    ends = np.cumsum([0, *(len(lines[k]) for k in order)])
    return Arcs(np.concatenate([lines[k] for k in order]), ends, *named)


def test_an_island_beside_a_wall_stays_outside():
    numbers = np.zeros((40, 40), np.int64)
    numbers[10:30, 10:30] = 1
    numbers[9, 14:20] = 1  # a bay that the wall goes past
    numbers[9, 22:28] = 1
    numbers[8, 10] = numbers[31, 20] = 2
    numbers[31, 20] = 3
    found = polygons(squared(numbers, [False, True, False, False]))
    assert shapely.coverage_is_valid(found)
    assert (shapely.area(found) > 0).all()
    assert shapely.area(found).sum() == pytest.approx(numbers.size)


def test_a_rule_that_allows_nothing_changes_nothing():
    numbers, buildings = town(1)
    raw = traced(numbers)
    arcs = simplified(raw)
    after = square(arcs, raw, buildings, outer(raw), SquareRule(least_iou=1.0), (1, 1))
    np.testing.assert_array_equal(after.xy, arcs.xy)
