"""Components as polygons, with all that their columns are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from geoseg.vector.trace import Census

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Components:
    """Polygons with their numbers, one entry a component in every array."""

    polygons: Array
    """shapely polygons in pixel coordinates (column, row)."""
    codes: Array
    """Class codes, uint8."""
    pixels: Array
    """Number of pixels, int64."""
    confidence_sum: Array
    """Sum of the confidence in percent, int64."""
    confidence_min: Array
    """Smallest confidence in percent, uint8."""
    touches_edge: Array
    """Whether it is cut by the edge of the scene or of nodata, bool."""

    def __len__(self) -> int:
        """Number of components."""
        return len(self.polygons)

    def select(self, at: Array) -> Components:
        """The components at an index or boolean array."""
        return Components(*(getattr(self, name)[at] for name in self.__dataclass_fields__))

    def of(self, codes: Iterable[int]) -> Components:
        """The components of these codes, such as a legend's foreground."""
        return self.select(np.isin(self.codes, list(codes)))

    @classmethod
    def of_census(cls, polygons: Array, census: Census, touches_edge: Array) -> Components:
        """Polygons of components that have been counted."""
        return cls(polygons, census.codes, census.pixels, census.confidence_sum, census.confidence_min, touches_edge)

    @classmethod
    def concatenate(cls, parts: Sequence[Components]) -> Components:
        """All components of all parts."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))
