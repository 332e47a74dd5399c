"""Features by longitude and latitude, cut at the antimeridian, as RFC 7946 asks for in its sections 3.1.6, 3.1.9 and 4.

OGR has an option for this; but it guesses from the extent of a feature, and where that is wide it draws the rest of the
globe instead, and in Mercator frames around the Pacific parts of cut features end at longitudes of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import shapely

from geoseg.errors import MissingCrsError, UsageError
from geoseg.frame import parse_crs
from geoseg.write.layer import GEOMETRY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyproj import CRS, Transformer

    from geoseg.write.layer import Layer

Array = np.ndarray[Any, Any]

DECIMALS = 7
"""Of a degree: a centimetre."""

_HALF_TURN = 180.0
_POLE = 90.0
_NEXT_TO_NOTHING = 1e-9
"""Degrees that arithmetic may be off."""

_ORIGINS = {8802, 8812, 8822, 8833}
"""EPSG's codes of the parameters that are the longitude of a projection's origin or centre."""


def lonlat_groups(layer: Layer, groups: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Groups of a layer with their geometries in WGS 84, rounded to seven decimals and valid, none across 180 degrees.

    Outer rings run counter-clockwise. What crosses the antimeridian becomes a multi-geometry. Raises MissingCrsError
    where the layer lies nowhere on Earth, UsageError where a feature surrounds a pole or lies outside of what its CRS
    maps.
    """
    projection = _Unprojection(layer)
    for group in groups:
        shapes = shapely.from_wkb(group.column(GEOMETRY).to_numpy(zero_copy_only=False))
        shapes = shapely.orient_polygons(_rounded(_cut(projection(shapes))))
        wkb = pa.array(shapely.to_wkb(shapes), pa.binary())
        yield pa.RecordBatch.from_arrays([*group.columns[:-1], wkb], schema=group.schema)


class _Unprojection:
    """From map coordinates to longitudes and latitudes; longitudes run on beyond 180 where a feature does."""

    def __init__(self, layer: Layer) -> None:
        self.name = layer.name
        crs, self.transformer = _to_wgs84(layer.crs)
        self.origin = _origin(crs)
        self.is_projected = crs.is_projected

    def __call__(self, shapes: Array) -> Array:
        xy, part = shapely.get_coordinates(shapes, return_index=True)
        lon, lat = self.transformer.transform(xy[:, 0], xy[:, 1])
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            self._refuse()
        wide = np.zeros(len(shapes), bool)
        if self.is_projected:
            # PROJ gives -180..180; but around its origin a frame is in one piece, and so are its longitudes.
            lon = np.where(lon > self.origin + _HALF_TURN + _NEXT_TO_NOTHING, lon - 360, lon)
            lon = np.where(lon < self.origin - _HALF_TURN - _NEXT_TO_NOTHING, lon + 360, lon)
            wide[part[1:][(np.abs(np.diff(lon)) > _HALF_TURN) & (part[1:] == part[:-1])]] = True
        whole: Array = shapely.set_coordinates(shapes.copy(), np.stack([lon, lat], axis=1))
        whole[wide] = [self._run_on(shape) for shape in whole[wide]]
        return whole

    def _run_on(self, shape: shapely.Geometry) -> shapely.Geometry:
        """A feature around which the longitudes of a polar frame jump, without the jump."""
        xy = shapely.get_coordinates(shape)
        jumps = np.round((xy[:, 0] - xy[0, 0]) / 360)
        moved = shapely.set_coordinates(shape, np.stack([xy[:, 0] - 360 * jumps, xy[:, 1]], axis=1))
        if np.ptp(shapely.get_coordinates(moved)[:, 0]) > _HALF_TURN or not shapely.is_valid(moved):
            self._refuse()
        return moved

    def _refuse(self) -> None:
        raise UsageError(
            f"--format geojson: layer {self.name!r} has features around a pole, or outside of what the scene's CRS "
            "maps, that longitudes and latitudes cannot draw; use gpkg, fgb or parquet"
        )


def _to_wgs84(crs: str | None) -> tuple[CRS, Transformer]:
    from pyproj import Transformer  # noqa: PLC0415
    from pyproj.exceptions import ProjError  # noqa: PLC0415

    if crs is None:
        raise MissingCrsError("GeoJSON is in WGS 84 by its standard and the scene has no CRS; use --format gpkg")
    parsed = parse_crs(crs)
    try:
        return parsed, Transformer.from_crs(parsed, "OGC:CRS84", always_xy=True)
    except ProjError as error:
        raise MissingCrsError(
            f"GeoJSON is in WGS 84 by its standard and the scene's CRS, {parsed.name}, is not tied to the Earth; use "
            "--format gpkg"
        ) from error


def _origin(crs: CRS) -> float:
    """The longitude around which a projected CRS is in one piece; 0 where it does not say."""
    operation = crs.coordinate_operation
    parameters = operation.params if operation is not None else []
    found = [p.value * np.degrees(p.unit_conversion_factor) for p in parameters if int(p.code or 0) in _ORIGINS]
    return float(found[0]) if found else 0.0


def _cut(shapes: Array) -> Array:
    """Features whose longitudes go beyond 180 degrees, east or west, in parts within them."""
    west, _, east, _ = shapely.bounds(shapes).T
    beyond = np.flatnonzero((west < -_HALF_TURN - _NEXT_TO_NOTHING) | (east > _HALF_TURN + _NEXT_TO_NOTHING))
    if not len(beyond):
        return shapes
    shapes = shapes.copy()
    turns = np.array([-360.0, 0.0, 360.0])
    worlds = shapely.box(turns - _HALF_TURN, -_POLE, turns + _HALF_TURN, _POLE)
    pieces = shapely.intersection(shapes[beyond, None], worlds)
    for column, turn in enumerate(turns):
        pieces[:, column] = shapely.transform(pieces[:, column], lambda xy, turn=turn: xy - (turn, 0))
    parts, place = shapely.get_parts(pieces.ravel(), return_index=True)
    kept = shapely.get_dimensions(parts) == shapely.get_dimensions(shapes[beyond])[place // 3]
    kept &= ~shapely.is_empty(parts)
    parts, owner = parts[kept], place[kept] // 3
    several = shapely.multipolygons if shapely.get_dimensions(parts[0]) == 2 else shapely.multilinestrings
    joined = several(parts, indices=owner)
    alone = shapely.get_num_geometries(joined) == 1
    joined[alone] = shapely.get_geometry(joined[alone], 0)
    shapes[beyond] = joined
    return shapes


def _rounded(shapes: Array) -> Array:
    """Shapes with seven decimals, mended where that made them invalid, and rounded only where that made them vanish."""
    rounded: Array = shapely.transform(shapes, lambda lonlat: np.round(lonlat, DECIMALS))
    broken = np.flatnonzero(~(shapely.is_valid(rounded) | shapely.is_missing(rounded)))
    mended = shapely.set_precision(shapes[broken], 10.0**-DECIMALS)
    there = ~shapely.is_empty(mended)
    rounded[broken[there]] = mended[there]
    return rounded
