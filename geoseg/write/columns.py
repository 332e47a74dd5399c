"""The columns of vector layers: their types, and their names where there is room for more, or less, than the name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoseg.legend import Kind

SHORT = 10
"""Bytes that a Shapefile has for a name."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a layer: name, pandas dtype, name of at most ten bytes, title for people."""

    name: str
    dtype: str
    short: str
    title: str


COLUMNS = (
    Column("class", "object", "class", "Class"),
    Column("code", "int32", "code", "Class code"),
    Column("confidence", "float64", "conf_mean", "Mean confidence (0-1)"),
    Column("confidence_min", "float64", "conf_min", "Lowest confidence (0-1)"),
    Column("area_m2", "float64", "area_m2", "Area (m²)"),
    Column("perimeter_m", "float64", "perim_m", "Perimeter (m)"),
    Column("touches_edge", "bool", "edge", "Cut by the edge"),
    Column("orientation_deg", "float64", "orient_deg", "Orientation (°)"),
    Column("length_m", "float64", "length_m", "Length (m)"),
    Column("width_m", "float64", "width_m", "Width (m)"),
)
"""All that geoseg gives to a layer, in order; what else a layer holds is written as it is."""

BY_NAME = {column.name: column for column in COLUMNS}

_OF_ALL = COLUMNS[:7]
_OF_KIND: dict[Kind, tuple[Column, ...]] = {
    "object": (BY_NAME["orientation_deg"],),
    "line": (BY_NAME["length_m"], BY_NAME["width_m"]),
}


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """The columns that polygons of a kind of class have.

    >>> [column.name for column in columns_of("line")][-2:]
    ['length_m', 'width_m']
    """
    return _OF_ALL + _OF_KIND.get(kind, ())


def short_name(name: str) -> str:
    """The name of a column where ten bytes must do."""
    return BY_NAME[name].short if name in BY_NAME else name.encode()[:SHORT].decode(errors="ignore")


def title(name: str) -> str:
    """The name of a column for people; empty where the name itself must do."""
    return BY_NAME[name].title if name in BY_NAME else ""
