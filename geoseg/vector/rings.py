"""From arcs to polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from geoseg.vector.arcs import OUTSIDE, Arcs, bends, follow, gather, place_keys, twice_area

Array = np.ndarray[Any, Any]


def polygons_of_arcs(arcs: Arcs, wanted: Array, *, bends_only: bool = False) -> Array:
    """One polygon for each of the `wanted` components, in their order, in pixel coordinates (column, row).

    wanted: (k,) numbers of components; all their arcs must be there. With `bends_only` rings have no vertex where they
    do not turn, else one wherever neighbours end, so that these stay together whoever moves them. A ring turns away
    where its component touches itself with a corner, so that it never meets itself, and a hole may touch the shell in a
    point (OGC 06-103r4, 6.1.11). Raises ValueError where an outline is not complete.
    """
    half, backwards, component = _half_arcs(arcs, wanted)
    order, ring_ends = follow(_next(arcs, half, backwards, component))
    owner = component[order[ring_ends[:-1]]]
    xy, part_ends = gather(arcs.xy, arcs.ends, half[order], backwards[order])
    # The last vertex of each half is the first of the next one, or of the ring.
    keep = np.ones(len(xy), bool)
    keep[part_ends[1:] - 1] = False
    keep[part_ends[ring_ends[1:]] - 1] = True
    ends = np.concatenate([[0], np.cumsum(keep)])[part_ends[ring_ends]]
    xy = xy[keep]
    shell = twice_area(xy, ends) < 0  # rows run downwards, and the component lies to the left
    by_owner = np.lexsort((~shell, owner))
    if (np.bincount(owner[shell], minlength=len(wanted)) != 1).any():
        raise ValueError("arcs are missing: a component has no outline, or more than one")
    xy, ends = gather(xy, ends, by_owner)
    if bends_only:
        xy, ends = bends(xy, ends, np.ones(len(by_owner), bool))
    rings = np.searchsorted(owner[by_owner], np.arange(len(wanted) + 1))
    polygons: Array = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy / 2, (ends, rings))
    return polygons


def _half_arcs(arcs: Arcs, wanted: Array) -> tuple[Array, Array, Array]:
    """Arcs as seen from one side: arc, whether it is walked backwards, place of its component in `wanted`.

    Half an arc has its component to the left.
    """
    highest = max(int(arcs.sides.max(initial=-1)), int(wanted.max(initial=-1)))
    place = np.full(highest + 2, -1, np.int64)
    place[wanted] = np.arange(len(wanted))
    sides = place[np.where(arcs.sides == OUTSIDE, highest + 1, arcs.sides)]
    half, side = np.nonzero(sides >= 0)
    return half, side.astype(bool), sides[half, side]


def _next(arcs: Arcs, half: Array, backwards: Array, component: Array) -> Array:
    """Which half follows each along its component: at its end, the first one to the right that is the same's."""
    xy, ends = arcs.xy, arcs.ends
    first, last = ends[half] + 0, ends[half + 1] - 1
    first, last = np.where(backwards, last, first), np.where(backwards, first, last)
    step = np.where(backwards, -1, 1)
    tails, heads = xy[first], xy[last]
    places, leaves = np.unique(place_keys(tails), return_inverse=True)
    arrives = np.searchsorted(places, place_keys(heads))
    many = int(component.max(initial=0)) + 1
    key, wanted = leaves * many + component, arrives * many + component
    order = np.argsort(key, kind="stable")
    key = np.append(key[order], np.iinfo(np.int64).max)
    order = np.append(order, -1)
    found = np.searchsorted(key, wanted)
    after = order[found]
    if (key[found] != wanted).any():
        raise ValueError("arcs are missing: the outline of a component ends")
    # Where a component touches itself two halves leave.
    touching = np.flatnonzero(key[np.minimum(found + 1, len(half))] == wanted)
    if len(touching):
        back = xy[last[touching] - step[touching]] - heads[touching]
        other = order[found[touching] + 1]
        one = after[touching]
        turn = [_clockwise(back, xy[first[k] + step[k]] - tails[k]) for k in (one, other)]
        after[touching] = np.where(turn[0] < turn[1], one, other)
    return after


def _clockwise(back: Array, out: Array) -> Array:
    """(n,) the angle from the way back to a way out, over the right hand of who arrives, on an image: 0..2 pi."""
    angle: Array = np.mod(np.arctan2(back[:, 1], back[:, 0]) - np.arctan2(out[:, 1], out[:, 0]), 2 * np.pi)
    return angle
