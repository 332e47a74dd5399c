"""What is read of a scene: roles, one valid mask, one scaling, mirrored edges."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pointwise import BUNDLE, frame_of, random_scene
from rasterio.enums import ColorInterp
from scenes import ROLES, smooth_pixels, write_scene
from scipy.spatial import cKDTree

from geoseg.errors import BandRoleError, BundleError, MissingCrsError, SceneError, UsageError
from geoseg.frame import Box
from geoseg.model import ModelBand, Normaliser
from geoseg.model.bundle import fill_from_nearest
from geoseg.scene import (
    ArrayScene,
    BandNeeds,
    Scaling,
    ScalingRule,
    inspect_scene,
    mirror,
    open_scene,
    parse_bands,
    read_mirrored,
    resolve_scaling,
    scaling,
)
from geoseg.scene.roles import known_roles, role_of_description

if TYPE_CHECKING:
    from pathlib import Path

NEEDS = BandNeeds(ROLES, ("nir",))
RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)


def test_descriptions_win_over_order(tmp_path: Path) -> None:
    pixels = smooth_pixels((8, 8))
    path = write_scene(tmp_path / "a.tif", pixels, descriptions=("Blue", "Green", "Red", "NIR 1"))
    scene = open_scene(path, NEEDS)
    assert scene.bands == (3, 2, 1, 4)
    np.testing.assert_array_equal(scene.read(Box(0, 0, 8, 8))[0], pixels[[2, 1, 0, 3]])


def test_the_users_word_wins_over_descriptions(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", smooth_pixels((8, 8)), descriptions=("blue", "green", "red", "nir"))
    assert open_scene(path, NEEDS, bands={"red": 1, "green": 2, "blue": 3}).bands == (1, 2, 3)
    assert open_scene(path, NEEDS, bands={"nir": 1, "blue": 4}).bands == (3, 2, 4, 1)
    with pytest.raises(BandRoleError, match="two roles"):
        open_scene(path, NEEDS, bands={"nir": 1})


def test_near_infrared_tagged_alpha_is_a_band(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "naip.tif", smooth_pixels((64, 64)), colorinterp=RGBA)
    scene = open_scene(path, NEEDS)
    assert scene.bands == (1, 2, 3, 4)
    assert scene.alpha is None
    assert scene.read(Box(0, 0, 64, 64))[1].all()


def test_near_infrared_is_told_from_a_mask_however_little_of_it_there_is(tmp_path: Path) -> None:
    pixels = np.zeros((4, 2000, 1500), np.uint8)
    pixels[:, 700:740, 300:360] = smooth_pixels((40, 60))
    path = write_scene(tmp_path / "mosaic.tif", pixels, colorinterp=RGBA, compress="deflate")
    assert open_scene(path, NEEDS).bands == (1, 2, 3, 4)


def test_a_true_alpha_band_masks(tmp_path: Path) -> None:
    pixels = smooth_pixels((64, 64))
    pixels[3] = 255
    pixels[3, :10] = 0
    scene = open_scene(write_scene(tmp_path / "rgba.tif", pixels, colorinterp=RGBA), NEEDS)
    assert scene.roles == ("red", "green", "blue")
    valid = scene.read(Box(0, 0, 64, 64))[1]
    np.testing.assert_array_equal(valid, pixels[3] > 0)


def test_sentinel2_band_names_are_known(tmp_path: Path) -> None:
    names = ("B02", "B03", "B04", "B08", "B11")
    path = write_scene(tmp_path / "s2.tif", smooth_pixels((8, 8), bands=5), descriptions=names)
    assert open_scene(path, NEEDS).bands == (3, 2, 1, 4)


def roles_of(tmp_path: Path, *descriptions: str) -> dict[str, int]:
    pixels = smooth_pixels((8, 8), bands=len(descriptions))
    return known_roles(inspect_scene(write_scene(tmp_path / "named.tif", pixels, descriptions=descriptions)))


def test_the_same_names_mean_other_bands_on_other_satellites(tmp_path: Path) -> None:
    eight = [f"B{number}" for number in range(1, 9)]
    assert roles_of(tmp_path, *eight) == {}
    sentinel2 = roles_of(tmp_path, *eight, "B8A", "B9", "B11", "B12")
    assert sentinel2 | {"nir": 8, "red": 4, "swir1": 11} == sentinel2
    assert roles_of(tmp_path, "B2", "B3", "B4", "B8") == {"blue": 1, "green": 2, "red": 3, "nir": 4}
    oli = [f"SR_B{number}" for number in range(1, 8)]
    assert roles_of(tmp_path, *oli)["nir"] == 5
    tm = {"blue": 1, "green": 2, "red": 3, "nir": 4, "swir1": 5, "swir2": 6}
    assert roles_of(tmp_path, *oli[:5], "SR_B7") == tm
    assert roles_of(tmp_path, "SR_B2", "SR_B3", "SR_B4", "SR_B5") == {}


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("infrared", "nir"),
        ("Near Infrared", "nir"),
        ("near-infra-red", "nir"),
        ("Near Infrared 2", "nir2"),
        ("short wave infrared", None),
        ("SWIR infrared", None),
        ("Short-wave infrared 1", "swir1"),
        ("shortwave infrared 2", "swir2"),
        ("mid-infrared", None),
        ("mid infra red", None),
        ("thermal infrared", "thermal"),
    ],
)
def test_infrared_is_near_only_where_it_says_so(text: str, role: str | None) -> None:
    assert role_of_description(text) == role


@pytest.mark.parametrize(
    ("bands", "descriptions", "message"),
    [
        (2, (), "--bands red=?,green=?,blue=?"),
        (8, (), "cannot tell which band is red and green and blue"),
        (4, ("red", "red", "green", "blue"), "bands 1 and 2 both say they are red"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path: Path, bands: int, descriptions: tuple[str, ...], message: str) -> None:
    path = write_scene(tmp_path / "a.tif", smooth_pixels((8, 8), bands=bands), descriptions=descriptions)
    with pytest.raises(BandRoleError) as error:
        open_scene(path, NEEDS)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["red", "red=x", "red=0", "=3", "red=1,red=2", ""])
def test_bands_that_are_no_bands_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--bands"):
        parse_bands(text)


def test_every_kind_of_nothing_is_one_mask(tmp_path: Path) -> None:
    pixels = smooth_pixels((32, 32)).astype(np.float32)
    pixels[:, 0, 0] = -9999
    pixels[1, 0, 1] = np.nan
    pixels[2, 0, 2] = np.inf
    pixels[0, 0, 3] = -9999  # one band alone: the others say something
    mask = np.full((32, 32), 255, np.uint8)
    mask[5] = 0
    scene = open_scene(write_scene(tmp_path / "a.tif", pixels, nodata=-9999), NEEDS)
    valid = scene.read(Box(0, 0, 32, 32))[1]
    assert valid[0, :4].tolist() == [False, False, False, True]
    assert valid[1:].all()
    masked = open_scene(write_scene(tmp_path / "b.tif", smooth_pixels((32, 32)), mask=mask), NEEDS)
    np.testing.assert_array_equal(masked.read(Box(0, 0, 32, 32))[1], mask > 0)
    given_nodata = open_scene(write_scene(tmp_path / "c.tif", np.full((4, 4, 4), 7, np.uint8)), NEEDS, nodata=7)
    assert not given_nodata.read(Box(0, 0, 4, 4))[1].any()


@pytest.mark.parametrize(
    ("dtype", "nodata", "stored"),
    [
        ("uint8", 0, 0),
        ("uint8", 255, 255),
        ("uint8", -9999, None),
        ("uint8", 256, None),
        ("uint8", 0.5, None),
        ("uint8", np.inf, None),
        ("uint8", np.nan, None),
        ("int16", -32768, -32768),
        ("uint16", 65535, 65535),
        ("int16", 65535, None),
        ("uint32", 4_294_967_295, 4_294_967_295),
        ("float32", 0.1, np.float32(0.1)),
        ("float32", -3.4028234663852886e38, np.finfo(np.float32).min),
        ("float32", 1e300, None),
        ("float64", 1e300, 1e300),
    ],
)
def test_nodata_is_a_value_that_the_pixels_can_have(
    tmp_path: Path, dtype: str, nodata: float, stored: float | None
) -> None:
    pixels = smooth_pixels((4, 6)).clip(1, 100).astype(dtype)
    if stored is not None:
        pixels[:, 1, 2] = stored
        pixels[:3, 2, 2] = stored  # three bands of four say nothing
    expected = np.ones((4, 6), bool)
    expected[1, 2] = stored is None
    scene = open_scene(write_scene(tmp_path / "a.tif", pixels), NEEDS, nodata=nodata)
    np.testing.assert_array_equal(scene.read(Box(0, 0, 4, 6))[1], expected)


def test_alpha_and_mask_both_count(tmp_path: Path) -> None:
    pixels = smooth_pixels((32, 32))
    pixels[3] = 255
    pixels[3, :4] = 0
    mask = np.full((32, 32), 255, np.uint8)
    mask[:, :6] = 0
    path = write_scene(tmp_path / "both.tif", pixels, colorinterp=RGBA, mask=mask)
    assert inspect_scene(path).mask == "file+alpha"
    np.testing.assert_array_equal(open_scene(path, NEEDS).read(Box(0, 0, 32, 32))[1], (pixels[3] > 0) & (mask > 0))
    assert inspect_scene(write_scene(tmp_path / "alpha.tif", pixels, colorinterp=RGBA)).mask == "alpha"
    assert inspect_scene(write_scene(tmp_path / "file.tif", pixels, mask=mask)).mask == "file"


LOCAL = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'


@pytest.mark.parametrize("profile", [{"crs": "EPSG:4326"}, {"crs": LOCAL}, {"transform": Affine.identity()}])
def test_a_crs_that_places_nothing_needs_a_word(tmp_path: Path, profile: dict[str, object]) -> None:
    path = write_scene(tmp_path / "a.tif", smooth_pixels((8, 8)), **profile)
    with pytest.raises(MissingCrsError, match="--force"):
        open_scene(path, NEEDS)
    assert open_scene(path, NEEDS, require_crs=False).frame.gsd_m is None


def test_a_scene_without_crs_needs_a_word(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", smooth_pixels((8, 8)), crs=None)
    with pytest.raises(MissingCrsError, match="--force"):
        open_scene(path, NEEDS)
    assert open_scene(path, NEEDS, require_crs=False).frame.gsd_m is None


def test_files_that_are_no_rasters(tmp_path: Path) -> None:
    text = tmp_path / "a.tif"
    text.write_text("not a raster")
    vrt = tmp_path / "b.tif"
    vrt.write_text('<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>')
    for path in (text, vrt, tmp_path / "missing.tif", tmp_path, "https://example.org/a.tif", "/vsicurl/x.tif"):
        with pytest.raises(SceneError):
            inspect_scene(path)


def test_damage_names_file_and_window(tmp_path: Path) -> None:
    path = write_scene(
        tmp_path / "a.tif", smooth_pixels((256, 256)), tiled=True, blockxsize=64, blockysize=64, compress="deflate"
    )
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = b"\xff" * 3000
    path.write_bytes(bytes(data))
    with pytest.raises(SceneError, match=r"a\.tif, rows 0\.\.255, columns 0\.\.255"):
        open_scene(path, NEEDS).read(Box(0, 0, 256, 256))


def test_a_scene_pickles_and_a_replaced_file_is_opened_again(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", smooth_pixels((8, 8), 1))
    scene = pickle.loads(pickle.dumps(open_scene(path, NEEDS)))  # noqa: S301  # our own bytes
    before = scene.read(Box(0, 0, 8, 8))[0]
    write_scene(path, smooth_pixels((8, 8), 2))
    assert (scene.read(Box(0, 0, 8, 8))[0] != before).any()


@given(st.integers(-50, 50), st.integers(1, 60), st.integers(1, 20))
def test_mirroring_is_that_of_numpy(start: int, length: int, size: int) -> None:
    pad = 200
    expected = np.pad(np.arange(size), pad, mode="reflect")[pad + start : pad + start + length]
    np.testing.assert_array_equal(mirror(start, start + length, size), expected)


@given(st.integers(-40, 40), st.integers(-40, 40), st.integers(1, 50), st.integers(1, 50))
def test_mirrored_reads_agree_with_numpy(row: int, col: int, height: int, width: int) -> None:
    scene = random_scene((11, 7), 3, 0.5)
    pixels, valid = read_mirrored(scene, Box(row, col, height, width))
    pad = ((0, 0), (100, 100), (100, 100))
    expected = np.pad(scene.pixels, pad, mode="reflect")[:, 100 + row :, 100 + col :][:, :height, :width]
    np.testing.assert_array_equal(pixels, expected)
    assert scene.valid is not None
    expected = np.pad(scene.valid, 100, mode="reflect")[100 + row :, 100 + col :][:height, :width]
    np.testing.assert_array_equal(valid, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (2, 300), (300, 3), (64, 64)])
def test_frames_smaller_than_a_tile_are_mirrored_often(shape: tuple[int, int]) -> None:
    scene = random_scene(shape, 1, 0.5)
    pixels, valid = read_mirrored(scene, Box(-64, -64, 192, 512))
    rows, cols = mirror(-64, 128, shape[0]), mirror(-64, 448, shape[1])
    assert scene.valid is not None
    np.testing.assert_array_equal(pixels, scene.pixels[:, rows][:, :, cols])
    np.testing.assert_array_equal(valid, scene.valid[rows][:, cols])


@given(hnp.arrays(np.uint16, (2, 5, 6)), st.floats(0, 1))
def test_scaling_stays_between_0_and_1(pixels: np.ndarray, low: float) -> None:
    scaled = Scaling.between((low, 10), (low + 3, 2000))(pixels)
    assert scaled.dtype == np.float32
    assert scaled.min() >= 0
    assert scaled.max() <= 1


def test_percentiles_are_those_of_valid_pixels_and_ranges_win() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 1100, (2, 80, 90)).astype(np.uint16)
    valid = np.ones((80, 90), bool)
    pixels[:, :40] = 60_000
    valid[:40] = False
    scene = ArrayScene(pixels, frame_of((80, 90)), ("red", "nir"), valid)
    rule = ScalingRule({"uint8": (0, 255)}, (1, 99), (0.1, 0.9))
    scaling = resolve_scaling(scene, rule)
    low, high = np.percentile(pixels[0][valid], [1, 99])
    np.testing.assert_allclose(low * scaling.gain[0] + scaling.offset[0], 0.1, atol=1e-6)
    np.testing.assert_allclose(high * scaling.gain[0] + scaling.offset[0], 0.9, atol=1e-6)
    eight_bits = ArrayScene(pixels.astype(np.uint8), scene.frame, scene.roles)
    assert resolve_scaling(eight_bits, rule) == Scaling.between((0, 0), (255, 255))
    with pytest.raises(SceneError, match="uint16"):
        resolve_scaling(scene, ScalingRule({"uint8": (0, 255)}))
    with pytest.raises(BundleError):
        ScalingRule.from_json({})


def test_a_small_valid_part_of_a_large_scene_is_found() -> None:
    rng = np.random.default_rng(1)
    pixels = np.zeros((1, 4000, 4000), np.uint16)
    valid = np.zeros((4000, 4000), bool)
    valid[100:340, 100:340] = True
    pixels[0, valid] = rng.integers(300, 900, valid.sum())
    scene = ArrayScene(pixels, frame_of((4000, 4000)), ("red",), valid)
    rule = ScalingRule(percentiles=(1, 99))
    low, high = np.percentile(pixels[0, valid], [1, 99])
    assert resolve_scaling(scene, rule) == Scaling.between((low,), (high,))
    nothing = ArrayScene(pixels, scene.frame, scene.roles, np.zeros_like(valid))
    assert resolve_scaling(nothing, rule) == Scaling.between((0,), (1,))


def test_what_is_kept_of_a_scene_is_evenly_spaced_among_its_valid_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_WALK", (7, 11))
    monkeypatch.setattr(scaling, "_KEPT", 100)
    valid = np.random.default_rng(2).random((40, 50)) < 0.6
    pixels = np.zeros((1, 40, 50), np.int32)
    number = 0
    for row in range(0, 40, 7):
        for col in range(0, 50, 11):
            part = valid[row : row + 7, col : col + 11]
            pixels[0, row : row + 7, col : col + 11][part] = number + np.arange(part.sum())
            number += int(part.sum())
    kept = scaling._walk(ArrayScene(pixels, frame_of((40, 50)), ("red",), valid))[0]  # noqa: SLF001
    assert 50 < len(kept) <= 100
    np.testing.assert_array_equal(kept, np.arange(0, number, 16))


@pytest.mark.parametrize(("dtype", "base"), [("float64", 1e8), ("uint32", 4e9), ("int32", 2e9), ("float32", 1000.0)])
def test_large_values_keep_their_differences(dtype: str, base: float) -> None:
    steps = np.arange(0, 101, 10)
    pixels = (base + steps).astype(dtype)[None, None]
    scaled = Scaling.between((base,), (base + 100,))(pixels)
    np.testing.assert_allclose(scaled[0, 0], steps / 100, atol=1e-6)


def test_wide_and_narrow_values_scale_alike_and_extremes_do_not_warn() -> None:
    pixels = np.arange(0, 60_000, 7, np.uint16)[None, None]
    scaled = Scaling.between((100,), (50_000,), (0.1, 0.9), 0.7)
    np.testing.assert_allclose(scaled(pixels), scaled(pixels.astype(np.float64)), atol=1e-6)
    extremes = np.array([[[-1.79e308, 1.79e308, np.inf, -np.inf, 2.0]]])
    assert Scaling.between((1e-5,), (2e-5,))(extremes)[0, 0].tolist() == [0, 1, 1, 0, 1]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_a_band_of_one_value_lies_in_the_middle(dtype: str) -> None:
    scaled = Scaling.between((7.0,), (7.0,), (0.2, 0.6), 0.5)(np.full((1, 2, 2), 7, dtype))
    np.testing.assert_allclose(scaled, 0.4, atol=1e-6)


def test_reflectance_is_the_files_own_where_it_states_it(tmp_path: Path) -> None:
    rule = ScalingRule({"uint8": (0, 255)}, (1, 99), reflectance=(1e-4, -0.1))
    assert ScalingRule.from_json(rule.to_json()) == rule
    pixels = smooth_pixels((8, 8), dtype="uint16")
    path = write_scene(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (1, 2e-4, 1, 1), (0, -0.2, 0, 0)
    scene = open_scene(path, NEEDS, bands={"red": 2, "green": 1, "blue": 3})
    resolved = resolve_scaling(scene, rule)
    assert resolved == Scaling((2e-4, 1e-4, 1e-4), (-0.2, -0.1, -0.1))
    scaled = resolved(scene.read(Box(0, 0, 8, 8))[0])
    np.testing.assert_allclose(scaled[0], np.clip(pixels[1] * 2e-4 - 0.2, 0, 1), atol=1e-6)
    np.testing.assert_allclose(scaled[1], np.clip(pixels[0] * 1e-4 - 0.1, 0, 1), atol=1e-6)
    in_memory = ArrayScene(pixels, scene.frame, ROLES)
    assert resolve_scaling(in_memory, rule) == Scaling((1e-4,) * 4, (-0.1,) * 4)
    eight_bits = ArrayScene(pixels.astype(np.uint8), scene.frame, ROLES)
    assert resolve_scaling(eight_bits, rule) == Scaling.between((0,) * 4, (255,) * 4)


@pytest.mark.parametrize(
    "rule", [{"reflectance": [0, 0]}, {"reflectance": [1]}, {"reflectance": "x"}, {"ranges": {"uint8": [255, 0]}}]
)
def test_rules_that_make_no_sense_are_refused(rule: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="scaling"):
        ScalingRule.from_json(rule)


@pytest.mark.parametrize("gamma", [1.0, 0.7])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "float16", "float32", "float64"])
def test_one_pass_is_scaling_and_normalising_bit_for_bit(dtype: str, gamma: float) -> None:
    kind = np.dtype(dtype)
    rng = np.random.default_rng(5)
    if kind.kind == "f":
        pixels = (1000 * rng.standard_normal((3, 90, 4000))).astype(dtype)
    else:
        limits = np.iinfo(kind)
        pixels = rng.integers(limits.min, limits.max, (3, 90, 4000), dtype, endpoint=True)
        pixels[0, 0, :2] = limits.min, limits.max
    pixels = pixels[:, 5:85, 7:3900]  # a tile is a view of a strip
    valid = rng.random(pixels.shape[1:]) < 0.999
    bands = (ModelBand("nir", 0.4, 0.21), ModelBand("swir1", 0.1, 0.3, optional=True), ModelBand("red", 0.3, 0.17))
    bundle = replace(BUNDLE, bands=bands)
    for low, high in ((-20.0, 90.0), (10.0, 3000.0), (0.0, 65535.0), (5.0, 5.0)):
        scaled = Scaling.between((low, low, low + 3), (high, high, high), (0.1, 0.9), gamma)
        normaliser = Normaliser.of(bundle, scaled, ("red", "blue", "nir"), dtype)
        assert pickle.loads(pickle.dumps(normaliser)) == normaliser  # noqa: S301  # our own bytes
        expected = bundle.normalise(scaled(pixels), valid, ("red", "blue", "nir"))
        found = normaliser(pixels, valid)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_what_is_missing_takes_after_a_nearest_valid_pixel(valid: np.ndarray) -> None:
    numbers = np.arange(1, valid.size + 1, dtype=np.float32).reshape(1, *valid.shape)
    filled = numbers.copy()
    fill_from_nearest(filled, valid)
    if not valid.any():
        assert not filled.any()
        return
    np.testing.assert_array_equal(filled[0][valid], numbers[0][valid])
    places = np.argwhere(valid)
    source = np.stack(np.unravel_index(filled[0].astype(int) - 1, valid.shape), axis=-1)
    assert valid[source[..., 0], source[..., 1]].all()
    here = np.stack(np.indices(valid.shape), axis=-1)
    nearest, _ = cKDTree(places).query(here)
    np.testing.assert_allclose(np.hypot(*np.moveaxis(source - here, -1, 0)), nearest)
