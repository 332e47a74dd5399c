"""`plan`: what `segment` would do, and what it would take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.model import engine_of, lanes_of
from geoseg.scene.info import GDAL_CACHE_MB
from geoseg.segment import peak_rss_mb
from geoseg.workflow.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.config import Settings
    from geoseg.grid import Block
    from geoseg.model import EngineSource
    from geoseg.workflow.prepare import Prepared


Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Plan:
    """What a run would do, and what it would take; seconds are None where no tile was timed."""

    scene: str
    shape: tuple[int, int]
    gsd_m: tuple[float, float] | None
    bands: dict[str, int]
    model: str
    engine: str
    tiles: int
    tile: tuple[int, int]
    overlap: tuple[int, int]
    blocks: int
    block: tuple[int, int]
    memory_mb: float
    """Predicted peak of a worker."""
    disk_mb: float
    """Predicted most that lies on disk at a time, outputs included."""
    seconds: float
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def plan_scene(path: Path, settings: Settings) -> Plan:
    """Plan a scene; runs the network on an empty batch, to see what time and memory it takes on this machine.

    Raises what `prepare` and `open_engine` raise.
    """
    prepared = prepare(path, settings)
    info, grid = prepared.scene.info, prepared.grid
    job = prepared.job(path.parent)  # a plan writes nothing: the folder is never used
    engine = engine_of(job.engine)
    tile = np.zeros((len(prepared.bundle.bands), *prepared.fit.scene), np.float32)
    a_tile = _seconds_a_tile(job.engine, tile)
    largest = max(grid.blocks, key=lambda block: block.reach.area)
    return Plan(
        scene=str(path),
        shape=info.frame.shape,
        gsd_m=info.frame.gsd_m,
        bands=prepared.scene_bands,
        model=prepared.bundle.name,
        engine=engine.name,
        tiles=grid.tile_count,
        tile=grid.tile,
        overlap=grid.overlap,
        blocks=len(grid.blocks),
        block=largest.box.shape,
        memory_mb=round(predict_worker_mb(prepared)),
        disk_mb=round(predict_disk_mb(prepared), 1),
        seconds=round(a_tile * grid.tile_count / max(1, settings.workers), 1),
        notices=prepared.notices,
    )


def _seconds_a_tile(source: EngineSource, tile: Array) -> float:
    """With all lanes busy, and after a first round that pays for allocations."""
    engine, lanes = engine_of(source), lanes_of(source)

    def all_at_once() -> None:
        for future in [lanes.submit(lanes.rank(), engine, tile) for _ in range(engine.lanes)]:
            future.result()

    all_at_once()
    started = time.perf_counter()
    all_at_once()
    return (time.perf_counter() - started) / engine.lanes


def plan_text(plan: Plan) -> str:
    """A plan for people."""
    lines = [
        plan.scene,
        f"  scene   {plan.shape[1]} x {plan.shape[0]} px, {', '.join(f'{r} {b}' for r, b in plan.bands.items())}",
        f"  model   {plan.model}, {plan.engine}",
        f"  tiles   {plan.tiles} of {plan.tile[1]} x {plan.tile[0]} px, overlapping by {plan.overlap[0]} or more",
        f"  blocks  {plan.blocks} of up to {plan.block[1]} x {plan.block[0]} px",
        f"  memory  {plan.memory_mb:.0f} MB a worker",
        f"  disk    {plan.disk_mb:.0f} MB at most, outputs included",
        f"  time    {plan.seconds:.3g} s for the network, judged by one batch on this machine",
    ]
    return "\n".join([*lines, *(f"  note    {notice}" for notice in plan.notices)])


def predict_worker_mb(prepared: Prepared) -> float:
    """The peak of a worker: what it loads and what its network takes, measured here, and two blocks in work."""
    import geoseg.workflow.tasks  # noqa: F401, PLC0415  # what a worker imports

    if prepared.settings.workers or prepared.settings.scheduler:
        import distributed  # noqa: F401, PLC0415
    largest = sorted((predict_block_mb(prepared, block) for block in prepared.grid.blocks), reverse=True)
    stored = np.dtype(prepared.scene.dtype).itemsize * len(prepared.scene.bands)
    cached = min(GDAL_CACHE_MB, stored * prepared.grid.shape[0] * prepared.grid.shape[1] / 1e6)
    return peak_rss_mb() + sum(largest[:2]) + cached


def predict_block_mb(prepared: Prepared, block: Block) -> float:
    """What a block holds: strips of pixels and sums while it is forwarded, and what is kept of it."""
    grid, classes = prepared.grid, len(prepared.bundle.legend.classes)
    strip = block.tiles[0].box.height * block.reach.width
    # One strip is read and mirrored, one waits, two are forwarded; those two have sums as well.
    pixels = 4 * strip * (np.dtype(prepared.scene.dtype).itemsize * len(prepared.scene.bands) + 1)
    sums = (2 * strip + grid.overlap[0] * block.reach.width) * 4 * classes
    border = 2 * (grid.overlap[0] * block.box.width + grid.overlap[1] * block.box.height)
    kept = block.box.area * (2 + classes * prepared.settings.probabilities) + 2 * border * 4 * classes
    return (pixels + sums + kept) / 1e6


def predict_disk_mb(prepared: Prepared) -> float:
    """Sums that wait for neighbours, parts, and outputs of a class and a confidence byte a pixel, uncompressed."""
    grid = prepared.grid
    height, width = grid.shape
    classes = len(prepared.bundle.legend.classes)
    row = max(block.box.height for block in grid.blocks) * width
    borders = 4 * classes * 2 * (grid.overlap[0] * width + grid.overlap[1] * grid.blocks[0].box.height)
    rasters = 2 + (classes if prepared.settings.probabilities else 0)
    # Parts, a byte a pixel and band; and rasters, which lie there twice while they are put together.
    return (2 * row * rasters + 2 * borders + 3 * height * width * rasters) / 1e6
