"""Objects of two dates, such as buildings, matched by overlap: which are new, gone, altered, or as they were."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import shapely

Array = np.ndarray[Any, Any]

Status = Literal["added", "removed", "modified", "unchanged"]
STATUSES: tuple[Status, ...] = get_args(Status)

_MET = 0.2
"""Of the smaller of two objects, what they must share to be one."""
_LEFT_OUT = 0.1
"""Of an object, what may lie further from the other date's than the tolerance while it is called unchanged."""


@dataclass(frozen=True)
class Matched:
    """Objects of both dates, an entry each: of one of them where it has no match.

    before, after: (n,) shapely polygons, None where there is none; where several objects of one date lie on one of the
    other they are one entry, united. status: (n,) of `Status`; iou: (n,) 0..1, of the two as they lie; id: (n,) text.
    """

    before: Array
    after: Array
    status: Array
    iou: Array
    id: Array


def match_objects(before: Array, after: Array, tolerance: float, grid: float = 1e-3) -> Matched:
    """Match polygons of two dates in one CRS.

    Two belong together if they share a fifth of the smaller one. They are unchanged if, but for a tenth, each lies
    within `tolerance` (map units) of the other, so that a shift of that size explains the difference; else modified.
    An id is made of the earlier outline (of an added object, of the later one), to `grid` map units: the same objects
    have the same ids in every comparison.
    """
    groups = _groups(before, after)
    ones, others = zip(*groups, strict=True) if groups else ((), ())
    united = [_objects([_united(before, of) for of in ones]), _objects([_united(after, of) for of in others])]
    one, other = united
    both = np.array([a is not None and b is not None for a, b in zip(one, other, strict=True)], bool)
    status = np.where(both, "modified", np.where([a is None for a in one], "added", "removed")).astype(object)
    iou = np.zeros(len(groups))
    if both.any():
        a, b = one[both], other[both]
        shared = shapely.area(shapely.intersection(a, b))
        iou[both] = shared / (shapely.area(a) + shapely.area(b) - shared)
        near = _beyond(a, b, tolerance) & _beyond(b, a, tolerance)
        status[np.flatnonzero(both)[near]] = "unchanged"
    names = [_id(b if a is None else a, grid) for a, b in zip(one, other, strict=True)]
    return Matched(one, other, status, iou, np.array(names, object))


def _groups(before: Array, after: Array) -> list[tuple[list[int], list[int]]]:
    """The numbers of objects that belong together, directly or through others, of both dates."""
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    count = len(before) + len(after)
    if not count:
        return []
    left, right = np.empty(0, int), np.empty(0, int)
    if len(before) and len(after):
        right, left = shapely.STRtree(before).query(after, predicate="intersects")
        shared = shapely.area(shapely.intersection(before[left], after[right]))
        smaller = np.minimum(shapely.area(before[left]), shapely.area(after[right]))
        met = shared > _MET * smaller
        left, right = left[met], right[met]
    links = coo_array((np.ones(len(left)), (left, right + len(before))), shape=(count, count))
    _, group = connected_components(links, directed=False)
    members: dict[int, tuple[list[int], list[int]]] = {}
    for number, of in enumerate(group.tolist()):
        own = members.setdefault(of, ([], []))
        own[number >= len(before)].append(number - len(before) * (number >= len(before)))
    return list(members.values())


def _united(polygons: Array, numbers: list[int]) -> shapely.Geometry | None:
    if len(numbers) < 2:
        return polygons[numbers[0]] if numbers else None
    return shapely.union_all(polygons[numbers])


def _objects(geometries: list[shapely.Geometry | None]) -> Array:
    found = np.empty(len(geometries), object)
    found[:] = geometries
    return found


def _beyond(these: Array, others: Array, tolerance: float) -> Array:
    """(n,) bool: of which objects hardly anything lies further from the other than the tolerance."""
    left = shapely.area(shapely.difference(these, shapely.buffer(others, tolerance)))
    few: Array = left <= _LEFT_OUT * shapely.area(these)
    return few


def _id(polygon: shapely.Geometry, grid: float) -> str:
    rounded = shapely.normalize(shapely.set_precision(polygon, grid, mode="pointwise"))
    return hashlib.sha256(shapely.to_wkb(rounded, byte_order=1)).hexdigest()[:12]
