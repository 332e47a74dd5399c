"""`demo`: the embedded model on the embedded scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.config import Settings
from geoseg.model import find_bundle
from geoseg.report import SheetEntry, contact_sheet, ground_width_m, overlay_picture
from geoseg.report.pictures import class_picture, rgb_source, scene_picture
from geoseg.scene import inspect_scene, open_scene
from geoseg.workflow.segmenting import segment_scenes
from geoseg.write import replacing

if TYPE_CHECKING:
    from geoseg.workflow.progress import Progress
    from geoseg.workflow.running import RunResult

SCENES = ("rotterdam_1.tif", "rotterdam_2.tif", "rotterdam_3.tif")


def demo_folder() -> Path:
    """Where the embedded scenes lie."""
    return Path(__file__).parent.parent / "demo"


def run_demo(out: Path, *, progress: Progress | None = None) -> tuple[list[RunResult], Path]:
    """Segment the embedded scenes as a batch; the results, and a picture of them all."""
    settings = Settings()
    results = segment_scenes(
        [demo_folder() / name for name in SCENES], out, settings, overwrite=True, progress=progress
    )
    picture = out / "demo.png"
    with replacing(picture) as partial:
        draw_results(results, settings.model).save(partial)
    return results, picture


def draw_results(results: list[RunResult], model: str):  # type: ignore[no-untyped-def]  # noqa: ANN201  # a PIL image
    """Scene and classes of each run, side by side, with the legend: RGB."""
    bundle = find_bundle(model)
    entries = []
    for result in results:
        path = Path(result.manifest["scene"]["path"])
        scene = open_scene(path, bundle.needs)
        imagery = scene_picture(rgb_source(scene))
        classes = class_picture(result.folder / "classes.tif", bundle.legend)
        overlay = overlay_picture(imagery, classes, bundle.legend)
        entries.append(SheetEntry((imagery, overlay), path.stem, ground_width_m(inspect_scene(path).frame)))
    return contact_sheet(entries, bundle.legend, across=True)
