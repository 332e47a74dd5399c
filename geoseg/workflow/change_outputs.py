"""What a comparison leaves behind, apart from its polygons: rasters, project, page, STAC, and what run.json says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.legend import NODATA
from geoseg.report import class_picture, ground_width_m, preview_picture, rgb_source
from geoseg.report.change_page import ChangeReport, render_change_report
from geoseg.report.pictures import foreground_picture
from geoseg.segment.preview import reduced_shape
from geoseg.vector import TidyRule
from geoseg.vector.measure import pixel_area_m2
from geoseg.workflow.change_network import network_of
from geoseg.workflow.change_objects import ENDING, STATUS_ENTRIES
from geoseg.workflow.change_vectors import ChangeVectors
from geoseg.workflow.folder import json_text
from geoseg.workflow.zones import zones_csv
from geoseg.write import RasterSpec, RunRecord, classes_qml, confidence_qml, stac_item, write_text
from geoseg.write.qgis_change import ChangeProject, SceneShown, write_change_project
from geoseg.write.style import magnitude_qml

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.change.methods import Method
    from geoseg.change.numbers import ChangeNumbers
    from geoseg.change.registration import Shift
    from geoseg.change.threshold import Cut
    from geoseg.change.transitions import Transitions
    from geoseg.frame import Box, Frame
    from geoseg.legend import ClassEntry
    from geoseg.workflow.change_tasks import ChangeJob
    from geoseg.workflow.comparison import Comparison
    from geoseg.workflow.dates import Date

Array = np.ndarray[Any, Any]

_WHAT = {
    "change.tif": "code of the change of each pixel",
    "change.tif.aux.xml": "names of changes for GDAL and QGIS",
    "change.qml": "style of change.tif for QGIS",
    "magnitude.tif": "how much each pixel changed",
    "magnitude.qml": "style of magnitude.tif for QGIS",
    "confidence.tif": "how sure it is that a pixel changed, or did not, in percent",
    "confidence.qml": "style of confidence.tif for QGIS",
    "change.gpkg": "polygons of change, styled for QGIS",
    "zones.csv": "areas by zone, in m2",
    "project.qgs": "QGIS project with both dates, rasters and polygons",
    "run.json": "settings, areas, timings and hashes",
    "item.json": "STAC item",
}
_UNITS = {
    "classes": "the probability that it changed, given the most probable change",
    "siamese": "the probability of change, by the network",
    "cva": "standard deviations of what unchanged pixels differ by",
    "irmad": "square root of the chi-square of MAD variates",
    "index": "scaled median deviations of the index that differs most",
}


@dataclass(frozen=True)
class ChangeRecord:
    """A comparison that is done."""

    compared: Comparison
    job: ChangeJob
    method: Method
    shift: Shift
    moved: tuple[float, float]
    radius_px: float
    cut: Cut | None
    rounds: int
    numbers: ChangeNumbers
    features: dict[str, Any]
    objects: dict[str, Any]
    zones: list[dict[str, Any]]
    failed: tuple[tuple[Box, str], ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def threshold(self) -> float:
        """Above which magnitudes are change."""
        return 0.5 if self.cut is None else self.cut.threshold

    def to_json(self) -> dict[str, Any]:
        """What run.json says of it, but for files and workers."""
        common, frame, settings = self.compared.common, self.job.frame, self.compared.settings
        before, after = (date.to_json() for date in self.compared.dates)
        return {
            "config": settings.to_json(),
            "before": before,
            "after": after,
            "frame": {
                "shape": list(frame.shape),
                "crs": frame.crs,
                "transform": list(frame.transform)[:6],
                "gsd_m": None if frame.gsd_m is None else [round(side, 6) for side in frame.gsd_m],
                "outside_before": round(common.outside_before, 6),
                "outside_after": round(common.outside_after, 6),
            },
            "registration": {
                "asked": settings.register,
                **self.shift.to_json(),
                "moved_px": [round(part, 4) for part in self.moved],
                "tolerance_px": round(self.radius_px, 4),
            },
            "method": self._method(),
            "transitions": self.method.transitions.to_json(),
            "notices": list(self.notes),
            **self.numbers.to_json(self.method.transitions),
            "features": self.features,
            "objects": self.objects,
            "zones": self.zones,
            "failed": [
                {"window": {"row": b.row, "col": b.col, "height": b.height, "width": b.width}, "cause": cause}
                for b, cause in self.failed
            ],
            "blocks": {"planned": len(self.job.boxes), "size": settings.block},
            "megapixels": round(frame.shape[0] * frame.shape[1] / 1e6, 4),
            "seconds": self.seconds,
            "status": "partial" if self.failed else "done",
        }

    def _method(self) -> dict[str, Any]:
        settings, sieve = self.compared.settings, self.job.sieve
        record: dict[str, Any] = {
            "name": settings.method,
            "magnitude": _UNITS[settings.method],
            "threshold": round(self.threshold, 6),
            "smallest_patch_px": sieve.least_px,
        }
        if settings.method == "siamese":
            bundle = network_of(settings)
            record |= {"model": bundle.name, "model_sha256": bundle.sha256}
        canonical = getattr(self.method, "canonical", None)
        if canonical is not None:
            lines = self.method.lines  # type: ignore[attr-defined]  # both belong to methods on imagery
            record |= {
                "rounds": self.rounds,
                "correlations": [round(float(value), 6) for value in canonical.rho],
                "gain": [round(float(value), 6) for value in lines.gain],
                "offset": [round(float(value), 6) for value in lines.offset],
                "noise": [round(float(value), 6) for value in lines.noise],
            }
        indices = getattr(self.method, "indices", None)
        return record if indices is None else {**record, "indices": list(indices.names)}


def raster_specs(frame: Frame, transitions: Transitions) -> dict[str, RasterSpec]:
    """The rasters of a comparison by file name."""
    return {
        "change.tif": RasterSpec(frame, "uint8", NODATA, ("change",), "mode", legend=transitions.legend),
        "confidence.tif": RasterSpec(frame, "uint8", NODATA, ("confidence",), "average", units=("%",)),
        "magnitude.tif": RasterSpec(frame, "float32", float("nan"), ("magnitude",), "average"),
    }


def vector_job(compared: Comparison, job: ChangeJob, transitions: Transitions, stage: Path) -> ChangeVectors:
    """What makes polygons of the rasters in `stage`: none smaller than the smallest patch."""
    least = job.sieve.least_px * (pixel_area_m2(job.frame) or 1.0)
    settings = compared.settings
    rule = TidyRule(0, least / 2, settings.simplify, None, None, tolerance_m=settings.simplify_m)
    dates = tuple(date.taken for date in compared.dates)
    return ChangeVectors(
        classes=stage / "change.tif", confidence=stage / "confidence.tif", legend=transitions.legend, rule=rule,
        folder=stage.with_name(f"{stage.name}-outlines"), magnitude=stage / "magnitude.tif", transitions=transitions,
        dates=(dates[0], dates[1]),
    )  # fmt: skip


def write_change_outputs(record: ChangeRecord, manifest: dict[str, Any], stage: Path) -> None:
    """Styles, page and STAC item of a comparison, beside its rasters and polygons."""
    write_text(stage / "change.qml", classes_qml(record.method.transitions.legend))
    write_text(stage / "confidence.qml", confidence_qml())
    write_text(stage / "magnitude.qml", magnitude_qml(2 * record.threshold))
    if record.zones:
        write_text(stage / "zones.csv", zones_csv(record.zones))
    before, after = record.compared.dates
    listed = [(path.name, path.stat().st_size, _WHAT.get(path.name, "polygons")) for path in sorted(stage.iterdir())]
    legend = record.method.transitions.legend
    background = {entry.rgb for entry in legend.classes if entry.kind == "background"}
    pictures = {
        name: preview_picture(*look) for name, look in zip(("before", "after"), _looks(record.job), strict=True)
    }
    pictures["change"] = foreground_picture(class_picture(stage / "change.tif", legend), background)
    report = ChangeReport(
        title=f"{before.name} \u2192 {after.name}",
        before=manifest["before"],
        after=manifest["after"],
        frame=manifest["frame"],
        registration=manifest["registration"],
        method=manifest["method"],
        numbers=manifest,
        colors={entry.name: entry.color for entry in legend.classes},
        feature_counts=record.features,
        objects=record.objects,
        zones=record.zones,
        seconds=record.seconds,
        settings=manifest["config"],
        notices=record.notes,
        failed=manifest["failed"],
        pictures=pictures,
        outputs=[*listed, *((name, 0, _WHAT[name]) for name in ("project.qgs", "item.json", "run.json"))],
        ground_width_m=ground_width_m(record.job.frame),
    )
    write_text(stage / "report.html", render_change_report(report))
    write_text(stage / "item.json", json_text(stac_item(stage, _run_record(record))))


def write_change_qgis(record: ChangeRecord, out: Path) -> Path:
    """project.qgs: both dates below, rasters switched off, polygons on top."""
    gpkg = out / "change.gpkg"
    layers: dict[str, tuple[str, tuple[ClassEntry, ...]]] = {}
    if gpkg.exists():
        layers = {f"{name}{ENDING}": ("MultiPolygon", STATUS_ENTRIES) for name in record.objects}
        layers["change"] = ("Polygon", record.method.transitions.legend.foreground)
    project = ChangeProject(
        title=f"{record.compared.dates[0].name} \u2192 {record.compared.dates[1].name}",
        frame=record.job.frame,
        legend=record.method.transitions.legend,
        before=_shown(record.compared.dates[0], "before"),
        after=_shown(record.compared.dates[1], "after"),
        rasters={name: out / f"{name}.tif" for name in ("change", "confidence", "magnitude")},
        highest=2 * record.threshold,
        gpkg=gpkg,
        layers=layers,
    )
    write_change_project(out / "project.qgs", project)
    return out / "project.qgs"


def _shown(date: Date, which: str) -> SceneShown:
    name = f"{which}: {date.path.stem}"
    return SceneShown(name, date.path.resolve(), rgb_source(date.scene).bands, date.scene.frame)


def _looks(job: ChangeJob) -> list[tuple[Array, Array]]:
    """The pictures of both dates, of the parts that blocks left: pixels (3, h, w) and which are seen, (h, w)."""
    shape = reduced_shape(job.frame.shape)
    pixels, seen = np.zeros((2, 3, *shape), np.float32), np.zeros((2, *shape), bool)
    for box in job.boxes:
        with np.load(job.path("look", box, ".npz"), allow_pickle=False) as found:
            rows, cols = (
                ((found[name] + 0.5) * shown / size).astype(np.int64)
                for name, shown, size in zip(("rows", "cols"), shape, job.frame.shape, strict=True)
            )
            at = np.ix_(rows, cols)
            pixels[(slice(None), slice(None), *at)] = found["pixels"]
            seen[(slice(None), *at)] = found["seen"]
    return list(zip(pixels, seen, strict=True))


def _run_record(record: ChangeRecord) -> RunRecord:
    before, after = record.compared.dates
    dates = [date.taken for date in (before, after)]
    moments = [None if date is None else datetime.fromisoformat(date).replace(tzinfo=UTC) for date in dates]
    return RunRecord(
        name=f"{before.name}_{after.name}",
        frame=record.job.frame,
        legend=record.method.transitions.legend,
        model=record.compared.settings.method,
        processed=datetime.now(UTC),
        acquired=moments[1],
        began=moments[0],
        about=f"Change from {before.name} to {after.name}, compared by {record.compared.settings.method}.",
    )
