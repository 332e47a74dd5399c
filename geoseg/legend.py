"""What the codes of a class raster mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from geoseg.errors import BundleError

NODATA = 255
"""The code of pixels about which nothing is known; never a class."""

Kind = Literal["background", "area", "line", "object"]
"""How a class is drawn and vectorized: not at all, as an area with soft outlines, along a line, or as an object."""


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One class: code 0..254, name (also the name of its layer), colour `#rrggbb`, kind."""

    code: int
    name: str
    color: str
    kind: Kind

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0..255."""
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@dataclass(frozen=True, slots=True)
class Legend:
    """The classes of a model, in the order of the network's output channels.

    >>> LAND_COVER.names
    ('background', 'building', 'road', 'vegetation', 'water')
    >>> [entry.name for entry in LAND_COVER.foreground]
    ['building', 'road', 'vegetation', 'water']
    """

    classes: tuple[ClassEntry, ...]

    def __post_init__(self) -> None:
        """Refuse what no class raster can hold."""
        codes = [entry.code for entry in self.classes]
        if not codes:
            raise BundleError("the legend has no class; it needs at least one")
        if len(set(codes)) != len(codes) or len(set(self.names)) != len(codes):
            raise BundleError(f"the legend names a code or a class twice: {list(zip(codes, self.names, strict=True))}")
        for entry in self.classes:
            if not 0 <= entry.code < NODATA:
                raise BundleError(f"class {entry.name!r} has code {entry.code}; codes are 0..254, 255 is nodata")
            if entry.kind not in get_args(Kind):
                raise BundleError(f"class {entry.name!r} is of kind {entry.kind!r}; kinds are {get_args(Kind)}")
            if not _is_color(entry.color):
                raise BundleError(f"class {entry.name!r} has colour {entry.color!r}; write it as #rrggbb")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in channel order."""
        return tuple(entry.name for entry in self.classes)

    @property
    def codes(self) -> tuple[int, ...]:
        """Class codes in channel order."""
        return tuple(entry.code for entry in self.classes)

    @property
    def foreground(self) -> tuple[ClassEntry, ...]:
        """The classes that become layers of polygons."""
        return tuple(entry for entry in self.classes if entry.kind != "background")

    def to_json(self) -> list[dict[str, Any]]:
        """As stored in `model.json`."""
        return [{"code": c.code, "name": c.name, "color": c.color, "kind": c.kind} for c in self.classes]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> Legend:
        """The inverse of `to_json`; raises BundleError where a key is missing."""
        try:
            return cls(tuple(ClassEntry(int(r["code"]), str(r["name"]), str(r["color"]), r["kind"]) for r in rows))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the legend needs code, name, color and kind for each class: {error}") from error


def _is_color(text: str) -> bool:
    return len(text) == 7 and text[0] == "#" and all(c in "0123456789abcdefABCDEF" for c in text[1:])


LAND_COVER = Legend(
    (
        ClassEntry(0, "background", "#d9d4c7", "background"),
        ClassEntry(1, "building", "#d1442f", "object"),
        ClassEntry(2, "road", "#f2b63c", "line"),
        ClassEntry(3, "vegetation", "#4f9d45", "area"),
        ClassEntry(4, "water", "#2f7fd1", "area"),
    )
)
"""The legend of the embedded model."""
