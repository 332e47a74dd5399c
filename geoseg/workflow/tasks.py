"""The tasks of a scene: what workers are sent, and in which order.

    forward, settle    for each block: the network over its tiles, and the border that it shares with others
    mosaic             for each raster: one file from the parts
    outline            for each block of the class raster: the polygons that end in it
    polygons           those that cross seams, and files of all

A task leaves its result in the run's folder and returns a receipt. The receipts of blocks stay there too: a task that
finds its own has nothing to do, whether it is sent again after a worker died, or by the same command after all died.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import EnvironmentFault
from geoseg.model import engine_of
from geoseg.report import count_jointly
from geoseg.runtime import Task, tell
from geoseg.segment import (
    Receipt,
    SegmentJob,
    Stopwatch,
    forward_block,
    read_receipt,
    read_strips,
    return_memory,
    settle_block,
    this_worker,
    write_receipt,
)
from geoseg.vector import blocks_of
from geoseg.workflow.outputs import beyond_specs, raster_specs, write_raster
from geoseg.workflow.vectors import VectorJob, tidy_rule
from geoseg.write import write_block, write_layers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from geoseg.config import Settings
    from geoseg.frame import Box
    from geoseg.grid import Block
    from geoseg.model import EngineSource

_places = threading.BoundedSemaphore(2)
"""Blocks in work at a time in a process: one is forwarded while another is read or written. More would only take
memory, however many threads a Dask worker has."""


@dataclass(frozen=True)
class Product:
    """What a task that makes files reports."""

    seconds: dict[str, float]
    receipt: Receipt
    features: dict[str, dict[str, float | int | None]] | None = None
    """Of polygons: counts and areas by layer."""


@dataclass(frozen=True)
class SceneTasks:
    """The tasks of one scene; `run` tells it apart from all others on a cluster."""

    run: str
    job: SegmentJob
    stage: Path
    """Where finished files are put."""
    settings: Settings

    def all(self) -> list[Task]:
        """All tasks, in the order in which they should be begun."""
        tasks = self.blocks()
        settled = tuple(task.key for task in tasks if task.call is settle)
        names = list(raster_specs(self.job))
        mosaics = [Task(f"mosaic-{self.run}-{name}", mosaic, (self.job, name, self.stage), settled) for name in names]
        tasks += mosaics
        if self.settings.vectors:
            folder = self.stage.with_name(f"{self.stage.name}-outlines")
            more = [
                Task(f"mosaic-{self.run}-{name}", mosaic, (self.job, name, folder), settled)
                for name in beyond_specs(self.job)
            ]
            after = tuple(task.key for task in (*mosaics, *more))
            tasks += [*more, *self._vectors(folder, after)]
        return tasks

    def _vectors(self, folder: Path, after: tuple[str, ...]) -> list[Task]:
        """Outline each block of the class raster; then what crosses seams, and the files."""
        paths = [folder / name for name in beyond_specs(self.job)]
        classes, confidence = paths or [self.stage / name for name in ("classes.tif", "confidence.tif")]
        rule, area = tidy_rule(self.settings), self.job.area
        job = VectorJob(classes, confidence, self.job.bundle.legend, rule, folder, area)
        tasks = [
            Task(f"outline-{self.run}-{box.row}-{box.col}", outline, (job, box), after)
            for box in blocks_of(self.job.grid.shape)
        ]
        outlined = tuple(task.key for task in tasks)
        files = Task(f"polygons-{self.run}", polygons, (job, self.settings.format, self.stage), outlined)
        return [*tasks, files]

    def blocks(self) -> list[Task]:
        """Forward every block; settle each as soon as all that reach into it have been forwarded."""
        job = self.job
        last = {index: sources[-1].index for index, sources in job.grid.contributors.items()}
        places = {block.index: place for place, block in enumerate(job.grid.blocks)}
        tasks: list[Task] = []
        for place, block in enumerate(job.grid.blocks):
            tasks.append(Task(f"forward-{self.run}-{block.name}", forward, (job, place, self.run), network=True))
            for other in (block, *job.grid.receivers[block.index]):
                if last[other.index] == block.index:
                    after = tuple(f"forward-{self.run}-{source.name}" for source in job.grid.contributors[other.index])
                    arguments = (job, places[other.index], self.run)
                    tasks.append(Task(f"settle-{self.run}-{other.name}", settle, arguments, after))
        return tasks


def forward(job: SegmentJob, place: int, run: str) -> Receipt:
    """Forward the block at a place of the grid's list, unless its receipt is there."""
    block = job.grid.blocks[place]
    path = job.receipt_path("forward", block)
    _require(job.folder)
    with _places:
        receipt = read_receipt(path)
        if receipt is not None:
            _tell(run, place, "forwarded", len(block.tiles), 0)  # no pixel was computed now: the rate stays honest
        else:
            receipt = forward_block(job, block, lambda state, tiles, pixels: _tell(run, place, state, tiles, pixels))
            write_receipt(path, receipt)
            return_memory()
    if receipt.failed:
        _tell(run, place, "failed", 0, 0)
    return receipt


