"""One scene on its way: its folder, its tasks, and what their receipts add up to."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from geoseg import __version__
from geoseg.errors import SceneError
from geoseg.segment import FailedTile, Receipt, SegmentJob, Stopwatch, peak_rss_mb, read_receipt
from geoseg.workflow.folder import MANIFEST, Claim, claimed, describe_outputs, refuse_inputs, write_manifest
from geoseg.workflow.outputs import write_item, write_page, write_qgis
from geoseg.workflow.prepare import Prepared, job_key, model_record, scene_record
from geoseg.workflow.tasks import Product, SceneTasks, content_of, forward, settle
from geoseg.write import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geoseg.report.numbers import Counts
    from geoseg.runtime import Task
    from geoseg.workflow.progress import Progress

_STEPS = (
    "read", "scale", "forward", "blend", "label", "preview", "spill", "settle", "write",
    "mosaic", "vectorize", "report",
)  # fmt: skip
_SEEN = "scene.json"
"""What the scene's file was when the run began; in the work folder."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, its files, and what run.json says."""

    folder: Path
    outputs: tuple[Path, ...]
    manifest: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, manifest: dict[str, Any]) -> RunResult:
        """The run that a manifest describes."""
        return cls(folder, tuple(folder / name for name in (*manifest["outputs"], MANIFEST)), manifest)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The tiles that could not be read, as run.json lists them."""
        listed: list[dict[str, Any]] = self.manifest.get("tiles", self.manifest).get("failed", [])
        return listed


@dataclass(frozen=True)
class Call:
    """What the scenes of one call share."""

    command: tuple[str, ...]
    overwrite: bool
    resume: bool
    catalog: str | None
    """Where the catalog lies, seen from the folder of a run."""
    progress: Progress


@dataclass
class Tally:
    """What the receipts of a run add up to."""

    forwarded: int = 0
    skipped_nodata: int = 0
    retried: int = 0
    failed: list[FailedTile] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_STEPS, 0.0))
    workers: dict[str, float] = field(default_factory=dict)
    counts: Counts = field(default_factory=lambda: np.zeros((256, 256), np.int64))
    """Pixels by [code, confidence]."""

    def add(self, receipt: Receipt) -> None:
        """Count one receipt."""
        self.forwarded += receipt.forwarded
        self.skipped_nodata += receipt.skipped_nodata
        self.retried += receipt.retried
        self.failed += receipt.failed
        self.add_seconds(receipt.seconds)
        for code, confidence, pixels in receipt.counts:
            self.counts[code, confidence] += pixels
        self.workers[receipt.worker] = max(self.workers.get(receipt.worker, 0.0), receipt.peak_rss_mb)

    def add_seconds(self, seconds: Mapping[str, float]) -> None:
        """Add seconds by step."""
        for step, more in seconds.items():
            self.seconds[step] += more


@dataclass
class SceneRun:
    """A scene between its first and its last task."""

    prepared: Prepared
    claim: Claim
    job: SegmentJob
    tasks: list[Task]
    name: str
    """What tells its tasks and news from those of others."""
    started: float
    startup: float
    """Seconds that went by before, until all workers had their network."""
    engines: tuple[str, ...]
    command: tuple[str, ...]
    claims: ExitStack
    tally: Tally = field(default_factory=Tally)
    features: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count what is to be done: tasks, and for each block those that still need its sums."""
        self.open = len(self.tasks)
        grid = self.job.grid
        self._waiting = {
            block.index: {block.index, *(other.index for other in grid.receivers[block.index])} for block in grid.blocks
        }

    @classmethod
    def begin(cls, prepared: Prepared, out: Path, call: Call, engines: tuple[str, ...], startup: float) -> SceneRun:
        """Claim the folder, and see what an unfinished run has left there."""
        started = time.perf_counter()
        for notice in prepared.notices:
            call.progress.note(notice)
        refuse_inputs(out, prepared.inputs)
        with ExitStack() as claims:
            claim = claims.enter_context(claimed(out, overwrite=call.overwrite, command=call.command))
            job = _begin_work(prepared, claim, engines, call)
            kept = claims.pop_all()
        name = uuid4().hex[:8]  # keys of two runs on one scheduler must differ
        tasks = SceneTasks(name, job, claim.stage, prepared.settings).all()
        return cls(prepared, claim, job, tasks, name, started, startup, engines, call.command, kept)

    @property
    def outputs(self) -> int:
        """How many tasks make files."""
        return len(self.tasks) - 2 * len(self.job.grid.blocks)

    def take(self, task: Task, result: Receipt | Product) -> None:
        """Take what a task reports; a block's sums are deleted once nobody waits for them."""
        self.open -= 1
        if isinstance(result, Product):
            self.tally.add(result.receipt)
            self.tally.add_seconds(result.seconds)
            self.features = result.features or self.features
            return
        self.tally.add(result)
        if task.call is settle:
            for source in self.job.grid.contributors[result.block]:
                waiting = self._waiting[source.index]
                waiting.discard(result.block)
                if not waiting:
                    self.job.sums_path(source).unlink(missing_ok=True)

    def news(self) -> dict[str, Any]:
        """What the map of blocks needs to know."""
        boxes = [[b.row, b.col, b.height, b.width] for b in (block.box for block in self.job.grid.blocks)]
        name, shape = Path(self.prepared.scene.info.path).stem, list(self.job.grid.shape)
        return {
            "what": "scene", "run": self.name, "name": name, "shape": shape, "boxes": boxes,
            "tiles": self.job.grid.tile_count,
        }  # fmt: skip

    def finish(self, catalog: str | None) -> RunResult:
        """Page, project, manifest; then the folder holds a finished run.

        Raises SceneError where not one tile could be read.
        """
        if self.tally.failed and not self.tally.forwarded:
            raise SceneError(f"no tile of the scene could be read; {self.tally.failed[0].cause}")
        with self.claims:
            record, watch = self._record(), Stopwatch()
            with watch("report"):
                write_page(self.prepared, self.job, self.tally.counts, self.claim.stage, record)
            self.tally.add_seconds(watch.seconds)
            write_item(self.prepared, self.claim.stage, catalog=catalog)
            outputs = self.claim.publish()
            outputs.append(write_qgis(self.prepared, self.job, self.claim.out))
            record["outputs"] = describe_outputs(self.claim.out, outputs)
            record["peak_rss_mb"] = round(max([peak_rss_mb(), *self.tally.workers.values()]), 1)
            record["status"] = "partial" if self.tally.failed else "done"
            record["seconds"] = self._seconds()  # the page tells what was known when it was drawn
            write_manifest(self.claim.out, record)
            self.claim.finish()
        return RunResult.of(self.claim.out, record)

    def _record(self) -> dict[str, Any]:
        grid, tally = self.job.grid, self.tally
        failed = sorted(tally.failed, key=lambda tile: tile.tile)
        return {
            "geoseg": __version__,
            "command": list(self.command),
            "config": self.prepared.settings.to_json(),
            "scene": scene_record(self.prepared, self.job),
            "model": model_record(self.prepared),
            "engine": ", ".join(self.engines),
            "notices": list(self.prepared.notices),
            "tiles": {
                "planned": grid.tile_count,
                "forwarded": tally.forwarded,
                "skipped_nodata": tally.skipped_nodata,
                "retried": tally.retried,
                "failed": [tile.to_json() for tile in failed],
            },
            "blocks": {"planned": len(grid.blocks), "size": grid.block},
            "megapixels": round(grid.shape[0] * grid.shape[1] / 1e6, 4),
            "workers": [{"name": name, "peak_rss_mb": round(peak, 1)} for name, peak in sorted(tally.workers.items())],
            "seconds": self._seconds(),
            "features": self.features,
        }

    def _seconds(self) -> dict[str, float]:
        """By the clock so far, and of work by step."""
        total = time.perf_counter() - self.started + self.startup
        seconds = {"total": total, "startup": self.startup, **self.tally.seconds}
        return {step: round(spent, 3) for step, spent in seconds.items()}


