"""Where blocks depend on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoseg.frame import Box

if TYPE_CHECKING:
    from geoseg.grid import Block, Grid


def border_boxes(grid: Grid, block: Block) -> tuple[Box, ...]:
    """The parts (at most four) of a block into which tiles of other blocks reach; the rest is the block's alone."""
    top, left = block.box.row, block.box.col
    bottom, right = block.box.bottom, block.box.right
    for source in grid.contributors[block.index]:
        reach = source.reach & block.box
        if source.index[0] < block.index[0]:
            top = max(top, reach.bottom)
        if source.index[0] > block.index[0]:
            bottom = min(bottom, reach.row)
        if source.index[1] < block.index[1]:
            left = max(left, reach.right)
        if source.index[1] > block.index[1]:
            right = min(right, reach.col)
    if top >= bottom or left >= right:
        return (block.box,)
    box = block.box
    boxes = (
        Box(box.row, box.col, top - box.row, box.width),
        Box(bottom, box.col, box.bottom - bottom, box.width),
        Box(top, box.col, bottom - top, left - box.col),
        Box(top, right, bottom - top, box.right - right),
    )
    return tuple(border for border in boxes if border)
