"""The polygons of one block, and what it must leave to be finished with the blocks beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.vector.absorb import Borders, absorb, too_small, undecided, unite
from geoseg.vector.arcs import Arcs, meets, points_along, sides_in, sides_of
from geoseg.vector.chain import chain
from geoseg.vector.features import Census, Components
from geoseg.vector.near import is_near
from geoseg.vector.tidy import Drawing, at_cut, at_nothing
from geoseg.vector.trace import components_of, trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.frame import Box

Array = np.ndarray[Any, Any]

BLOCK = 2048
"""Pixels along a block. Where seams lie must not depend on what made the raster, since outlines near them might."""

NEAR_PX = 4.0
"""Buildings that come closer to what is not finished yet are not squared before that is."""

CLEARANCE_PX = 16.0
"""How far around a building boundaries are looked at when it is squared; further it may not reach."""


@dataclass(frozen=True)
class LooseEnds:
    """What of a block cannot be finished without the blocks beside it; components have numbers of its own."""

    box: Box
    census: Census
    unsure: Array
    """(n,) bool: small, as far as is known, and perhaps part of something larger."""
    shown: Array
    """(n,) bool: to be made a polygon when all is known."""
    at_edge: Array
    """(n,) bool: cut by the edge of the scene or of nodata."""
    loose: Arcs
    """Arcs as pixels drew them that end on a seam, or may yet change."""
    kept: Arcs
    """Finished arcs, of unfinished components and around them."""
    kept_raw: Arcs
    """The same as pixels drew them, as far as they are those of objects to be squared."""
    obstacles: Array
    """(k, 2) vertices of other finished arcs that loose ones must not run over."""
    seams: dict[str, Array]
    """The components of the outermost pixels along the sides that are seams: top, bottom, left, right."""


@dataclass(frozen=True)
class _Sides:
    """The outermost pixels of a block, where they lie on a seam."""

    box: Box
    shape: tuple[int, int]

    def of(self, numbers: Array) -> dict[str, Array]:
        box, (height, width) = self.box, self.shape
        sides = {
            "top": (box.row > 0, numbers[0]), "bottom": (box.bottom < height, numbers[-1]),
            "left": (box.col > 0, numbers[:, 0]), "right": (box.right < width, numbers[:, -1]),
        }  # fmt: skip
        return {name: pixels.astype(np.int64) for name, (seam, pixels) in sides.items() if seam}

    def distance(self, xy: Array) -> Array:
        """(n,) pixels to the nearest seam of points inside, negative outside."""
        box, (height, width) = self.box, self.shape
        far = np.full(len(xy), np.inf)
        lines = (
            (box.row > 0, xy[:, 1] / 2 - box.row), (box.bottom < height, box.bottom - xy[:, 1] / 2),
            (box.col > 0, xy[:, 0] / 2 - box.col), (box.right < width, box.right - xy[:, 0] / 2),
        )  # fmt: skip
        for seam, distance in lines:
            if seam:
                far = np.minimum(far, distance)
        return far


def outline_block(
    rasters: Sequence[Array], box: Box, shape: tuple[int, int], drawing: Drawing
) -> tuple[Components, LooseEnds]:
    """The polygons of a block that no other block can change, and all that others can.

    rasters: codes and confidence in percent, (h, w) uint8, then any of whole numbers that are to be added up by
    polygon; what lies in `box` of a scene of `shape`.
    """
    codes, confidence, *further = rasters
    numbers, census = components_of(codes, confidence, further)
    sides = _Sides(box, shape)
    seams = sides.of(numbers)
    pixels_drawn = trace(numbers, box, shape)
    borders = Borders.of(pixels_drawn)
    open_ = np.zeros(len(census), bool)
    open_[np.concatenate([np.empty(0, np.int64), *seams.values()])] = True
    small = too_small(census.codes, census.pixels, borders, drawing.limits, open_)
    unsure = undecided(small, open_, borders)
    census = replace(census, codes=absorb(census.codes, small & ~unsure, borders, drawing.limits.stands_for))
    owner = unite(census.codes, borders)
    census = census.merged(owner)
    own = owner == np.arange(len(owner))
    shown = own & drawing.shown[census.codes]
    shown &= unsure | open_ | (census.pixels >= drawing.limits.area[census.codes])
    arcs = pixels_drawn.relabelled(owner)
    raw = chain(arcs, sides.distance(arcs.tips.reshape(-1, 2)).reshape(-1, 2) <= 0)
    state = _State(raw, sides, census, unsure, open_, shown, drawing)
    return state.finish(seams, owner)


@dataclass(frozen=True)
class _State:
    """A block whose components are known and whose arcs are to be drawn."""

    raw: Arcs
    sides: _Sides
    census: Census
    unsure: Array
    open_: Array
    shown: Array
    drawing: Drawing

    def finish(self, seams: dict[str, Array], owner: Array) -> tuple[Components, LooseEnds]:
        raw, loose = self.raw, self._loose()
        outlined = self.drawing.outlined(raw, self.census.codes, loose)
        drawn, later = self._squared(outlined, loose)
        waits = self._waits(loose, later)
        finished = np.flatnonzero(self.shown & ~waits)
        at_edge = touching_edge(raw, self.census.codes, self.drawing)
        polygons = self.drawing.polygons(drawn, finished)
        components = Components.of_census(self.census.select(finished), polygons, at_edge[finished])
        kept = ~loose & self._kept(loose, later, waits)
        others = drawn.select(~loose & ~kept).xy
        others = others[is_near(others, raw.select(loose), 2 * self.drawing.reach_px + 1)]
        sides = [raw.select(loose | kept).sides.ravel(), *(owner[pixels] for pixels in seams.values())]
        named = np.unique(np.concatenate([*sides, np.flatnonzero(self.shown & waits)]))
        named = named[named >= 0]
        number = np.full(len(self.census), -1, np.int64)
        number[named] = np.arange(len(named))
        of_objects = sides_in(raw, later)
        return components, LooseEnds(
            box=self.sides.box,
            census=self.census.select(named),
            unsure=self.unsure[named],
            shown=(self.shown & waits)[named],
            at_edge=at_edge[named],
            loose=raw.select(loose).relabelled(number),
            kept=drawn.select(kept).relabelled(number),
            kept_raw=_tips_of_most(raw.select(kept), of_objects[kept]).relabelled(number),
            obstacles=others,
            seams={name: number[owner[pixels]] for name, pixels in seams.items()},
        )

    def _loose(self) -> Array:
        """(m,) bool: the arcs that other blocks can change."""
        raw = self.raw
        changing = sides_in(raw, self.unsure)
        tips = raw.tips.reshape(-1, 2)
        ends_open = self.sides.distance(tips).reshape(-1, 2) <= 0
        return changing | ends_open.any(axis=1) | meets(raw, raw.select(changing))

    def _squared(self, arcs: Arcs, loose: Array) -> tuple[Arcs, Array]:
        """Arcs with the outlines of objects squared; (n,) bool, the objects that must wait for other blocks."""
        objects = self.shown & self.drawing.objects[self.census.codes]
        if self.drawing.square is None or not objects.any():
            return arcs, np.zeros(len(objects), bool)
        later = self._linked(objects, objects & (self.open_ | self._crowded(objects, loose)))
        while True:
            drawn = self.drawing.squared(arcs, self.raw, self.census.codes, objects & ~later, loose)
            strays = self._linked(objects, straying(drawn, self.raw, objects & ~later, self.sides))
            if not strays.any():
                return drawn, later
            later = later | strays

    def _crowded(self, objects: Array, loose: Array) -> Array:
        """(n,) bool: the objects that come close to a seam, to a loose arc, or to the end of one."""
        raw = self.raw
        of_objects = np.flatnonzero(sides_in(raw, objects))
        xy, arc = points_along(raw.select(of_objects), 2 * NEAR_PX)
        close = (self.sides.distance(xy) < NEAR_PX) | is_near(xy, raw.select(loose), NEAR_PX)
        hit = np.zeros(len(raw), bool)
        hit[of_objects[arc[close]]] = True
        return sides_of(raw, hit | loose | meets(raw, raw.select(loose)), len(objects)) & objects

    def _linked(self, objects: Array, some: Array) -> Array:
        """(n,) bool: these objects, and all that hang on them by nodes that they share."""
        if not some.any():
            return some
        raw = self.raw
        while True:
            at = meets(raw, raw.select(sides_in(raw, some)))
            more = sides_of(raw, at, len(objects)) & objects
            if not (more & ~some).any():
                return some
            some = some | more

    def _waits(self, loose: Array, later: Array) -> Array:
        """(n,) bool: the components whose outlines other blocks can change."""
        raw = self.raw
        at_objects = meets(raw, raw.select(sides_in(raw, later)))
        return self.open_ | self.unsure | sides_of(raw, loose | at_objects, len(later))

    def _kept(self, loose: Array, later: Array, waits: Array) -> Array:
        """(m,) bool: the arcs that are needed to finish what waits."""
        raw = self.raw
        of_waiting = sides_in(raw, waits & self.shown)
        of_objects = raw.select(sides_in(raw, later))
        beside = meets(raw, of_objects) | meets(raw, raw.select(loose))
        if not len(of_objects):
            return of_waiting | beside
        xy, arc = points_along(raw, 2 * CLEARANCE_PX)
        beside[arc[is_near(xy, of_objects, CLEARANCE_PX)]] = True
        return of_waiting | beside


def touching_edge(raw: Arcs, codes: Array, drawing: Drawing) -> Array:
    """(n,) bool: which components lie beside nodata or the outside, or are cut by the edge of an area."""
    edge = sides_of(raw, at_nothing(raw, codes), len(codes))
    if drawing.cut is None:
        return edge
    return edge | (sides_of(raw, at_cut(raw, codes, drawing), len(codes)) & ~drawing.objects[codes])


def straying(drawn: Arcs, raw: Arcs, objects: Array, sides: _Sides | None = None) -> Array:
    """(n,) bool: the objects that were drawn further from where pixels drew them than was looked, or over a seam."""
    which = np.flatnonzero(sides_in(raw, objects))
    new = drawn.select(which)
    arc = np.repeat(which, new.sizes)
    far = ~is_near(new.xy, raw.select(which), CLEARANCE_PX / 3)
    if sides is not None:
        far |= sides.distance(new.xy) < 1
    hit = np.zeros(len(raw), bool)
    hit[arc[far]] = True
    return sides_of(raw, hit, len(objects)) & objects


def _tips_of_most(raw: Arcs, whole: Array) -> Arcs:
    """Arcs of which only some are `whole`, the others straight from tip to tip."""
    keep = np.repeat(whole, raw.sizes)
    keep[raw.ends[:-1]] = keep[raw.ends[1:] - 1] = True
    ends = np.concatenate([[0], np.cumsum(keep)])[raw.ends]
    return Arcs(raw.xy[keep], ends, raw.left, raw.right)
