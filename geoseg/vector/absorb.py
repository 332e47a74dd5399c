"""Components too small to be shown go to what lies beside them: filtering changes codes, and leaves no hole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.legend import NODATA
from geoseg.vector.arcs import first_of_group, gather

if TYPE_CHECKING:
    from geoseg.vector.arcs import Arcs

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Borders:
    """How long components lie beside each other."""

    pairs: Array
    """(m, 2) int64: two components each; a pair may occur more than once."""
    lengths: Array
    """(m,) int64: number of pixel edges that they share."""

    @classmethod
    def of(cls, arcs: Arcs) -> Borders:
        """The borders along arcs as pixels drew them; the outside is nobody's neighbour."""
        inner = (arcs.sides >= 0).all(axis=1)
        return cls(arcs.sides[inner], arcs.lengths()[inner])


@dataclass(frozen=True)
class Limits:
    """How small components may be, in pixels. Arrays have an entry for each of the 256 codes."""

    area: Array
    """The fewest pixels of a component of a code that is shown, float64; 0 for all others."""
    hole: Array
    """The fewest pixels of background beside components of a code, float64."""
    background: Array
    """Which codes are background, bool; nodata is not."""
    stands_for: Array | None = None
    """(256,) uint8: the codes of the classes that codes stand for, where some tell parts of one class apart."""


def too_small(codes: Array, pixels: Array, borders: Borders, limits: Limits, open_: Array | None = None) -> Array:
    """(n,) bool: which components are smaller than their class must be, or are holes smaller than those around leave.

    codes: (n,) uint8; pixels: (n,) int64. A hole is judged by the class with which it shares the longest edge, one that
    goes on beyond a seam (`open_`) by the largest limit, since what lies around it is not all known.
    """
    least = limits.area[codes]
    hole = limits.background[codes] & (pixels < limits.hole.max())
    if hole.any():
        pairs = np.concatenate([borders.pairs, borders.pairs[:, ::-1]])
        around = hole[pairs[:, 0]] & ~limits.background[codes[pairs[:, 1]]] & (codes[pairs[:, 1]] != NODATA)
        lengths = np.tile(borders.lengths, 2)[around]
        component, code = _longest(pairs[around, 0], codes[pairs[around, 1]], lengths, limits.stands_for)
        least[component] = limits.hole[code]
        if open_ is not None:
            least[hole & open_] = limits.hole.max()
    small: Array = pixels < least
    return small


def absorb(codes: Array, small: Array, borders: Borders, stands_for: Array | None = None) -> Array:
    """The class of each component once the small ones have gone to the class with which they share the longest edge.

    codes: (n,) uint8; small: (n,) bool; stands_for: as in Limits. Only classes that stay count; small components among
    small ones wait until one beside them has a class, and equal edges go to the lower code. What meets nothing but
    nodata and the outside keeps its code. All that decides over a group of small components lies in the group and along
    its border.
    """
    codes, waiting = codes.copy(), small.copy()
    pairs = np.concatenate([borders.pairs, borders.pairs[:, ::-1]])
    lengths = np.tile(borders.lengths, 2)
    of_small = waiting[pairs[:, 0]] & (codes[pairs[:, 1]] != NODATA)
    order = np.flatnonzero(of_small)[np.argsort(pairs[of_small, 0], kind="stable")]
    other, lengths = pairs[order, 1], lengths[order]
    rows = np.concatenate([[0], np.cumsum(np.bincount(pairs[order, 0], minlength=len(codes)))])
    ready = np.unique(pairs[order, 0][~waiting[other]])
    while len(ready):  # a round for each component in between: so only those whose turn it is are looked at
        at, ends = gather(np.arange(len(other)), rows, ready)
        component, beside = np.repeat(ready, np.diff(ends)), other[at]
        sure = ~waiting[beside]
        decided, code = _longest(component[sure], codes[beside[sure]], lengths[at][sure], stands_for)
        codes[decided] = code
        waiting[decided] = False
        ready = np.unique(beside[waiting[beside]])
    return codes


def _longest(component: Array, code: Array, lengths: Array, stands_for: Array | None) -> tuple[Array, Array]:
    """Components, each once, and the code with which each shares the longest edge; the lower of two as long.

    Where several codes stand for one class, the class is chosen first, and then among its codes.
    """
    if stands_for is not None:
        owner, chosen = _longest(component, stands_for[code], lengths, None)
        of_chosen = stands_for[code] == chosen[np.searchsorted(owner, component)]
        component, code, lengths = component[of_chosen], code[of_chosen], lengths[of_chosen]
    keys, group = np.unique(component.astype(np.int64) * 256 + code, return_inverse=True)
    shared = np.bincount(group, lengths, minlength=len(keys))
    owner, beside = np.divmod(keys, 256)
    order = np.lexsort((beside, -shared, owner))
    first = order[np.unique(owner[order], return_index=True)[1]]
    return owner[first], beside[first]


def undecided(small: Array, open_: Array, borders: Borders) -> Array:
    """Which small components may meet more than is known: those that are open, and all that hang on them.

    small: (n,) bool, with what is known so far; open_: (n,) bool, which go on beyond a seam.
    """
    group = first_of_group(borders.pairs[small[borders.pairs].all(axis=1)], len(small))
    unsure = np.zeros(len(small), bool)
    unsure[group[small & open_]] = True
    return unsure[group] & small


def unite(codes: Array, borders: Borders) -> Array:
    """(n,) the first of all components that have become one, since they are beside each other and of one code."""
    return first_of_group(borders.pairs[codes[borders.pairs[:, 0]] == codes[borders.pairs[:, 1]]], len(codes))
