"""Areas of change by zone: by the polygons of a file, such as districts or parcels."""

from __future__ import annotations

import csv
import io
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from rasterio.features import geometry_mask

from geoseg.errors import InputError
from geoseg.frame import Box
from geoseg.legend import NODATA
from geoseg.scene import inspect_scene
from geoseg.scene.aoi import read_zones
from geoseg.scene.info import read_window
from geoseg.vector.measure import pixel_area_m2

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd

    from geoseg.change.transitions import Transitions
    from geoseg.frame import Frame

_NAMES = ("name", "zone", "label", "id")
"""Columns that name a zone, the first that is there."""
_SIDE = 1024
"""Of the windows that are counted at a time: memory does not grow with a zone."""


def zone_areas(change: Path, zones: Path, transitions: Transitions) -> list[dict[str, Any]]:
    """For each polygon of a file: `zone`, `valid_m2`, `changed_m2`, and `changes`, the m2 of each change by its name.

    A pixel belongs to each zone in which its centre lies. Without a CRS areas are in pixels. Raises InputError where
    the file holds no polygon.
    """
    info = inspect_scene(change)
    layer = read_zones(zones, info.frame, "--zones")
    layer = layer[layer.geometry.area > 0]
    if layer.empty:
        raise InputError(f"--zones {zones} holds no polygon")
    names = {entry.code: entry.name for entry in transitions.entries}
    found = []
    for name, zone in zip(_names_of(layer), layer.geometry, strict=True):
        areas = _areas(info.path, info.frame, zone)
        changes = {names[code]: round(m2, 1) for code, m2 in areas.items() if code}
        total = {"valid_m2": round(sum(areas.values()), 1), "changed_m2": round(sum(changes.values()), 1)}
        found.append({"zone": name, **total, "changes": changes})
    return found


def zones_csv(zones: list[dict[str, Any]]) -> str:
    """What `zone_areas` found as a table, a column a change."""
    names = list(dict.fromkeys(name for row in zones for name in row["changes"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["zone", "valid_m2", "changed_m2", *(f"{name} m2" for name in names)])
    for row in zones:
        areas = [row["changes"].get(name, 0.0) for name in names]
        writer.writerow([row["zone"], row["valid_m2"], row["changed_m2"], *areas])
    return text.getvalue()


def _areas(path: str, frame: Frame, zone: shapely.Geometry) -> dict[int, float]:
    """Code -> m2 of the valid pixels within a zone."""
    totals = np.zeros(256)
    for box in _windows(frame, zone):
        part = frame.crop(box)
        inside = shapely.intersection(zone, shapely.box(*_around(part)))
        if inside.is_empty or not inside.area:
            continue
        codes = read_window(path, [1], box)[0][~geometry_mask([inside], box.shape, part.transform)]
        totals += np.bincount(codes, minlength=256) * (pixel_area_m2(part) or 1.0)
    return {int(code): float(totals[code]) for code in np.flatnonzero(totals) if code != NODATA}


def _windows(frame: Frame, zone: shapely.Geometry) -> list[Box]:
    """The windows of a frame, on one lattice, that the bounds of a zone meet."""
    west, south, east, north = zone.bounds
    back = ~frame.transform
    cols, rows = zip(*(back * (x, y) for x in (west, east) for y in (south, north)), strict=True)
    places = [range(floor(min(at) / _SIDE) * _SIDE, ceil(max(at)) + 1, _SIDE) for at in (rows, cols)]
    boxes = [Box(row, col, _SIDE, _SIDE) & frame.box for row in places[0] for col in places[1]]
    return [box for box in boxes if box]


def _around(frame: Frame) -> tuple[float, float, float, float]:
    west, south, east, north = frame.bounds
    return west - frame.pixel_size, south - frame.pixel_size, east + frame.pixel_size, north + frame.pixel_size


def _names_of(layer: gpd.GeoDataFrame) -> list[str]:
    """What a file calls its features: by a column that names them, else by their number."""
    columns = {str(column).lower(): column for column in layer.columns if column != layer.active_geometry_name}
    column = next((columns[name] for name in _NAMES if name in columns), None)
    return [str(k) for k in range(1, len(layer) + 1)] if column is None else [str(value) for value in layer[column]]
