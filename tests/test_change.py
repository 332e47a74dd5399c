"""Laws of change between two dates: what is found, and that it does not depend on how the frame was cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS
from scipy.linalg import eigh
from scipy.ndimage import label
from scipy.ndimage import shift as moved_by
from scipy.stats import chi2
from skimage.filters import threshold_otsu

from geoseg.change.frames import common_frame
from geoseg.change.indices import choose_indices, difference_counts, middle_and_spread
from geoseg.change.irmad import STILL, Canonical, Lines
from geoseg.change.kernel import gathered, judge_block, measure_block, moments_of, sample_origin, windows_of
from geoseg.change.methods import ClassMethod, ImageMethod, Measured
from geoseg.change.moments import CELL, Moments, blocks_of_cells, cells_of
from geoseg.change.numbers import ChangeNumbers, count_block
from geoseg.change.pair import Pair, common_bands
from geoseg.change.registration import estimate_shift
from geoseg.change.sieve import Sieve
from geoseg.change.threshold import Cut, histogram, mixture, otsu
from geoseg.change.tolerance import limit, unexplained
from geoseg.change.transitions import between_classes, transition_code
from geoseg.errors import BandRoleError, FrameMismatchError, InputError, MissingCrsError, UsageError
from geoseg.frame import Box, Frame
from geoseg.legend import LAND_COVER, NODATA, ClassEntry, Legend
from geoseg.scene import ArrayScene, BandNeeds, open_scene
from geoseg.scene.warped import WarpedScene

Array = np.ndarray[Any, Any]

UTM = CRS.from_epsg(32631).to_wkt()
NEEDS = BandNeeds(("red", "green", "blue", "nir"))


def frame_of(shape: tuple[int, int], side: float = 2.0) -> Frame:
    return Frame(shape, Affine(side, 0, 593_000, 0, -side, 5_747_000), UTM)


def land(shape: tuple[int, int], bands: int = 4, seed: int = 0) -> Array:
    """Fields of different brightness with some texture, 0..255 in whole numbers."""
    rng = np.random.default_rng(seed)
    fields = np.kron(rng.random((bands, shape[0] // 12 + 2, shape[1] // 12 + 2)), np.ones((1, 12, 12)))
    pixels = 40 + 150 * fields[:, : shape[0], : shape[1]] + rng.normal(0, 4, (bands, *shape))
    return np.rint(np.clip(pixels, 0, 255))


def pair_of(before: Array, after: Array, *, valid: Array | None = None, roles: tuple[str, ...] = ()) -> Pair:
    frame = frame_of(before.shape[1:])
    roles = roles or tuple(f"band{k}" for k in range(1, len(before) + 1))
    return Pair(ArrayScene(before, frame, roles, valid), WarpedScene(ArrayScene(after, frame, roles), frame))


def method_of(pair: Pair, name: Any = "cva", radius_px: float = 0.5, quantum: float = 1.0) -> ImageMethod:
    before, after, valid = pair.read(pair.frame.box)
    origin = sample_origin(pair)
    values = np.concatenate([before, after]) - origin[:, None, None]
    moments = Moments.of(values, valid.astype(float))
    for _ in range(30):
        canonical = Canonical.of(moments, origin, quantum)
        moments = Moments.of(values, canonical.no_change(values) * valid)
    lines = Lines.of(moments, origin, quantum)
    return ImageMethod(name, pair.roles, canonical, lines, before[:, valid].std(axis=1), radius_px)


# One frame


def test_the_frame_is_that_of_the_coarser_date_and_of_equals_the_earlier() -> None:
    fine, coarse = frame_of((100, 100), 1.0), frame_of((60, 40), 2.0)
    for pair in ((fine, coarse), (coarse, fine)):
        common = common_frame(*pair)
        assert common.frame.pixel_size == 2.0
        assert common.frame.shape == (50, 40)
    twin = Frame((100, 100), Affine(1, 0, 593_000.4, 0, -1, 5_746_999.7), UTM)
    common = common_frame(fine, twin)
    assert common.frame.crop(Box(0, 0, 1, 1)).xy(0, 0)[0] % 1 == 0
    assert common.frame.shape == (99, 99)
    assert common.outside_before == pytest.approx(1 - 99 * 99 / 1e4, abs=0.01)


def test_dates_that_do_not_meet_are_refused() -> None:
    away = Frame((10, 10), Affine(1, 0, 600_000, 0, -1, 5_747_000), UTM)
    with pytest.raises(FrameMismatchError, match="do not overlap"):
        common_frame(frame_of((50, 50)), away)
    with pytest.raises(MissingCrsError, match="no CRS"):
        common_frame(frame_of((50, 50)), Frame((10, 10), Affine(1, 0, 0, 0, -1, 0), None))


def test_bands_are_matched_by_name_else_by_number(tmp_path: Any) -> None:
    from scenes import write_scene  # noqa: PLC0415

    from geoseg.scene import inspect_scene  # noqa: PLC0415

    def info(name: str, bands: tuple[str, ...]) -> Any:
        pixels = np.zeros((len(bands), 8, 8), np.uint8)
        return inspect_scene(write_scene(tmp_path / f"{name}.tif", pixels, descriptions=bands))

    rgbn, bgrn = info("rgbn", ("red", "green", "blue", "nir")), info("bgrn", ("blue", "green", "red", "nir"))
    nameless, three = info("nameless", ("", "", "", "")), info("three", ("red", "green", "blue"))
    assert common_bands(rgbn, bgrn, (None, None))[1] == {"red": 3, "green": 2, "blue": 1, "nir": 4}
    assert list(common_bands(nameless, nameless, (None, None))[0]) == ["band1", "band2", "band3", "band4"]
    assert common_bands(nameless, rgbn, (None, None)) == ({"red": 1, "green": 2, "blue": 3, "nir": 4},) * 2
    assert list(common_bands(rgbn, three, (None, None))[0]) == ["red", "green", "blue"]
    with pytest.raises(BandRoleError, match="no band in common"):
        common_bands(nameless, three, (None, None))


# Registration


@pytest.mark.parametrize("length", [0.1, 0.5, 1.3, 3.0, 5.0])
@pytest.mark.parametrize("name", ["rotterdam_1.tif", "sentinel2_coast.tif"])
def test_a_shift_is_found_whatever_gain_and_offset(demo_folder: Any, name: str, length: float) -> None:
    scene = open_scene(demo_folder / name, NEEDS)
    pixels = scene.read(scene.frame.box)[0].astype(float)
    row, col = 0.8 * length, -0.6 * length
    gain = np.array([1.2, 0.8, 1.1, 0.9])[:, None, None]
    later = np.rint(np.stack([moved_by(band, (row, col), order=3, mode="nearest") for band in pixels]) * gain + 5)
    found = estimate_shift(
        WarpedScene(scene, scene.frame), WarpedScene(ArrayScene(later, scene.frame, scene.roles), scene.frame)
    )
    assert abs(found.row - row) < 0.05
    assert abs(found.col - col) < 0.05
    assert found.consistent


def test_where_there_is_nothing_in_common_no_shift_is_told() -> None:
    one, other = (np.random.default_rng(seed).random((2, 200, 200)) * 255 for seed in (1, 2))
    pair = pair_of(one, other)
    assert not estimate_shift(WarpedScene(pair.before, pair.frame), pair.after).consistent  # type: ignore[arg-type]
    flat = pair_of(np.zeros((1, 100, 100)), np.zeros((1, 100, 100)))
    assert estimate_shift(WarpedScene(flat.before, flat.frame), flat.after).windows == 0  # type: ignore[arg-type]


# IR-MAD


def directly(before: Array, after: Array, valid: Array) -> tuple[Array, Array]:
    """IR-MAD on whole arrays, by the generalised eigenproblem of Nielsen (2007): chi-square and correlations."""
    x, y = before[:, valid].astype(np.float64), after[:, valid].astype(np.float64)
    count, weights, rho = len(x), np.ones(valid.sum()), None
    while True:
        mean_x, mean_y = (np.average(v, axis=1, weights=weights)[:, None] for v in (x, y))
        xx, yy = ((weights * (v - m)) @ (v - m).T / weights.sum() for v, m in ((x, mean_x), (y, mean_y)))
        xy = (weights * (x - mean_x)) @ (y - mean_y).T / weights.sum()
        squares, a = eigh(xy @ np.linalg.inv(yy) @ xy.T, xx)  # ascending, a.T xx a = 1
        now = np.sqrt(squares)
        b = np.linalg.inv(yy) @ xy.T @ a / now
        mads = a.T @ (x - mean_x) - b.T @ (y - mean_y)
        square = (mads**2 / (2 * (1 - now))[:, None]).sum(axis=0)
        if rho is not None and np.abs(now - rho).max() < STILL:
            return square, now
        rho, weights = now, chi2.sf(square, count)


@pytest.mark.parametrize("block", [512, 1024, 4096])
def test_irmad_in_blocks_is_irmad_on_the_whole(block: int) -> None:
    shape = (700, 1100)
    before = land(shape, 3, seed=3)
    after = np.rint(
        before * np.array([1.1, 0.9, 1.3])[:, None, None] + np.random.default_rng(5).normal(4, 5, before.shape)
    )
    after[:, 100:180, 200:330] = 250 - after[:, 100:180, 200:330]
    valid = np.random.default_rng(6).random(shape) > 0.1
    pair = pair_of(before, after, valid=valid)
    origin = sample_origin(pair)
    canonical: Canonical | None = None
    while True:
        rows = np.concatenate([moments_of(pair, box, origin, canonical) for box in blocks_of_cells(shape, block)])
        places = [(c.row, c.col) for box in blocks_of_cells(shape, block) for c in cells_of(box)]
        order = sorted(range(len(rows)), key=lambda k: places[k])
        now = Canonical.of(Moments.total(Moments.from_row(rows[k]) for k in order), origin, 1.0)
        done = canonical is not None and np.abs(now.rho - canonical.rho).max() < STILL
        canonical = now
        if done:
            break
    square, rho = directly(before, after, valid)
    assert np.abs(canonical.rho - rho).max() < 1e-6
    values = np.concatenate([before, after]) - origin[:, None, None]
    found = canonical.chi_square(values)[valid]
    assert np.abs(found / square - 1).max() < 1e-6


def test_moments_are_the_same_to_the_last_bit_whatever_the_blocks() -> None:
    shape = (1100, 1300)
    pair = pair_of(land(shape, 2), land(shape, 2, seed=1))
    origin = sample_origin(pair)
    totals = []
    for block in (CELL, 3 * CELL):
        found = {
            (cell.row, cell.col): row
            for box in blocks_of_cells(shape, block)
            for cell, row in zip(cells_of(box), moments_of(pair, box, origin, None), strict=True)
        }
        totals.append(Moments.total(Moments.from_row(found[place]) for place in sorted(found)).to_row())
    assert np.array_equal(*totals)


def test_lines_bring_one_date_to_the_radiometry_of_the_other_in_spite_of_change() -> None:
    before = land((300, 300), 3)
    gain, offset = np.array([1.5, 0.7, 1.0]), np.array([-20.0, 30.0, 0.0])
    after = np.rint(before * gain[:, None, None] + offset[:, None, None])
    after[:, 20:80, 30:120] = 10
    lines = method_of(pair_of(before, after)).lines
    assert np.allclose(lines.gain * gain, 1, atol=0.02)
    assert np.abs(lines(after) - before)[:, 100:].max() < 3


def test_a_date_of_one_value_is_refused_and_a_constant_band_is_left_out() -> None:
    varied, flat = land((64, 64), 2), np.full((2, 64, 64), 7.0)
    with pytest.raises(InputError, match="one value throughout"):
        method_of(pair_of(varied, flat))
    half = varied.copy()
    half[1] = 9
    assert len(method_of(pair_of(half, half)).canonical.rho) == 1


# Tolerance, thresholds


@pytest.mark.parametrize("length", [0.3, 0.5])
def test_what_a_shift_explains_is_no_change_and_an_object_is(length: float) -> None:
    pixels = land((200, 200), 3, seed=8)
    later = np.stack([moved_by(band, (length, 0), order=1, mode="nearest") for band in pixels])
    later[:, 100:105, 60:65] += 120
    valid = np.ones((200, 200), bool)
    left = unexplained(pixels, later, valid, (np.full(3, 4.0), pixels.std(axis=(1, 2))), 0.5) > limit(3)
    assert left[100:105, 60:65].sum() >= 20
    left[98:107, 58:67] = False
    assert left.mean() < 1e-3


def test_otsu_parts_as_skimage_does() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(np.r_[rng.normal(2, 0.5, 9000), rng.normal(11, 2, 900)])
    top = np.percentile(values, 99)
    expected = threshold_otsu(np.minimum(values, top), nbins=1000)
    assert otsu(histogram(values)).threshold == pytest.approx(expected, rel=0.1)
    counts = histogram(values)
    cut = mixture(counts)
    assert 3 < cut.threshold < 9
    assert cut.posterior(np.array([0.0, cut.threshold, 99.0])) == pytest.approx([0, 0.5, 1], abs=1e-3)


# Patches


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), least=st.integers(1, 12), radius=st.sampled_from([0.0, 1.0, 2.2]))
def test_patches_do_not_depend_on_blocks(seed: int, least: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    shape = (70, 83)
    changed = rng.random(shape) < rng.choice([0.05, 0.3, 0.6])
    valid = rng.random(shape) > 0.05
    changed &= valid
    sieve = Sieve(least, radius, radius)
    whole = sieve(changed, valid, (slice(None), slice(None)))
    if not radius:
        patches, count = label(changed, np.ones((3, 3)))
        sizes = np.array([0, *(int((patches == k).sum()) for k in range(1, count + 1))])
        assert np.array_equal(whole, sizes[patches] >= least)
    found = np.zeros(shape, bool)
    frame = Box(0, 0, *shape)
    for row in range(0, shape[0], 30):
        for col in range(0, shape[1], 41):
            box = Box(row, col, 30, 41) & frame
            around, inside = windows_of(box, sieve.halo, frame)
            at = around.slices(frame)
            found[box.slices(frame)] = sieve(changed[at], valid[at], inside)
    assert np.array_equal(found, whole)


# Methods


def test_codes_of_transitions_are_one_to_one() -> None:
    transitions = between_classes(LAND_COVER)
    codes = {
        int(transition_code(np.array(i), np.array(j), 5)): (LAND_COVER.names[i], LAND_COVER.names[j])
        for i in range(5)
        for j in range(5)
        if i != j
    }
    assert sorted(codes) == list(range(1, 21))
    assert {e.code: (e.from_, e.to) for e in transitions.entries} == codes
    assert len({e.color for e in transitions.entries}) == 20
    many = Legend(tuple(ClassEntry(k, f"c{k}", "#000000", "area") for k in range(17)))
    with pytest.raises(UsageError, match="17 classes make 272 changes"):
        between_classes(many)


def probabilities(*rows: tuple[float, ...]) -> Array:
    return np.array(rows).T[:, None, :]


def test_classes_are_compared_by_both_probabilities_and_not_by_two_maxima() -> None:
    sure, unsure, other = (0.9, 0.1, 0.0), (0.5, 0.45, 0.05), (0.1, 0.85, 0.05)
    before = probabilities(sure, sure, unsure)
    after = probabilities(other, (0.45, 0.5, 0.05), (0.45, 0.5, 0.05))
    legend = Legend(tuple(ClassEntry(k, name, "#000000", "area") for k, name in enumerate(("soil", "roof", "road"))))
    found = ClassMethod(legend, 0.5)(before[:, :, [0]], after[:, :, [0]], np.ones((1, 1), bool))
    assert found.code.tolist() == [[1]]  # soil to roof
    assert found.magnitude[0, 0] == pytest.approx(0.9 * 0.85 / (0.9 * 0.85 + 0.9 * 0.1 + 0.1 * 0.85), abs=1e-6)
    found = ClassMethod(legend, 0.5)(before[:, :, [2]], after[:, :, [2]], np.ones((1, 1), bool))
    assert found.magnitude[0, 0] < 0.5  # two maxima would say soil to roof
    assert found.states is not None
    assert found.states[2, 0, 0] in {0, 1}


def test_borders_of_classes_that_moved_by_a_pixel_are_no_change() -> None:
    before = np.zeros((2, 40, 40))
    before[0, :, :20], before[1, :, 20:] = 1, 1
    after = np.roll(before, 1, axis=2)
    after[:, :, 0] = before[:, :, 0]
    after[:, 10:14, 5:9] = np.array([0, 1])[:, None, None]
    legend = Legend((ClassEntry(0, "soil", "#000000", "area"), ClassEntry(1, "roof", "#111111", "object")))
    found = ClassMethod(legend, 1.0)(before, after, np.ones((40, 40), bool))
    expected = np.zeros((40, 40), np.uint8)
    expected[10:14, 5:9] = 1
    assert np.array_equal(found.code, expected)


@pytest.mark.parametrize("name", ["cva", "irmad"])
def test_kinds_of_change_go_by_direction(name: str) -> None:
    roles = ("red", "green", "nir")
    before = land((120, 120), 3)
    after = before.copy()
    places = {"brighter": (10, +1, +1), "darker": (40, -1, -1), "greener": (70, -1, +1), "less green": (100, +1, -1)}
    for row, red, nir in places.values():
        after[:, row : row + 8, 20:40] += np.array([120 * red, 120 * red * (red == nir), 120 * nir])[:, None, None]
    pair = pair_of(before, after, roles=roles)
    method = method_of(pair, name)
    found, damage = measure_block(pair, pair.frame.box, method)
    assert not damage
    names = {entry.code: entry.name for entry in method.transitions.entries}
    for kind, (row, _, _) in places.items():
        codes = found.code[row + 2 : row + 6, 22:38]
        assert {names.get(int(code)) for code in np.unique(codes)} == {kind}


def test_indices_rise_and_fall() -> None:
    indices = choose_indices((), ("red", "green", "nir"))
    assert indices.names == ("NDVI", "NDWI")
    pixels = np.array([30.0, 40.0, 90.0])[:, None, None] * np.ones((3, 2, 2))
    assert indices(pixels)[0, 0, 0] == pytest.approx((90 - 30) / 120)
    assert indices(pixels)[1, 0, 0] == pytest.approx((40 - 90) / 130)
    with pytest.raises(UsageError, match="NBR needs S2"):
        choose_indices(("NBR",), ("red", "nir"))
    with pytest.raises(UsageError, match="NIRvP needs PAR"):
        choose_indices(("NIRvP",), ("red", "nir"))
    with pytest.raises(UsageError, match="no index 'NDXI'"):
        choose_indices(("NDXI",), ("red", "nir"))
    with pytest.raises(UsageError, match="role is known"):
        choose_indices((), ("band1", "band2"))
    differences = np.random.default_rng(0).normal(0.1, 0.05, (1, 300, 300))
    for scale in (1, 400):  # as of an index that is no ratio, on pixels as stored
        middle, spread = middle_and_spread(difference_counts(differences * scale, np.ones((300, 300), bool)))
        assert middle[0] == pytest.approx(0.1 * scale, rel=0.02)
        assert spread[0] == pytest.approx(0.05 * scale, rel=0.03)


@pytest.mark.parametrize("name", ["cva", "irmad"])
def test_what_is_measured_and_judged_does_not_depend_on_blocks(name: str) -> None:
    shape = (1100, 1300)
    before = land(shape, 3)
    after = before + np.random.default_rng(2).normal(0, 3, before.shape)
    after[:, 500:530, 505:540] += 90  # across the seams of blocks
    valid = np.random.default_rng(3).random(shape) > 0.02
    pair = pair_of(before, after, valid=valid)
    method, sieve, cut = method_of(pair, name), Sieve(9), Cut(8.0, 1.0)
    seen = []
    for block in (CELL, 4 * CELL):
        whole = Measured(np.zeros(shape, np.float32), np.zeros(shape, np.uint8))
        for box in blocks_of_cells(shape, block):
            part, _ = measure_block(pair, box, method)
            at = box.slices(pair.frame.box)
            whole.magnitude[at], whole.code[at] = part.magnitude, part.code
        rows = []
        out = np.zeros((3, *shape), np.float32)
        for box in blocks_of_cells(shape, block):
            around, inside = windows_of(box, sieve.halo, pair.frame.box)
            judged = judge_block(whole.crop(around.slices(pair.frame.box)), inside, cut, sieve)
            out[(slice(None), *box.slices(pair.frame.box))] = judged.codes, judged.confidence, judged.magnitude
            rows.append(count_block(judged, None, box, pair.frame))
        seen.append((out, ChangeNumbers.of(np.concatenate(rows))))
    assert np.array_equal(seen[0][0], seen[1][0], equal_nan=True)
    assert seen[0][1] == seen[1][1]
    codes, numbers = seen[0][0][0], seen[0][1]
    assert numbers.valid.pixels == int(valid.sum())
    assert np.array_equal(codes == NODATA, ~valid)
    assert numbers.changed.area_m2 == pytest.approx(4 * numbers.changed.pixels)
    assert np.count_nonzero((codes[500:530, 505:540] != 0) & valid[500:530, 505:540]) > 0.95 * 30 * 35 * 0.98


def test_areas_follow_the_ellipsoid() -> None:
    """Of a tall frame in degrees: its pixels are not of one size."""
    frame = Frame((1024, 64), Affine(0.01, 0, 10, 0, -0.01, 65), CRS.from_epsg(4326).to_wkt())
    codes = np.ones((1024, 64), np.uint8)
    from geoseg.change.kernel import Judged  # noqa: PLC0415

    judged = Judged(codes, np.full_like(codes, 100), codes.astype(np.float32))
    rows = np.concatenate([count_block(judged, None, frame.box, frame)])
    geod = CRS.from_epsg(4326).get_geod()
    assert geod is not None
    lons, lats = [10, 10.64, 10.64, 10], [65, 65, 54.76, 54.76]
    edge = np.linspace(65, 54.76, 400)
    ring = [*lons[:1], *np.full(400, 10.0), *np.full(400, 10.64)], [*lats[:1], *edge, *edge[::-1]]
    expected = abs(geod.polygon_area_perimeter(*ring)[0])
    assert ChangeNumbers.of(rows).changed.area_m2 == pytest.approx(expected, rel=2e-3)


# Objects


def boxes(*places: tuple[float, float, float, float]) -> Array:
    import shapely  # noqa: PLC0415

    return np.array([shapely.box(*place) for place in places], object)


def test_objects_are_added_removed_modified_or_unchanged_and_keep_their_ids() -> None:
    from geoseg.change.objects import match_objects  # noqa: PLC0415

    before = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10), (71, 0, 80, 10))
    after = boxes((0.8, -0.6, 10.8, 9.4), (20, 0, 30, 22), (90, 0, 99, 9), (60, 0, 80, 10))
    found = match_objects(before, after, tolerance=1.5)
    told = {
        tuple(np.round((b if a is None else a).bounds, 1)): s
        for a, b, s in zip(found.before, found.after, found.status, strict=True)
    }
    assert told == {
        (0, 0, 10, 10): "unchanged",
        (20, 0, 30, 10): "modified",
        (40, 0, 50, 10): "removed",
        (90, 0, 99, 9): "added",
        (60, 0, 80, 10): "unchanged",  # two that became one, with the gap of a pixel closed
    }
    assert len(set(found.id)) == len(found.id)
    order = np.random.default_rng(0).permutation(len(before))
    again = match_objects(before[order], after[::-1], tolerance=1.5)
    pairs = [dict(zip(one.id, one.status, strict=True)) for one in (found, again)]
    assert pairs[0] == pairs[1]
    moved = match_objects(before, after, tolerance=0.1)
    assert dict(zip(moved.id, moved.status, strict=True))[found.id[list(found.status).index("unchanged")]] == "modified"
    none = match_objects(before[:0], after[:0], 1.0)
    assert len(none.id) == 0
    assert set(match_objects(before[:0], after, 1.0).status) == {"added"}


def test_ids_differ_in_degrees_too() -> None:
    from geoseg.change.objects import match_objects  # noqa: PLC0415

    houses = boxes(*((4.5 + k * 3e-4, 51.9, 4.5 + k * 3e-4 + 1e-4, 51.9001) for k in range(3)))
    assert len(set(match_objects(houses, houses, 1e-5, 1e-8).id)) == 3


def test_classes_are_known_beside_a_block_without_a_valid_pixel() -> None:
    empty = Measured(np.zeros((512, 512), np.float32), np.full((512, 512), NODATA, np.uint8))
    full = Measured(np.ones((512, 512), np.float32), np.ones((512, 512), np.uint8), np.ones((3, 512, 512), np.uint8))
    left, right = Box(0, 0, 512, 512), Box(0, 512, 512, 512)
    around, inside = windows_of(right, 9, Box(0, 0, 512, 1024))
    found = gathered(around, [left, right], lambda box: empty if box == left else full)
    assert found.states is not None
    assert (found.states[(slice(None), *inside)] == 1).all()


def test_objects_that_share_a_corner_alone_are_two() -> None:
    from geoseg.change.objects import match_objects  # noqa: PLC0415

    found = match_objects(boxes((0, 0, 10, 10)), boxes((9, 9, 19, 19)), 1.0)
    assert sorted(found.status) == ["added", "removed"]
