"""The first step of the kernel: the network over the tiles that a block owns."""

from __future__ import annotations

import hashlib
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.blend import add_tile, tile_weights, total_weights
from geoseg.frame import Box
from geoseg.labels import label, probabilities
from geoseg.model import engine_of, lanes_of
from geoseg.model.normalise import Normaliser
from geoseg.segment.borders import border_boxes
from geoseg.segment.job import Receipt, SegmentJob, Stopwatch, appearing
from geoseg.segment.preview import Preview
from geoseg.segment.strips import Strip, read_strips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from geoseg.grid import Block, Tile
    from geoseg.segment.job import FailedTile

    Tell = Callable[[str, int, int], None]
    """Takes a state of the block, and how many more tiles and pixels of it are done."""

Array = np.ndarray[Any, Any]


def unheard(state: str, tiles: int, pixels: int) -> None:
    """Tell nobody."""


def forward_block(job: SegmentJob, block: Block, tell: Tell = unheard) -> Receipt:
    """Run the network over the tiles that the block owns; leaves the result in `job.sums_path(block)`.

    The block's share of the picture of the scene, made of the pixels in passing, is left in `job.preview_path(block)`.

    The block is worked through strip by strip: while the tiles of one are forwarded, the strip before is labelled and
    the next one is read, so that memory goes with the width of a block and not with its area. Tiles that cannot be
    read are left out and named in the receipt. `tell` hears of states and progress, and may raise to stop the work.
    """
    watch, digest = Stopwatch(), hashlib.sha256()
    work = _Work(job, block, watch)
    tell("reading", 0, 0)
    with ThreadPoolExecutor(1, thread_name_prefix="read") as ahead:
        strips = read_strips(job, block, watch, digest)
        coming = ahead.submit(lambda: next(strips, None))
        before: _Forwarding | None = None
        try:
            while (strip := coming.result()) is not None:
                coming = ahead.submit(lambda: next(strips, None))
                now = work.start(strip)
                if before is None:
                    tell("forward", 0, 0)
                else:
                    tell("forward", *work.finish(before, now.strip.box.row))
                before = now
            assert before is not None  # noqa: S101  # a block has tiles
            tell("forward", *work.finish(before, before.strip.box.bottom))
        except BaseException:
            work.give_up()
            raise
    with watch("spill"):
        work.save()
    tell("forwarded", 0, 0)
    return work.receipt(digest.hexdigest())


@dataclass
class _Forwarding:
    """A strip whose tiles are on their way through the network, and what they add up to."""

    strip: Strip
    sums: Array
    """(C, height, width) int32 over the strip's box."""
    tiles: list[Future[None]]


