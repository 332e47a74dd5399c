"""What several scenes on one frame show of one place, band after band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from geoseg.frame import Box, Frame
    from geoseg.scene.reading import Scene

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class JoinedScene:
    """Scenes on one frame as one with the bands of all; a pixel is valid where it is in all of them."""

    scenes: tuple[Scene, ...]

    @property
    def frame(self) -> Frame:
        """The frame of all."""
        return self.scenes[0].frame

    @property
    def roles(self) -> tuple[str, ...]:
        """Those of all, scene after scene."""
        return tuple(role for scene in self.scenes for role in scene.roles)

    @property
    def dtype(self) -> str:
        """What holds the values of all."""
        return str(np.result_type(*(scene.dtype for scene in self.scenes)))

    @property
    def stored_scaling(self) -> tuple[tuple[float, float], ...] | None:
        """Of all, where all tell."""
        known = [scene.stored_scaling for scene in self.scenes]
        return None if None in known else tuple(pair for scalings in known for pair in scalings or ())

    def read(self, box: Box) -> tuple[Array, Array]:
        """Pixels (bands of all, height, width) and which are valid, (height, width) bool."""
        parts = [scene.read(box) for scene in self.scenes]
        pixels = np.concatenate([pixels for pixels, _ in parts]).astype(self.dtype, copy=False)
        return pixels, np.logical_and.reduce([valid for _, valid in parts])
