"""How two dates are compared, pixel by pixel: one interface, and what stands behind it.

A method is a value that knows all it needs of the whole pair; a part of the pair, with a halo, is all it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from geoseg.change.tolerance import halo_px, limit, neighbours, unexplained
from geoseg.change.transitions import UNCHANGED, Transitions, between_classes, of_kinds, transition_code
from geoseg.legend import NODATA

if TYPE_CHECKING:
    from geoseg.change.indices import Indices
    from geoseg.change.irmad import Canonical, Lines
    from geoseg.legend import Legend

Array = np.ndarray[Any, Any]

_BRIGHTNESS = (
    ("brighter", "dark", "bright", "#f2b63c"),
    ("darker", "bright", "dark", "#5f3dc4"),
    ("greener", "less green", "greener", "#2f9e44"),
    ("less green", "greener", "less green", "#c2255c"),
)
_DARK = 0.5
"""So many standard deviations below the mean a band is dark."""
_TELLING = 3.0
"""How much more the difference of an index of water counts where there is water on one date."""


@dataclass(frozen=True)
class Measured:
    """What is found of a part of the frame.

    magnitude: (h, w) float32, 0 where not valid; code: (h, w) uint8, which change it is, if it is one: 0 where a shift
    explains the difference, 255 where a date is not valid; states: (3, h, w) uint8, the places in the legend of the
    class before and after a change, and of the class that is there if there was none; None where classes are not known.
    """

    magnitude: Array
    code: Array
    states: Array | None = None

    def crop(self, at: tuple[slice, slice]) -> Measured:
        """A part of it."""
        states = None if self.states is None else self.states[(slice(None), *at)]
        return Measured(self.magnitude[at], self.code[at], states)


class Method(Protocol):
    """A way to compare two dates."""

    @property
    def transitions(self) -> Transitions:
        """What its codes mean."""

    @property
    def halo(self) -> int:
        """How many pixels around a part it looks at."""

    def __call__(self, before: Array, after: Array, valid: Array) -> Measured:
        """Compare pixels (bands, h, w) of two dates in float64 where they are valid, (h, w) bool."""


@dataclass(frozen=True)
class ImageMethod:
    """Change of the imagery itself.

    `cva`: the length of the vector of differences on normalised bands, each in standard deviations of what unchanged
    pixels differ by; `irmad`: the square root of the chi-square of the MAD variates; `index`: the largest difference of
    an index, in scaled median deviations. Its kind goes by the direction of the differences.
    """

    name: Literal["cva", "irmad", "index"]
    roles: tuple[str, ...]
    canonical: Canonical
    lines: Lines
    spread: Array
    """(bands,) standard deviation of the earlier date's values."""
    radius_px: float
    """How far a shift may be left."""
    indices: Indices | None = None
    middle: Array | None = None
    """(indices,) the median of the differences of each index, and below their scaled median deviation."""
    deviation: Array | None = None

    @property
    def transitions(self) -> Transitions:
        """Rise and fall of each index, or brighter, darker and, where red and near infrared tell it, (less) green."""
        if self.indices is not None:
            return of_kinds(self.indices.kinds)
        return of_kinds(_BRIGHTNESS if {"red", "nir"} <= set(self.roles) else _BRIGHTNESS[:2])

    @property
    def halo(self) -> int:
        """As far as a shift may reach."""
        return halo_px(self.radius_px)

    def __call__(self, before: Array, after: Array, valid: Array) -> Measured:
        """As `Method`; magnitudes are those of the pixels, whatever a shift explains."""
        magnitude, code = self._magnitude(before, after, self.lines(after))
        code = np.where(self.differs(before, after, valid), code, UNCHANGED)
        code = np.where(valid, code, NODATA).astype(np.uint8)
        return Measured(np.where(valid, magnitude, 0).astype(np.float32), code)

    def differs(self, before: Array, after: Array, valid: Array) -> Array:
        """(h, w) bool: where both dates differ by more than noise, and more than a shift explains."""
        deviation = self.lines.noise, self.spread
        left = unexplained(before, self.lines(after), valid, deviation, self.radius_px)
        seen: Array = left > limit(len(before))
        return seen

    def _magnitude(self, before: Array, after: Array, normal: Array) -> tuple[Array, Array]:
        if self.indices is not None:
            return self._of_indices(self.indices, before, normal)
        difference = (normal - before) / self.lines.noise[:, None, None]
        if self.name == "irmad":
            values = np.concatenate([before, after]) - self.canonical.origin[:, None, None]
            magnitude = np.sqrt(self.canonical.chi_square(values))
        else:
            magnitude = np.sqrt((difference**2).sum(axis=0))
        return magnitude, self._direction(difference)

    def _direction(self, difference: Array) -> Array:
        """Codes of `_BRIGHTNESS`: green where near infrared and red go apart, else by the sum of all bands."""
        code = np.where(difference.sum(axis=0) >= 0, 1, 2)
        if {"red", "nir"} <= set(self.roles):
            red, nir = (difference[self.roles.index(role)] for role in ("red", "nir"))
            code = np.where((nir > 0) & (red < 0), 3, np.where((nir < 0) & (red > 0), 4, code))
        return code

    def _of_indices(self, indices: Indices, before: Array, after: Array) -> tuple[Array, Array]:
        """The largest difference; its kind is that of the index that says most of what is there.

        Where a river has moved, vegetation is lost as well: the index of water says more, where the date on which it is
        above zero is dark in near infrared, as water is and bare soil is not.
        """
        assert self.middle is not None and self.deviation is not None  # noqa: S101, PT018  # they come with indices
        one, other = indices(before), indices(after)
        standard = (other - one - self.middle[:, None, None]) / self.deviation[:, None, None]
        size = np.abs(standard)
        crosses = ((one > 0) != (other > 0)) & indices.tells_water[:, None, None]
        if crosses.any() and "nir" in self.roles:
            band = self.roles.index("nir")
            dark = self.canonical.origin[band] - _DARK * self.spread[band]
            crosses &= np.where(other > one, after[band], before[band]) < dark
        first = (size * np.where(crosses, _TELLING, 1.0)).argmax(axis=0)
        rises = np.take_along_axis(standard, first[None], axis=0)[0] > 0
        return size.max(axis=0), np.where(rises, 1, 2) + 2 * first


