"""`change`: two dates of one place, from pixels to what changed."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from geoseg import __version__
from geoseg.change.indices import choose_indices, middle_and_spread
from geoseg.change.irmad import LEAST_SHARE, MOST_ROUNDS, STILL, Canonical, Lines
from geoseg.change.methods import ClassMethod, ImageMethod, NetworkMethod
from geoseg.change.moments import Moments, blocks_of_cells
from geoseg.change.numbers import ChangeNumbers
from geoseg.change.registration import LIMIT_PX, WORTH_PX, Shift
from geoseg.change.threshold import Cut, cut_at, mixture, otsu
from geoseg.change.tolerance import LEAST_PX, MOST_PX
from geoseg.config import ChangeSettings
from geoseg.errors import InputError, UsageError
from geoseg.runtime import Task, open_runner, run_tasks
from geoseg.segment import peak_rss_mb
from geoseg.vector import blocks_of
from geoseg.workflow.change_network import (
    failures_of,
    load_everywhere,
    network_job,
    network_of,
    network_tasks,
    probabilities_of,
)
from geoseg.workflow.change_objects import ObjectRuns
from geoseg.workflow.change_outputs import (
    ChangeRecord,
    raster_specs,
    vector_job,
    write_change_outputs,
    write_change_qgis,
)
from geoseg.workflow.change_tasks import (
    ChangeJob,
    Found,
    judge,
    look,
    measure,
    mosaic,
    origin_of,
    outline,
    polygons,
    register,
    reweigh,
    spread,
)
from geoseg.workflow.comparison import Comparison, choose_method, finished
from geoseg.workflow.dates import class_scene, open_dates
from geoseg.workflow.folder import claimed, clear_finished, describe_outputs, refuse_inputs, write_manifest
from geoseg.workflow.progress import Progress, Silent
from geoseg.workflow.running import RunResult
from geoseg.workflow.tasks import Product
from geoseg.workflow.zones import zone_areas

if TYPE_CHECKING:
    from geoseg.change.methods import Method
    from geoseg.change.pair import Pair
    from geoseg.runtime import AnyRunner
    from geoseg.workflow.folder import Claim


def detect_change(  # noqa: PLR0913  # keywords, each an option of the command
    before: Path,
    after: Path,
    out: Path,
    settings: ChangeSettings | None = None,
    *,
    overwrite: bool = False,
    resume: bool = True,
    progress: Progress | None = None,
) -> RunResult:
    """Compare two scenes, or two finished runs, and write what changed into `out`.

    A comparison that was finished before is not computed again, and of one that was begun only what is missing, unless
    `resume` is off. To compare classes, scenes are segmented first, into `before` and `after` below `out`. Raises
    InputError or one of its kind, UsageError where `out` holds another run, EnvironmentFault.
    """
    settings, progress = settings or ChangeSettings(), progress or Silent()
    started = time.perf_counter()
    dates = open_dates(Path(before), Path(after), settings)
    settings, notes = choose_method(dates, settings)
    for note in notes:
        progress.note(note)
    compared = Comparison.prepare(dates, settings, notes)
    refuse_inputs(out, compared.inputs)
    for date in dates:
        if date.run is not None and out.exists() and out.samefile(date.run):
            raise UsageError(f"--out {out} is one of the runs that are compared; choose another folder")
    if not overwrite and (before_ := finished(compared, out)) is not None:
        clear_finished(out)
        progress.note(f"{out} was finished before; --overwrite computes it again")
        return before_
    if settings.method == "classes":
        compared = compared.segmented(out, overwrite=overwrite, resume=resume, progress=progress)
    with (
        open_runner(workers=settings.workers, scheduler=settings.scheduler, note=progress.note) as runner,
        claimed(out, overwrite=overwrite, command=tuple(sys.argv)) as claim,
    ):
        anew = claim.begin(compared.key, resume=resume)
        if anew or claim.resumed:
            progress.note(anew or f"{out}: going on with the unfinished run")
        return ChangeRun(compared, claim, runner, progress, started).finish()


@dataclass
class ChangeRun:
    """A comparison on its way: pass after pass over its blocks."""

    compared: Comparison
    claim: Claim
    runner: AnyRunner
    progress: Progress
    started: float
    name: str = field(default_factory=lambda: uuid4().hex[:8])
    seconds: dict[str, float] = field(default_factory=dict)
    workers: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: list[tuple[Any, str]] = field(default_factory=list)
    """Windows that the network could not be fed with, and why."""

    def finish(self) -> RunResult:
        """All passes, all files; then the folder holds a finished run."""
        settings, frame = self.compared.settings, self.compared.common.frame
        shift, moved = self._registered()
        imagery, compared = self.compared.pairs(moved)
        if settings.method == "siamese":
            compared = self._by_network(imagery)
        boxes = tuple(blocks_of_cells(frame.shape, settings.block))
        job = ChangeJob(imagery, compared, boxes, self.claim.work, self.compared.sieve)
        left = 0.0 if moved != (0.0, 0.0) else shift.length_px
        radius = min(max(LEAST_PX, left + shift.spread_px), MOST_PX)
        method, rounds = self._method(job, radius)
        measured = self._each(job, "measure", measure, method)
        counts = np.sum([found.arrays["counts"] for found in measured], axis=0)
        if not counts.sum():
            raise InputError("the two dates have no valid pixel in common; check nodata, --aoi and what they cover")
        cut = self._cut(counts)
        judged = self._each(job, "judge", judge, cut)
        numbers = ChangeNumbers.of(np.concatenate([found.arrays["areas"] for found in judged]))
        failed = [*self.failed, *(failure for found in measured for failure in found.failed)]
        features, objects = self._files(job, method, moved, radius)
        zones: list[dict[str, Any]] = []
        if settings.zones:
            zones = zone_areas(self.claim.stage / "change.tif", Path(settings.zones), method.transitions)
        record = ChangeRecord(
            compared=self.compared, job=job, method=method, shift=shift, moved=moved, radius_px=radius, cut=cut,
            rounds=rounds, numbers=numbers, features=features, objects=objects, zones=zones, failed=tuple(failed),
            notes=(*self.compared.notes, *self.notes), seconds=self._seconds(),
        )  # fmt: skip
        return self._publish(record)

    def _publish(self, record: ChangeRecord) -> RunResult:
        out = self.claim.out
        manifest = {"geoseg": __version__, "command": sys.argv, **record.to_json()}
        write_change_outputs(record, manifest, self.claim.stage)
        outputs = self.claim.publish()
        outputs.append(write_change_qgis(record, out))
        manifest["outputs"] = describe_outputs(out, outputs)
        manifest["workers"] = [
            {"name": name, "peak_rss_mb": round(peak, 1)} for name, peak in sorted(self.workers.items())
        ]
        manifest["peak_rss_mb"] = round(max([peak_rss_mb(), *self.workers.values()]), 1)
        manifest["seconds"] = self._seconds()
        write_manifest(out, manifest)
        self.claim.finish()
        return RunResult.of(out, manifest)

    def _registered(self) -> tuple[Shift, tuple[float, float]]:
        """How far the dates are apart, and by how much the later one is moved."""
        how, none = self.compared.settings.register, (0.0, 0.0)
        if how == "off":
            return Shift(0.0, 0.0, 0.0, 0, 0), none
        first, second = self.compared.imagery
        path = self.claim.work / "register.npz"
        (found,) = self._run("register", [Task(f"register-{self.name}", register, (first, second, path))])
        shift: Shift = found.value
        if not shift.windows:
            self._note(
                "no window of the two dates has enough in common to tell how far they are apart; taken as they lie"
            )
            return shift, none
        if shift.consistent and shift.length_px > LIMIT_PX:
            raise InputError(
                f"the two dates lie {shift.length_px:.1f} pixels apart, more than {LIMIT_PX:g}; register them first, "
                "or say --register off"
            )
        if not shift.consistent:
            words = (
                f"shifts between the dates disagree ({shift.agreeing} of {shift.windows} windows say the same, they "
                f"scatter by {shift.spread_px:.2f} pixels): relief, parallax, or too much change"
            )
            if how == "auto":
                self._note(f"{words}; the later date stays where it lies")
                return shift, none
            self._note(words)
        if how == "shift" or shift.length_px > WORTH_PX:
            return shift, (shift.row, shift.col)
        return shift, none

    def _method(self, job: ChangeJob, radius_px: float) -> tuple[Method, int]:
        """The method with all that it must know of the whole pair, and in how many rounds that was found."""
        settings = self.compared.settings
        if settings.method == "siamese":
            self._each(job, "look", look, None)
            return NetworkMethod(network_of(settings).legend), 0
        pair = job.imagery
        quantum = 1.0 if all(np.dtype(date.scene.dtype).kind in "iu" for date in self.compared.dates) else 0.0
        (found,) = self._run("look", [Task(f"origin-{self.name}", origin_of, (pair, job.folder / "origin.npz"))])
        origin = found.arrays["origin"]
        first = _total(self._each(job, "look", look, origin))
        if not first.weight:
            raise InputError("the two dates have no valid pixel in common; check nodata, --aoi and what they cover")
        canonical, moments, rounds = self._reweighted(job, first, origin, quantum)
        lines = Lines.of(moments, origin, quantum)
        spread_before = np.sqrt(np.diag(first.covariance)[: len(pair.roles)])
        if settings.method == "classes":
            imagery = ImageMethod("cva", pair.roles, canonical, lines, spread_before, radius_px)
            return ClassMethod(class_scene(self.compared.dates[0].run or Path()).legend, radius_px, imagery), rounds
        method = ImageMethod(settings.method, pair.roles, canonical, lines, spread_before, radius_px)  # type: ignore[arg-type]  # one of three by now
        if settings.method == "index":
            indices = choose_indices(settings.indices, pair.roles)
            counts = np.sum([f.arrays["counts"] for f in self._each(job, "spread", spread, lines, indices)], axis=0)
            middle, deviation = middle_and_spread(counts)
            method = replace(method, indices=indices, middle=middle, deviation=deviation)
        return method, rounds

    def _by_network(self, imagery: Pair) -> Pair:
        """Have the network look at both dates together; its probabilities."""
        job = network_job(self.compared, imagery, self.claim)
        load_everywhere(job, self.runner)
        tasks, receipts = network_tasks(job, self.name, self.compared.settings), []
        for done, (_, result) in enumerate(run_tasks([tasks], self.runner), 1):
            self.progress.advance("network", done, len(tasks))
            receipt = result.receipt if isinstance(result, Product) else result
            if receipt is not None:
                receipts.append(receipt)
                self.workers[receipt.worker] = max(self.workers.get(receipt.worker, 0.0), receipt.peak_rss_mb)
                for name, spent in receipt.seconds.items():
                    self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self.failed += failures_of(receipts)
        return probabilities_of(job)

    def _reweighted(
        self, job: ChangeJob, first: Moments, origin: Any, quantum: float
    ) -> tuple[Canonical, Moments, int]:
        """Rounds of IR-MAD until no canonical correlation moves; the moments of the last one."""
        canonical, moments = Canonical.of(first, origin, quantum), first
        for round_ in range(1, MOST_ROUNDS + 1):
            found = _total(self._each(job, "reweigh", reweigh, round_, canonical))
            for box in job.boxes:
                job.path(f"round{round_ - 1}", box, ".npz").unlink(missing_ok=True)
            if found.weight < LEAST_SHARE * first.weight:
                self._note(
                    f"after {round_ - 1} rounds less than {LEAST_SHARE:.0%} of the pixels would count as unchanged: "
                    "the dates differ nearly everywhere, as by season, and what is called change is what differs most"
                )
                return canonical, moments, round_ - 1
            before, moments = canonical, found
            canonical = Canonical.of(moments, origin, quantum)
            if np.abs(canonical.rho - before.rho).max() < STILL:
                return canonical, moments, round_
        self._note(f"the invariant pixels still changed after {MOST_ROUNDS} rounds; taken as they were then")
        return canonical, moments, MOST_ROUNDS

    def _cut(self, counts: Any) -> Cut | None:
        """Where change begins; None for an even chance."""
        settings = self.compared.settings
        asked = settings.threshold_value
        if settings.method in {"classes", "siamese"} and settings.threshold == "auto":
            return None
        if asked is not None:
            return cut_at(counts, asked)
        return mixture(counts) if settings.threshold == "em" else otsu(counts)

    def _files(
        self, job: ChangeJob, method: Method, moved: tuple[float, float], radius_px: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rasters, then polygons; what there is of each change, and what became of objects."""
        stage, settings = self.claim.stage, self.compared.settings
        specs = raster_specs(job.frame, method.transitions)
        self._run("outputs", [Task(f"mosaic-{self.name}-{n}", mosaic, (job, n, s, stage)) for n, s in specs.items()])
        if not settings.vectors:
            return {}, {}
        vectors = replace(
            vector_job(self.compared, job, method.transitions, stage), objects=self._objects(method, moved, radius_px)
        )
        boxes = blocks_of(job.frame.shape)
        self._run("outlines", [Task(f"outline-{self.name}-{b.row}-{b.col}", outline, (vectors, b)) for b in boxes])
        (found,) = self._run("outputs", [Task(f"polygons-{self.name}", polygons, (vectors, settings.format, stage))])
        features, objects = found.value
        return features, objects

    def _objects(self, method: Method, moved: tuple[float, float], radius_px: float) -> ObjectRuns | None:
        """The objects that are matched, where classes are compared and both runs have polygons of them."""
        if not isinstance(method, ClassMethod):
            return None
        files = [date.run / "features.gpkg" for date in self.compared.dates if date.run is not None]
        missing = [path for path in files if not path.is_file()]
        if missing:
            self._note(f"objects are not matched, since there is no {missing[0]}")
            return None
        return ObjectRuns(files[0], files[1], method.legend, moved, radius_px)

    def _each(self, job: ChangeJob, step: str, call: Any, *arguments: Any) -> list[Found]:
        """A pass over all blocks, in their order."""
        tag = f"{step}-{self.name}" if step != "reweigh" else f"{step}{arguments[0]}-{self.name}"
        return self._run(step, [Task(f"{tag}-{box.row}-{box.col}", call, (job, box, *arguments)) for box in job.boxes])

    def _run(self, step: str, tasks: list[Task]) -> list[Found]:
        results: dict[str, Found] = {}
        for task, result in run_tasks([tasks], self.runner):
            results[task.key] = result
            self.workers[result.worker] = max(self.workers.get(result.worker, 0.0), result.peak_rss_mb)
            for name, spent in result.seconds.items():
                self.seconds[name] = self.seconds.get(name, 0.0) + spent
            if len(tasks) > 1:
                self.progress.advance(step, len(results), len(tasks))
        return [results[task.key] for task in tasks]

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress.note(text)

    def _seconds(self) -> dict[str, float]:
        total = time.perf_counter() - self.started
        return {step: round(spent, 3) for step, spent in {"total": total, **self.seconds}.items()}


def _total(found: list[Found]) -> Moments:
    """The moments of all cells, in the order of the cells of the frame, whatever the blocks were."""
    rows = np.concatenate([one.arrays["moments"] for one in found])
    places = np.concatenate([one.arrays["cells"] for one in found])
    order = np.lexsort((places[:, 1], places[:, 0]))
    return Moments.total(Moments.from_row(row) for row in rows[order])
