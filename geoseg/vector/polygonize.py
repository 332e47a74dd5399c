"""Polygons of a whole raster, block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.frame import Box
from geoseg.vector.block import BLOCK, outline_block
from geoseg.vector.features import Components
from geoseg.vector.join import join_blocks

if TYPE_CHECKING:
    from geoseg.vector.tidy import Drawing

Array = np.ndarray[Any, Any]

Reader = Callable[[Box], tuple[Array, Array]]
"""Reads a box: classes (h, w) uint8 and confidence (h, w) uint8 in percent."""


def polygonize(read: Reader, shape: tuple[int, int], drawing: Drawing, block: int = BLOCK) -> Components:
    """The polygons of a raster, each block read once; what crosses seams comes last.

    Where `drawing` changes nothing they are those of one pass over the whole, whatever the block size.
    """
    finished, left = zip(
        *(outline_block(read(box), box, shape, drawing) for box in blocks_of(shape, block)), strict=True
    )
    return Components.concatenate([*finished, join_blocks(left, drawing)])


def blocks_of(shape: tuple[int, int], block: int = BLOCK) -> list[Box]:
    """The blocks of a raster, row by row."""
    return [
        Box(row, col, min(block, shape[0] - row), min(block, shape[1] - col))
        for row in range(0, shape[0], block)
        for col in range(0, shape[1], block)
    ]