def _begin_work(prepared: Prepared, claim: Claim, engines: tuple[str, ...], call: Call) -> SegmentJob:
    """The job in a work folder of its own, which holds what an unfinished run of the same job has done already."""
    draft = prepared.job(claim.out)
    key = job_key(prepared, draft, engines)
    note = claim.begin(key, resume=call.resume)
    job = prepared.job(claim.work, draft.scaling)
    stat = Path(prepared.scene.info.path).stat()
    seen = {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    if claim.resumed:
        touched = json.loads((claim.work / _SEEN).read_text(encoding="utf-8")) != seen
        if touched and not _same_pixels(job):
            note = f"{claim.out}: the pixels of the scene have changed since the unfinished run there: starting anew"
            claim.begin(key, resume=False)
        else:
            steps = (forward, settle)
            done = [sum(job.receipt_path(s.__name__, b).exists() for b in job.grid.blocks) for s in steps]
            whose = f" of {claim.former}" if claim.former else ""
            note = (
                f"{claim.out}: going on with the unfinished run{whose}: of {len(job.grid.blocks)} blocks {done[0]} are "
                f"forwarded and {done[1]} done"
            )
    write_text(claim.work / _SEEN, json.dumps(seen))
    if note:
        call.progress.note(note)
    return job


def _same_pixels(job: SegmentJob) -> bool:
    """Whether the blocks that were forwarded look as they did then."""
    for block in job.grid.blocks:
        receipt = read_receipt(job.receipt_path(forward.__name__, block))
        if receipt is not None and receipt.content != content_of(job, block):
            return False
    return True
