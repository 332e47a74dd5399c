"""Laws of damage: what cannot be read is named, everything else is read as if nothing had happened."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioIOError
from scenes import ROLES, smash, smooth_pixels, write_scene

from geoseg.errors import DamagedSceneError, SceneError
from geoseg.frame import Box
from geoseg.report import RgbSource, rgb_source, scene_picture
from geoseg.runtime.runners import _plainly
from geoseg.scene import (
    BandNeeds,
    Scaling,
    ScalingRule,
    inspect_scene,
    open_scene,
    resolve_scaling,
)
from geoseg.scene.info import forget_dataset, read_file_mask, read_window, share_of_zeros, undamaged

if TYPE_CHECKING:
    from pathlib import Path

NEEDS = BandNeeds(ROLES, ("nir",))
RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
BLOCK = 64
LAYOUT = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate"}
STRETCH = ScalingRule(percentiles=(1, 99))

Array = np.ndarray[Any, Any]


def damaged_scene(tmp_path: Path, shape: tuple[int, int] = (512, 512), dtype: str = "uint16") -> tuple[Path, Array]:
    """A scene and its pixels; the block in row 2, column 3 of it is damaged."""
    pixels = smooth_pixels(shape, dtype=dtype)
    path = write_scene(tmp_path / "scene.tif", pixels, **LAYOUT)
    smash(path, 2, 3)
    return path, pixels


def hole(shape: tuple[int, int] = (512, 512)) -> Array:
    """Where the damaged block of `damaged_scene` lies."""
    there = np.zeros(shape, bool)
    there[2 * BLOCK : 3 * BLOCK, 3 * BLOCK : 4 * BLOCK] = True
    return there


def readable(path: Path) -> Array:
    """Which pixels lie in blocks that can be read."""
    there = np.zeros(inspect_scene(path).frame.shape, bool)
    for row in range(0, there.shape[0], BLOCK):
        for col in range(0, there.shape[1], BLOCK):
            try:
                read_window(str(path), [1], Box(row, col, BLOCK, BLOCK))
            except DamagedSceneError:
                continue
            there[row : row + BLOCK, col : col + BLOCK] = True
    return there


def test_a_window_fails_exactly_where_it_touches_a_damaged_block(tmp_path: Path) -> None:
    path, pixels = damaged_scene(tmp_path)
    np.testing.assert_array_equal(readable(path), ~hole())
    above = Box(0, 0, 2 * BLOCK, 512)
    np.testing.assert_array_equal(open_scene(path, NEEDS).read(above)[0], pixels[:, : 2 * BLOCK])
    with pytest.raises(
        DamagedSceneError, match=r"scene\.tif, rows 100\.\.128, columns 190\.\.199: the file is damaged"
    ):
        open_scene(path, NEEDS).read(Box(100, 190, 29, 10))


@pytest.mark.parametrize("compress", ["deflate", "none"])
def test_a_file_cut_short_is_read_as_far_as_it_goes(tmp_path: Path, compress: str) -> None:
    pixels = smooth_pixels((512, 512))
    path = write_scene(tmp_path / "short.tif", pixels, **(LAYOUT | {"compress": compress}))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    there = readable(path)
    assert 0.5 < there.mean() < 0.7
    scaled = resolve_scaling(open_scene(path, NEEDS), STRETCH)
    low, high = np.percentile(pixels[:, there], (1, 99), axis=1)
    assert scaled == Scaling.between(tuple(low), tuple(high))
    assert share_of_zeros(str(path), (1, 2, 3)) == 0
    np.testing.assert_array_equal(alpha_of(RgbSource(path, (1, 2, 3))) > 0, there)


def alpha_of(source: RgbSource, max_side: int = 512) -> Array:
    """The alpha channel of a picture."""
    return np.array(scene_picture(source, max_side))[..., 3]


def test_what_does_not_open_is_not_damaged_but_missing(tmp_path: Path) -> None:
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    for path in (text, tmp_path / "missing.tif"):
        with pytest.raises(SceneError) as error:
            read_window(str(path), [1], Box(0, 0, 1, 1))
        assert not isinstance(error.value, DamagedSceneError)
    path, _ = damaged_scene(tmp_path)
    scene = open_scene(path, NEEDS)
    path.unlink()
    with pytest.raises(SceneError, match="No such file") as error:
        scene.read(Box(0, 0, 8, 8))
    assert not isinstance(error.value, DamagedSceneError)


def test_damage_travels_between_processes(tmp_path: Path) -> None:
    path, _ = damaged_scene(tmp_path)
    with pytest.raises(DamagedSceneError) as error:
        _plainly(read_window, str(path), [1], Box(0, 0, 512, 512))  # as a task of a Dask worker
    arrived = pickle.loads(pickle.dumps(error.value))  # noqa: S301  # our own bytes
    assert (str(arrived), arrived.path, arrived.exit_code) == (str(error.value), str(path), 3)


def test_a_forgotten_file_is_opened_again(tmp_path: Path) -> None:
    path, pixels = damaged_scene(tmp_path)
    whole = write_scene(tmp_path / "whole.tif", pixels, **LAYOUT)
    times = path.stat()
    forget_dataset(str(path))  # a file that is not open is no matter
    with pytest.raises(DamagedSceneError):
        read_window(str(path), [1], Box(0, 0, 512, 512))
    content = whole.read_bytes()
    assert len(content) == times.st_size
    with path.open("r+b") as file:  # mended in place, under the old size and time
        file.write(content)
    os.utime(path, ns=(times.st_mtime_ns, times.st_mtime_ns))
    forget_dataset(str(path))
    np.testing.assert_array_equal(read_window(str(path), [1, 2, 3, 4], Box(0, 0, 512, 512)), pixels)


@pytest.mark.parametrize("internal", [True, False])
def test_a_damaged_mask_is_damage_of_its_windows_alone(tmp_path: Path, internal: bool) -> None:  # noqa: FBT001
    mask = np.full((512, 512), 255, np.uint8)
    mask[:100, :50] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = write_scene(tmp_path / "masked.tif", smooth_pixels((512, 512)), mask=mask, **LAYOUT)
    if internal:
        smash(path, 2, 3, opened=f"GTIFF_DIR:2:{path}")
    else:
        smash(path.with_name(path.name + ".msk"), 2, 3)
    above = Box(0, 0, 2 * BLOCK, 512)
    np.testing.assert_array_equal(read_file_mask(str(path), above), mask[: 2 * BLOCK] > 0)
    scene = open_scene(path, NEEDS)
    assert scene.read(above)[1].sum() == (mask[: 2 * BLOCK] > 0).sum()
    with pytest.raises(DamagedSceneError, match=r"rows 0\.\.511, columns 0\.\.511: its mask is damaged here"):
        scene.read(Box(0, 0, 512, 512))
    np.testing.assert_array_equal(alpha_of(rgb_source(scene)) > 0, (mask > 0) & ~hole())


def with_overviews(path: Path, *, mask: bool = False) -> Path:
    """Add overviews of a half and a quarter, in blocks as the raster's; of its mask, too, if it has one."""
    with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=str(BLOCK)), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.average)
        assert dataset.overviews(1) == [2, 4]
        assert not mask or MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    return path


