"""Laws of the picture that is made in passing: the samples of each pixel, the same however the scene is cut."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from pointwise import frame_of, job_for
from scenes import ROLES, smash, smooth_pixels, write_scene

import geoseg.workflow.tasks
from geoseg.config import Settings
from geoseg.grid import Axis, Grid
from geoseg.legend import NODATA
from geoseg.report import RgbSource, count_classes, preview_picture, scene_numbers, scene_picture
from geoseg.scene import ArrayScene, Scaling
from geoseg.segment import Stopwatch, forward_block, read_preview, read_receipt, read_strips
from geoseg.segment.preview import MAX_SIDE, Preview, reduced_shape
from geoseg.workflow import segment_scene
from geoseg.workflow.outputs import write_raster
from geoseg.workflow.tasks import forward, settle

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
BLOCKS = (64, 150, 1000)
SHAPE = (400, 450)


def places(axis: Axis, side: int, pixel: int) -> list[int]:
    """Where along an axis the samples of a pixel of the picture lie, in exact arithmetic."""
    length = Fraction(axis.size, side)
    centre = floor((pixel + Fraction(1, 2)) * length)
    (cell,) = [(start, stop) for start, stop in axis.cells if start <= centre < stop]
    count = min(3, ceil(length))
    even = [floor((pixel + Fraction(2 * k + 1, 2 * count)) * length) for k in range(count)]
    return [min(max(place, cell[0]), cell[1] - 1) for place in even]


def expected_preview(scene: ArrayScene, bands: tuple[int, ...], grid: Grid) -> tuple[Array, Array]:
    """The mean of the valid samples of each pixel, and where there is one, from the whole array."""
    pixels, valid = scene.read(scene.frame.box)
    height, width = reduced_shape(grid.shape)
    means, seen = np.zeros((len(bands), height, width), pixels.dtype), np.zeros((height, width), bool)
    columns = [places(grid.axes[1], width, col) for col in range(width)]
    for row in range(height):
        rows = places(grid.axes[0], height, row)
        for col, cols in enumerate(columns):
            here = valid[np.ix_(rows, cols)]
            seen[row, col] = here.any()
            if seen[row, col]:
                mean = pixels[list(bands)][:, rows][:, :, cols][:, here].mean(axis=1, dtype=np.float64)
                means[:, row, col] = np.rint(mean) if pixels.dtype.kind == "u" else mean
    return means, seen


def noise(shape: tuple[int, int], dtype: str, share_valid: float = 0.6) -> ArrayScene:
    """Noise with holes; NaN under some of them where it can be."""
    rng = np.random.default_rng(5)
    pixels = rng.uniform(0, 65_000 if dtype == "uint16" else 250, (2, *shape)).astype(dtype)
    holes = rng.random(shape) > share_valid
    if pixels.dtype.kind == "f":
        pixels[1, holes] = np.nan
    return ArrayScene(pixels, frame_of(shape), ("red", "nir"), None if pixels.dtype.kind == "f" else ~holes)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (100, 130), (2100, 24), (20, 5000)])
def test_a_pixel_is_the_mean_of_its_samples_however_the_scene_is_cut(
    shape: tuple[int, int], dtype: str, tmp_path: Path
) -> None:
    scene = noise(shape, dtype)
    found = []
    for block in BLOCKS:
        job = job_for(scene, Grid(shape, (40, 16), (9, 6), block), tmp_path)
        for part in job.grid.blocks:
            forward_block(job, part)
        found.append(read_preview(job))
    (pixels, seen), *others = found
    assert max(seen.shape) == min(MAX_SIDE, max(shape))
    for other, there in others:
        np.testing.assert_array_equal(other, pixels)
        np.testing.assert_array_equal(there, seen)
    means, expected = expected_preview(scene, (0, 1, 1), job.grid)
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_allclose(pixels, means, rtol=1e-6 if dtype == "float32" else 1e-12)


def test_a_smooth_scene_looks_as_if_averaged(tmp_path: Path) -> None:
    rows, cols = np.indices((80, 9000))
    smooth = np.stack([127 + 120 * np.sin(rows / 40 + cols / 60), 127 + 120 * np.cos(cols / 80)]).astype(np.uint8)
    job = job_for(
        ArrayScene(smooth, frame_of((80, 9000)), ("red", "nir")), Grid((80, 9000), (128, 128), (16, 16), 300), tmp_path
    )
    for block in job.grid.blocks:
        forward_block(job, block)
    path = write_scene(tmp_path / "scene.tif", smooth)
    averaged = np.array(scene_picture(RgbSource(path, (1, 2, 2)))).astype(int)
    made = np.array(preview_picture(*read_preview(job)))
    assert made.shape == averaged.shape
    assert np.abs(made - averaged).mean() < 2


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_all_that_can_be_drawn_are_holes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.uniform(0, 255, (2, 1500, 30))
    fill = np.kron(rng.random((150, 3)) < 0.3, np.ones((10, 10), bool))
    pixels[:, fill] = rng.choice([-1, 1], fill.sum()) * np.finfo(float).max
    job = job_for(
        ArrayScene(pixels, frame_of((1500, 30)), ("red", "nir")), Grid((1500, 30), (30, 30), (4, 4), 90), tmp_path
    )
    for block in job.grid.blocks:
        preview = Preview(job, block)
        for strip in read_strips(job, block, Stopwatch(), hashlib.sha256()):
            preview.take(strip)
        preview.save()
    picture = np.array(preview_picture(*read_preview(job)))
    assert 0.2 < (picture[..., 3] == 0).mean() < 0.5
    assert 100 < picture[picture[..., 3] > 0][:, :3].mean() < 150


def test_red_green_and_blue_are_shown_wherever_they_stand(tmp_path: Path) -> None:
    pixels = np.arange(4 * 40 * 50, dtype=np.uint16).reshape(4, 40, 50)
    scene = ArrayScene(pixels, frame_of((40, 50)), ("blue", "nir", "red", "green"))
    scaling = Scaling.between((0.0,) * 4, (255.0,) * 4)
    job = replace(job_for(scene, Grid((40, 50), (32, 32), (4, 4), 32), tmp_path), scaling=scaling)
    for block in job.grid.blocks:
        forward_block(job, block)
    shown, seen = read_preview(job)
    np.testing.assert_array_equal(shown, pixels[[2, 3, 0]])
    assert seen.all()


@pytest.mark.parametrize("block", BLOCKS)
def test_counts_of_blocks_add_up_to_those_of_the_files(block: int, tmp_path: Path) -> None:
    job = job_for(noise((220, 170), "uint8"), Grid((220, 170), (64, 64), (16, 16), block), tmp_path)
    whole = range(len(job.grid.blocks))
    for place in whole:
        forward(job, place, "run")
    joint = np.zeros((256, 256), np.int64)
    for place in whole:
        receipt = settle(job, place, "run")
        assert read_receipt(job.receipt_path("settle", job.grid.blocks[place])) == receipt
        for code, confidence, pixels in receipt.counts:
            joint[code, confidence] += pixels
    for name in ("classes.tif", "confidence.tif"):
        write_raster(job, name, tmp_path)
    legend = job.bundle.legend
    counted = count_classes(tmp_path / "classes.tif", tmp_path / "confidence.tif", legend, 0.25)
    assert scene_numbers(joint, legend, 0.25) == counted
    assert counted.valid_pixels + counted.nodata_pixels == 220 * 170


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """With nodata and a mask, in blocks that can be damaged one by one."""
    pixels = smooth_pixels(SHAPE, 3)
    pixels[:, :50, :70] = 0
    mask = np.full(SHAPE, 255, np.uint8)
    mask[300:330, 50:400] = 0
    return write_scene(
        tmp_path / "scene.tif", pixels, nodata=0, mask=mask, descriptions=ROLES, tiled=True, blockxsize=64,
        blockysize=64, compress="deflate",
    )  # fmt: skip


def pictures(out: Path) -> list[str]:
    """Scene, classes and confidence, as they lie in the page."""
    found = re.findall(r'src="(data:image/[^"]*)"', (out / "report.html").read_text(encoding="utf-8"))
    assert len(found) == 3
    return found


def shown(out: Path) -> Array:
    """Where the picture of the scene in a page shows something, a pixel each of the scene."""
    picture = Image.open(BytesIO(base64.b64decode(pictures(out)[0].partition(",")[2])))
    alpha = np.array(picture.convert("RGBA"))[..., 3]
    factor = MAX_SIDE // max(SHAPE)
    return alpha[::factor, ::factor] > 0


def classes_of(out: Path) -> Array:
    with rasterio.open(out / "classes.tif") as raster:
        return raster.read(1)


@pytest.mark.slow
def test_pages_show_the_same_pictures_however_the_scene_is_cut(scene: Path, tmp_path: Path, model: str) -> None:
    smash(scene, 3, 4)
    found = []
    for block in BLOCKS:
        out = tmp_path / str(block)
        result = segment_scene(scene, out, Settings(model=model, block=block, vectors=False))
        assert result.failed
        found.append(pictures(out))
    assert found[1:] == found[:1] * 2
    there = shown(out)
    assert there[classes_of(out) != NODATA].all(), "what has a class is shown"
    assert not there[:50, :70].any()
    assert not there[192:256, 256:320].any(), "what could not be read is a hole"
    assert (~there).sum() < (classes_of(out) == NODATA).sum()


@pytest.mark.slow
def test_the_picture_shows_the_area_of_interest_alone(scene: Path, tmp_path: Path, model: str) -> None:
    area = shapely.Point(593_200, 5_746_850).buffer(90)
    gpd.GeoDataFrame(geometry=[area], crs="EPSG:32631").to_crs(4326).to_file(tmp_path / "area.geojson")
    segment_scene(
        scene, tmp_path / "out", Settings(model=model, aoi=str(tmp_path / "area.geojson"), block=100, vectors=False)
    )
    np.testing.assert_array_equal(shown(tmp_path / "out"), classes_of(tmp_path / "out") != NODATA)


@pytest.mark.slow
def test_a_run_that_goes_on_has_the_page_of_one_that_was_not_cut_short(
    scene: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, settled = Settings(model=model, block=100, vectors=False), []
    original = geoseg.workflow.tasks.settle_block

    def cut_short(*arguments: Any) -> Any:
        if len(settled) == 3:
            raise KeyboardInterrupt
        settled.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(geoseg.workflow.tasks, "settle_block", cut_short)
    with pytest.raises(KeyboardInterrupt):
        segment_scene(scene, tmp_path / "cut", settings)
    monkeypatch.undo()
    assert list((tmp_path / "cut").glob(".geoseg-work/*/settle_*.json"))
    went_on = segment_scene(scene, tmp_path / "cut", settings)
    segment_scene(scene, tmp_path / "whole", settings)
    assert pictures(tmp_path / "cut") == pictures(tmp_path / "whole")
    page = (tmp_path / "cut" / "report.html").read_text(encoding="utf-8")
    assert shares_told(page) == shares_told((tmp_path / "whole" / "report.html").read_text(encoding="utf-8"))
    seconds = went_on.manifest["seconds"]
    assert 0 < seconds["report"] < seconds["total"] - seconds["startup"]


def shares_told(page: str) -> list[str]:
    """The legend with the shares of all classes, and their table."""
    return re.findall(r'<ul class="legend".*?</ul>|<table class="classes".*?</table>', page, re.DOTALL)
