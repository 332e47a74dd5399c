"""Tiles with overlap over a frame, blocks over tiles: which tile is seen where, and who owns which pixel.

Along each axis tiles lie at even distances, reach half an overlap beyond the frame at both ends, and overlap by at
least what was asked. The frame is cut in the middle of each overlap into one *cell* a tile; a block is a rectangle of
neighbouring cells and owns their tiles. So tiles do not depend on blocks, and every tile has one owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from math import ceil

from geoseg.errors import UsageError
from geoseg.frame import Box


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis: `size` pixels of the frame, `tile` pixels a tile, at least `overlap` shared by neighbours.

    >>> Axis(size=10, tile=6, overlap=2).starts
    (-1, 2, 5)
    >>> Axis(size=10, tile=6, overlap=2).cells
    ((0, 3), (3, 6), (6, 10))
    """

    size: int
    tile: int
    overlap: int

    @cached_property
    def count(self) -> int:
        """Number of tiles."""
        return max(1, ceil(self.size / (self.tile - self.overlap)))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each tile begins; the first before 0, the last ends after `size`."""
        if self.count == 1:
            return ((self.size - self.tile) // 2,)
        first = -(self.overlap // 2)
        room = self.size + self.overlap - self.tile  # from the first start to the last
        return tuple(first + round(k * room / (self.count - 1)) for k in range(self.count))

    @cached_property
    def cells(self) -> tuple[tuple[int, int], ...]:
        """The part (start, stop) of the axis that each tile owns."""
        cuts = [(left + self.tile + right) // 2 for left, right in pairwise(self.starts)]
        return tuple(pairwise([0, *cuts, self.size]))

    def groups(self, block: int) -> tuple[tuple[int, int], ...]:
        """Tiles (first, last + 1) grouped so that a group's cells span about `block` pixels, at least one tile."""
        count = max(1, min(self.count, round(self.size / block)))
        bounds = [round(k * self.count / count) for k in range(count + 1)]
        return tuple(pairwise(bounds))

    def contributors(self, block: int) -> tuple[tuple[int, ...], ...]:
        """For each group, the groups that have a tile reaching into its cells, itself included."""
        groups = self.groups(block)
        owned = [(self.cells[first][0], self.cells[stop - 1][1]) for first, stop in groups]
        reach = [(self.starts[first], self.starts[stop - 1] + self.tile) for first, stop in groups]
        return tuple(
            tuple(k for k, (low, high) in enumerate(reach) if low < end and high > start) for start, end in owned
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile: its index (row, column) in the lattice and its box, which may reach out of the frame."""

    index: tuple[int, int]
    box: Box


@dataclass(frozen=True, slots=True)
class Block:
    """What one task computes: the pixels of `box` (inside the frame), from `tiles`, which together span `reach`."""

    index: tuple[int, int]
    box: Box
    tiles: tuple[Tile, ...]

    @property
    def reach(self) -> Box:
        """The smallest box around all tiles."""
        first, last = self.tiles[0].box, self.tiles[-1].box
        return first | last

    @property
    def name(self) -> str:
        """As it stands in file names and messages."""
        return f"{self.index[0]:04d}_{self.index[1]:04d}"


@dataclass(frozen=True)
class Grid:
    """The lattice of tiles over a frame of `shape`, and its blocks. Sizes are (along a column, along a row) in pixels.

    Raises UsageError where tile, overlap and block do not go together.
    """

    shape: tuple[int, int]
    tile: tuple[int, int]
    overlap: tuple[int, int]
    block: int

    def __post_init__(self) -> None:
        """Refuse what covers nothing."""
        if min(self.shape) < 1:
            raise UsageError(f"a scene of {self.shape[0]} x {self.shape[1]} pixels has nothing to tile")
        if min(self.tile) < 1 or self.block < 1:
            raise UsageError(f"--tile and --block must be at least 1; got {min(self.tile)} and {self.block}")
        for tile, overlap in zip(self.tile, self.overlap, strict=True):
            if not 0 <= overlap < tile:
                raise UsageError(f"--overlap: {overlap} does not fit tiles of {tile}; it takes 0 to {tile - 1}")

    @cached_property
    def axes(self) -> tuple[Axis, Axis]:
        """The lattice along a column, and along a row."""
        rows, cols = (Axis(s, t, o) for s, t, o in zip(self.shape, self.tile, self.overlap, strict=True))
        return rows, cols

    @cached_property
    def tile_count(self) -> int:
        """Number of tiles."""
        return self.axes[0].count * self.axes[1].count

    def tile_at(self, row: int, col: int) -> Tile:
        """The tile of an index."""
        return Tile((row, col), Box(self.axes[0].starts[row], self.axes[1].starts[col], *self.tile))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, row by row."""
        rows, cols = self.axes
        return tuple(
            self._block((i, j), top, left)
            for i, top in enumerate(rows.groups(self.block))
            for j, left in enumerate(cols.groups(self.block))
        )

    def _block(self, index: tuple[int, int], rows: tuple[int, int], cols: tuple[int, int]) -> Block:
        top, bottom = self.axes[0].cells[rows[0]][0], self.axes[0].cells[rows[1] - 1][1]
        left, right = self.axes[1].cells[cols[0]][0], self.axes[1].cells[cols[1] - 1][1]
        tiles = tuple(self.tile_at(row, col) for row in range(*rows) for col in range(*cols))
        return Block(index, Box(top, left, bottom - top, right - left), tiles)

    @cached_property
    def contributors(self) -> dict[tuple[int, int], tuple[Block, ...]]:
        """For each block, by index, the blocks with a tile that reaches into it, itself included, in order.

        This is all that tasks depend on: a block is settled when these have been forwarded.
        """
        rows, cols = (axis.contributors(self.block) for axis in self.axes)
        at = {block.index: block for block in self.blocks}
        return {(i, j): tuple(at[row, col] for row in rows[i] for col in cols[j]) for i, j in at}

    @cached_property
    def receivers(self) -> dict[tuple[int, int], tuple[Block, ...]]:
        """For each block, the others into which its tiles reach: when they are settled, its sums may go."""
        found: dict[tuple[int, int], list[Block]] = {block.index: [] for block in self.blocks}
        for block in self.blocks:
            for source in self.contributors[block.index]:
                if source.index != block.index:
                    found[source.index].append(block)
        return {index: tuple(blocks) for index, blocks in found.items()}

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle the four sizes alone; a process that unpickles many equal grids works out the blocks once."""
        return _same_grid, (self.shape, self.tile, self.overlap, self.block)


@lru_cache(maxsize=8)
def _same_grid(shape: tuple[int, int], tile: tuple[int, int], overlap: tuple[int, int], block: int) -> Grid:
    return Grid(shape, tile, overlap, block)