@pytest.mark.parametrize("level", [0, 1])
def test_a_picture_outlives_the_overviews(tmp_path: Path, level: int) -> None:
    pixels = smooth_pixels((512, 512))
    path = with_overviews(write_scene(tmp_path / "scene.tif", pixels, **LAYOUT))
    source, side = RgbSource(path, (1, 2, 3), (0, 0, 0), (255, 255, 255)), 256 >> level
    before = np.array(scene_picture(source, side))
    smash(path, 1, 0, overview=level)
    with rasterio.open(path) as dataset, pytest.raises(RasterioIOError):
        dataset.read(out_shape=(4, side, side))
    after = np.array(scene_picture(source, side))
    assert (after[..., 3] == 255).all()
    assert np.abs(after.astype(int) - before).max() <= 1 + level  # averaged from the raster, not from the overview


def test_a_picture_outlives_the_overviews_of_a_mask(tmp_path: Path) -> None:
    mask = np.full((512, 512), 255, np.uint8)
    mask[:128, :64] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_scene(tmp_path / "masked.tif", smooth_pixels((512, 512)), mask=mask, **LAYOUT)
    with_overviews(path, mask=True)
    source = rgb_source(open_scene(path, NEEDS))
    directory = next(name for name in (f"GTIFF_DIR:{number}:{path}" for number in range(2, 9)) if is_reduced_mask(name))
    smash(path, 1, 1, opened=directory)
    with rasterio.open(path) as dataset, pytest.raises(RasterioIOError):
        dataset.read_masks(1, out_shape=(256, 256))
    np.testing.assert_array_equal(alpha_of(source, 256) > 0, mask[::2, ::2] > 0)


