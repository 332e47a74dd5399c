"""Filters and simplification, after the union: polygons leave, holes close, outlines lose their stairs."""

from __future__ import annotations

from dataclasses import dataclass
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
    polygons = _close_holes(kept.polygons, rule.min_hole_m2 / pixel_area_m2)
    if rule.tolerance_px > 0 and len(polygons):
        polygons = simplify_together(polygons, rule.tolerance_px)
    return type(kept)(**{**{name: getattr(kept, name) for name in kept.__dataclass_fields__}, "polygons": polygons})


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
    owners, holes = _holes(polygons)
    small = shapely.area(holes) < min_hole_px
    owners, holes = owners[small], holes[small]
    if not len(holes):
        return polygons
    inhabited = np.unique(shapely.STRtree(shapely.point_on_surface(polygons)).query(holes, predicate="intersects")[0])
    free = np.ones(len(holes), bool)
    free[inhabited] = False
    result = polygons.copy()
    for owner in np.unique(owners[free]):
        result[owner] = shapely.union_all([polygons[owner], *holes[free & (owners == owner)]])
    return result


def _holes(polygons: Array) -> tuple[Array, Array]:
    """The holes of polygons as polygons, with the index of their owner."""
    counts = shapely.get_num_interior_rings(polygons)
    owners = np.repeat(np.arange(len(polygons)), counts)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owners, np.asarray(shapely.polygons(shapely.get_interior_ring(polygons[owners], within)))
