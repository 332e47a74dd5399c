"""`segment`: one scene, or several, from pixels to polygons."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from geoseg import __version__
from geoseg.config import Settings
from geoseg.errors import UsageError
from geoseg.runtime import Runner, Task, open_runner, run_tasks
from geoseg.segment import Receipt, SegmentJob, Stopwatch, forward_block, peak_rss_mb, settle_block
from geoseg.workflow.folder import claimed, describe_outputs, write_manifest
from geoseg.workflow.outputs import part_path, write_catalog, write_item, write_page, write_qgis, write_rasters
from geoseg.workflow.prepare import Prepared, model_record, prepare, scene_record
from geoseg.workflow.progress import Progress, Silent
from geoseg.workflow.vectors import count_features, polygons_of, tidy_rule
from geoseg.write import write_block, write_layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from geoseg.grid import Block


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, its files, and what run.json says."""

    folder: Path
    outputs: tuple[Path, ...]
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Call:
    """What the scenes of one call share."""

    command: tuple[str, ...]
    overwrite: bool
    catalog: str | None
    """Where the catalog lies, seen from the folder of a run."""
    progress: Progress


@dataclass
class Tally:
    """What the receipts of a run add up to."""

    forwarded: int = 0
    skipped_nodata: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    workers: dict[str, float] = field(default_factory=dict)

    def add(self, receipt: Receipt) -> None:
        """Count one receipt."""
        self.forwarded += receipt.forwarded
        self.skipped_nodata += receipt.skipped_nodata
        for step, seconds in receipt.seconds.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        self.workers[receipt.worker] = max(self.workers.get(receipt.worker, 0.0), receipt.peak_rss_mb)


