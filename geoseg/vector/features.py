"""What is known of components, and what they are as polygons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Census:
    """What is known of components, one entry a component in every array."""

    codes: Array
    """Class codes, uint8."""
    pixels: Array
    """Number of pixels, int64."""
    confidence_sum: Array
    """Sum of the confidence in percent, int64."""
    confidence_min: Array
    """Smallest confidence in percent, uint8."""
    sums: Array
    """(n, k) int64, the sums of further rasters, such as a magnitude; k is mostly 0."""

    def __len__(self) -> int:
        """Number of components."""
        return len(self.codes)

    def select(self, at: Array) -> Self:
        """The components at an index or boolean array."""
        return replace(self, **{name: getattr(self, name)[at] for name in self.__dataclass_fields__})

    def merged(self, owner: Array) -> Census:
        """(n,) as before: what `owner` holds of others is counted with the owner, and they hold nothing."""
        lowest = np.full(len(self), 255, np.uint8)
        np.minimum.at(lowest, owner, self.confidence_min)
        pixels, confidence = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        np.add.at(pixels, owner, self.pixels)
        np.add.at(confidence, owner, self.confidence_sum)
        sums = np.zeros_like(self.sums)
        if sums.size:
            np.add.at(sums, owner, self.sums)
        return Census(self.codes, pixels, confidence, lowest, sums)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """All components of all parts."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


@dataclass(frozen=True)
class Components(Census):
    """Components as polygons, with all that their columns are made of."""

    polygons: Array
    """shapely polygons in pixel coordinates (column, row)."""
    touches_edge: Array
    """Whether it is cut by the edge of the scene or of nodata, bool."""

    def of(self, codes: Iterable[int]) -> Components:
        """The components of these codes, such as a legend's foreground."""
        return self.select(np.isin(self.codes, list(codes)))

    @classmethod
    def of_census(cls, census: Census, polygons: Array, touches_edge: Array) -> Components:
        """Polygons of components that have been counted."""
        counted = {name: getattr(census, name) for name in Census.__dataclass_fields__}
        return cls(**counted, polygons=polygons, touches_edge=touches_edge)
