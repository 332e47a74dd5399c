"""Laws of scenes on other grids: where a pixel comes from depends on the pixel alone, and it is the right place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rasterio.warp
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from rasterio.enums import Resampling

from geoseg.frame import Box, Frame
from geoseg.scene import ArrayScene
from geoseg.scene.warped import WarpedScene

Array = np.ndarray[Any, Any]

UTM = CRS.from_epsg(32631).to_wkt()
GEOGRAPHIC = CRS.from_epsg(4326).to_wkt()
SCENE = Frame((90, 110), Affine(2, 0, 593_000, 0, -2, 5_747_000), UTM)
LONLAT = Frame((60, 80), Affine(2.8e-5, 0, 4.3512, 0, -1.7e-5, 51.8659), GEOGRAPHIC)
"""Within the scene, and a little beyond it."""


def scene(dtype: str = "uint8", seed: int = 0, *, holes: bool = False) -> ArrayScene:
    rng = np.random.default_rng(seed)
    pixels = (rng.random((3, *SCENE.shape)) * 250).astype(dtype)
    valid = rng.random(SCENE.shape) > 0.03 if holes else None
    return ArrayScene(pixels, SCENE, ("red", "green", "blue"), valid)


def frames() -> dict[str, Frame]:
    t = SCENE.transform
    return {
        "finer": Frame((150, 160), t * Affine(0.6, 0, 3.3, 0, 0.7, -2.1), UTM),
        "much coarser": Frame((3, 3), t * Affine(31.7, 0, 1.9, 0, 28.2, 0.4), UTM),
        "coarser": Frame((30, 34), t * Affine(2.7, 0, 1.9, 0, 2.2, 0.4), UTM),
        "moved": Frame((90, 110), t * Affine.translation(0.37, -0.81), UTM),
        "turned": Frame((70, 70), t * Affine.translation(40, 10) * Affine.rotation(20), UTM),
        "upside down": Frame((90, 110), t * Affine.translation(0, 90) * Affine.scale(1, -1), UTM),
        "geographic": LONLAT,
    }


@pytest.mark.parametrize("name", list(frames()))
@given(data=st.data())
def test_a_part_is_a_part_of_the_whole_bit_for_bit(name: str, data: st.DataObject) -> None:
    frame = frames()[name]
    shift = data.draw(st.sampled_from([(0.0, 0.0), (0.4, -1.3)]))
    warped = WarpedScene(scene(holes=True), frame, shift)
    row, col = (data.draw(st.integers(0, size - 1)) for size in frame.shape)
    height, width = (
        data.draw(st.integers(1, size - start)) for size, start in zip(frame.shape, (row, col), strict=True)
    )
    box = Box(row, col, height, width)
    whole, valid_whole = warped.read(frame.box)
    part, valid = warped.read(box)
    at = box.slices(frame.box)
    assert np.array_equal(part, whole[(slice(None), *at)])
    assert np.array_equal(valid, valid_whole[at])


def test_pixels_of_one_grid_are_copied_as_they_are() -> None:
    given_scene = scene("uint16", holes=True)
    same = WarpedScene(given_scene, SCENE)
    assert same.is_copy
    assert same.dtype == "uint16"
    pixels, valid = same.read(Box(3, 4, 20, 30))
    expected, expected_valid = given_scene.read(Box(3, 4, 20, 30))
    assert np.array_equal(pixels, expected)
    assert np.array_equal(valid, expected_valid)
    aside = WarpedScene(given_scene, SCENE.crop(Box(10, 20, 30, 30)), (-12.0, 1.0))
    assert aside.is_copy
    pixels, valid = aside.read(Box(0, 0, 30, 30))
    assert not valid[:2].any()  # above the scene
    assert np.array_equal(pixels[:, 2:], given_scene.pixels[:, 0:28, 21:51])


def ramp(frame: Frame) -> Array:
    row, col = np.mgrid[: frame.shape[0], : frame.shape[1]] + 0.5
    x, y = frame.xy(row, col)
    return np.stack([x - 593_000, 5_747_000 - y])


@pytest.mark.parametrize("name", list(frames()))
def test_a_plane_stays_what_it_is_on_the_ground(name: str) -> None:
    frame = frames()[name]
    plane = ArrayScene(ramp(SCENE), SCENE, ("x", "y"))
    pixels, valid = WarpedScene(plane, frame).read(frame.box)
    row, col = np.mgrid[: frame.shape[0], : frame.shape[1]] + 0.5
    x, y = frame.xy(row, col)
    if frame.crs != UTM:
        x, y = Transformer.from_crs(GEOGRAPHIC, UTM, always_xy=True).transform(x, y)
    expected = np.stack([x - 593_000, 5_747_000 - y])
    assert valid.mean() > 0.3
    # In m, with pixels of 2 m; a mean of what is covered takes each pixel for flat, and so may lie off by a little.
    assert np.abs(pixels - expected)[:, valid].max() < (0.1 if "coarser" in name else 0.002)


@pytest.mark.parametrize("name", list(frames()))
def test_valid_is_what_lies_inside_and_nothing_else(name: str) -> None:
    frame = frames()[name]
    _, valid = WarpedScene(scene(), frame).read(frame.box)
    row, col = np.mgrid[: frame.shape[0], : frame.shape[1]] + 0.5
    x, y = frame.xy(row, col)
    if frame.crs != UTM:
        x, y = Transformer.from_crs(GEOGRAPHIC, UTM, always_xy=True).transform(x, y)
    col, row = ~SCENE.transform * (x, y)
    depth = np.minimum.reduce([row, col, SCENE.shape[0] - row, SCENE.shape[1] - col])
    assert valid[depth > 2.5].all()
    assert not valid[depth < 0].any()


def test_shifts_move_what_is_seen() -> None:
    plane = ArrayScene(ramp(SCENE), SCENE, ("x", "y"))
    pixels, valid = WarpedScene(plane, SCENE, (1.5, -0.25)).read(SCENE.box)
    moved = pixels - ramp(SCENE)
    assert np.allclose(moved[0][valid], -0.25 * 2)
    assert np.allclose(moved[1][valid], 1.5 * 2)


def test_coarser_pixels_are_the_mean_of_what_they_cover() -> None:
    pixels = np.random.default_rng(1).random((1, 90, 110))
    coarse = Frame((30, 36), SCENE.transform * Affine.scale(3), UTM)
    found, valid = WarpedScene(ArrayScene(pixels, SCENE, ("a",)), coarse).read(coarse.box)
    assert valid.all()
    assert np.allclose(found[0], pixels[0, :90, :108].reshape(30, 3, 36, 3).mean(axis=(1, 3)))


def test_of_a_much_finer_scene_little_is_held_at_a_time() -> None:
    sides: list[int] = []

    class Large(ArrayScene):
        def read(self, box: Box) -> tuple[Array, Array]:
            sides.append(max(box.shape))
            return np.ones((1, *box.shape), np.uint8), np.ones(box.shape, bool)

    fine = Frame((30_000, 30_000), Affine(0.1, 0, 593_000, 0, -0.1, 5_747_000), UTM)
    for crs in (UTM, CRS.from_epsg(25831).to_wkt()):
        coarse = Frame((100, 100), Affine(30, 0, 593_000, 0, -30, 5_747_000), crs)
        pixels, valid = WarpedScene(Large(np.zeros((1, 1, 1), np.uint8), fine, ("a",)), coarse).read(Box(0, 0, 12, 12))
        assert valid[1:, 1:].all()
        assert np.allclose(pixels[0][valid], 1)
    assert max(sides) <= 1100


def test_a_hole_takes_what_is_made_of_it_and_no_more() -> None:
    pixels, valid = np.full((1, 90, 110), 7.0), np.ones((90, 110), bool)
    pixels[0, 40, 50], valid[40, 50] = 1e6, False
    found, seen = WarpedScene(ArrayScene(pixels, SCENE, ("a",), valid), SCENE, (0.5, 0.5)).read(SCENE.box)
    lost = np.argwhere(~seen[:-1, :-1])
    assert lost.tolist() == [[39, 49], [39, 50], [40, 49], [40, 50]]
    assert np.allclose(found[0][seen], 7.0)


@pytest.mark.parametrize(("name", "how"), [("moved", Resampling.cubic), ("geographic", Resampling.bilinear)])
def test_gdal_sees_much_the_same(name: str, how: Resampling) -> None:
    """An independent warper: exact where it interpolates alike, close where its kernel is another."""
    frame = frames()[name]
    smooth = ArrayScene(np.cumsum(scene().pixels[:1].astype(np.float64) - 125, axis=2), SCENE, ("a",))
    pixels, valid = WarpedScene(smooth, frame).read(frame.box)
    expected = np.full((1, *frame.shape), np.nan)
    rasterio.warp.reproject(
        smooth.pixels, expected, src_transform=SCENE.transform, src_crs=UTM, dst_transform=frame.transform,
        dst_crs=frame.crs, resampling=how, dst_nodata=np.nan, tolerance=0,
    )  # fmt: skip
    inner = valid & np.isfinite(expected[0])
    inner[:3] = inner[-3:] = inner[:, :3] = inner[:, -3:] = False
    off = np.abs(pixels[0] - expected[0])[inner]
    assert inner.mean() > 0.3
    assert np.median(off) < (1e-6 if how is Resampling.cubic else 0.1 * smooth.pixels.std())