@dataclass(frozen=True)
class ClassMethod:
    """Change from class to class, by the probabilities of both dates together.

    The most probable change of a pixel is set against no change at all: the magnitude is the probability of that
    change, given that one of the two is true. So a pixel of which neither date is sure is not called changed, as it
    would be if the most probable classes of both dates were compared. And where the imagery itself does not differ, no
    class has changed: a network does not see the same twice when a scene is moved by part of a pixel.
    """

    legend: Legend
    radius_px: float
    imagery: ImageMethod | None = None
    """What tells whether the imagery differs; its bands then follow the probabilities of each date."""

    @property
    def transitions(self) -> Transitions:
        """Every change from one class to another."""
        return between_classes(self.legend)

    @property
    def halo(self) -> int:
        """As far as a shift may reach."""
        return ceil(self.radius_px)

    def __call__(self, before: Array, after: Array, valid: Array) -> Measured:
        """As `Method`, of probabilities (classes, h, w), and imagery behind them."""
        count = len(self.legend.classes)
        seen = before[count:], after[count:]
        before, after = (_shares(date[:count]) for date in (before, after))
        from_, to, change = _best_change(before, after)
        stays = before * after
        same = stays.sum(axis=0)
        magnitude = change / np.maximum(change + same, np.finfo(float).tiny)
        # As if the other date were moved by any pixel near: if then no change is as probable, a shift explains it.
        explained = np.minimum(_most_same(before, after, self.halo), _most_same(after, before, self.halo))
        code = transition_code(from_, to, len(before))
        code = np.where(explained < change, code, UNCHANGED)
        if self.imagery is not None:
            code = np.where(self.imagery.differs(*seen, valid), code, UNCHANGED)
        code = np.where(valid, code, NODATA).astype(np.uint8)
        states = np.stack([from_, to, stays.argmax(axis=0)]).astype(np.uint8)
        return Measured(np.where(valid, magnitude, 0).astype(np.float32), code, states)


@dataclass(frozen=True)
class NetworkMethod:
    """Change as a network tells it that has seen both dates: the magnitude is its probability of any change.

    legend: of the network, in which classes of kind background are no change.
    """

    legend: Legend
    halo: int = 0

    @property
    def transitions(self) -> Transitions:
        """A change for each class but the background; `A to B` names what it was and is."""
        kinds = []
        for entry in self.legend.foreground:
            from_, between, to = entry.name.partition(" to ")
            kinds.append((entry.name, *((from_, to) if between else ("unchanged", entry.name)), entry.color))
        return of_kinds(kinds)

    def __call__(self, before: Array, after: Array, valid: Array) -> Measured:  # noqa: ARG002  # one of a pair of equals
        """As `Method`, of the network's probabilities (classes, h, w), which stand for both dates."""
        shares = _shares(before)
        changing = np.array([entry.kind != "background" for entry in self.legend.classes])
        code = shares[changing].argmax(axis=0) + 1
        magnitude = np.where(valid, shares[changing].sum(axis=0), 0).astype(np.float32)
        return Measured(magnitude, np.where(valid, code, NODATA).astype(np.uint8))


def _shares(probabilities: Array) -> Array:
    """Probabilities that add up to one, which they do not where they were interpolated."""
    kept = np.clip(probabilities, 0, None)
    shares: Array = kept / np.maximum(kept.sum(axis=0), np.finfo(float).tiny)
    return shares


def _best_change(before: Array, after: Array) -> tuple[Array, Array, Array]:
    """The places of the two classes of the most probable change, and how probable it is, (h, w) each."""
    order = np.argsort(-before, axis=0, kind="stable")
    first, second = order[0], order[1]
    of_first, of_second = (np.take_along_axis(before, place[None], axis=0)[0] for place in (first, second))
    classes = np.arange(len(before))[:, None, None]
    from_other = np.where(classes == first, of_second, of_first)  # (C, h, w): the best class but the one that comes
    joint = from_other * after
    to = joint.argmax(axis=0)
    change = np.take_along_axis(joint, to[None], axis=0)[0]
    return np.where(to == first, second, first), to, change


def _most_same(one: Array, other: Array, steps: int) -> Array:
    """(h, w) the probability that nothing changed, with the other date moved to where that is most probable."""
    most = np.zeros(one.shape[1:])
    for moved in neighbours(other, steps):
        np.maximum(most, (one * moved).sum(axis=0), out=most)
    return most
