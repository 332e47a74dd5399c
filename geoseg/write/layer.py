"""Layers of features that are written while they come: no layer is ever whole in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from geoseg.legend import ClassEntry
from geoseg.write.columns import BY_NAME, CENTERLINE_COLUMNS, columns_of, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import geopandas as gpd

    from geoseg.legend import Legend

Geometry = Literal["Polygon", "LineString", "MultiPolygon", "MultiLineString"]
"""What OGR calls the geometries of a layer."""

CENTERLINE = "_centerline"
"""What follows a class's name in the name of the layer of its centre lines."""

GEOMETRY = "geometry"
"""The column of geometries, as WKB."""

ROWS = 50_000
GROUP_BYTES = 1 << 25
"""The most features, and bytes of WKB, that are written at a time (one feature may be larger)."""

_GEOMETRIES: tuple[tuple[set[str], Geometry], ...] = (
    ({"Polygon"}, "Polygon"),
    ({"LineString"}, "LineString"),
    ({"Polygon", "MultiPolygon"}, "MultiPolygon"),
    ({"LineString", "MultiLineString"}, "MultiLineString"),
)


@dataclass(frozen=True)
class Layer:
    """Features of one class, or several, batch by batch, with all that must be known before the first of them.

    name: that of the class, or of the class + `_centerline`; entry: its class, grey where the legend knows none;
    schema: the columns in order, without geometry and fid; crs: as WKT, None for nowhere; batches: each call gives all
    features again, as record batches of any size, possibly none, with the geometry as WKB in the column `geometry`.
    Columns are taken by name and cast to the schema; others are left out.
    """

    name: str
    entry: ClassEntry
    schema: pa.Schema
    crs: str | None
    batches: Callable[[], Iterable[pa.RecordBatch]]
    geometry: Geometry = "Polygon"
    categories: tuple[ClassEntry, ...] = ()
    """The classes that its column `class` tells apart, where it holds several."""

    @property
    def entries(self) -> tuple[ClassEntry, ...]:
        """The classes that it is drawn by."""
        return self.categories or (self.entry,)

    @classmethod
    def of(cls, name: str, frame: gpd.GeoDataFrame, legend: Legend) -> Layer:
        """The layer of features in memory; an empty frame has at least the columns of its class.

        Raises ValueError where it mixes areas, lines or points.
        """
        entry = _entry(name, legend)
        own = frame.active_geometry_name
        rows = frame[[column for column in frame.columns if column != own]]
        inferred = pa.Schema.from_pandas(rows, preserve_index=False)
        found = {field.name: field.with_type(_plain(field.type)) for field in inferred}
        if frame.empty:
            of_class = CENTERLINE_COLUMNS if name.endswith(CENTERLINE) else columns_of(entry.kind)
            found = {field.name: field for field in schema_of(of_class)} | found
        known = {field.name: field for field in schema_of(BY_NAME[name] for name in found if name in BY_NAME)}
        schema = pa.schema([known.get(name, field) for name, field in found.items()])

        def batches() -> Iterator[pa.RecordBatch]:
            for start in range(0, len(frame), ROWS):
                part = slice(start, start + ROWS)
                table = pa.Table.from_pandas(rows.iloc[part], inferred, preserve_index=False)
                wkb = pa.array(shapely.to_wkb(frame.geometry.iloc[part].to_numpy()), pa.binary())
                yield from table.append_column(GEOMETRY, wkb).to_batches()

        crs = frame.crs if own else None
        kind = _geometry(frame, name) if own else _expected(name)
        return cls(name, entry, schema, crs.to_wkt() if crs else None, batches, kind)

    def groups(self) -> Iterator[pa.RecordBatch]:
        """All features, `ROWS` at a time or as many as `GROUP_BYTES` hold, whatever the batches were.

        Raises ValueError where a batch lacks a column.
        """
        schema = self.schema.append(pa.field(GEOMETRY, pa.binary()))
        held: list[pa.Table] = []
        count = size = 0
        for batch in self.batches():
            table = self._fitted(batch, schema)
            sizes = pc.fill_null(pc.binary_length(table.column(GEOMETRY)), 0).to_numpy().astype(np.int64)
            start = 0
            while start < len(table):
                ends = size + np.cumsum(sizes[start : start + ROWS - count])
                more = int(np.searchsorted(ends, GROUP_BYTES, side="right"))
                if not more and not count:  # larger than a group: alone
                    more = 1
                if more:
                    held.append(table.slice(start, more))
                    start, count, size = start + more, count + more, int(ends[more - 1])
                if start < len(table):
                    yield _joined(held)
                    held, count, size = [], 0, 0
        if held:
            yield _joined(held)

    def _fitted(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
        """A batch with the columns of the schema; what is not a number is null, since JSON and SQL know no NaN."""
        missing = sorted(set(schema.names) - set(batch.schema.names))
        if missing:
            raise ValueError(f"layer {self.name!r}: a batch lacks the columns {missing}")
        columns = [batch.column(field.name).cast(field.type) for field in schema]
        for index, field in enumerate(schema):
            if pa.types.is_floating(field.type):
                columns[index] = pc.if_else(pc.is_nan(columns[index]), None, columns[index])
        return pa.Table.from_arrays(columns, schema=schema)


def numbered(groups: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Groups with a first column `fid`, from 1."""
    start = 1
    for group in groups:
        fid = pa.array(np.arange(start, start + len(group), dtype=np.int32))
        names = ["fid", *group.schema.names]
        yield pa.RecordBatch.from_arrays([fid, *group.columns], names=names)
        start += len(group)


def with_fid(schema: pa.Schema) -> pa.Schema:
    """The schema of what `numbered` gives."""
    return schema.insert(0, pa.field("fid", pa.int32()))


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type that all formats have, for one that pandas alone has: categories, or nothing known."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.string() if pa.types.is_null(kind) else kind


def _joined(tables: list[pa.Table]) -> pa.RecordBatch:
    [batch] = pa.concat_tables(tables).combine_chunks().to_batches()
    return batch


def _entry(name: str, legend: Legend) -> ClassEntry:
    """The class of a layer; a grey one for layers of which the legend knows nothing."""
    class_name = name.removesuffix(CENTERLINE)
    known = next((entry for entry in legend.classes if entry.name in {name, class_name}), None)
    return known or ClassEntry(0, name, "#808080", "area")


def _geometry(frame: gpd.GeoDataFrame, name: str) -> Geometry:
    found = set(frame.geometry.geom_type.dropna())
    if not found:
        return _expected(name)
    fitting = next((kind for kinds, kind in _GEOMETRIES if found <= kinds), None)
    if fitting is None:
        raise ValueError(f"layer {name!r} mixes geometries: {sorted(found)}")
    return fitting


def _expected(name: str) -> Geometry:
    return "LineString" if name.endswith(CENTERLINE) else "Polygon"
