"""Filters and simplification, after the union: polygons leave, holes close, outlines lose their stairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from geoseg.vector.polygonize import Components

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class TidyRule:
    """What to leave out and how much to simplify; `TidyRule(0, 0, 0)` changes nothing."""

    min_area_m2: float = 15.0
    min_hole_m2: float = 15.0
    tolerance_px: float = 1.25
    """Corners that cut off less than this squared, in pixels, are taken away (Visvalingam and Whyatt 1993)."""


def tidy(components: Components, rule: TidyRule, pixel_area_m2: float) -> Components:
    """Polygons without the small ones, without small holes, and simplified together.

    A hole is closed only where no polygon that stays lies in it. Neighbours keep their common edge, since the outlines
    are simplified as one coverage. Polygons stay in pixel coordinates.
    """
    kept = components.select(components.pixels * pixel_area_m2 >= rule.min_area_m2)
    if not len(kept):
        return kept
    polygons = _close_holes(kept.polygons, rule.min_hole_m2 / pixel_area_m2)
    if rule.tolerance_px > 0:
        polygons = simplify_together(polygons, rule.tolerance_px)
    return replace(kept, polygons=polygons)


def simplify_together(polygons: Array, tolerance_px: float) -> Array:
    """Simplify polygons with whole-numbered outlines as one coverage: no gap, no overlap where there was none.

    Each outline is first given a vertex at every pixel corner, so that where three polygons meet all have it.
    """
    everywhere = shapely.segmentize(polygons, 1.0)
    # Points between whole numbers are rounding of the division of long edges: put them where they belong.
    everywhere = shapely.transform(everywhere, np.rint)
    simplified: Array = shapely.coverage_simplify(everywhere, tolerance_px)
    return simplified


def _close_holes(polygons: Array, min_hole_px: float) -> Array:
    """Polygons without the holes smaller than `min_hole_px` that no polygon lies in."""
    kind, coordinates, (ring_ends, polygon_ends) = shapely.to_ragged_array(polygons)
    inner = np.ones(len(ring_ends) - 1, bool)
    inner[polygon_ends[:-1]] = False
    if not inner.any():
        return polygons
    sizes = np.diff(ring_ends)
    which = np.repeat(np.cumsum(inner) - 1, sizes)[np.repeat(inner, sizes)]
    holes = shapely.polygons(shapely.linearrings(coordinates[np.repeat(inner, sizes)], indices=which))
    small = shapely.area(holes) < min_hole_px
    # A point inside each polygon that stays: where one lies in a hole, the hole stays too.
    inhabited = shapely.STRtree(shapely.point_on_surface(polygons)).query(holes[small], predicate="intersects")[0]
    closing = np.flatnonzero(small)
    closing = np.delete(closing, np.unique(inhabited))
    kept = np.ones(len(sizes), bool)
    kept[np.flatnonzero(inner)[closing]] = False
    rings_left = np.concatenate([[0], np.cumsum(kept)])
    closed: Array = shapely.from_ragged_array(
        kind,
        coordinates[np.repeat(kept, sizes)],
        (np.concatenate([[0], np.cumsum(sizes[kept])]), rings_left[polygon_ends]),
    )
    return closed
