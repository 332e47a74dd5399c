"""GeoParquet in a stream, with a bounding box beside each feature. See the GeoParquet specification, 1.1.0."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import shapely
from pyarrow import parquet

from geoseg.frame import parse_crs
from geoseg.write.layer import GEOMETRY, numbered, with_fid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from geoseg.write.layer import Layer

_BBOX = "bbox"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_BOX = pa.struct([(corner, pa.float64()) for corner in _CORNERS])


def write_geoparquet(layer: Layer, path: Path) -> int:
    """Write a layer as GeoParquet 1.1, one row group a group of features; returns how many it had.

    Outer rings run counter-clockwise. Raises OSError where the file cannot be written.
    """
    schema = with_fid(layer.schema).append(pa.field(GEOMETRY, pa.binary())).append(pa.field(_BBOX, _BOX))
    count, bounds, kinds = 0, np.full(4, np.nan), set[str]()
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in numbered(layer.groups()):
            shapes = shapely.orient_polygons(shapely.from_wkb(group.column(GEOMETRY).to_numpy(zero_copy_only=False)))
            boxes = shapely.bounds(shapes)
            writer.write_batch(_row_group(group, shapes, boxes, schema))
            count += len(group)
            bounds[:2] = np.fmin(bounds[:2], np.fmin.reduce(boxes[:, :2]))
            bounds[2:] = np.fmax(bounds[2:], np.fmax.reduce(boxes[:, 2:]))
            kinds.update(_kinds(shapes))
        geo = _metadata(layer, bounds, kinds or {layer.geometry})
        writer.add_key_value_metadata({"geo": json.dumps(geo, separators=(",", ":"))})
    return count


def _row_group(
    group: pa.RecordBatch, shapes: np.ndarray[Any, Any], boxes: np.ndarray[Any, Any], schema: pa.Schema
) -> pa.RecordBatch:
    wkb = pa.array(shapely.to_wkb(shapes, flavor="iso"), pa.binary())
    corners = [pa.array(column, from_pandas=True) for column in boxes.T]
    mask = pa.array(np.isnan(boxes[:, 0]))
    box = pa.StructArray.from_arrays(corners, fields=list(_BOX), mask=mask)
    return pa.RecordBatch.from_arrays([*group.columns[:-1], wkb, box], schema=schema)


def _kinds(shapes: np.ndarray[Any, Any]) -> Iterator[str]:
    """What kinds of geometries are there, as the specification names them."""
    for number in np.unique(shapely.get_type_id(shapes)):
        if number >= 0:  # -1: no geometry
            yield {1: "LineString", 3: "Polygon", 5: "MultiLineString", 6: "MultiPolygon"}[int(number)]


def _metadata(layer: Layer, bounds: np.ndarray[Any, Any], kinds: set[str]) -> dict[str, Any]:
    """The file's `geo` key: without a bbox where no feature has one, with the CRS null where there is none."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(kinds),
        "crs": parse_crs(layer.crs).to_json_dict() if layer.crs else None,
        "edges": "planar",
        "covering": {"bbox": {corner: [_BBOX, corner] for corner in _CORNERS}},
    }
    if "Polygon" in layer.geometry:
        column["orientation"] = "counterclockwise"
    if np.isfinite(bounds).all():
        column["bbox"] = bounds.tolist()
    return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
