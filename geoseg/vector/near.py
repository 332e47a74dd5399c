"""What lies near what, coarsely: more is found than is near, and nothing is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.vector.arcs import points_along

if TYPE_CHECKING:
    from geoseg.vector.arcs import Arcs

Array = np.ndarray[Any, Any]


def is_near(xy: Array, arcs: Arcs, reach_px: float) -> Array:
    """(n,) bool: points within reach of the lines of arcs; some that are up to four times as far are counted too."""
    # A point on a line is no more than half a step from one that is looked at: both together are a cell.
    step, cell = reach_px, 2.5 * reach_px  # half pixels
    occupied = _cells(points_along(arcs, step)[0], cell)
    around = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2)
    cells = np.unique((occupied[:, None] + around).reshape(-1, 2) @ [1 << 32, 1]) if len(arcs) else np.empty(0)
    near: Array = np.isin(_cells(xy, cell) @ [1 << 32, 1], cells)
    return near


def _cells(xy: Array, cell: float) -> Array:
    return np.floor(np.asarray(xy) / cell).astype(np.int64) + 8  # a row of cells outside of the scene is no harm
