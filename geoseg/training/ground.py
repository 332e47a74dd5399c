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
    for judged in held_out:
        frame = judged.scene.frame
        alike = [scene for scene in learnt if scene.scene.frame.crs == frame.crs]
        other = _shown_by(alike, frame, frame.crs) if frame.crs else None
        if other is None and (local := _around(frame)) and len(alike) < len(learnt):
            other = _shown_by([scene for scene in learnt if scene.scene.frame.crs != frame.crs], frame, local)
        if other is not None:
            raise UsageError(
                f"data {judged.source}: {judged.place} is held out, but {judged.path} shows ground of {other.path}, "
                f"which is to be trained on (place {other.place} of {other.source}); hold out both or neither"
            )


def _shown_by(learnt: Sequence[LabelledScene], frame: Frame, crs: str) -> LabelledScene | None:
    """The first scene that shows ground of a frame, as seen in a CRS."""
    own = _outline(frame, crs)
    inner = own.buffer(-frame.pixel_size if frame.crs == crs else -_lost_m(frame), join_style="mitre")
    shared = shapely.intersects([_outline(scene.scene.frame, crs) for scene in learnt], inner)
    return learnt[int(np.flatnonzero(shared)[0])] if shared.any() else None


def _lost_m(frame: Frame) -> float:
    """A pixel's width in metres; 1 where that is not known."""
    return max(frame.gsd_m or (1.0, 1.0))


def _around(frame: Frame) -> str | None:
    """An equal-area CRS in metres centred on a frame, in which nothing near it is cut; None where that is not known."""
    if not frame.crs:
        return None
    try:
        middle = frame.xy(frame.shape[0] / 2, frame.shape[1] / 2)
        lon, lat = _between(frame.crs, "EPSG:4326").transform(*middle)
    except ProjError:
        return None
    return f"+proj=laea +lat_0={lat:.6f} +lon_0={lon:.6f}" if np.isfinite([lon, lat]).all() else None


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
