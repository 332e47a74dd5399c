"""Connected components of a class raster as polygons, block by block, joined across seams.

Polygons are in pixel coordinates, (column, row) of pixel corners: whole numbers, so that joining is exact.
Neighbours are pixels that share a side (4-connectivity). Background and nodata are outlined too: only who knows where
they lie can close holes and simplify edges without covering them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from affine import Affine
from rasterio.features import shapes
from scipy import ndimage

from geoseg.frame import Box
from geoseg.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Array = np.ndarray[Any, Any]
Reader = Callable[[Box], tuple[Array, Array]]
"""Reads a box: classes (h, w) uint8 and confidence (h, w) uint8 in percent."""


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
    def concatenate(cls, parts: list[Components]) -> Components:
        """All components of all parts."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def polygonize(read: Reader, shape: tuple[int, int], block: int = 2048) -> Components:
    """The polygons of one pass over the whole raster, whatever the block size: a partition of it.

    Every code has its polygons, background and nodata too; `Components.of` leaves those of some codes. `read` is called
    once a block, with a box that reaches one pixel over it.
    """
    parts: list[Components] = []
    joins: list[Array] = []
    above: dict[int, _Edge] = {}
    left: _Edge | None = None
    count = 0
    for box in _blocks(shape, block):
        components, edges = _polygonize_block(read, box, shape, count)
        count += len(components)
        parts.append(components)
        if box.col and left is not None:
            joins.append(left.pairs(edges["left"]))
        if box.row:
            joins.append(above[box.col].pairs(edges["top"]))
        left, above[box.col] = edges["right"], edges["bottom"]
    return _join(Components.concatenate(parts), joins)


@dataclass(frozen=True)
class _Edge:
    """The outermost pixels along one side of a block: class codes and component numbers."""

    codes: Array
    numbers: Array

    def pairs(self, other: _Edge) -> Array:
        """Components (n, 2) that face each other across a seam and are of one class."""
        same = self.codes == other.codes
        return np.unique(np.stack([self.numbers[same], other.numbers[same]], axis=1), axis=0)


def _blocks(shape: tuple[int, int], block: int) -> Iterator[Box]:
    for row in range(0, shape[0], block):
        for col in range(0, shape[1], block):
            yield Box(row, col, min(block, shape[0] - row), min(block, shape[1] - col))


def _polygonize_block(
    read: Reader, box: Box, shape: tuple[int, int], first: int
) -> tuple[Components, dict[str, _Edge]]:
    """Components of a block, numbered from `first`, and its four edges."""
    halo = Box(box.row - 1, box.col - 1, box.height + 2, box.width + 2)
    inside = halo & Box(0, 0, *shape)
    padded = np.full(halo.shape, NODATA, np.uint8)
    confidence = np.zeros(halo.shape, np.uint8)
    padded[inside.slices(halo)], confidence[inside.slices(halo)] = read(inside)
    classes, confidence = padded[1:-1, 1:-1], confidence[1:-1, 1:-1]
    numbers, codes = _label(classes)
    outlines, order = _outlines(numbers, box)
    at_edge = np.zeros(len(codes), bool)
    at_edge[numbers[_beside_nothing(padded)]] = True
    flat = numbers.ravel()
    index = np.arange(len(codes))
    components = Components(
        polygons=outlines[np.argsort(order)],
        codes=codes,
        pixels=np.bincount(flat, minlength=len(codes)),
        confidence_sum=np.bincount(flat, confidence.ravel(), minlength=len(codes)).astype(np.int64),
        confidence_min=np.asarray(ndimage.minimum(confidence, numbers, index), np.uint8).reshape(len(codes)),
        touches_edge=at_edge,
    )
    shifted = numbers + np.int64(first)
    sides: dict[str, Any] = {"top": np.s_[0, :], "bottom": np.s_[-1, :], "left": np.s_[:, 0], "right": np.s_[:, -1]}
    return components, {side: _Edge(classes[at].copy(), shifted[at].copy()) for side, at in sides.items()}


