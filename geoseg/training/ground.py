"""Whether what is to be judged lies where nothing was learnt."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import Transformer
from pyproj.exceptions import ProjError

from geoseg.errors import UsageError
from geoseg.frame import parse_crs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.frame import Frame
    from geoseg.training.samples import LabelledScene

Array = np.ndarray[Any, Any]

_SEGMENTS = 16
"""Of each side of a scene, where it is seen in another CRS."""


def refuse_shared_ground(training: Sequence[LabelledScene], held_out: Sequence[LabelledScene]) -> None:
    """Raise UsageError where a scene held out shows more than a pixel's width of the ground of one to train on.

    Scenes without a CRS are not looked at: where they overlap is for `groups` to say.
    """
    learnt = [scene for scene in training if scene.scene.frame.crs]
    by_crs: dict[str, shapely.STRtree] = {}
    for judged in held_out:
        frame = judged.scene.frame
        if not frame.crs or not learnt:
            continue
        if frame.crs not in by_crs:
            by_crs[frame.crs] = shapely.STRtree([_outline(scene.scene.frame, frame.crs) for scene in learnt])
        tree, own = by_crs[frame.crs], _outline(frame, frame.crs)
        shared = tree.query(own.buffer(-frame.pixel_size, join_style="mitre"), predicate="intersects")
        if shared.size:
            other = learnt[shared[0]]
            raise UsageError(
                f"data {judged.source}: {judged.place} is held out, but {judged.path} shows ground of {other.path}, "
                f"which is to be trained on (place {other.place} of {other.source}); hold out both or neither"
            )


def _outline(frame: Frame, crs: str) -> shapely.Polygon:
    """The outline of a frame in a CRS; empty where it cannot be told there."""
    height, width = frame.shape
    corners = [frame.xy(*corner) for corner in ((0, 0), (0, width), (height, width), (height, 0))]
    polygon = shapely.Polygon(corners)
    if frame.crs == crs:
        return polygon
    longest = max(np.ptp(np.array(corners), axis=0)) / _SEGMENTS
    points = shapely.get_coordinates(shapely.segmentize(polygon, longest))
    try:
        moved = np.column_stack(_between(frame.crs, crs).transform(*points.T))
    except ProjError:  # one of them is not tied to the Earth
        return shapely.Polygon()
    if not np.isfinite(moved).all():
        return shapely.Polygon()
    seen: shapely.Polygon = shapely.make_valid(shapely.Polygon(moved))
    return seen


@cache
def _between(given: str, wanted: str) -> Transformer:
    return Transformer.from_crs(parse_crs(given), parse_crs(wanted), always_xy=True)
