"""Layers of objects, such as buildings, that two runs have in common: what was added, removed, modified."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyogrio
import shapely

from geoseg.change.objects import STATUSES, Matched, match_objects
from geoseg.frame import parse_crs
from geoseg.legend import ClassEntry, Legend
from geoseg.vector.measure import areas_and_perimeters_m
from geoseg.write import Layer

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd

    from geoseg.frame import Frame

Array = np.ndarray[Any, Any]

ENDING = "_change"
"""What follows the name of a class in the name of its layer."""

_COLORS = {"added": "#2f9e44", "removed": "#d1442f", "modified": "#f2b63c", "unchanged": "#868e96"}
STATUS_ENTRIES = tuple(ClassEntry(k, name, _COLORS[name], "object") for k, name in enumerate(STATUSES, 1))
_BEYOND_PX = 1.0
"""Outlines of one object are drawn differently from date to date, by about this much."""


@dataclass(frozen=True)
class ObjectRuns:
    """Two runs whose objects are compared: their vector files, the shift of the later one, how far it may be off."""

    before: Path
    after: Path
    legend: Legend
    moved_px: tuple[float, float]
    tolerance_px: float

    @property
    def classes(self) -> list[ClassEntry]:
        """The classes of objects of which both runs have a layer."""
        layers = [set(pyogrio.list_layers(path)[:, 0].tolist()) for path in (self.before, self.after)]
        return [e for e in self.legend.foreground if e.kind == "object" and e.name in layers[0] & layers[1]]


def object_layer(runs: ObjectRuns, entry: ClassEntry, frame: Frame) -> tuple[Layer, dict[str, int]]:
    """The layer `CLASS_change` of a class, styled by status, and how many objects have which."""
    before, after = (_read(path, entry.name, frame) for path in (runs.before, runs.after))
    t, (row, col) = frame.transform, runs.moved_px
    # What the later date shows at a place plus the shift is what the earlier one shows there.
    by = np.array([t.a * col + t.b * row, t.d * col + t.e * row])
    after = shapely.transform(after, lambda xy: xy - by)
    geographic = frame.crs is not None and parse_crs(frame.crs).is_geographic
    tolerance = (runs.tolerance_px + _BEYOND_PX) * frame.pixel_size
    matched = match_objects(before, after, tolerance, 1e-8 if geographic else 1e-3)  # about a millimetre
    rows = _rows(matched, entry, frame)
    counts: dict[str, int] = {status: int((matched.status == status).sum()) for status in STATUSES}
    layer = Layer.of(entry.name + ENDING, rows, Legend(STATUS_ENTRIES))
    return replace(layer, categories=STATUS_ENTRIES), counts


def _read(path: Path, name: str, frame: Frame) -> Array:
    import geopandas as gpd  # noqa: PLC0415  # 1.5 s

    layer = gpd.read_file(path, layer=name)
    if layer.crs is not None and frame.crs is not None:
        layer = layer.to_crs(frame.crs)
    polygons: Array = layer.geometry.to_numpy()
    inside = shapely.intersects(polygons, shapely.box(*frame.bounds))
    kept: Array = polygons[inside]
    return kept


def _rows(matched: Matched, entry: ClassEntry, frame: Frame) -> gpd.GeoDataFrame:
    import geopandas as gpd  # noqa: PLC0415

    shown = np.where([polygon is None for polygon in matched.after], matched.before, matched.after)
    areas = [_areas(polygons, frame) for polygons in (matched.before, matched.after)]
    columns = {
        "id": matched.id,
        "class": np.full(len(shown), entry.name, object),
        "status": matched.status,
        "iou": np.round(matched.iou, 4),
        "area_before_m2": areas[0],
        "area_after_m2": areas[1],
    }
    geometry = gpd.GeoSeries(
        [shapely.multipolygons([p]) if p.geom_type == "Polygon" else p for p in shown], crs=frame.crs
    )
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=frame.crs)


def _areas(polygons: Array, frame: Frame) -> Array:
    """m2, 0 where there is no polygon."""
    there = np.array([polygon is not None for polygon in polygons], bool)
    areas = np.zeros(len(polygons))
    areas[there] = areas_and_perimeters_m(polygons[there], frame)[0]
    return np.round(areas, 3)