def _label(classes: Array) -> tuple[Array, Array]:
    """Component numbers (h, w) int32 from 0, and the class code of each."""
    numbers = np.empty(classes.shape, np.int32)
    codes: list[int] = []
    for code in np.unique(classes).tolist():
        labelled, found = ndimage.label(classes == code)
        np.copyto(numbers, labelled.astype(np.int32) - 1 + len(codes), where=labelled > 0)
        codes += [code] * found
    return numbers, np.asarray(codes, np.uint8)


def _outlines(numbers: Array, box: Box) -> tuple[Array, Array]:
    """One polygon a component, in pixel coordinates of the scene, and the number of each."""
    coordinates: list[Array] = []
    ring_ends, polygon_ends, order = [0], [0], []
    to_scene = Affine.translation(box.col, box.row)
    for geometry, number in shapes(numbers, connectivity=4, transform=to_scene):
        for ring in geometry["coordinates"]:
            coordinates.append(np.asarray(ring))
            ring_ends.append(ring_ends[-1] + len(ring))
        polygon_ends.append(len(ring_ends) - 1)
        order.append(int(number))
    polygons = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON,
        np.concatenate(coordinates),
        (np.asarray(ring_ends), np.asarray(polygon_ends)),
    )
    return polygons, np.asarray(order)


def _beside_nothing(padded: Array) -> Array:
    """Which pixels of the interior of `padded` share a side with nodata or the outside."""
    nothing = padded == NODATA
    beside: Array = nothing[:-2, 1:-1] | nothing[2:, 1:-1] | nothing[1:-1, :-2] | nothing[1:-1, 2:]
    return beside


def _join(parts: Components, joins: list[Array]) -> Components:
    """Merge components that are one across a seam."""
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    pairs = np.concatenate([np.empty((0, 2), np.int64), *joins])
    if not len(pairs):
        return parts
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(parts), len(parts)))
    _, group = connected_components(graph, directed=False)
    size = np.bincount(group)
    alone = size[group] == 1
    members = np.flatnonzero(~alone)
    members = members[np.argsort(group[members], kind="stable")]
    starts = np.flatnonzero(np.diff(group[members], prepend=-1))
    # Whole-numbered coordinates make the union exact; what it leaves on the seam are vertices on straight lines.
    merged = [shapely.union_all(polygons) for polygons in np.split(parts.polygons[members], starts[1:])]
    joined = Components(
        polygons=drop_straight_vertices(np.asarray(merged, object)),
        codes=parts.codes[members][starts],
        pixels=np.add.reduceat(parts.pixels[members], starts),
        confidence_sum=np.add.reduceat(parts.confidence_sum[members], starts),
        confidence_min=np.minimum.reduceat(parts.confidence_min[members], starts),
        touches_edge=np.logical_or.reduceat(parts.touches_edge[members], starts),
    )
    return Components.concatenate([parts.select(alone), joined])


def drop_straight_vertices(polygons: Array) -> Array:
    """The same polygons without the vertices at which no ring turns; exact for whole-numbered coordinates."""
    kind, coordinates, offsets = shapely.to_ragged_array(polygons)
    ring_ends, polygon_ends = offsets
    starts, stops = ring_ends[:-1], ring_ends[1:] - 1  # the last vertex of a ring repeats its first
    before = np.arange(len(coordinates)) - 1
    before[starts] = stops - 1
    after = np.arange(len(coordinates)) + 1
    repeated = np.zeros(len(coordinates), bool)
    repeated[stops] = True
    after[repeated] = 0  # not looked at
    come, go = coordinates - coordinates[before], coordinates[after] - coordinates
    turns = (come[:, 0] * go[:, 1] != come[:, 1] * go[:, 0]) & ~repeated
    kept = np.add.reduceat(turns, starts) + 1  # each ring is closed again
    new_ends = np.concatenate([[0], np.cumsum(kept)])
    result = np.empty((new_ends[-1], 2))
    inner = np.ones(len(result), bool)
    inner[new_ends[1:] - 1] = False
    result[inner] = coordinates[turns]
    result[~inner] = result[new_ends[:-1]]
    rebuilt: Array = shapely.from_ragged_array(kind, result, (new_ends, polygon_ends))
    return rebuilt
