"""`segment`: one scene, or several, from pixels to polygons."""

from __future__ import annotations

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
from geoseg.workflow.folder import (
    MANIFEST,
    Claim,
    claimed,
    describe_outputs,
    read_manifest,
    refuse_inputs,
    write_manifest,
)
from geoseg.workflow.outputs import part_path, write_catalog, write_item, write_page, write_qgis, write_rasters
from geoseg.workflow.prepare import Prepared, model_record, prepare, scene_record
from geoseg.workflow.progress import Progress, Silent
from geoseg.workflow.vectors import count_features, polygons_of, tidy_rule
from geoseg.write import write_block, write_layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from geoseg.grid import Block

_STEPS = ("read", "scale", "forward", "blend", "label", "spill", "write", "vectorize")
_HOW = {"workers", "threads", "scheduler", "block", "batch"}
"""Settings that say how a run is computed; what comes out does not depend on them."""


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
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_STEPS, 0.0))
    workers: dict[str, float] = field(default_factory=dict)

    def add(self, receipt: Receipt) -> None:
        """Count one receipt."""
        self.forwarded += receipt.forwarded
        self.skipped_nodata += receipt.skipped_nodata
        self.add_seconds(receipt.seconds)
        self.workers[receipt.worker] = max(self.workers.get(receipt.worker, 0.0), receipt.peak_rss_mb)

    def add_seconds(self, seconds: Mapping[str, float]) -> None:
        """Add seconds by step."""
        for step, more in seconds.items():
            self.seconds[step] += more


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

    A scene that was finished before with the same model and settings is not computed again. All scenes are checked
    before the first is computed. Raises the errors of `prepare`, UsageError where two scenes share a name or a folder
    holds another run, and EnvironmentFault.
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
    prepared = [(prepare(path, settings), folder) for path, folder in folders.items()]
    finished = {folder: None if call.overwrite else _finished(one, folder) for one, folder in prepared}
    with open_runner(workers=settings.workers, scheduler=settings.scheduler) as runner:
        for one, folder in prepared:
            before = finished[folder]
            if before is not None:
                call.progress.note(f"{folder} was finished before; --overwrite computes it again")
            yield before or _segment_prepared(one, folder, runner, call)


def _segment_prepared(prepared: Prepared, out: Path, runner: Runner, call: Call) -> RunResult:
    """The run as a table of contents."""
    started, watch = time.perf_counter(), Stopwatch()
    for notice in prepared.notices:
        call.progress.note(notice)
    refuse_inputs(out, prepared.inputs)
    with claimed(out, overwrite=call.overwrite) as claim:
        job = prepared.job(claim.work)
        tally = _compute(job, runner, call.progress)
        record = _record(prepared, job, call, tally)
        with watch("write"):
            write_rasters(job, claim.stage, claim.work)
        with watch("vectorize"):
            record["features"] = _write_vectors(prepared, claim, call.progress) if prepared.settings.vectors else {}
        tally.add_seconds(watch.seconds)
        record["seconds"] = {key: round(value, 3) for key, value in tally.seconds.items()}
        record["seconds"] = {"total": round(time.perf_counter() - started, 3), **record["seconds"]}
        write_page(prepared, claim.stage, record)
        write_item(prepared, claim.stage, catalog=call.catalog)
        outputs = claim.publish()
        outputs.append(write_qgis(prepared, claim.out))
        record["outputs"] = describe_outputs(claim.out, outputs)
        record["peak_rss_mb"] = round(max([peak_rss_mb(), *tally.workers.values()]), 1)
        record["status"] = "done"
        write_manifest(claim.out, record)
    return _result(out, record)


def _result(folder: Path, record: dict[str, Any]) -> RunResult:
    return RunResult(folder, tuple(folder / name for name in (*record["outputs"], MANIFEST)), record)


def _write_vectors(prepared: Prepared, claim: Claim, progress: Progress) -> dict[str, dict[str, float | int | None]]:
    """Write the polygons in all formats; returns what run.json says of them."""
    legend, settings = prepared.bundle.legend, prepared.settings
    progress.advance("polygons", 0, 1)
    classes, confidence = claim.stage / "classes.tif", claim.stage / "confidence.tif"
    layers = polygons_of(classes, confidence, legend, tidy_rule(settings))
    for name in settings.format:
        write_layers(layers, claim.stage, "features", name, legend)
    progress.advance("polygons", 1, 1)
    return count_features(layers)


def _compute(job: SegmentJob, runner: Runner, progress: Progress) -> Tally:
    """Forward and settle all blocks; each block's sums are deleted once nobody waits for them."""
    tally = Tally()
    blocks = {block.index: block for block in job.grid.blocks}
    waiting = {index: {index, *(b.index for b in job.grid.receivers[index])} for index in blocks}
    pixels = 0
    progress.advance("tiles", 0, job.grid.tile_count)
    for task, receipt in run_tasks(_tasks(job), runner):
        tally.add(receipt)
        if task.call is settle:
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


def _finished(prepared: Prepared, folder: Path) -> RunResult | None:
    """The run in a folder, if it is this one and was finished before; raises UsageError where it is another."""
    if not (folder / MANIFEST).exists():
        return None
    record = read_manifest(folder)
    path = Path(prepared.scene.info.path)
    before, now = record.get("scene", {}), path.stat()
    config, wanted = record.get("config", {}), prepared.settings.to_json()
    checks = {
        "scene": before.get("path") == str(path.resolve()),
        "content of the scene": (before.get("bytes"), before.get("modified")) == (now.st_size, now.st_mtime),
        "model": record.get("model", {}).get("sha256") == prepared.bundle.sha256,
        "outputs": all((folder / name).exists() for name in record["outputs"]),
        **{name: config.get(name) == value for name, value in wanted.items() if name not in {"model", *_HOW}},
    }
    others = [name for name, equal in checks.items() if not equal]
    if others:
        raise UsageError(
            f"{folder} holds a finished run with other {', '.join(others)}; choose another --out, or say --overwrite "
            "(geoseg vectorize makes other polygons of it without inference)"
        )
    return _result(folder, record)


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
