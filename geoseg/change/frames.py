"""The one frame on which both dates are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from geoseg.errors import FrameMismatchError, MissingCrsError
from geoseg.frame import Box, Frame
from geoseg.scene.warped import transformed

_EDGE_POINTS = 65
_CLOSE = 0.01
"""Two GSD that differ by less than this share are one."""
_WHOLE_PX = 1e-4
"""An edge this close to a border of pixels lies on it."""


@dataclass(frozen=True)
class CommonFrame:
    """The grid on which two dates are compared, and which share of each of the dates (0..1) lies outside of it."""

    frame: Frame
    outside_before: float
    outside_after: float


def common_frame(before: Frame, after: Frame, grid: Frame | None = None) -> CommonFrame:
    """The pixels of `grid` that both dates may cover.

    Without one it is the grid of the coarser date, whose pixels the finer one can fill, and of two alike that of the
    earlier. Raises FrameMismatchError where the dates do not overlap, MissingCrsError where one of them is nowhere.
    """
    if (before.crs is None) != (after.crs is None):
        raise MissingCrsError("of the two dates one has no CRS; assign it, so that they can be laid over each other")
    base = grid or (after if _side(after) > _side(before) * (1 + _CLOSE) else before)
    if (base.crs is None) != (before.crs is None):
        raise MissingCrsError("the frame and the dates cannot be laid over each other: one of them has no CRS")
    box = base.box & extent(before, base) & extent(after, base)
    if not box:
        raise FrameMismatchError("the two dates do not overlap; check their CRS and that they show the same place")
    frame = base.crop(box)
    return CommonFrame(frame, _outside(before, frame), _outside(after, frame))


def extent(of: Frame, on: Frame) -> Box:
    """The pixels of a frame that are whole within the bounds of another, as they lie there."""
    height, width = of.shape
    along = np.linspace(0, 1, _EDGE_POINTS)
    zero, one = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
    row, col = transformed(of, on)(
        np.concatenate([zero, one, along, along]) * height, np.concatenate([along, along, zero, one]) * width
    )
    known = np.isfinite(row) & np.isfinite(col)
    if not known.any():
        return Box(0, 0, 0, 0)
    top, bottom = ceil(row[known].min() - _WHOLE_PX), floor(row[known].max() + _WHOLE_PX)
    left, right = ceil(col[known].min() - _WHOLE_PX), floor(col[known].max() + _WHOLE_PX)
    return Box(top, left, max(0, bottom - top), max(0, right - left))


def _side(frame: Frame) -> float:
    """How large a pixel is: in metres where that is known, else in map units."""
    gsd = frame.gsd_m
    return frame.pixel_size if gsd is None else float(np.sqrt(gsd[0] * gsd[1]))


def _outside(date: Frame, frame: Frame) -> float:
    """The share of a date's pixels that lie outside of a frame."""
    inside = extent(frame, date) & date.box
    return 1 - inside.area / date.box.area
