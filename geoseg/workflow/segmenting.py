"""`segment`: one scene, or several, from pixels to polygons."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.config import Settings
from geoseg.errors import UsageError
from geoseg.runtime import AnyRunner, open_runner, run_tasks
from geoseg.workflow.folder import MANIFEST, clear_finished, read_manifest
from geoseg.workflow.outputs import write_catalog
from geoseg.workflow.prepare import Prepared, prepare
from geoseg.workflow.progress import Progress, Silent, TileCount
from geoseg.workflow.running import Call, RunResult, SceneRun
from geoseg.workflow.tasks import load_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from geoseg.runtime import Task

HOW = {"workers", "threads", "scheduler", "block", "batch"}
"""Settings that say how a run is computed; what comes out does not depend on them."""


def segment_scenes(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    resume: bool = True,
    progress: Progress | None = None,
) -> list[RunResult]:
    """Segment one scene into `out`, or several into a folder each below it, on one set of workers.

    A scene that was finished before with the same model and settings is not computed again, and of one that was begun
    only what is missing, unless `resume` is off. All scenes are checked before the first is computed. Raises the errors
    of `prepare`, UsageError where two scenes share a name or a folder holds another run, and EnvironmentFault.
    """
    several = len(paths) != 1
    folders = _folders(paths, out) if several else [out]
    catalog = "../catalog.json" if several else None
    call = Call(tuple(sys.argv), overwrite, resume, catalog, progress or Silent())
    results = _segment_all(dict(zip(paths, folders, strict=True)), settings, call)
    if several:
        write_catalog(out, folders)
    return results


def segment_scene(
    path: Path,
    out: Path,
    settings: Settings | None = None,
    *,
    overwrite: bool = False,
    resume: bool = True,
    progress: Progress | None = None,
) -> RunResult:
    """Segment one scene into `out`; as `segment_scenes`."""
    (result,) = segment_scenes(
        [Path(path)], Path(out), settings or Settings(), overwrite=overwrite, resume=resume, progress=progress
    )
    return result


def _segment_all(folders: Mapping[Path, Path], settings: Settings, call: Call) -> list[RunResult]:
    """Segment each scene into its folder, all on one set of workers; those that are finished stay as they are."""
    started = time.perf_counter()
    prepared = {folder: prepare(path, settings) for path, folder in folders.items()}
    found = {folder: None if call.overwrite else _finished(one, folder) for folder, one in prepared.items()}
    results = {folder: result for folder, result in found.items() if result is not None}
    for folder in results:
        clear_finished(folder)
        call.progress.note(f"{folder} was finished before; --overwrite computes it again")
    missing = {folder: one for folder, one in prepared.items() if folder not in results}
    if missing:
        with open_runner(workers=settings.workers, scheduler=settings.scheduler, note=call.progress.note) as runner:
            for page in runner.pages:
                call.progress.note(f"watch the run at {page}")
            engines = _load_engines(next(iter(missing.values())), runner, call)
            results |= _run(missing, runner, call, (engines, time.perf_counter() - started))
    return [results[folder] for folder in folders.values()]


def _run(
    missing: Mapping[Path, Prepared], runner: AnyRunner, call: Call, begun: tuple[tuple[str, ...], float]
) -> dict[Path, RunResult]:
    """Run the tasks of all scenes; the next scene begins while the last tasks of the one before are at work."""
    engines, startup = begun
    counted = TileCount(call.progress, sum(one.grid.tile_count for one in missing.values()))
    runs: dict[str, SceneRun] = {}
    results: dict[Path, RunResult] = {}

    def batches() -> Iterator[list[Task]]:
        for number, (folder, one) in enumerate(missing.items()):
            run = SceneRun.begin(one, folder, call, engines, 0.0 if number else startup)
            claims.push(run.claims)
            runs.update({task.key: run for task in run.tasks})
            counted.begin(run.name, run.job.grid, run.outputs)
            runner.tell(run.news())
            yield run.tasks

    with runner.heard(counted.hear), ExitStack() as claims:
        try:
            for task, result in run_tasks(batches(), runner):
                run = runs.pop(task.key)
                run.take(task, result)
                counted.done(run.name, task.call.__name__, getattr(result, "block", None))
                if not run.open:
                    results[run.claim.out] = run.finish(call.catalog)
                    runner.tell({"what": "end", "run": run.name})
        finally:
            for name in sorted({run.name for run in runs.values()}):
                runner.tell({"what": "end", "run": name})
    return {folder: results[folder.absolute()] for folder in missing}


def _load_engines(prepared: Prepared, runner: AnyRunner, call: Call) -> tuple[str, ...]:
    """Load the network in every worker at once; the names of the engines, which should be one."""
    names = tuple(sorted(set(runner.everywhere(load_engine, prepared.source))))
    if len(names) > 1:
        call.progress.note(
            f"workers differ: {', '.join(names)}; where two classes are nearly equal the result depends on which of "
            "them computed a tile; set --precision and --device to make them one"
        )
    return names


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
    checks: dict[str, Any] = {
        "scene": before.get("path") == str(path.resolve()),
        "content of the scene": (before.get("bytes"), before.get("modified")) == (now.st_size, now.st_mtime),
        "model": record.get("model", {}).get("sha256") == prepared.bundle.sha256,
        "outputs": all((folder / name).exists() for name in record["outputs"]),
        **{name: config.get(name) == value for name, value in wanted.items() if name not in {"model", *HOW}},
    }
    others = [name for name, equal in checks.items() if not equal]
    if others:
        raise UsageError(
            f"{folder} holds a finished run with other {', '.join(others)}; choose another --out, or say --overwrite "
            "(geoseg vectorize makes other polygons of it without inference)"
        )
    return RunResult.of(folder, record)
