"""What polygons are to look like: how small, how smooth, how regular."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import UsageError
from geoseg.legend import NODATA
from geoseg.vector.absorb import Limits
from geoseg.vector.arcs import twice_area
from geoseg.vector.measure import pixel_area_m2
from geoseg.vector.network import RoadRule
from geoseg.vector.rings import polygons_of_arcs
from geoseg.vector.simplify import cut_corners, simplify
from geoseg.vector.split import PARTS, split_objects
from geoseg.vector.square import SquareRule, square

if TYPE_CHECKING:
    from geoseg.frame import Frame
    from geoseg.legend import Legend
    from geoseg.vector.arcs import Arcs

Array = np.ndarray[Any, Any]


_SHARE = 0.025
"""Of the area within a closed outline, what a corner that goes may cut off: small things would lose too much."""

LEAST_M2 = 15.0
"""Smaller polygons and holes are not worth a look, unless something else is said of their class."""


@dataclass(frozen=True, slots=True)
class TidyRule:
    """What to leave out and how much to simplify; `TidyRule.none()` changes nothing."""

    min_area_m2: float | Mapping[str, float] = LEAST_M2
    """The smallest polygon, of all classes or by the name of a class; those not named have `LEAST_M2`."""
    min_hole_m2: float | Mapping[str, float] = LEAST_M2
    """The smallest patch of background beside polygons, of all classes or by the name of the class around it, as it
    was before anything was left out."""
    tolerance_px: float = 1.25
    """Corners that cut off less than this squared, in pixels, are taken away (Visvalingam and Whyatt 1993)."""
    square: SquareRule | None = field(default_factory=SquareRule)
    """How objects are made regular; None leaves them as pixels drew them."""
    centrelines: RoadRule | None = field(default_factory=RoadRule)
    """What makes a network of the middle lines of roads; None draws none."""
    split: float = 0.0
    """By how much the confidence, 0..1, dips between objects that touch and yet are two; 0 leaves all together."""
    tolerance_m: float | None = None
    """The tolerance in metres on the ground, in place of pixels."""

    def least_area_m2(self, name: str) -> float:
        """The smallest polygon of the class of this name."""
        return _limit(self.min_area_m2, name)

    @classmethod
    def none(cls) -> TidyRule:
        """The polygons of the pixels themselves."""
        return cls(0, 0, 0, None, None)


@dataclass(frozen=True)
class Drawing:
    """A TidyRule for the classes and pixels of one raster. Arrays have an entry for each of the 256 codes."""

    shown: Array
    """Whether components of a code become polygons, bool."""
    objects: Array
    """Whether they are objects, bool."""
    limits: Limits
    """How small components may be."""
    tolerance_px: float
    square: SquareRule | None
    pixel_m: tuple[float, float]
    """(height, width) of a pixel on the ground; in any unit where nothing is known of it."""
    cut: int | None = None
    """The code at which components of all but objects are cut, as by nodata."""
    split: float = 0.0
    """As in the rule."""
    parts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """By the code of a class of objects, codes without a class that tell the parts of one from each other."""

    @classmethod
    def of(cls, rule: TidyRule, legend: Legend, frame: Frame, cut: int | None = None) -> Drawing:
        """What a rule asks for where codes mean what the legend says and pixels are those of the frame.

        cut: the code of what lies outside of an area of interest, at which all but objects are cut. Raises UsageError
        where objects are to be split, and classes leave no codes for their parts; and where a tolerance is in metres,
        and how large pixels are on the ground is not known.
        """
        shown, objects, background = (np.zeros(256, bool) for _ in range(3))
        area, hole = np.zeros(256), np.zeros(256)
        pixel_m2 = pixel_area_m2(frame) or 1.0
        for entry in legend.classes:
            if entry.kind == "background":
                background[entry.code] = True
                continue
            shown[entry.code] = True
            objects[entry.code] = entry.kind == "object"
            area[entry.code] = rule.least_area_m2(entry.name) / pixel_m2
            hole[entry.code] = _limit(rule.min_hole_m2, entry.name) / pixel_m2
        parts = _codes_of_parts(legend) if rule.split else {}
        for code, spare in parts.items():
            for of_code in (shown, objects, area, hole):
                of_code[list(spare)] = of_code[code]
        stands_for = np.arange(256, dtype=np.uint8)
        for code, spare in parts.items():
            stands_for[list(spare)] = code
        limits = Limits(area, hole, background, stands_for if parts else None)
        pixel_m = frame.gsd_m or (1.0, 1.0)
        return cls(shown, objects, limits, _tolerance_px(rule, frame), rule.square, pixel_m, cut, rule.split, parts)

    def split_objects(self, codes: Array, percent: Array) -> Array:
        """Codes (h, w) uint8 in which objects that touch are apart where the confidence dips, if that is asked for."""
        if not self.split:
            return codes
        return split_objects(codes, percent, self.parts, self.split, self.limits.area)

    def of_classes(self, codes: Array) -> Array:
        """(n,) uint8: the codes of classes, where those of parts are given."""
        if self.limits.stands_for is None:
            return codes
        named: Array = self.limits.stands_for[codes]
        return named

    @property
    def reach_px(self) -> float:
        """How far outlines may leave those of the pixels, unless they are squared."""
        return max(4.0, 2 * self.tolerance_px)

    def outlined(self, arcs: Arcs, codes: Array, held: Array, obstacles: Array | None = None) -> Arcs:
        """Arcs without the stairs of pixels, as far as neither nodata nor the outside lies beside them.

        codes: (n,) uint8, by component; held: (m,) bool, arcs that stay as they are and in the way of others, as do
        the points `obstacles`, (k, 2) half pixels. Outlines of objects keep the corners of pixels, all others have
        their corners cut.
        """
        if not self.tolerance_px:
            return arcs
        held = held | at_nothing(arcs, codes)
        soft = ~held & ~self.objects[_beside(arcs, codes)].any(axis=1)
        tolerance = np.where(held, 0.0, np.minimum(self.tolerance_px, _for_size(arcs)))
        return simplify(cut_corners(arcs, soft), tolerance, reach_px=self.reach_px, obstacles=obstacles)

    def polygons(self, arcs: Arcs, wanted: Array) -> Array:
        """The polygons of components, in their order; where nothing is simplified, as one pass would draw them."""
        raw = not self.tolerance_px and self.square is None
        return polygons_of_arcs(arcs, wanted, bends_only=raw)

    def squared(self, arcs: Arcs, raw: Arcs, codes: Array, objects: Array, fixed: Array) -> Arcs:
        """Arcs with the outlines of `objects`, (n,) bool, squared where nodata and the outside are not touched.

        raw: the same arcs as pixels drew them; codes: (n,) uint8; fixed: (m,) bool, arcs that must not change.
        """
        if self.square is None or not objects.any():
            return arcs
        return square(arcs, raw, objects, fixed | at_nothing(raw, codes), self.square, self.pixel_m)


def _tolerance_px(rule: TidyRule, frame: Frame) -> float:
    """The tolerance in pixels: its square is an area, so that pixels may be longer than they are wide."""
    if rule.tolerance_m is None:
        return rule.tolerance_px
    pixel_m2 = pixel_area_m2(frame)
    if pixel_m2 is None:
        raise UsageError(
            "simplify_m is in metres, but how large pixels are on the ground is not known, since no CRS tells; "
            "give simplify, in pixels"
        )
    return float(rule.tolerance_m / np.sqrt(pixel_m2))


def _codes_of_parts(legend: Legend) -> dict[int, tuple[int, ...]]:
    free = [code for code in range(NODATA - 1, -1, -1) if code not in legend.codes]
    objects = [entry.code for entry in legend.classes if entry.kind == "object"]
    if objects and len(free) <= PARTS * len(objects):  # one is left for what lies outside of an area
        raise UsageError(
            f"split needs {PARTS} codes without a class for each class of objects; the legend has "
            f"{len(legend.classes)} classes, {len(objects)} of them of objects"
        )
    return {code: tuple(free[PARTS * number : PARTS * (number + 1)]) for number, code in enumerate(objects)}


def _for_size(arcs: Arcs) -> Array:
    """(m,) the largest tolerance in pixels that leaves what a closed arc goes round its size; none for open arcs."""
    area_px2 = np.abs(twice_area(arcs.xy, arcs.ends)) / 8
    tips = arcs.tips
    closed = (tips[:, 0] == tips[:, 1]).all(axis=1)
    return np.where(closed, np.sqrt(area_px2 * _SHARE), np.inf)


def _limit(given: float | Mapping[str, float], name: str) -> float:
    return given.get(name, LEAST_M2) if isinstance(given, Mapping) else given


def at_cut(arcs: Arcs, codes: Array, drawing: Drawing) -> Array:
    """(m,) bool: which arcs have what cuts components to a side."""
    beside: Array = (_beside(arcs, codes) == drawing.cut).any(axis=1)
    return beside


def at_nothing(arcs: Arcs, codes: Array) -> Array:
    """(m,) bool: which arcs have nodata or the outside to a side."""
    nothing: Array = (_beside(arcs, codes) == NODATA).any(axis=1)
    return nothing


def _beside(arcs: Arcs, codes: Array) -> Array:
    """(m, 2) uint8: the codes to the left and right of arcs; nodata for the outside."""
    return np.append(codes, np.uint8(NODATA))[arcs.sides]  # -1 is the outside
