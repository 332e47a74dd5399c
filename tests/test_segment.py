"""Laws of blending and of the kernel: any cut of the scene gives the scene."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pointwise import BUNDLE, frame_of, job_for, pointwise_levels, random_scene, run_job

from geoseg.blend import BLENDS, Blend, add_tile, tile_weights, total_weights
from geoseg.errors import UsageError
from geoseg.frame import Box
from geoseg.grid import Grid
from geoseg.labels import label, probabilities
from geoseg.model import LEVELS
from geoseg.scene import ArrayScene
from geoseg.segment import border_boxes

blends = st.sampled_from(BLENDS)


@st.composite
def grids(draw: st.DrawFn, most: int = 30) -> Grid:
    tile = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    overlap = draw(st.integers(0, tile[0] - 1)), draw(st.integers(0, tile[1] - 1))
    return Grid((draw(st.integers(1, most)), draw(st.integers(1, most))), tile, overlap, draw(st.integers(1, 40)))


@given(grids(), blends)
def test_totals_are_the_sum_of_all_tiles_weights_and_never_zero(grid: Grid, blend: Blend) -> None:
    frame = Box(0, 0, *grid.shape)
    summed = np.zeros((1, *grid.shape), np.int64)
    for block in grid.blocks:
        for tile in block.tiles:
            weights = tile_weights(grid, tile, blend)
            add_tile(summed, frame, tile, np.ones((1, *grid.tile), np.int16), weights)
    totals = total_weights(grid, frame, blend)
    np.testing.assert_array_equal(summed[0], totals)
    assert totals.min() >= 1
    assert int(totals.max()) * LEVELS < 2**31


@pytest.mark.parametrize("blend", [b for b in BLENDS if b != "crop"])
def test_windows_fall_towards_their_edges(blend: Blend) -> None:
    grid = Grid((1000, 1000), (256, 256), (64, 64), 512)
    weights = tile_weights(grid, grid.tile_at(1, 1), blend)
    assert (np.diff(weights[128, :128].astype(int)) >= 0).all()
    assert weights[128, 0] < weights[128, 128] / 4
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])


def test_an_unknown_blend_is_refused() -> None:
    with pytest.raises(UsageError, match="hann"):
        tile_weights(Grid((9, 9), (4, 4), (1, 1), 9), Grid((9, 9), (4, 4), (1, 1), 9).tile_at(0, 0), "cosine")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(grids(), blends, st.integers(0, 999), st.sampled_from([1.0, 0.7, 0.02, 0.0]))
def test_a_pointwise_network_stitched_equals_itself_untiled(
    grid: Grid, blend: Blend, seed: int, share_valid: float
) -> None:
    scene = random_scene(grid.shape, seed, share_valid)
    with tempfile.TemporaryDirectory() as folder:
        job = job_for(scene, grid, Path(folder), blend=blend)
        result, forwarded, skipped = run_job(job)
    assert forwarded + skipped == grid.tile_count
    pixels, valid = scene.read(scene.frame.box)
    channels = BUNDLE.normalise(job.scaling(pixels), valid, scene.roles)
    levels = pointwise_levels(channels).astype(np.int64)
    ones = np.ones(grid.shape, np.int64)
    classes, confidence = label(levels, ones, valid, BUNDLE.legend)
    np.testing.assert_array_equal(result[0], classes)
    np.testing.assert_array_equal(result[1], confidence)
    np.testing.assert_array_equal(result[2:], probabilities(levels, ones, valid))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_blocks_and_their_order_change_nothing(data: st.DataObject) -> None:
    tile = data.draw(st.integers(2, 16))
    overlap = data.draw(st.integers(0, tile - 1))
    shape = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    seed = data.draw(st.integers(0, 999))
    # Noise that differs from tile to tile, as a real network's does near a tile's edge.
    results = []
    for block in data.draw(st.lists(st.integers(1, 40), min_size=2, max_size=3)):
        grid = Grid(shape, (tile, tile), (overlap, overlap), block)
        order = data.draw(st.permutations(range(len(grid.blocks))))
        with tempfile.TemporaryDirectory() as folder:
            job = job_for(random_scene(shape, seed, 0.9), grid, Path(folder), lanes=1 + block % 4)
            object.__setattr__(job, "engine", TileDependentSource())
            results.append(run_job(job, list(order)))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0][0], other[0])
        assert results[0][1:] == other[1:]


class TileDependentSource:
    """An engine whose output depends on where in the tile a pixel lies."""

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TileDependentSource)

    def open(self) -> TileDependentSource:
        self.lanes = 2
        self.name = "tile dependent"
        return self

    def __call__(self, tile: np.ndarray, place: int = 0) -> np.ndarray:  # noqa: ARG002
        slope = np.linspace(-1, 1, tile.shape[-1], dtype=np.float32)
        return pointwise_levels(tile + slope + slope[: tile.shape[-2], None])


def test_border_boxes_are_what_others_reach() -> None:
    grid = Grid((900, 1100), (128, 128), (32, 32), 256)
    for block in grid.blocks:
        touched = np.zeros(block.box.shape, bool)
        for other in grid.blocks:
            if other is not block and (common := other.reach & block.box):
                touched[common.slices(block.box)] = True
        bordered = np.zeros(block.box.shape, int)
        for box in border_boxes(grid, block):
            bordered[box.slices(block.box)] += 1
        assert bordered.max(initial=0) <= 1
        assert (bordered[touched] == 1).all()


def test_one_pixel_and_nodata_only_scenes(tmp_path: Path) -> None:
    one = ArrayScene(np.full((2, 1, 1), 9, np.uint8), frame_of((1, 1)), ("red", "nir"))
    result, forwarded, skipped = run_job(job_for(one, Grid((1, 1), (32, 32), (4, 4), 64), tmp_path))
    assert (forwarded, skipped) == (1, 0)
    assert result[0, 0, 0] != 255
    empty = ArrayScene(np.zeros((2, 40, 50), np.uint8), frame_of((40, 50)), ("red", "nir"), np.zeros((40, 50), bool))
    result, forwarded, skipped = run_job(job_for(empty, Grid((40, 50), (32, 32), (4, 4), 64), tmp_path))
    assert forwarded == 0
    assert skipped == 4
    assert (result == 255).all()
