"""From class rasters on disk to files of polygons."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.config import FORMATS
from geoseg.errors import FrameMismatchError, InputError, UsageError
from geoseg.frame import Box
from geoseg.legend import NODATA, ClassEntry, Legend
from geoseg.model import find_bundle
from geoseg.model.hardware import dask_worker
from geoseg.scene import inspect_scene
from geoseg.scene.aoi import inside_area
from geoseg.scene.info import read_file_mask, read_window
from geoseg.vector import Drawing, TidyRule, blocks_of, join_blocks, measure, outline_block
from geoseg.vector.centreline import HALO, Pieces, thin
from geoseg.vector.network import RoadRule, centreline_layer, connect
from geoseg.vector.split import HALO as SPLIT_HALO
from geoseg.vector.square import SquareRule
from geoseg.workflow.spill import (
    arrays_of,
    loose_ends_of,
    spill_arrays,
    spill_features,
    spilled_arrays,
    spilled_column,
    spilled_features,
)
from geoseg.write import Layer, read_legend, write_layers
from geoseg.write.columns import columns_of, schema_of
from geoseg.write.raster import same_crs
from geoseg.write.vector import CENTERLINE, layer_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    import geopandas as gpd
    import pyarrow as pa

    from geoseg.config import Settings
    from geoseg.frame import Frame
    from geoseg.scene import SceneInfo
    from geoseg.vector import Components

Array = np.ndarray[Any, Any]

RAW = TidyRule.none()
"""The polygons of the pixels themselves."""

_SURE = 100
"""Percent."""
_one_by_one = threading.Lock()
"""Workers are as many as there are processors to use, and each has two threads: one that outlines keeps it busy."""

_ACROSS = "across"
"""The part of what crosses seams."""


@dataclass(frozen=True)
class VectorJob:
    """What is to be made polygons of, and how; blocks leave theirs in `folder`."""

    classes: Path
    confidence: Path | None
    legend: Legend
    rule: TidyRule
    folder: Path
    area: bytes | None = None
    """The area of interest (WKB), where the rasters reach beyond it: objects that reach out of it are kept whole, all
    else is cut."""

    def __post_init__(self) -> None:
        """Raise UsageError where the rule names a class that the legend does not have."""
        names = [entry.name for entry in self.legend.foreground]
        for option, given in (("min_area", self.rule.min_area_m2), ("min_hole", self.rule.min_hole_m2)):
            for name in given if isinstance(given, Mapping) else ():
                if name not in names:
                    raise UsageError(f"{option} names the class {name!r}; there are {', '.join(names)}")

    def outline(self, box: Box) -> None:
        """Make polygons of a block, and leave what crosses its seams.

        What the raster's own nodata value or mask leaves out is nodata. Raises InputError where a code is not in the
        legend, or a pixel that has a class has no confidence of 0..100 %.
        """
        with _one_by_one if dask_worker() else nullcontext():
            self._outline(box)

    def _outline(self, box: Box) -> None:
        info = inspect_scene(self.classes)
        frame = info.frame
        around = self._halo(box) & frame.box
        codes, confidence, *further = self._read(info, around)
        drawing = self._drawing
        for entry in self._lines:
            seen = self._grown(box, HALO) & frame.box
            pieces = thin(codes[seen.slices(around)] == entry.code, seen, box, drawing.limits.hole[entry.code])
            spill_arrays(self.folder, _lines_of(entry, box), arrays_of(pieces))
        codes = drawing.split_objects(codes, confidence)
        inside = box.slices(around)
        rasters = [raster[inside] for raster in (codes, confidence, *further)]
        finished, left = outline_block(rasters, box, frame.shape, drawing)
        self._spill(_part(box), finished)
        spill_arrays(self.folder, _part(box), arrays_of(left))

    @cached_property
    def _frame(self) -> Frame:
        return inspect_scene(self.classes).frame

    @property
    def _outside(self) -> int:
        """A code that no class has, for what lies outside of the area."""
        return next(code for code in range(NODATA) if code not in self.legend.codes)

    @cached_property
    def _drawing(self) -> Drawing:
        return drawing_of(self.rule, self.legend, self._frame, None if self.area is None else self._outside)

    @property
    def boxes(self) -> list[Box]:
        """The blocks, in the order of their features."""
        return blocks_of(self._frame.shape)

    @property
    def _parts(self) -> list[str]:
        """Where features lie, in their order: what crosses seams comes last."""
        return [*map(_part, self.boxes), _ACROSS]

    def layers(self) -> list[Layer]:
        """The layers of the whole raster, once all its blocks have been outlined."""
        self._join()
        polygons = [self._layer(entry) for entry in self.legend.foreground]
        return [*polygons, *(self._centrelines(entry) for entry in self._lines)]

    def _join(self) -> None:
        """Finish what crosses seams."""
        left = [loose_ends_of(spilled_arrays(self.folder, _part(box))) for box in self.boxes]
        self._spill(_ACROSS, join_blocks(left, self._drawing))

    @property
    def names(self) -> list[str]:
        """The names of all layers."""
        return [entry.name for entry in self.legend.foreground] + [entry.name + CENTERLINE for entry in self._lines]

    @property
    def _lines(self) -> list[ClassEntry]:
        """The classes whose middle lines are drawn."""
        return [entry for entry in self.legend.foreground if entry.kind == "line" and self.rule.centrelines]

    def _halo(self, box: Box) -> Box:
        return self._grown(box, SPLIT_HALO if self._drawing.parts else HALO if self._lines else 0)

    @staticmethod
    def _grown(box: Box, halo: int) -> Box:
        return Box(box.row - halo, box.col - halo, box.height + 2 * halo, box.width + 2 * halo)

    def _centrelines(self, entry: ClassEntry) -> Layer:
        """The middle lines of a class, from what all blocks thinned."""
        pieces = [Pieces(**spilled_arrays(self.folder, _lines_of(entry, box))) for box in self.boxes]
        height_m, width_m = self._frame.gsd_m or (1.0, 1.0)
        rule = replace(self.rule.centrelines or RoadRule(), least_m2=self.rule.least_area_m2(entry.name))
        network = connect(pieces, rule, float(np.sqrt(height_m * width_m)), self._frame.shape)
        return Layer.of(entry.name + CENTERLINE, centreline_layer(network, self._frame, entry), self.legend)

    def count(self) -> dict[str, dict[str, float | int | None]]:
        """By layer of polygons: how many, how large together, how large in the middle; None where that is not known."""
        names = [entry.name for entry in self.legend.foreground]
        return {name: summary(spilled_column(self.folder, self._parts, name, "area_m2")) for name in names}

    def _spill(self, part: str, components: Components) -> None:
        components = replace(components, codes=self._drawing.of_classes(components.codes))
        measured = measure(components, self._frame, self.legend, ("inside",) if self.area is not None else ())
        if self.area is not None:
            measured = {entry.name: _within(measured[entry.name], entry) for entry in self.legend.foreground}
        if self.confidence is None:
            unknown = {"confidence": float("nan"), "confidence_min": float("nan")}
            measured = {name: layer.assign(**unknown) for name, layer in measured.items()}
        spill_features(self.folder, part, [Layer.of(name, rows, self.legend) for name, rows in measured.items()])

    def _layer(self, entry: ClassEntry) -> Layer:
        def batches() -> Iterator[pa.RecordBatch]:
            return spilled_features(self.folder, self._parts, entry.name)

        crosses = self.area is not None and entry.kind == "object"
        schema = schema_of(columns_of(entry.kind, crosses_aoi=crosses))
        return Layer(entry.name, entry, schema, self._frame.crs, batches)

    def _read(self, info: SceneInfo, box: Box) -> tuple[Array, ...]:
        """Codes, nodata as 255, and confidence; without confidence the codes stand in its place."""
        codes = read_window(info.path, [1], box)[0]
        if info.nodata not in {None, NODATA} or info.mask != "none":
            # What GDAL calls a mask covers nodata values and alpha as well.
            codes = np.where(read_file_mask(info.path, box), codes, NODATA).astype(np.uint8)
        unknown = sorted(set(np.unique(codes).tolist()) - {*self.legend.codes, NODATA})
        if unknown:
            raise InputError(
                f"{info.path} holds the codes {unknown}; the legend has {sorted(self.legend.codes)}, and {NODATA} is "
                "nodata; name the model it comes from by --model"
            )
        if self.confidence is None:
            return codes, codes
        percent = read_window(str(self.confidence), [1], box)[0]
        if (percent[codes != NODATA] > _SURE).any():
            raise InputError(
                f"{self.confidence} holds more than {_SURE} where {info.path} has a class; it takes percent"
            )
        if self.area is None:
            return codes, percent
        inside = inside_area(self.area, info.frame.crop(box))
        objects = [entry.code for entry in self.legend.classes if entry.kind == "object"]
        cut = ~inside & (codes != NODATA) & ~np.isin(codes, objects)
        return np.where(cut, np.uint8(self._outside), codes), percent, inside.astype(np.uint8)


def _within(rows: gpd.GeoDataFrame, entry: ClassEntry) -> gpd.GeoDataFrame:
    """The polygons of a class of which something lies in the area; of objects, whether something does not."""
    inside = rows["inside"]
    rows = rows.drop(columns="inside")
    return rows.assign(crosses_aoi=inside < 1)[inside > 0] if entry.kind == "object" else rows


def vectorize(  # noqa: PLR0913  # keywords, each an option of the command
    classes: Path,
    out: Path,
    *,
    confidence: Path | None = None,
    model: str | None = None,
    rule: TidyRule,
    overwrite: bool = False,
    workers: int = 0,
) -> list[Path]:
    """Polygons of a class raster again, without inference, in the format that the suffix of `out` names.

    The legend is the one stored in the raster, or that of `model`; the confidence is `confidence`, else what lies
    beside the raster as confidence.tif. Files that are there already are replaced only with `overwrite`. Blocks are
    outlined by `workers` local processes, or in this one. Raises UsageError or InputError.
    """
    kind = out.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        suffixes = ", ".join(f".{name}" for name in FORMATS)
        raise UsageError(f"--out {out}: the suffix names the format; it takes {suffixes}")
    info = inspect_scene(classes)
    if info.dtype != "uint8":
        raise InputError(f"{classes} holds {info.dtype}; class codes are uint8, as geoseg segment writes them")
    legend = find_bundle(model).legend if model else read_legend(classes)
    if legend is None:
        raise InputError(f"{classes} does not say what its codes mean; name the model it comes from by --model")
    job = VectorJob(classes, confidence, legend, rule, out.parent)
    files = layer_files(job.names, out.parent, out.stem, kind)
    there = next((path for path in files.values() if path.exists()), None)
    if there is not None and not overwrite:
        raise UsageError(f"--out {out}: {there} is there already; name another file, or replace it by --overwrite")
    beside = classes.with_name("confidence.tif")
    confidence = confidence or (beside if beside.is_file() and beside != classes else None)
    if confidence is not None:
        _check_confidence(inspect_scene(confidence), info)
    elif drawing_of(rule, legend, info.frame).parts:
        raise UsageError(f"--split {rule.split:g}: no confidence lies beside {classes}; name one by --confidence")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=out.parent) as folder:
        job = replace(job, confidence=confidence, folder=Path(folder))
        _outline_all(job, workers)
        return write_layers(job.layers(), out.parent, out.stem, kind)


def _outline_all(job: VectorJob, workers: int) -> None:
    from geoseg.runtime import Task, open_runner, run_tasks  # noqa: PLC0415  # Dask, where workers are wanted

    tasks = [Task(f"outline-{_part(box)}", job.outline, (box,)) for box in job.boxes]
    with open_runner(workers=workers) as runner:
        for _ in run_tasks([tasks], runner):
            pass


def drawing_of(rule: TidyRule, legend: Legend, frame: Frame, outside: int | None = None) -> Drawing:
    """How the polygons of a raster are drawn; `outside`: the code of what lies outside of an area of interest.

    Raises UsageError where the rule asks for what legend or frame do not allow.
    """
    if outside is None:
        return Drawing.of(rule, legend, frame)
    entry = ClassEntry(outside, "outside", "#000000", "background")
    return Drawing.of(rule, Legend((*legend.classes, entry)), frame, outside)


def tidy_rule(settings: Settings) -> TidyRule:
    """The rule that settings ask for."""
    square = SquareRule() if settings.square else None
    sizes = settings.min_area, settings.min_hole, settings.simplify
    return TidyRule(*sizes, square, split=settings.split, tolerance_m=settings.simplify_m)


def summary(areas_m2: Array) -> dict[str, float | int | None]:
    """How many features, how large together, how large in the middle; None where that is not known."""
    known = bool(np.isfinite(areas_m2).all())
    return {
        "count": len(areas_m2),
        "area_m2": round(float(areas_m2.sum()), 1) if known else None,
        "median_area_m2": round(float(np.median(areas_m2)), 1) if known and len(areas_m2) else None,
    }


def _part(box: Box) -> str:
    return f"{box.row}_{box.col}"


def _lines_of(entry: ClassEntry, box: Box) -> str:
    return f"lines_{entry.code}_{_part(box)}"


def _check_confidence(confidence: SceneInfo, classes: SceneInfo) -> None:
    """Raise InputError unless one raster can be the confidence of the other."""
    if confidence.dtype != "uint8":
        raise InputError(f"{confidence.path} holds {confidence.dtype}; confidence is uint8 in percent, 255 is nodata")
    first, second = classes.frame, confidence.frame
    if first.shape != second.shape or not first.transform.almost_equals(second.transform, 1e-6):
        raise FrameMismatchError(
            f"{confidence.path} ({second.shape[0]} x {second.shape[1]}) does not lie on the grid of {classes.path} "
            f"({first.shape[0]} x {first.shape[1]})"
        )
    if not same_crs(first.crs, second.crs, first):
        raise FrameMismatchError(f"{confidence.path} has another CRS than {classes.path}; they must come from one run")
