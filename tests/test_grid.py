"""Laws of the lattice: tiles cover, cells partition, blocks own."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import UsageError
from geoseg.grid import Axis, Grid


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    tile = draw(st.integers(1, 40))
    return Axis(draw(st.integers(1, 200)), tile, draw(st.integers(0, tile - 1)))


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    tile = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    overlap = draw(st.integers(0, tile[0] - 1)), draw(st.integers(0, tile[1] - 1))
    shape = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    return Grid(shape, tile, overlap, draw(st.integers(1, 30)))


@given(axes())
def test_cells_partition_the_axis_and_lie_in_their_tiles(axis: Axis) -> None:
    assert axis.cells[0][0] == 0
    assert axis.cells[-1][1] == axis.size
    for (_, stop), (start, _) in zip(axis.cells, axis.cells[1:], strict=False):
        assert stop == start
    for (start, stop), first in zip(axis.cells, axis.starts, strict=True):
        assert first <= start < stop <= first + axis.tile


@given(axes())
def test_neighbours_share_at_least_the_overlap_and_ends_reach_out(axis: Axis) -> None:
    for first, second in zip(axis.starts, axis.starts[1:], strict=False):
        assert first < second <= first + axis.tile - axis.overlap
    assert axis.starts[0] <= -(axis.overlap // 2) or axis.count == 1
    assert axis.starts[0] <= 0
    assert axis.starts[-1] + axis.tile >= axis.size


@given(axes(), st.integers(1, 300))
def test_groups_partition_the_tiles(axis: Axis, block: int) -> None:
    groups = axis.groups(block)
    assert [k for first, stop in groups for k in range(first, stop)] == list(range(axis.count))
    assert all(first < stop for first, stop in groups)


@given(grids())
def test_blocks_partition_the_frame_and_every_tile_has_one_owner(grid: Grid) -> None:
    seen = np.zeros(grid.shape, int)
    for block in grid.blocks:
        seen[block.box.row : block.box.bottom, block.box.col : block.box.right] += 1
    assert (seen == 1).all()
    owned = [tile.index for block in grid.blocks for tile in block.tiles]
    assert len(owned) == len(set(owned)) == grid.tile_count


@given(grids())
def test_contributors_are_exactly_those_whose_tiles_reach_in(grid: Grid) -> None:
    for block in grid.blocks:
        expected = [other for other in grid.blocks if any(tile.box & block.box for tile in other.tiles)]
        assert list(grid.contributors[block.index]) == expected
        assert block in expected
        assert all(block in grid.receivers[other.index] for other in expected if other is not block)


def test_a_grid_pickles_small_and_equal() -> None:
    grid = Grid((20_000, 20_000), (512, 512), (64, 64), 2048)
    assert len(grid.blocks) == 100
    data = pickle.dumps(grid)
    assert len(data) < 300
    assert pickle.loads(data) == grid  # noqa: S301  # our own bytes


@pytest.mark.parametrize(
    ("tile", "overlap", "block"), [((8, 8), (8, 8), 8), ((8, 8), (-1, 0), 8), ((0, 8), (0, 0), 8), ((8, 8), (2, 2), 0)]
)
def test_sizes_that_cover_nothing_are_refused(tile: tuple[int, int], overlap: tuple[int, int], block: int) -> None:
    with pytest.raises(UsageError, match="--"):
        Grid((10, 10), tile, overlap, block)
