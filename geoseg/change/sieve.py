"""From what looks changed pixel by pixel to patches that are large enough to be one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, label

Array = np.ndarray[Any, Any]

_TOUCHING = np.ones((3, 3), bool)


@dataclass(frozen=True, slots=True)
class Sieve:
    """How patches of change are made: opened and closed by disks, then left out where they have too few pixels.

    Each pixel depends on those within `halo` of it alone: a patch that is too small does not reach further.
    """

    least_px: int
    """Smaller patches are no change; pixels that touch by a corner belong together."""
    open_px: float = 0.0
    """Radius of the disk that must fit into change."""
    close_px: float = 0.0
    """Radius of the disk that must fit between two patches for them to be two."""

    @property
    def halo(self) -> int:
        """How many pixels around a box must be known."""
        return self.least_px + 2 * int(np.ceil(self.open_px)) + 2 * int(np.ceil(self.close_px))

    def __call__(self, changed: Array, valid: Array, inside: tuple[slice, slice]) -> Array:
        """Which pixels of a part `inside` of (h, w) are changed; around it lie `halo` pixels, or the frame ends."""
        for radius, steps in (
            (self.open_px, (binary_erosion, binary_dilation)),
            (self.close_px, (binary_dilation, binary_erosion)),
        ):
            for step in steps if radius >= 1 else ():
                # What lies outside of the frame stands in the way of neither.
                outside = step is binary_erosion
                changed = (
                    step(changed | (~valid if outside else False), _disk(radius), border_value=int(outside)) & valid
                )
        if self.least_px > 1:
            patches, _ = label(changed, _TOUCHING)
            sizes = np.bincount(patches.ravel())
            sizes[0] = 0
            changed = sizes[patches] >= self.least_px
        kept: Array = changed[inside]
        return kept


def _disk(radius: float) -> Array:
    steps = int(np.floor(radius))
    row, col = np.ogrid[-steps : steps + 1, -steps : steps + 1]
    disk: Array = row**2 + col**2 <= radius**2
    return disk