def is_reduced_mask(name: str) -> bool:
    """Whether a directory of a TIFF is a mask of half the size."""
    with rasterio.open(name) as directory:
        return directory.shape == (256, 256) and directory.count == 1


def test_a_hole_in_the_raster_is_a_hole_of_a_reduced_picture(tmp_path: Path) -> None:
    path, _ = damaged_scene(tmp_path)
    seen = alpha_of(RgbSource(path, (1, 2, 3)), 256) > 0
    assert not seen[hole()[::2, ::2]].any()
    assert seen.mean() > 0.95


@pytest.mark.parametrize("shape", [(512, 512), (1500, 1400)])
def test_a_sample_leaves_out_what_is_damaged(tmp_path: Path, shape: tuple[int, int]) -> None:
    path, pixels = damaged_scene(tmp_path, shape)
    first = resolve_scaling(open_scene(path, NEEDS), STRETCH)
    forget_dataset(str(path))
    assert resolve_scaling(open_scene(path, NEEDS), STRETCH) == first
    low, high = np.percentile(pixels[0], (1, 99))
    assert first(np.array([[[low]], [[0]], [[0]], [[0]]]))[0, 0, 0] == pytest.approx(0, abs=0.02)
    assert first(np.array([[[high]], [[0]], [[0]], [[0]]]))[0, 0, 0] == pytest.approx(1, abs=0.02)
    assert share_of_zeros(str(path), (1, 2, 3, 4)) == 0


def test_a_walk_leaves_out_what_is_damaged(tmp_path: Path) -> None:
    pixels = np.zeros((4, 1536, 1536), np.uint16)
    pixels[:, 300:304, 300:700] = smooth_pixels((4, 400), dtype="uint16") + 1
    path = write_scene(tmp_path / "few.tif", pixels, nodata=0, **LAYOUT)
    smash(path, 4, 5)  # columns 320..383 of what is valid
    left = np.concatenate([pixels[:, 300:304, 300:320], pixels[:, 300:304, 384:700]], axis=2).reshape(4, -1)
    low, high = np.percentile(left, (1, 99), axis=1)
    assert resolve_scaling(open_scene(path, NEEDS), STRETCH) == Scaling.between(tuple(low), tuple(high))


def test_an_alpha_band_is_known_from_what_can_be_read(tmp_path: Path) -> None:
    pixels = smooth_pixels((512, 512))
    infrared = write_scene(tmp_path / "naip.tif", pixels, colorinterp=RGBA, **LAYOUT)
    pixels[3], pixels[3, :100] = 255, 0
    masked = write_scene(tmp_path / "rgba.tif", pixels, colorinterp=RGBA, **LAYOUT)
    for path in (infrared, masked):
        smash(path, 2, 3)
    assert inspect_scene(infrared).alpha_band is None
    assert inspect_scene(masked).alpha_band == 4


def test_where_all_of_a_sample_is_damaged_nothing_can_be_said(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", smooth_pixels((128, 128), dtype="uint16"), **LAYOUT)
    for row, col in np.ndindex(2, 2):
        smash(path, row, col)
    scene = open_scene(path, NEEDS)
    with pytest.raises(DamagedSceneError, match=r"a\.tif, rows 0\.\.127"):
        resolve_scaling(scene, STRETCH)
    with pytest.raises(DamagedSceneError):
        share_of_zeros(str(path), (1,))
    assert not alpha_of(rgb_source(scene)).any()


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 499), st.integers(0, 499))
def test_the_parts_of_a_damaged_box_are_disjoint_and_whole(height: int, width: int, row: int, col: int) -> None:
    seen = np.zeros((height, width), int)

    def read(box: Box) -> Box:
        rows, cols = box.slices(Box(0, 0, height, width))
        if box.row <= row < box.bottom and box.col <= col < box.right:
            raise DamagedSceneError("here")
        seen[rows, cols] += 1
        return box

    whole = Box(0, 0, height, width)
    if max(height, width) <= 128 and row < height and col < width:
        with pytest.raises(DamagedSceneError):
            list(undamaged([whole], read))
        return
    list(undamaged([whole], read))
    assert seen.max() == 1
    lost = seen == 0
    assert lost.sum() <= 128 * 128
    assert not lost.any() or lost[row, col]
