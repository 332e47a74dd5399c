"""Reading a block strip by strip: a strip is a row of its tiles."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import DamagedSceneError
from geoseg.frame import Box
from geoseg.scene import read_mirrored
from geoseg.scene.info import forget_dataset
from geoseg.segment.job import FailedTile

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Iterator

    from geoseg.grid import Block, Tile
    from geoseg.segment.job import SegmentJob, Stopwatch

Array = np.ndarray[Any, Any]

_PAUSES_S = (0.1, 0.5)
"""How long to wait before a tile that cannot be read is read again: a network file system may have hiccuped."""


@dataclass
class Strip:
    """A row of tiles with the pixels below them."""

    tiles: tuple[Tile, ...]
    box: Box
    pixels: Array
    """(bands, height, width) in the scene's dtype."""
    valid: Array
    """(height, width) bool; False where a tile could not be read, and no other shows what is there."""
    failed: list[FailedTile] = field(default_factory=list)
    retried: int = 0

    @property
    def seen(self) -> list[Tile]:
        """The tiles that have something to see."""
        unread = {tile.tile for tile in self.failed}
        return [tile for tile in self.tiles if tile.index not in unread and self.valid[tile.box.slices(self.box)].any()]


def strips_of(block: Block) -> list[tuple[Tile, ...]]:
    """The tiles of a block, row by row."""
    rows: dict[int, list[Tile]] = {}
    for tile in block.tiles:
        rows.setdefault(tile.index[0], []).append(tile)
    return [tuple(tiles) for tiles in rows.values()]


def read_strips(job: SegmentJob, block: Block, watch: Stopwatch, digest: hashlib._Hash) -> Iterator[Strip]:
    """Read the strips of a block one after the other; `digest` takes up what was read.

    What cannot be read is tried again, tile by tile; tiles that stay unreadable are named in `Strip.failed`. Raises
    SceneError where the scene is not there at all.
    """
    for tiles in strips_of(block):
        with watch("read"):
            strip = _read_strip(job, tiles)
            digest.update(np.ascontiguousarray(strip.pixels).data)
            digest.update(np.ascontiguousarray(strip.valid).data)
        yield strip


def _read_strip(job: SegmentJob, tiles: tuple[Tile, ...]) -> Strip:
    box = tiles[0].box | tiles[-1].box
    try:
        return Strip(tiles, box, *read_mirrored(job.scene, box))
    except DamagedSceneError:
        return _read_tiles(job, tiles, box)


def _read_tiles(job: SegmentJob, tiles: tuple[Tile, ...], box: Box) -> Strip:
    """Tile by tile, so that one unreadable window costs no more than the tiles that touch it."""
    pixels = np.zeros((len(job.scene.roles), *box.shape), job.scene.dtype)
    strip = Strip(tiles, box, pixels, np.zeros(box.shape, bool))
    for tile in tiles:
        at = tile.box.slices(box)
        # One that stays unreadable shows that the fault does not pass; the others of the row are tried but once more.
        for attempt, pause in enumerate((0.0, None) if strip.failed else (*_PAUSES_S, None)):
            try:
                pixels[(slice(None), *at)], strip.valid[at] = read_mirrored(job.scene, tile.box)
                break
            except DamagedSceneError as error:
                forget_dataset(error.path)  # GDAL remembers what it could not read
                strip.retried += attempt == 0
                if pause is None:
                    window = tile.box & Box(0, 0, *job.grid.shape)
                    strip.failed.append(FailedTile(tile.index, window, str(error)))
                else:
                    time.sleep(pause)
    return strip
