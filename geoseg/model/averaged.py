"""An engine that looks at each tile several times, turned and mirrored, and gives the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from geoseg.model.engine import Engine

Array = np.ndarray[Any, Any]

VIEWS = {
    "flip": ((0, False), (0, True)),
    "d4": tuple((k, m) for m in (False, True) for k in range(4)),
}
"""By name the views of a tile: so many quarter turns, of it or of its mirror image."""


@dataclass(frozen=True)
class AveragedEngine:
    """Another engine, asked about each view of a tile."""

    engine: Engine
    views: str

    @property
    def lanes(self) -> int:
        """As the engine's."""
        return self.engine.lanes

    @property
    def name(self) -> str:
        """The engine's, and the views."""
        return f"{self.engine.name} {self.views}"

    def __call__(self, tile: Array, place: int = 0) -> Array:
        """As `Engine.__call__`; whole numbers are added up, so that the order does not count."""
        views = VIEWS[self.views]
        total: Array | None = None
        for turns, mirrored in views:
            seen = tile[:, :, ::-1] if mirrored else tile
            found = self.engine(np.ascontiguousarray(np.rot90(seen, turns, axes=(1, 2))), place)
            back = np.rot90(found, -turns, axes=(1, 2))
            levels = (back[:, :, ::-1] if mirrored else back).astype(np.int32)
            total = levels if total is None else total + levels
        assert total is not None  # noqa: S101  # there is a view
        return ((total + len(views) // 2) // len(views)).astype(np.int16)