def segment_scenes(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    command: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> list[RunResult]:
    """Segment one scene into `out`, or several into a folder each below it, on one set of workers.

    All scenes are checked before the first is computed. Raises the errors of `prepare`, UsageError where two scenes
    share a name, and EnvironmentFault.
    """
    if len(paths) == 1:
        return [segment_scene(paths[0], out, settings, overwrite=overwrite, command=command, progress=progress)]
    folders = _folders(paths, out)
    call = Call(command, overwrite=overwrite, catalog="../catalog.json", progress=progress or Silent())
    results = list(_segment_each(dict(zip(paths, folders, strict=True)), settings, call))
    write_catalog(out, folders)
    return results


def segment_scene(
    path: Path,
    out: Path,
    settings: Settings | None = None,
    *,
    overwrite: bool = False,
    command: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> RunResult:
    """Segment one scene into `out`; as `segment_scenes`."""
    call = Call(command, overwrite=overwrite, catalog=None, progress=progress or Silent())
    return next(_segment_each({Path(path): Path(out)}, settings or Settings(), call))


def _segment_each(folders: Mapping[Path, Path], settings: Settings, call: Call) -> Iterator[RunResult]:
    """Segment each scene into its folder, all on one set of workers."""
    threads = settings.threads or max(1, (os.cpu_count() or 1) // max(1, settings.workers))
    prepared = [(prepare(path, settings).with_threads(threads), folder) for path, folder in folders.items()]
    with open_runner(workers=settings.workers, scheduler=settings.scheduler) as runner:
        for one, folder in prepared:
            yield _segment_prepared(one, folder, runner, call)


def _segment_prepared(prepared: Prepared, out: Path, runner: Runner, call: Call) -> RunResult:
    """The run as a table of contents."""
    started, watch = time.perf_counter(), Stopwatch()
    for notice in prepared.notices:
        call.progress.note(notice)
    with claimed(out, overwrite=call.overwrite) as work:
        job = prepared.job(work)
        tally = _compute(job, runner, call.progress)
        with watch("write"):
            outputs = write_rasters(job, out, work)
        layers = None
        if prepared.settings.vectors:
            with watch("vectorize"):
                call.progress.advance("polygons", 0, 1)
                rasters = out / "classes.tif", out / "confidence.tif"
                layers = polygons_of(*rasters, job.bundle.legend, tidy_rule(prepared.settings))
                for name in prepared.settings.format:
                    outputs += write_layers(layers, out, "features", name, job.bundle.legend)
                call.progress.advance("polygons", 1, 1)
        outputs.append(write_qgis(prepared, out))
        record = _record(prepared, job, call, tally)
        record["features"] = count_features(layers) if layers is not None else {}
        record["seconds"] = {key: round(value, 3) for key, value in {**tally.seconds, **watch.seconds}.items()}
        record["seconds"] = {"total": round(time.perf_counter() - started, 3), **record["seconds"]}
        outputs.append(write_page(prepared, out, record, outputs))
        outputs.append(write_item(prepared, out, catalog=call.catalog))
        record["outputs"] = describe_outputs(out, outputs)
        record["peak_rss_mb"] = round(max([peak_rss_mb(), *tally.workers.values()]), 1)
        record["status"] = "done"
        write_manifest(out, record)
    return RunResult(out, (*outputs, out / "run.json"), record)


def _compute(job: SegmentJob, runner: Runner, progress: Progress) -> Tally:
    """Forward and settle all blocks; each block's sums are deleted once nobody waits for them."""
    tally = Tally()
    blocks = {block.index: block for block in job.grid.blocks}
    waiting = {index: {index, *(b.index for b in job.grid.receivers[index])} for index in blocks}
    settled = pixels = 0
    progress.advance("tiles", 0, job.grid.tile_count)
    for task, receipt in run_tasks(_tasks(job), runner):
        tally.add(receipt)
        if task.call is settle:
            settled += 1
            for source in job.grid.contributors[receipt.block]:
                waiting[source.index].discard(receipt.block)
                if not waiting[source.index]:
                    job.sums_path(source).unlink(missing_ok=True)
        else:
            pixels += blocks[receipt.block].box.area
            progress.advance("tiles", tally.forwarded + tally.skipped_nodata, job.grid.tile_count, pixels=pixels)
    return tally


def _tasks(job: SegmentJob) -> list[Task]:
    """Forward every block; settle each as soon as all that reach into it have been forwarded."""
    run = uuid4().hex[:8]  # keys of two runs on one scheduler must differ
    last = {index: sources[-1].index for index, sources in job.grid.contributors.items()}
    tasks: list[Task] = []
    for block in job.grid.blocks:
        tasks.append(Task(f"forward-{run}-{block.name}", forward_block, (job, block)))
        for other in (block, *job.grid.receivers[block.index]):
            if last[other.index] == block.index:
                after = tuple(f"forward-{run}-{source.name}" for source in job.grid.contributors[other.index])
                tasks.append(Task(f"settle-{run}-{other.name}", settle, (job, other), after))
    return tasks


def settle(job: SegmentJob, block: Block) -> Receipt:
    """The task of a worker: settle a block and write it as a part of the final rasters."""
    watch = Stopwatch()
    with watch("blend"):
        labels = settle_block(job, block)
    with watch("write"):
        write_block(part_path(job.folder, block), labels.bands, job.scene.frame.crop(block.box), 255)
    return Receipt(block.index, seconds=watch.seconds)


def _folders(paths: Sequence[Path], out: Path) -> list[Path]:
    if not paths:
        raise UsageError("no scene given")
    stems = [path.stem for path in paths]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        names = ", ".join(twice)
        raise UsageError(f"several scenes are named {names}, so their folders below {out} would be one; rename them")
    return [out / stem for stem in stems]


def _record(prepared: Prepared, job: SegmentJob, call: Call, tally: Tally) -> dict[str, Any]:
    shape = job.grid.shape
    return {
        "geoseg": __version__,
        "command": list(call.command),
        "config": prepared.settings.to_json(),
        "scene": scene_record(prepared, job),
        "model": model_record(prepared),
        "notices": list(prepared.notices),
        "tiles": {
            "planned": job.grid.tile_count,
            "forwarded": tally.forwarded,
            "skipped_nodata": tally.skipped_nodata,
            "retried": 0,
            "failed": [],
        },
        "blocks": {"planned": len(job.grid.blocks), "size": job.grid.block},
        "megapixels": round(shape[0] * shape[1] / 1e6, 4),
        "workers": [{"name": name, "peak_rss_mb": round(peak, 1)} for name, peak in sorted(tally.workers.items())],
    }