@dataclass
class _Work:
    """What is known of a block so far."""

    job: SegmentJob
    block: Block
    watch: Stopwatch
    kept: _Kept = field(init=False)
    preview: Preview = field(init=False)
    forwarded: int = 0
    retried: int = 0
    rank: int | None = None
    """Before which blocks this one comes in the lanes."""
    carry: Array | None = None
    """Sums of the rows that the last strip shares with the next."""
    failed: list[FailedTile] = field(default_factory=list)
    running: list[Future[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kept = _Kept(self.job, self.block)
        self.preview = Preview(self.job, self.block)
        self.classes = len(self.job.bundle.legend.classes)
        self.normalise = Normaliser.of(self.job.bundle, self.job.scaling, self.job.scene.roles, self.job.scene.dtype)

    def start(self, strip: Strip) -> _Forwarding:
        """Send the strip's tiles to the lanes."""
        self.failed += strip.failed
        self.retried += strip.retried
        tiles = strip.seen
        self.forwarded += len(tiles)
        sums = _buffers.take((self.classes, *strip.box.shape))
        if not tiles:  # nothing to see here: the network is not even loaded for it
            return _Forwarding(strip, sums, [])
        lanes, lock = lanes_of(self.job.engine), threading.Lock()
        self.rank = lanes.rank() if self.rank is None else self.rank
        futures = [lanes.submit(self.rank, self._forward, strip, sums, tile, lock) for tile in tiles]
        self.running += futures
        return _Forwarding(strip, sums, futures)

    def _forward(self, strip: Strip, sums: Array, tile: Tile, lock: threading.Lock) -> None:
        """A tile from pixels to sums, in one lane."""
        job, watch, at = self.job, self.watch, tile.box.slices(strip.box)
        with watch("scale"):
            normal = self.normalise(strip.pixels[(slice(None), *at)], strip.valid[at])
        with watch("forward"):
            row, col = tile.index
            levels = engine_of(job.engine)(normal, row * job.grid.axes[1].count + col)
        weights = tile_weights(job.grid, tile, job.blend)
        with lock, watch("blend"):
            add_tile(sums, strip.box, tile, levels, weights)

    def finish(self, before: _Forwarding, until: int) -> tuple[int, int]:
        """Wait for a strip's tiles; rows above `until` are final then. The tiles and pixels done by it."""
        with self.watch("preview"):
            self.preview.take(before.strip)
        for tile in before.tiles:
            tile.result()
        box, sums = before.strip.box, before.sums
        if self.carry is not None:
            sums[:, : self.carry.shape[1]] += self.carry
        with self.watch("label"):
            final = Box(box.row, box.col, until - box.row, box.width)
            self.kept.take(final, sums[:, : final.height], before.strip.valid[: final.height])
        self.carry = sums[:, final.height :].copy()
        _buffers.give(sums)
        return len(before.strip.tiles), (final & self.block.box).area

    def give_up(self) -> None:
        """Leave the lanes to others."""
        for tile in self.running:
            tile.cancel()
        wait(self.running)

    def save(self) -> None:
        """Put what is kept aside for `settle_block` and for the picture."""
        self.preview.save()
        windows = [[w.row, w.col, w.height, w.width] for w in (tile.window for tile in self.failed)]
        failed = np.array(windows, np.int64).reshape(-1, 4)
        with appearing(self.job.sums_path(self.block)) as partial, partial.open("wb") as file:
            np.savez(file, failed=failed, **self.kept.arrays)  # type: ignore[arg-type]  # numpy types keywords too narrowly

    def receipt(self, content: str) -> Receipt:
        """What was done."""
        skipped = len(self.block.tiles) - self.forwarded
        return Receipt(
            self.block.index, self.forwarded, skipped, self.retried, tuple(self.failed), content, self.watch.seconds
        )


class _Buffers:
    """The largest arrays of a block, used again: they would leave holes between others wherever they were freed."""

    def __init__(self) -> None:
        self._free: list[Array] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> Array:
        """Zeros (shape) int32."""
        size = math.prod(shape)
        with self._lock:
            fitting = [k for k, array in enumerate(self._free) if array.size >= size]
            found = self._free.pop(fitting[0]) if fitting else None
            if found is None and self._free:
                self._free.pop()  # a larger one takes its place
        flat = np.empty(size, np.int32) if found is None else found
        array = flat[:size].reshape(shape)
        array.fill(0)
        return array

    def give(self, array: Array) -> None:
        """Take back an array that nobody looks at any more."""
        with self._lock:
            self._free.append(array.base if array.base is not None else array.reshape(-1))


_buffers = _Buffers()


class _Kept:
    """What stays of a block: its labels, the sums along its border, and what goes to each neighbour."""

    def __init__(self, job: SegmentJob, block: Block) -> None:
        self._job, self._block = job, block
        classes, shape = len(job.bundle.legend.classes), block.box.shape
        self.arrays = {"classes": np.zeros(shape, np.uint8), "confidence": np.zeros(shape, np.uint8)}
        if job.with_probabilities:
            self.arrays["probabilities"] = np.zeros((classes, *shape), np.uint8)
        self._boxes = {f"border_{k}": box for k, box in enumerate(border_boxes(job.grid, block))}
        for other in job.grid.receivers[block.index]:
            self._boxes[f"to_{other.name}"] = block.reach & other.box
        for name, box in self._boxes.items():
            self.arrays[name] = np.zeros((classes, *box.shape), np.int32)

    def take(self, rows: Box, sums: Array, valid: Array) -> None:
        """Take up rows whose sums (C, height, width) are final as far as this block's tiles go."""
        for name, box in self._boxes.items():
            common = box & rows
            if common:
                self.arrays[name][(slice(None), *common.slices(box))] = sums[(slice(None), *common.slices(rows))]
        own = rows & self._block.box
        for part in _pieces(own):
            inside, at = part.slices(rows), part.slices(self._block.box)
            totals = total_weights(self._job.grid, part, self._job.blend)
            shares, seen = sums[(slice(None), *inside)], valid[inside]
            self.arrays["classes"][at], self.arrays["confidence"][at] = label(
                shares, totals, seen, self._job.bundle.legend
            )
            if self._job.with_probabilities:
                self.arrays["probabilities"][(slice(None), *at)] = probabilities(shares, totals, seen)


_PIECE = 32


def _pieces(box: Box) -> Iterator[Box]:
    """A box in bands of rows: labelling goes through several arrays of its size, which should stay in the cache."""
    for row in range(box.row, box.bottom, _PIECE):
        yield Box(row, box.col, min(_PIECE, box.bottom - row), box.width)
