"""Polygons on the ground, with the columns that users see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from affine import Affine

from geoseg.frame import Frame, parse_crs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd
    from pyproj import Geod

    from geoseg.legend import ClassEntry, Legend
    from geoseg.vector.features import Components

Array = np.ndarray[Any, Any]

_TRUE_SCALE = 0.01
"""Projections that stretch areas by less than this are measured in the plane, others on the ellipsoid."""


def measure(
    components: Components, frame: Frame, legend: Legend, means: Sequence[str] = ()
) -> dict[str, gpd.GeoDataFrame]:
    """A GeoDataFrame for each foreground class, in the frame's CRS, with the columns of a polygon layer.

    Areas and lengths are in m2 and m, geodesic where the CRS is geographic or stretches areas; without a CRS they are
    NaN. Rows are ordered from north to south, then west to east. `means` names columns for the means of the sums that
    components carry.
    """
    components = components.of(entry.code for entry in legend.foreground)
    order = np.lexsort(_top_left(components.polygons).T) if len(components) else np.empty(0, int)
    components = components.select(order)
    polygons = to_map(components.polygons, frame)
    area_m2, perimeter_m = areas_and_perimeters_m(polygons, frame)
    columns: dict[str, Array] = {
        "code": components.codes.astype(np.int16),
        "confidence": np.round(components.confidence_sum / np.maximum(components.pixels, 1) / 100, 4),
        "confidence_min": components.confidence_min / 100,
        "area_m2": np.round(area_m2, 3),
        "perimeter_m": np.round(perimeter_m, 3),
        "touches_edge": components.touches_edge,
        **{name: components.sums[:, k] / np.maximum(components.pixels, 1) for k, name in enumerate(means)},
    }
    layers = {}
    for entry in legend.foreground:
        own = components.codes == entry.code
        rows = {name: values[own] for name, values in columns.items()}
        rows |= _extra(entry, components.polygons[own], frame, area_m2[own], perimeter_m[own])
        layers[entry.name] = _layer(entry, rows, polygons[own], frame)
    return layers


def to_map(polygons: Array, frame: Frame) -> Array:
    """Polygons from pixel coordinates (column, row) to map coordinates; outer rings run counter-clockwise."""
    t = frame.transform
    if frame.crs is None and t.is_identity:  # GIS programs draw a raster that lies nowhere from 0 downwards
        t = Affine(1, 0, 0, 0, -1, 0)

    def on_map(xy: Array) -> Array:
        x, y = xy.T
        return np.stack([x * t.a + y * t.b + t.c, x * t.d + y * t.e + t.f], axis=1)

    moved = shapely.transform(polygons, on_map)
    oriented: Array = shapely.orient_polygons(moved)
    return oriented


def areas_and_perimeters_m(polygons: Array, frame: Frame) -> tuple[Array, Array]:
    """Areas in m2 and perimeters in m of polygons in map coordinates; NaN without a CRS."""
    if frame.crs is None or frame.gsd_m is None:  # nowhere on Earth, or outside of its own CRS
        unknown = np.full(len(polygons), np.nan)
        return unknown, unknown.copy()
    unit_m = planar_unit_m(frame)
    if unit_m is not None:
        return shapely.area(polygons) * unit_m**2, shapely.length(polygons) * unit_m
    return _geodesic(polygons, frame.crs)


def lengths_m(lines: Array, frame: Frame) -> Array:
    """Lengths in m of lines in map coordinates; NaN without a CRS."""
    if frame.crs is None or frame.gsd_m is None:
        return np.full(len(lines), np.nan)
    unit_m = planar_unit_m(frame)
    if unit_m is not None:
        length: Array = shapely.length(lines) * unit_m
        return length
    geod, lonlat = _on_ellipsoid(lines, frame.crs)
    return np.asarray([geod.geometry_length(line) for line in lonlat], np.float64)


def planar_unit_m(frame: Frame) -> float | None:
    """Metres per map unit where lengths and areas may be measured in the plane; None where they may not."""
    if frame.crs is None:
        return None
    crs = parse_crs(frame.crs)
    if not crs.is_projected or frame.gsd_m is None:
        return None
    unit_m = float(crs.axis_info[0].unit_conversion_factor)
    on_map_m2 = abs(frame.transform.determinant) * unit_m**2
    on_ground_m2 = frame.gsd_m[0] * frame.gsd_m[1]
    return unit_m if abs(on_map_m2 / on_ground_m2 - 1) < _TRUE_SCALE else None


def pixel_area_m2(frame: Frame) -> float | None:
    """The area of the pixel in the middle of a frame, in m2; None without a CRS."""
    gsd = frame.gsd_m
    unit_m = planar_unit_m(frame)
    if unit_m is not None:
        return abs(frame.transform.determinant) * unit_m**2
    return None if gsd is None else gsd[0] * gsd[1]


def _on_ellipsoid(geometries: Array, crs: str) -> tuple[Geod, Array]:
    """The ellipsoid of a CRS, and geometries in longitude and latitude on it."""
    from pyproj import Geod, Transformer  # noqa: PLC0415

    parsed = parse_crs(crs)
    geod = parsed.get_geod() or Geod(ellps="WGS84")
    to_lonlat = Transformer.from_crs(parsed, parsed.geodetic_crs, always_xy=True)
    return geod, shapely.transform(geometries, lambda xy: np.stack(to_lonlat.transform(xy[:, 0], xy[:, 1]), axis=1))


def _geodesic(polygons: Array, crs: str) -> tuple[Array, Array]:
    geod, lonlat = _on_ellipsoid(polygons, crs)
    measured = [geod.geometry_area_perimeter(polygon) for polygon in lonlat]
    areas = np.abs([area for area, _ in measured]) if measured else np.empty(0)
    return areas, np.asarray([perimeter for _, perimeter in measured])


def _extra(
    entry: ClassEntry, pixel_polygons: Array, frame: Frame, area_m2: Array, perimeter_m: Array
) -> dict[str, Array]:
    """The columns that objects and lines have on top."""
    if entry.kind == "object":
        return {"orientation_deg": np.round(_orientation_deg(pixel_polygons, frame), 2)}
    if entry.kind == "line":
        # Length and width of the rectangle that has this area and perimeter.
        half = perimeter_m / 4
        root = np.sqrt(np.maximum(half**2 - area_m2, 0))
        return {"length_m": np.round(half + root, 2), "width_m": np.round(area_m2 / (half + root), 2)}
    return {}


def _orientation_deg(pixel_polygons: Array, frame: Frame) -> Array:
    """Direction of the long side of the smallest rectangle around each polygon: 0..180, clockwise from grid north."""
    gsd_y, gsd_x = frame.gsd_m or (1.0, 1.0)
    t = frame.transform
    across, down = np.hypot(t.a, t.d), np.hypot(t.b, t.e)
    matrix = np.array([[t.a, t.d], [t.b, t.e]]) * np.array([[gsd_x / across], [gsd_y / down]])
    ground = shapely.transform(pixel_polygons, lambda xy: xy @ matrix)
    corners = shapely.get_coordinates(shapely.oriented_envelope(ground)).reshape(-1, 5, 2)
    sides = corners[:, 1:3] - corners[:, :2]  # (n, 2, 2)
    longer = np.hypot(sides[..., 0], sides[..., 1]).argmax(axis=1)
    dx, dy = sides[np.arange(len(sides)), longer].T
    directions: Array = np.degrees(np.arctan2(dx, dy)) % 180
    return directions


def _layer(entry: ClassEntry, rows: dict[str, Array], polygons: Array, frame: Frame) -> gpd.GeoDataFrame:
    import geopandas as gpd  # noqa: PLC0415  # 1.5 s

    names = np.full(len(polygons), entry.name, object)
    geometry = gpd.GeoSeries(list(polygons), crs=frame.crs)
    return gpd.GeoDataFrame({"class": names, **rows}, geometry=geometry, crs=frame.crs)


def _top_left(polygons: Array) -> Array:
    bounds = shapely.bounds(polygons)
    return np.stack([bounds[:, 0], bounds[:, 1]], axis=1)
