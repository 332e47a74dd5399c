"""The kernel: what a worker does to a block, in two steps.

`forward_block` runs the network over the tiles that a block owns and adds them up. Where no other block's tiles reach,
that settles the classes at once; along the block's border the sums are put aside, together with what the block's tiles
contribute to its neighbours' borders. `settle_block` then adds up the border from the block and its neighbours. So each
tile is forwarded once, no block waits for another to be forwarded, and, because the sums are whole numbers, the result
does not depend on how the scene was cut or who came first.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.blend import Blend, add_tile, tile_weights, total_weights
from geoseg.frame import Box
from geoseg.labels import label, probabilities
from geoseg.legend import NODATA
from geoseg.model import EngineSource, ModelBundle, engine_of
from geoseg.scene import Scaling, Scene, read_mirrored

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.grid import Block, Grid

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SegmentJob:
    """All that determines the classes of a scene, and the folder where sums wait for their neighbours."""

    scene: Scene
    scaling: Scaling
    bundle: ModelBundle
    engine: EngineSource
    grid: Grid
    blend: Blend
    folder: Path
    with_probabilities: bool = False

    def sums_path(self, block: Block) -> Path:
        """Where `forward_block` puts what it computed."""
        return self.folder / f"sums_{block.name}.npz"


def peak_rss_mb() -> float:
    """The largest resident size of this process so far, in MB."""
    unit = 1024**2 if sys.platform == "darwin" else 1024  # bytes there, kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def this_worker() -> str:
    """Name of this process among those of a cluster."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a task reports instead of arrays."""

    block: tuple[int, int]
    forwarded: int = 0
    skipped_nodata: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: float = field(default_factory=peak_rss_mb)
    worker: str = field(default_factory=this_worker)


@dataclass(frozen=True, slots=True)
class BlockLabels:
    """A settled block: classes and confidence (H, W) uint8, probabilities (C, H, W) uint8 or None."""

    box: Box
    classes: Array
    confidence: Array
    probabilities: Array | None

    @property
    def bands(self) -> Array:
        """All of it as one stack (bands, H, W): classes, confidence, probabilities."""
        extra = [] if self.probabilities is None else list(self.probabilities)
        return np.stack([self.classes, self.confidence, *extra])


class Stopwatch:
    """Adds up seconds by step: `with watch("read"): ...`."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.seconds: dict[str, float] = {}
        self._step, self._since = "", 0.0

    def __call__(self, step: str) -> Stopwatch:
        """Name the step that `with` measures."""
        self._step = step
        return self

    def __enter__(self) -> None:
        """Begin."""
        self._since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        """End, and add."""
        self.seconds[self._step] = self.seconds.get(self._step, 0.0) + time.perf_counter() - self._since


def forward_block(job: SegmentJob, block: Block) -> Receipt:
    """Run the network over the tiles that the block owns; leaves the result in `job.sums_path(block)`.

    Raises SceneError, naming the window, where the scene cannot be read.
    """
    watch = Stopwatch()
    with watch("read"):
        pixels, valid = read_mirrored(job.scene, block.reach)
    reach = block.reach
    tiles = [tile for tile in block.tiles if valid[tile.box.slices(reach)].any()]
    sums = np.zeros((len(job.bundle.legend.classes), *reach.shape), np.int32)
    if tiles:
        engine = engine_of(job.engine)
        for start in range(0, len(tiles), engine.batch):
            group = tiles[start : start + engine.batch]
            with watch("scale"):
                stack = np.stack([_normalised(job, tile.box.slices(reach), pixels, valid) for tile in group])
            with watch("forward"):
                levels = engine(stack)
            with watch("blend"):
                for tile, tile_levels in zip(group, levels, strict=True):
                    add_tile(sums, reach, tile, tile_levels, tile_weights(job.grid, tile, job.blend))
    with watch("label"):
        kept = _split(job, block, sums, valid[block.box.slices(reach)])
    with watch("spill"):
        _save(job.sums_path(block), kept)
    return Receipt(block.index, len(tiles), len(block.tiles) - len(tiles), watch.seconds)


def settle_block(job: SegmentJob, block: Block) -> BlockLabels:
    """Classes of a block, once it and all blocks that reach into it have been forwarded."""
    sources = job.grid.contributors[block.index]
    with np.load(job.sums_path(block)) as own:
        classes, confidence = own["classes"], own["confidence"]
        shares = own["probabilities"] if job.with_probabilities else None
        borders = {box: own[f"border_{k}"] for k, box in enumerate(border_boxes(job.grid, block))}
    for source in sources:
        if source.index == block.index:
            continue
        with np.load(job.sums_path(source)) as foreign:
            arrived = foreign[f"to_{block.name}"]
        lies_over = source.reach & block.box
        for box, sums in borders.items():
            common = box & lies_over
            rows, cols = common.slices(box)
            sums[:, rows, cols] += arrived[(slice(None), *common.slices(lies_over))]
    for box, sums in borders.items():
        at = box.slices(block.box)
        totals, valid = total_weights(job.grid, box, job.blend), classes[at] != NODATA
        classes[at], confidence[at] = label(sums, totals, valid, job.bundle.legend)
        if shares is not None:
            shares[(slice(None), *at)] = probabilities(sums, totals, valid)
    return BlockLabels(block.box, classes, confidence, shares)


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


def _normalised(job: SegmentJob, at: tuple[slice, slice], pixels: Array, valid: Array) -> Array:
    scaled = job.scaling(pixels[(slice(None), *at)])
    return job.bundle.normalise(scaled, valid[at], job.scene.roles)


def _split(job: SegmentJob, block: Block, sums: Array, valid: Array) -> dict[str, Array]:
    """What is kept of a block: its labels, the sums along its border, and what goes to each neighbour."""
    own = sums[(slice(None), *block.box.slices(block.reach))]
    totals = total_weights(job.grid, block.box, job.blend)
    classes, confidence = label(own, totals, valid, job.bundle.legend)
    kept: dict[str, Array] = {"classes": classes, "confidence": confidence}
    if job.with_probabilities:
        kept["probabilities"] = probabilities(own, totals, valid)
    for k, box in enumerate(border_boxes(job.grid, block)):
        kept[f"border_{k}"] = own[(slice(None), *box.slices(block.box))]
    for other in job.grid.receivers[block.index]:
        common = block.reach & other.box
        kept[f"to_{other.name}"] = sums[(slice(None), *common.slices(block.reach))]
    return kept


def _save(path: Path, arrays: dict[str, Array]) -> None:
    """Write at once: a task that dies leaves nothing that looks like a result."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types its keyword arguments too narrowly
    partial.replace(path)