def settle(job: SegmentJob, place: int, run: str) -> Receipt:
    """Settle a block and write it as a part of the final rasters, unless its receipt is there."""
    block = job.grid.blocks[place]
    path = job.receipt_path("settle", block)
    _require(job.folder)
    receipt = read_receipt(path)
    if receipt is None:
        watch = Stopwatch()
        with watch("settle"):
            labels = settle_block(job, block)
            joint = count_jointly(labels.classes, labels.confidence)
            counts = tuple((int(c), int(s), int(joint[c, s])) for c, s in np.argwhere(joint))
        with watch("write"):
            write_block(job.part_path(block), labels.bands, job.scene.frame.crop(block.box), 255)
        receipt = Receipt(block.index, seconds=watch.seconds, counts=counts)
        write_receipt(path, receipt)
    _tell(run, place, "done", 0, 0)
    return receipt


def mosaic(job: SegmentJob, name: str, stage: Path) -> Product:
    """Write one of the final rasters from the parts."""
    watch = Stopwatch()
    with watch("mosaic"):
        write_raster(job, name, stage)
    return Product(watch.seconds, Receipt((0, 0)))


def outline(job: VectorJob, box: Box) -> Product:
    """Make polygons of a block of the class raster."""
    watch = Stopwatch()
    with watch("vectorize"):
        job.outline(box)
        return_memory()
    return Product(watch.seconds, Receipt((0, 0)))


def polygons(job: VectorJob, formats: Sequence[str], stage: Path) -> Product:
    """Write the polygons of all blocks in all formats."""
    watch = Stopwatch()
    with watch("vectorize"):
        layers = job.layers()
        for name in formats:
            write_layers(layers, stage, "features", name)
        features = job.count()
    return Product(watch.seconds, Receipt((0, 0)), features)


def _require(folder: Path) -> None:
    """Raise EnvironmentFault where this worker does not see the run's folder, or its run was given up."""
    if not folder.is_dir():
        raise EnvironmentFault(
            f"the worker {this_worker()} does not see {folder}; scene and --out must lie on a file system that all "
            "workers share, under the same path"
        )


def content_of(job: SegmentJob, block: Block) -> str:
    """The hash of a block's pixels as they are now; `Receipt.content` is what it was."""
    digest = hashlib.sha256()
    for _ in read_strips(job, block, Stopwatch(), digest):
        pass
    return digest.hexdigest()


def load_engine(source: EngineSource) -> str:
    """Have the network ready in this process; the engine's name."""
    return engine_of(source).name


def _tell(run: str, place: int, state: str, tiles: int, pixels: int) -> None:
    message: dict[str, Any] = {"what": "block", "run": run, "block": place, "state": state}
    tell({**message, "tiles": tiles, "pixels": pixels})
