"""The method `siamese`: the kernel of `segment`, over both dates as one scene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from geoseg.change.pair import Pair
from geoseg.errors import InputError, UsageError
from geoseg.legend import NODATA
from geoseg.model import BundleEngine, find_bundle
from geoseg.runtime import Task
from geoseg.scene import BandNeeds, Scaling, StackedScene, of_one_date, open_scene, resolve_scaling
from geoseg.segment import SegmentJob
from geoseg.workflow.prepare import choice_of, grid_of
from geoseg.workflow.tasks import Product, SceneTasks, load_engine, mosaic

if TYPE_CHECKING:
    from geoseg.blend import Blend
    from geoseg.config import ChangeSettings
    from geoseg.model import ModelBundle
    from geoseg.runtime import AnyRunner
    from geoseg.segment import Receipt
    from geoseg.workflow.comparison import Comparison
    from geoseg.workflow.folder import Claim

_PROBABILITIES = "probabilities.tif"


def network_of(settings: ChangeSettings) -> ModelBundle:
    """The model of two dates that settings name. Raises UsageError where it is one of a single date."""
    bundle = find_bundle(settings.model)
    if not bundle.of_two_dates:
        raise UsageError(
            f"--method siamese needs a model that sees two dates; {bundle.name} ({bundle.architecture}) sees one; "
            "train one from change labels (geoseg train, architecture SiameseUnet) and name it by --model"
        )
    return bundle


def needs_of(bundle: ModelBundle) -> BandNeeds:
    """The bands of either date."""
    return BandNeeds(of_one_date(bundle.needs.roles), of_one_date(bundle.needs.optional))


def network_job(compared: Comparison, imagery: Pair, claim: Claim) -> SegmentJob:
    """The job of the network over a pair on its common frame.

    Raises GsdError where that is not what it was trained for.
    """
    settings, frame = compared.settings, imagery.frame
    bundle = network_of(settings)
    fit, grid = grid_of(settings, bundle, frame, name=str(compared.dates[0].path))
    scalings = [resolve_scaling(date.scene, bundle.scaling) for date in compared.dates]
    if scalings[0].gamma != scalings[1].gamma:
        raise InputError(
            "of the two dates one is scaled by its range and the other by percentiles; convert one of them"
        )
    assert bundle.path is not None  # noqa: S101  # find_bundle found it in a folder
    folder = claim.work / "network"
    folder.mkdir(exist_ok=True)
    return SegmentJob(
        scene=StackedScene.of(imagery.before, imagery.after),
        scaling=Scaling(
            scalings[0].gain + scalings[1].gain, scalings[0].offset + scalings[1].offset, scalings[0].gamma
        ),
        bundle=bundle,
        engine=BundleEngine(bundle.path, bundle.sha256, choice_of(settings), fit.network),
        grid=grid,
        blend=cast("Blend", settings.blend),
        folder=folder,
        with_probabilities=True,
    )


def network_tasks(job: SegmentJob, name: str, settings: ChangeSettings) -> list[Task]:
    """Forward and settle all blocks, then one raster of probabilities."""
    tasks = SceneTasks(name, job, job.folder, settings).blocks()
    settled = tuple(task.key for task in tasks if task.key.startswith("settle"))
    return [*tasks, Task(f"mosaic-{name}-{_PROBABILITIES}", write_probabilities, (job,), settled)]


def write_probabilities(job: SegmentJob) -> Product | None:
    """One raster of probabilities from the parts, unless it is there."""
    return None if (job.folder / _PROBABILITIES).exists() else mosaic(job, _PROBABILITIES, job.folder)


def probabilities_of(job: SegmentJob) -> Pair:
    """What the network found, as both dates of a pair: its method looks at the first alone."""
    names = job.bundle.legend.names
    bands = {name: band for band, name in enumerate(names, 1)}
    path = job.folder / _PROBABILITIES
    scene = open_scene(path, BandNeeds(names), bands=bands, nodata=NODATA, require_crs=False)
    return Pair(scene, scene)


def load_everywhere(job: SegmentJob, runner: AnyRunner) -> tuple[str, ...]:
    """Load the network in every worker; the names of the engines."""
    return tuple(sorted(set(runner.everywhere(load_engine, job.engine))))


def failures_of(receipts: list[Receipt]) -> list[tuple[Any, str]]:
    """The windows that could not be read, and why."""
    return [(tile.window, tile.cause) for receipt in receipts for tile in receipt.failed]
