"""Filters and simplification, after the union: polygons leave, holes close, outlines lose their stairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from geoseg.legend import Legend
    from geoseg.vector.polygonize import Components

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class TidyRule:
    """What to leave out and how much to simplify; `TidyRule(0, 0, 0)` changes nothing."""

    min_area_m2: float = 15.0
    min_hole_m2: float = 15.0
    tolerance_px: float = 1.25
    """Corners that cut off less than this squared, in pixels, are taken away (Visvalingam and Whyatt 1993)."""


def tidy(components: Components, rule: TidyRule, legend: Legend, pixel_area_m2: float) -> Components:
    """The foreground without small polygons and small holes, simplified together with all that lies beside it.

    components: all of a raster, as `polygonize` returns them. A hole is closed only where nothing that stays lies in
    it: no foreground of min_area, no background of min_hole, no nodata at all. Edges against nodata and the edge of
    the scene stay as they are; all others are simplified, and neighbours keep their common edge. Polygons stay in pixel
    coordinates.
    """
    foreground = [entry.code for entry in legend.foreground]
    in_front = np.isin(components.codes, foreground)
    valid = np.isin(components.codes, list(legend.codes))
    area_m2 = components.pixels * pixel_area_m2
    stays = ~valid | (area_m2 >= np.where(in_front, rule.min_area_m2, rule.min_hole_m2))
    if rule.min_hole_m2 > 0:
        polygons, covered = _close_holes(components.polygons, stays, valid, rule.min_hole_m2 / pixel_area_m2)
    else:
        polygons, covered = components.polygons, np.zeros(len(components), bool)
    if rule.tolerance_px > 0 and (stays & in_front).any():
        # What leaves takes part, since the edges around it are no less stairs than others.
        together = valid & ~covered
        polygons = polygons.copy()
        polygons[together] = simplify_together(polygons[together], rule.tolerance_px)
    return replace(components, polygons=polygons).select(stays & in_front)


def simplify_together(polygons: Array, tolerance_px: float) -> Array:
    """Simplify the edges that polygons with whole-numbered outlines share: no gap, no overlap where there was none.

    Edges that only one polygon has stay as they are.
    """
    simplified: Array = shapely.coverage_simplify(_noded(polygons), tolerance_px, simplify_boundary=False)
    return simplified


def _noded(polygons: Array) -> Array:
    """The same polygons, each with a vertex wherever it passes a corner of another: a coverage as GEOS wants it."""
    everywhere = shapely.segmentize(polygons, 1.0)
    kind, coordinates, (ring_ends, polygon_ends) = shapely.to_ragged_array(everywhere)
    # Points between whole numbers are rounding of the division of long edges: put them where they belong.
    coordinates = np.rint(coordinates)
    kept = np.isin(_keys(coordinates), _keys(shapely.get_coordinates(polygons)))
    ends = np.concatenate([[0], np.cumsum(kept)])[ring_ends]
    noded: Array = shapely.from_ragged_array(kind, coordinates[kept], (ends, polygon_ends))
    return noded


def _keys(coordinates: Array) -> Array:
    """Whole-numbered coordinates (n, 2) as one number each."""
    return coordinates[:, 1].astype(np.int64) << 32 | coordinates[:, 0].astype(np.int64)


def _close_holes(polygons: Array, stays: Array, valid: Array, min_hole_px: float) -> tuple[Array, Array]:
    """Polygons without the holes smaller than `min_hole_px` that none of those that stay lies in; what they cover now.

    stays, valid: (n,) bool; holes of polygons that are not valid are not closed.
    """
    kind, coordinates, (ring_ends, polygon_ends) = shapely.to_ragged_array(polygons)
    inner = np.repeat(valid, np.diff(polygon_ends))
    inner[polygon_ends[:-1]] = False
    covered = np.zeros(len(polygons), bool)
    if not inner.any():
        return polygons, covered
    sizes = np.diff(ring_ends)
    which = np.repeat(np.cumsum(inner) - 1, sizes)[np.repeat(inner, sizes)]
    holes = shapely.polygons(shapely.linearrings(coordinates[np.repeat(inner, sizes)], indices=which))
    small = shapely.area(holes) < min_hole_px
    # A point inside each polygon: where that of one that stays lies in a hole, the hole stays too.
    hole, inside = shapely.STRtree(shapely.point_on_surface(polygons)).query(holes[small], predicate="intersects")
    inhabited = np.zeros(np.count_nonzero(small), bool)
    inhabited[hole[stays[inside]]] = True
    covered[inside[~inhabited[hole]]] = True
    closing = np.flatnonzero(inner)[np.flatnonzero(small)[~inhabited]]
    kept = np.ones(len(sizes), bool)
    kept[closing] = False
    rings_left = np.concatenate([[0], np.cumsum(kept)])
    closed: Array = shapely.from_ragged_array(
        kind,
        coordinates[np.repeat(kept, sizes)],
        (np.concatenate([[0], np.cumsum(sizes[kept])]), rings_left[polygon_ends]),
    )
    return closed, covered
