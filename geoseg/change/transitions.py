"""What the codes of a change raster mean: from what to what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoseg.errors import UsageError
from geoseg.legend import NODATA, ClassEntry, Legend

if TYPE_CHECKING:
    from collections.abc import Sequence

UNCHANGED = 0
"""The code of valid pixels without change."""

_GREY = "#d9d4c7"


@dataclass(frozen=True, slots=True)
class Transition:
    """One kind of change: code 1..254, from what to what, colour `#rrggbb`."""

    code: int
    name: str
    from_: str
    to: str
    color: str


@dataclass(frozen=True, slots=True)
class Transitions:
    """All kinds of change that a raster can hold, in the order of their codes, and the states between which they lead.

    >>> both = Legend((ClassEntry(0, "soil", "#d9d4c7", "area"), ClassEntry(1, "roof", "#d1442f", "object")))
    >>> [(turn.code, turn.name) for turn in between_classes(both).entries]
    [(1, 'soil to roof'), (2, 'roof to soil')]
    """

    entries: tuple[Transition, ...]
    states: tuple[str, ...] = ()
    """The classes of either date, where these are known."""

    @property
    def legend(self) -> Legend:
        """As the legend of a class raster in which unchanged is background."""
        rest = ClassEntry(UNCHANGED, "unchanged", _GREY, "background")
        return Legend((rest, *(ClassEntry(entry.code, entry.name, entry.color, "area") for entry in self.entries)))

    def named(self, code: int) -> Transition:
        """The transition of a code."""
        return next(entry for entry in self.entries if entry.code == code)

    def to_json(self) -> list[dict[str, Any]]:
        """As it stands in run.json."""
        return [{"code": e.code, "name": e.name, "from": e.from_, "to": e.to, "color": e.color} for e in self.entries]


def between_classes(legend: Legend) -> Transitions:
    """Every change from one class of a legend to another, in the colour of the class that comes.

    Codes go by pairs of classes: 1 + from * (classes - 1) + to, the class itself not counted. Raises UsageError where
    there are more pairs than codes.
    """
    names, count = legend.names, len(legend.classes)
    if count * (count - 1) >= NODATA:
        raise UsageError(f"{count} classes make {count * (count - 1)} changes; a change raster holds {NODATA - 1}")
    entries = [
        Transition(transition_code(i, j, count), f"{names[i]} to {names[j]}", names[i], names[j], _mixed(legend, i, j))
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    return Transitions(tuple(entries), names)


def transition_code(before: Any, after: Any, count: int) -> Any:
    """The code of a change between two classes by their places in a legend of `count`; for whole arrays too."""
    return 1 + before * (count - 1) + after - (after > before)


def of_kinds(kinds: Sequence[tuple[str, str, str, str]]) -> Transitions:
    """Changes of which (name, from, to, colour) are given, with codes from 1."""
    return Transitions(tuple(Transition(code, *kind) for code, kind in enumerate(kinds, 1)))


def _mixed(legend: Legend, before: int, after: int) -> str:
    """The colour of the class that comes, tinged with that of the one that goes, so that no two changes look alike."""
    one, other = legend.classes[before].rgb, legend.classes[after].rgb
    return "#" + "".join(f"{round(0.28 * a + 0.72 * b):02x}" for a, b in zip(one, other, strict=True))
