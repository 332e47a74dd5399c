"""What a run leaves behind, apart from its polygons: rasters, project, page, STAC."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.labels import PROBABILITY_STEPS
from geoseg.legend import NODATA
from geoseg.report import (
    RunReport,
    class_picture,
    confidence_picture,
    ground_width_m,
    preview_picture,
    render_report,
    rgb_source,
    scene_numbers,
)
from geoseg.scene.info import open_dataset
from geoseg.segment import read_preview
from geoseg.vector.measure import pixel_area_m2
from geoseg.workflow.folder import json_text
from geoseg.write import Project, RasterSpec, RunRecord, stac_catalog, stac_item, write_cog, write_project, write_text
from geoseg.write.qgis import pixel_stretch
from geoseg.write.stac import tiff_datetime
from geoseg.write.style import classes_qml, confidence_qml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.report.numbers import Counts
    from geoseg.segment import SegmentJob
    from geoseg.workflow.prepare import Prepared

_WHAT = {
    "classes.tif": "class codes",
    "classes.tif.aux.xml": "class names for GDAL and QGIS",
    "classes.qml": "style of classes.tif for QGIS",
    "confidence.qml": "style of confidence.tif for QGIS",
    "confidence.tif": "probability of the winning class, in percent",
    "probabilities.tif": "probability of each class",
    "features.gpkg": "polygons, a layer a class, styled for QGIS",
    "project.qgs": "QGIS project with scene, rasters and polygons",
    "run.json": "settings, counts, timings and hashes",
    "item.json": "STAC item",
}


def raster_specs(job: SegmentJob) -> dict[str, tuple[int, RasterSpec]]:
    """The rasters of a run: file name -> the first band of the parts that it takes, and what it is."""
    frame, legend = job.scene.frame, job.bundle.legend
    specs = {
        "classes.tif": (1, RasterSpec(frame, "uint8", NODATA, ("class",), "mode", legend=legend)),
        "confidence.tif": (2, RasterSpec(frame, "uint8", NODATA, ("confidence",), "average", units=("%",))),
    }
    if job.with_probabilities:
        scales = (1 / PROBABILITY_STEPS,) * len(legend.names)
        specs["probabilities.tif"] = (3, RasterSpec(frame, "uint8", NODATA, legend.names, "average", scales=scales))
    return specs


def beyond_specs(job: SegmentJob) -> dict[str, tuple[int, RasterSpec]]:
    """The same of rasters for polygons alone, which reach beyond the area of interest; none where there is no area."""
    if job.area is None:
        return {}
    specs = raster_specs(job)
    first = 3 + (len(job.bundle.legend.names) if job.with_probabilities else 0)
    names = ("classes.tif", "confidence.tif")
    return {f"beyond_{name}": (first + k, specs[name][1]) for k, name in enumerate(names)}


def write_raster(job: SegmentJob, name: str, out: Path) -> None:
    """One of the rasters of a run from the parts, with its style.

    QGIS styles a raster by what lies beside it; without, its legend lists all 256 entries of the colour table.
    """
    first, spec = {**raster_specs(job), **beyond_specs(job)}[name]
    write_cog(out / name, [(job.part_path(block), block.box, first) for block in job.grid.blocks], spec)
    if name == "classes.tif":
        write_text(out / "classes.qml", classes_qml(job.bundle.legend))
    if name == "confidence.tif":
        write_text(out / "confidence.qml", confidence_qml())


def write_qgis(prepared: Prepared, job: SegmentJob, out: Path) -> Path:
    """project.qgs: the scene below, rasters switched off, polygons on top."""
    shown, seen = read_preview(job)
    gpkg = out / "features.gpkg"
    scene = Path(prepared.scene.info.path)
    project = Project(
        title=scene.stem,
        frame=prepared.scene.frame,
        legend=prepared.bundle.legend,
        scene=scene.resolve(),
        bands_rgb=rgb_source(prepared.scene).bands,
        rasters={"classes": out / "classes.tif", "confidence": out / "confidence.tif"},
        gpkg=gpkg if gpkg.exists() else None,
        stretch=pixel_stretch(shown[:, seen], prepared.scene.nodata),
    )
    write_project(out / "project.qgs", project)
    return out / "project.qgs"


def write_page(prepared: Prepared, job: SegmentJob, counts: Counts, out: Path, record: dict[str, Any]) -> Path:
    """report.html, from what the blocks left: their shares of the picture, and how many pixels have which class.

    Within an area of interest the picture shows that alone, as the rasters do.
    """
    bundle, scene = prepared.bundle, prepared.scene
    classes, confidence = out / "classes.tif", out / "confidence.tif"
    listed = [(path.name, path.stat().st_size, _WHAT.get(path.name, "polygons")) for path in sorted(out.iterdir())]
    data = RunReport(
        title=Path(scene.info.path).stem,
        scene={key: value for key, value in record["scene"].items() if key not in {"transform", "scaling", "modified"}},
        model={**record["model"], "description": bundle.description, "scores": bundle.scores, "card": bundle.card},
        numbers=scene_numbers(counts, bundle.legend, pixel_area_m2(scene.frame)),
        feature_counts=record["features"],
        tiles=record["tiles"],
        seconds={step: spent for step, spent in record["seconds"].items() if step != "report"},  # not yet known
        settings=record["config"],
        notices=record["notices"],
        failed_tiles=record["tiles"]["failed"],
        pictures={
            "scene": preview_picture(*read_preview(job)),
            "classes": class_picture(classes, bundle.legend),
            "confidence": confidence_picture(confidence),
        },
        outputs=[*listed, *((name, 0, _WHAT[name]) for name in ("project.qgs", "item.json", "run.json"))],
        ground_width_m=ground_width_m(scene.frame),
    )
    return write_text(out / "report.html", render_report(data))


def write_item(prepared: Prepared, out: Path, *, catalog: str | None) -> Path:
    """item.json, the STAC item."""
    path = prepared.scene.info.path
    acquired = tiff_datetime(open_dataset(path).tags().get("TIFFTAG_DATETIME"))
    run = RunRecord(
        name=Path(path).stem,
        frame=prepared.scene.frame,
        legend=prepared.bundle.legend,
        model=prepared.bundle.name,
        processed=datetime.now(UTC),
        acquired=acquired,
        catalog=catalog,
    )
    return write_text(out / "item.json", json_text(stac_item(out, run)))


def write_catalog(out: Path, folders: Sequence[Path]) -> Path:
    """catalog.json over the items of a batch."""
    items = [folder / "item.json" for folder in folders]
    described = f"{len(items)} scenes segmented by geoseg"
    catalog = stac_catalog(out, items, name=out.name or "geoseg", description=described)
    return write_text(out / "catalog.json", json_text(catalog))
