"""The columns of vector layers: their types, and their names where there is room for more, or less, than the name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from geoseg.legend import Kind

SHORT = 10
"""Bytes that a Shapefile has for a name."""

_ARROW = {"object": "string"}
"""What Arrow calls a type where it is not what pandas calls it."""


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
    Column("from", "object", "from", "What it was"),
    Column("to", "object", "to", "What it is"),
    Column("magnitude", "float64", "magnitude", "Mean magnitude of change"),
    Column("confidence", "float64", "conf_mean", "Mean confidence (0-1)"),
    Column("confidence_min", "float64", "conf_min", "Lowest confidence (0-1)"),
    Column("area_m2", "float64", "area_m2", "Area (m²)"),
    Column("perimeter_m", "float64", "perim_m", "Perimeter (m)"),
    Column("touches_edge", "bool", "edge", "Cut by the edge"),
    Column("crosses_aoi", "bool", "cross_aoi", "Crosses the area of interest"),
    Column("orientation_deg", "float64", "orient_deg", "Orientation (°)"),
    Column("length_m", "float64", "length_m", "Length (m)"),
    Column("width_m", "float64", "width_m", "Width (m)"),
    Column("start_node", "int64", "start_node", "Node where it starts"),
    Column("end_node", "int64", "end_node", "Node where it ends"),
    Column("bridged", "bool", "bridged", "Bridges a gap"),
    Column("id", "object", "id", "Id"),
    Column("status", "object", "status", "Status"),
    Column("iou", "float64", "iou", "Overlap of both dates (IoU)"),
    Column("area_before_m2", "float64", "area_bef", "Area before (m²)"),
    Column("area_after_m2", "float64", "area_aft", "Area after (m²)"),
    Column("date_before", "object", "before", "Earlier date"),
    Column("date_after", "object", "after", "Later date"),
)
"""All that geoseg gives to a layer, in order; what else a layer holds is written as it is."""

BY_NAME = {column.name: column for column in COLUMNS}

_OF_ALL = tuple(
    BY_NAME[name]
    for name in ("class", "code", "confidence", "confidence_min", "area_m2", "perimeter_m", "touches_edge")
)
_OF_KIND: dict[Kind, tuple[Column, ...]] = {
    "object": (BY_NAME["orientation_deg"],),
    "line": (BY_NAME["length_m"], BY_NAME["width_m"]),
}

CENTERLINE_COLUMNS = tuple(
    BY_NAME[name] for name in ("class", "code", "length_m", "width_m", "start_node", "end_node", "bridged")
)
"""The columns that centre lines have."""


CHANGE_COLUMNS = tuple(
    BY_NAME[name]
    for name in (
        "class", "code", "from", "to", "magnitude", "confidence", "confidence_min", "area_m2", "perimeter_m",
        "touches_edge", "date_before", "date_after",
    )
)  # fmt: skip
"""The columns that polygons of change have."""


def columns_of(kind: Kind, *, crosses_aoi: bool = False) -> tuple[Column, ...]:
    """The columns that polygons of a kind of class have; `crosses_aoi` where objects are kept whole across an area.

    >>> [column.name for column in columns_of("line")][-2:]
    ['length_m', 'width_m']
    """
    return _OF_ALL + (BY_NAME["crosses_aoi"],) * crosses_aoi + _OF_KIND.get(kind, ())


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of columns.

    >>> schema_of(columns_of("area")).field("code").type
    DataType(int32)
    """
    import pyarrow as pa  # noqa: PLC0415  # styles need no more than names

    return pa.schema([(column.name, _ARROW.get(column.dtype, column.dtype)) for column in columns])


def short_name(name: str) -> str:
    """The name of a column where ten bytes must do."""
    return BY_NAME[name].short if name in BY_NAME else name.encode()[:SHORT].decode(errors="ignore")


def title(name: str) -> str:
    """The name of a column for people; empty where the name itself must do."""
    return BY_NAME[name].title if name in BY_NAME else ""
