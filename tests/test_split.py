"""Objects that touch are apart where the confidence dips between them, alike in every block, and nothing is lost."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import write_scene
from scipy.ndimage import gaussian_filter, label

from geoseg.cli.main import geoseg
from geoseg.config import Settings
from geoseg.errors import UsageError
from geoseg.frame import Box, Frame
from geoseg.legend import LAND_COVER, ClassEntry, Legend
from geoseg.vector import Drawing, TidyRule
from geoseg.vector.split import HALO, PARTS, split_objects
from geoseg.workflow.vectors import tidy_rule, vectorize

BUILDING = 1
SPARE = {BUILDING: tuple(range(100, 100 + PARTS))}
NONE = np.zeros(256)


def parts(codes, percent, dip=0.2, least=0):
    return split_objects(codes, percent, SPARE, dip, np.full(256, least))


def row_of_houses(count, dip, *, side=20, wall=4):
    """Houses in a row, with walls of less confidence between them."""
    codes = np.zeros((side + 20, count * (side + wall) + 20), np.uint8)
    percent = np.full(codes.shape, 95, np.uint8)
    codes[10 : 10 + side, 10 : 10 + count * (side + wall) - wall] = BUILDING
    for number in range(1, count):
        left = 10 + number * (side + wall) - wall
        percent[:, left : left + wall] = 95 - dip
    return codes, percent


def numbered(codes):
    """Components of equal codes, other than background, with their codes."""
    return [labels for code in np.unique(codes) if code for labels in [label(codes == code)[0]] if labels.any()]


def count_parts(codes):
    return sum(labels.max() for labels in numbered(codes))


@pytest.mark.parametrize(("count", "dip", "found"), [(1, 0, 1), (2, 50, 2), (5, 50, 5), (5, 10, 1), (2, 0, 1)])
def test_houses_are_apart_where_the_confidence_dips(count, dip, found):
    codes, percent = row_of_houses(count, dip)
    split = parts(codes, percent)
    assert count_parts(split) == found
    np.testing.assert_array_equal(split > 0, codes > 0)
    if found > 1:
        walls = [column for column in range(1, codes.shape[1]) if (split[:, column] != split[:, column - 1]).any()]
        inner = walls[1:-1]
        assert [abs(wall - (10 + 24 * (k + 1) - 2)) <= 2 for k, wall in enumerate(inner)] == [True] * (count - 1)


def test_parts_are_no_smaller_than_what_is_shown():
    codes, percent = row_of_houses(3, 50)
    assert count_parts(parts(codes, percent, least=400)) == 3
    assert count_parts(parts(codes, percent, least=700)) < 3
    assert count_parts(parts(codes, percent, least=5000)) == 1


def test_a_grid_of_houses_has_no_two_alike_side_by_side():
    codes = np.zeros((164, 164), np.uint8)
    codes[10:154, 10:154] = BUILDING
    within = ((np.arange(164) - 10) % 24) < 20
    percent = np.where(within[:, None] & within[None, :], 95, 40).astype(np.uint8)
    split = parts(codes, percent)
    assert count_parts(split) == 36
    assert len(np.unique(split)) - 1 <= 5


@pytest.mark.parametrize("patch", [0, 2, 4, 6])
def test_a_patch_between_parts_joins_none_of_them(tmp_path, patch):
    """Four houses around a courtyard that is too small to be shown and so goes to one of them."""
    codes, percent = np.zeros((80, 80), np.uint8), np.full((80, 80), 95, np.uint8)
    codes[10:70, 10:70] = BUILDING
    percent[38:42, 10:70] = percent[10:70, 38:42] = 40
    codes[40 - patch // 2 : 40 + patch // 2, 40 - patch // 2 : 40 + patch // 2] = 0
    found = buildings(write_run(tmp_path, codes, percent), TidyRule(15, 15, 0, None, None, split=0.2))
    assert len(found) == 4
    assert found.area.sum() == pytest.approx(3600 * 0.36)


@pytest.mark.parametrize("least", [0.0, 15.0])
def test_small_patches_go_where_they_go_without_parts(tmp_path, least):
    """A patch shares four edges with a building, two with each of its parts, and three with a road."""
    codes, percent = np.zeros((70, 90), np.uint8), np.full((70, 90), 95, np.uint8)
    codes[10:40, 10:70], percent[8:42, 38:42] = BUILDING, 40
    codes[40, 38:42] = 4
    codes[41:60, 38:41] = codes[44:60, 10:70] = 2
    classes = write_run(tmp_path, codes, percent)
    areas = [buildings(classes, TidyRule(15, least, 0, None, None, split=dip)).area for dip in (0.0, 0.2)]
    assert [len(area) for area in areas] == [1, 2]
    assert areas[0].sum() == areas[1].sum() == pytest.approx(1804 * 0.36)


def test_a_dip_of_next_to_nothing_is_done_in_few_rounds():
    """Each round leaves out half of what is too small, so that there are few rounds however many summits there are."""
    rng = np.random.default_rng(0)
    codes = np.full((240, 240), BUILDING, np.uint8)
    codes[[0, -1]] = codes[:, [0, -1]] = 0
    percent = rng.integers(30, 100, codes.shape).astype(np.uint8)
    split = parts(codes, percent, dip=0.001, least=42)
    sizes = np.concatenate([np.bincount(labels.ravel())[1:] for labels in numbered(split)])
    assert len(sizes) > 100
    assert sizes.min() >= 42


def scene_of(seed, shape=(620, 660)):
    """Buildings of any form and size, some longer than is looked at, of a confidence that goes up and down."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal(shape), 6)
    codes = np.where(field > np.quantile(field, rng.uniform(0.5, 0.8)), BUILDING, 3 * (field < 0)).astype(np.uint8)
    codes[rng.integers(0, shape[0]), :400] = BUILDING
    wave = gaussian_filter(rng.standard_normal(shape), 4)
    percent = np.clip(70 + 30 * wave / np.abs(wave).max() * 1.5, 20, 100).astype(np.uint8)
    return codes, percent


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), row=st.integers(0, 560), col=st.integers(0, 600))
def test_what_a_block_sees_is_what_all_see(seed, row, col):
    codes, percent = scene_of(seed)
    whole = parts(codes, percent)
    assert (whole != codes).any()
    frame = Box(0, 0, *codes.shape)
    box = Box(row, col, 60, 60) & frame
    around = Box(box.row - HALO, box.col - HALO, box.height + 2 * HALO, box.width + 2 * HALO) & frame
    seen = around.slices(frame)
    inside = box.slices(around)
    np.testing.assert_array_equal(parts(codes[seen], percent[seen])[inside], whole[box.slices(frame)])


