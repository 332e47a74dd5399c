"""First and second moments of the bands of two dates, added up so that nobody can tell how the frame was cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from geoseg.frame import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Array = np.ndarray[Any, Any]

CELL = 512
"""Side of the squares, in pixels of the frame, within which moments are added up: blocks are made of whole ones."""


@dataclass(frozen=True)
class Moments:
    """Weighted sums over pixels of n values each: weight, sum of values (n,), sum of their products (n, n); float64.

    Values are counted from an origin near their mean, so that no digits are lost in the differences of large sums.
    """

    weight: float
    sums: Array
    products: Array

    @classmethod
    def of(cls, values: Array, weights: Array) -> Self:
        """The moments of values (n, height, width) with weights (height, width), 0 where a pixel does not count."""
        weighted = values * weights
        # Row by row: products of so few numbers are summed in one order, whatever the threads of the processor.
        products = np.matmul(weighted.transpose(1, 0, 2), values.transpose(1, 2, 0)).sum(axis=0)
        return cls(float(weights.sum()), weighted.sum(axis=2).sum(axis=1), products)

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Self:
        """The sum of moments, in the order in which they come."""
        first, *others = parts
        weight, sums, products = first.weight, first.sums.copy(), first.products.copy()
        for part in others:
            weight += part.weight
            sums += part.sums
            products += part.products
        return cls(weight, sums, products)

    @property
    def mean(self) -> Array:
        """The mean of each value, from the origin."""
        return self.sums / self.weight

    @property
    def covariance(self) -> Array:
        """The covariance of values, (n, n)."""
        covariance: Array = self.products / self.weight - np.outer(self.mean, self.mean)
        return (covariance + covariance.T) / 2

    def to_row(self) -> Array:
        """All numbers in a row."""
        return np.concatenate([[self.weight], self.sums, self.products.ravel()])

    @classmethod
    def from_row(cls, row: Array) -> Self:
        """The inverse of `to_row`."""
        count = round((np.sqrt(4 * len(row) - 3) - 1) / 2)
        return cls(float(row[0]), row[1 : count + 1], row[count + 1 :].reshape(count, count))


def cells_of(box: Box) -> Iterator[Box]:
    """The cells of a box that begins at one.

    >>> list(cells_of(Box(0, 512, 600, 100)))
    [Box(row=0, col=512, height=512, width=100), Box(row=512, col=512, height=88, width=100)]
    """
    for row in range(box.row, box.bottom, CELL):
        for col in range(box.col, box.right, CELL):
            yield Box(row, col, CELL, CELL) & box


def blocks_of_cells(shape: tuple[int, int], side: int) -> list[Box]:
    """Blocks of whole cells, about `side` pixels each way, over a frame."""
    side = max(1, round(side / CELL)) * CELL
    whole = Box(0, 0, *shape)
    return [Box(row, col, side, side) & whole for row in range(0, shape[0], side) for col in range(0, shape[1], side)]
