"""What a Shapefile cannot hold, and how its columns are named. See the ESRI Shapefile Technical Description, 1998."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from geoseg.errors import UsageError
from geoseg.write.columns import short_name
from geoseg.write.layer import GEOMETRY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIMIT_BYTES = 1 << 31
"""How large a .shp, or a .dbf, may be: what counts bytes by signed numbers reads no more."""

MOST_COLUMNS = 255

_HEAD_BYTES = 100
_MORE_THAN_WKB = {"Polygon": 43, "LineString": 47}
"""Bytes of a record over those of its WKB: its number and length, box and count of points, less the header of WKB."""

_WIDTHS = ((pa.types.is_boolean, 1), (pa.types.is_date, 8), (pa.types.is_int64, 18), (pa.types.is_integer, 9))
_NUMBER, _TEXT, _LONGEST_TEXT = 24, 80, 254
"""Widths of other columns, as GDAL makes them; a text that is longer makes its column wider."""


def shapefile_schema(schema: pa.Schema, layer: str) -> pa.Schema:
    """The schema with names of ten bytes; raises UsageError where that, or the number of columns, cannot be."""
    if len(schema) > MOST_COLUMNS:
        raise UsageError(
            f"--format shp: layer {layer!r} has {len(schema)} columns and a Shapefile at most {MOST_COLUMNS}; use gpkg"
        )
    names = [short_name(name) for name in schema.names]
    if len({name.lower() for name in names}) < len(names):
        raise UsageError(
            f"--format shp: ten bytes a name do not keep apart the columns {schema.names} of layer {layer!r}; use gpkg"
        )
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


def within_limits(groups: Iterable[pa.RecordBatch], layer: str, geometry: str) -> Iterator[pa.RecordBatch]:
    """The groups as they come; UsageError, with the size that all would have, instead of the first that is too much."""
    more = _MORE_THAN_WKB.get(geometry.removeprefix("Multi"), max(_MORE_THAN_WKB.values()))
    shp, dbf, rows, widths = _HEAD_BYTES, 0, 0, dict[str, int]()
    for group in groups:
        wkb = group.column(GEOMETRY)
        rows += len(group)
        shp += (pc.sum(pc.binary_length(wkb)).as_py() or 0) + more * len(group)
        for name in group.schema.names[:-1]:
            widths[name] = max(widths.get(name, 0), _width(group.column(name)))
        dbf = 32 * (len(widths) + 1) + 2 + rows * (1 + sum(widths.values()))
        if max(shp, dbf) <= LIMIT_BYTES:
            yield group
    if max(shp, dbf) > LIMIT_BYTES:
        suffix, size = max((shp, ".shp"), (dbf, ".dbf"))[::-1]
        raise UsageError(
            f"--format shp: layer {layer!r} needs a {suffix} of {_told(size)} and a Shapefile's end at "
            f"{_told(LIMIT_BYTES)}; use gpkg, fgb or parquet"
        )


def _width(column: pa.Array) -> int:
    """The bytes that a value takes in a .dbf."""
    kind = column.type
    for is_kind, width in _WIDTHS:
        if is_kind(kind):
            return width
    if pa.types.is_floating(kind):
        return _NUMBER
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    longest = pc.max(pc.binary_length(column)).as_py() if is_text else None
    return min(max(_TEXT, longest or 0), _LONGEST_TEXT)


def _told(size: int) -> str:
    return f"{size / (1 << 30):.1f} GB" if size >= 1 << 29 else f"{size / 1000:.1f} kB"