def write_run(folder, codes, percent):
    folder.mkdir(exist_ok=True)
    place = {"transform": Affine(0.6, 0, 593_000, 0, -0.6, 5_747_000), "nodata": 255}
    write_scene(folder / "confidence.tif", percent[None], **place)
    return write_scene(folder / "classes.tif", codes[None], **place)


def buildings(classes, rule, *, shift=0.0):
    out = classes.parent / "features.gpkg"
    vectorize(classes, out, model="aerial", rule=rule, overwrite=True)
    return gpd.read_file(out, layer="building").assign(geometry=lambda rows: rows.translate(yoff=shift))


def test_polygons_are_split_across_seams_and_cover_the_same_ground(tmp_path):
    codes, percent = scene_of(3, (400, 300))
    rule = tidy_rule(Settings(split=0.2))
    found = []
    for top in (1800, 20):  # over the seam at row 2048, and not
        scene, sure = np.zeros((2300, 300), np.uint8), np.full((2300, 300), 90, np.uint8)
        scene[top : top + 400], sure[top : top + 400] = codes, percent
        classes = write_run(tmp_path / str(top), scene, sure)
        raw = buildings(classes, TidyRule(0, 0, 0, None, None, split=0.2), shift=0.6 * top)
        together = buildings(classes, TidyRule.none(), shift=0.6 * top)
        assert len(raw) > len(together)
        assert raw.area.sum() == pytest.approx(together.area.sum(), rel=1e-9)
        assert shapely.union_all(raw.geometry).area == pytest.approx(raw.area.sum(), rel=1e-9)
        assert (raw["code"] == BUILDING).all()
        assert (raw["class"] == "building").all()
        found.append(sorted(shapely.normalize(raw.geometry).to_wkb().tolist()))
        square = buildings(classes, rule)
        assert square.is_valid.all()
        assert shapely.union_all(square.geometry).area == pytest.approx(square.area.sum(), rel=1e-6)
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        assert shapely.equals_exact(*(shapely.from_wkb(wkb) for wkb in (one, other)), tolerance=1e-6)


def test_what_cannot_be_split_is_told(tmp_path):
    codes, percent = row_of_houses(2, 50)
    classes = write_run(tmp_path, codes, percent)
    command = ["vectorize", str(classes), "--model", "aerial", "--out", str(tmp_path / "a.gpkg")]
    split = CliRunner().invoke(geoseg, [*command, "--split", "0.2"])
    assert split.exit_code == 0, split.output
    assert len(gpd.read_file(tmp_path / "a.gpkg", layer="building")) == 2
    (tmp_path / "confidence.tif").unlink()
    with pytest.raises(UsageError, match=r"--split 0\.2: no confidence lies beside"):
        vectorize(classes, tmp_path / "b.gpkg", model="aerial", rule=TidyRule(split=0.2))
    with pytest.raises(UsageError, match=r"split is 20\.0; it takes 0 to 1"):
        Settings(split=20.0)
    many = Legend(tuple(ClassEntry(code, f"c{code}", "#123456", "object") for code in range(40)))
    with pytest.raises(UsageError, match="the legend has 40 classes, 40 of them of objects"):
        Drawing.of(TidyRule(split=0.2), many, Frame((9, 9), Affine.identity(), None))
    assert not Drawing.of(TidyRule(), LAND_COVER, Frame((9, 9), Affine.identity(), None)).parts
