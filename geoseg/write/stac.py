"""STAC 1.1: an item for the outputs of a run, a catalog for the runs of a batch."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg import __version__
from geoseg.frame import Frame, parse_crs
from geoseg.labels import PROBABILITY_STEPS
from geoseg.legend import NODATA, Legend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json = dict[str, Any]

STAC_VERSION = "1.1.0"
_SCHEMAS = "https://stac-extensions.github.io"
_EXTENSIONS = [f"{_SCHEMAS}/{name}/schema.json" for name in ("projection/v2.0.0", "file/v2.1.0", "processing/v1.2.0")]
_OF_ASSETS = {
    "classes": f"{_SCHEMAS}/classification/v2.0.0/schema.json",
    "change": f"{_SCHEMAS}/classification/v2.0.0/schema.json",
    "probabilities": f"{_SCHEMAS}/raster/v2.0.0/schema.json",
}
"""Extensions that come with an asset."""

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_KINDS = {  # by file name: asset key, media type, roles, title
    "classes.tif": ("classes", _COG, ["data"], "Class of each pixel"),
    "confidence.tif": ("confidence", _COG, ["data", "metadata"], "Probability of the winning class in percent"),
    "probabilities.tif": ("probabilities", _COG, ["data"], "Probability of each class"),
    "change.tif": ("change", _COG, ["data"], "Change of each pixel"),
    "magnitude.tif": ("magnitude", _COG, ["data"], "How much each pixel changed"),
    "project.qgs": ("project", "application/xml", ["visual"], "QGIS project"),
    "report.html": ("report", "text/html", ["overview"], "Report"),
    "run.json": ("run", "application/json", ["metadata"], "Manifest of the run"),
}
_VECTORS = {  # by suffix: media type
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet",
    ".fgb": "application/vnd.flatgeobuf",
    ".geojson": "application/geo+json",
    ".shp": "application/vnd.shp",
}
_LATER = {"project.qgs", "run.json"}
"""Written after the item, which names them all the same: a project must lie where its paths lead from."""
_SHA256_MULTIHASH = "1220"
"""Algorithm (0x12) and length (32 bytes) that precede a sha256 in a multihash."""
_EDGE_POINTS = 16
_DECIMALS = 7


@dataclass(frozen=True)
class RunRecord:
    """What an item says of a run, apart from its files."""

    name: str
    frame: Frame
    legend: Legend
    model: str
    processed: datetime
    acquired: datetime | None = None
    """When the scene was taken, if it is known."""
    catalog: str | None = None
    """Where the catalog of the batch lies, relative to the item."""
    began: datetime | None = None
    """When the earlier of two scenes was taken, if there are two, and it is known."""
    about: str | None = None
    """What the outputs are, in a sentence, if not the classes of a scene."""


def stac_item(folder: Path, record: RunRecord, sha256: Mapping[str, str] | None = None) -> Json:
    """The STAC item of the outputs that lie in `folder`, to be stored there as `item.json`.

    sha256: file name to hash, for files that were hashed already; others are read. All files in `folder` must be the
    run's; `run.json` and `project.qgs`, which are written after the item, are named without a hash. Without a CRS the
    item has no geometry; without a known time of acquisition `datetime` is the time of processing, and `description`
    says so.
    """
    geometry, bbox = footprint(record.frame)
    assets = _assets(folder, record, sha256 or {})
    batch = {"href": record.catalog, "type": "application/json"}
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": _EXTENSIONS + [_OF_ASSETS[key] for key in assets if key in _OF_ASSETS],
        "id": record.name,
        "geometry": geometry,
        **({} if bbox is None else {"bbox": bbox}),
        "properties": _properties(record),
        "links": [] if record.catalog is None else [{"rel": rel, **batch} for rel in ("root", "parent")],
        "assets": assets,
    }


def stac_catalog(folder: Path, items: Sequence[Path], *, name: str, description: str) -> Json:
    """The STAC catalog, to be stored in `folder` as `catalog.json`, that links items (paths of `item.json`)."""
    root = {"rel": "root", "href": "./catalog.json", "type": "application/json"}
    linked = [
        {"rel": "item", "href": _href(item, folder), "type": "application/geo+json", "title": item.parent.name}
        for item in items
    ]
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": name,
        "description": description,
        "links": [root, *linked],
    }


def tiff_datetime(text: str | None) -> datetime | None:
    """The time in a TIFF's DateTime tag (`YYYY:MM:DD HH:MM:SS`), taken as UTC; None where it is not one.

    >>> tiff_datetime("2020:07:08 10:11:12").isoformat()
    '2020-07-08T10:11:12+00:00'
    """
    try:
        return datetime.strptime((text or "").strip(), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def footprint(frame: Frame) -> tuple[Json | None, list[float] | None]:
    """Outline (GeoJSON geometry, WGS 84, counter-clockwise) and bbox of a frame; None, None where it has none.

    It has none without a CRS, or where its CRS leads some of it nowhere on the globe.

    Edges carry points between the corners, since straight lines of a map are bent on the globe. Across the
    antimeridian the outline is cut in two and the bbox runs from east to west, as RFC 7946 wants.
    """
    if frame.crs is None:
        return None, None
    import shapely  # noqa: PLC0415
    from pyproj import Transformer  # noqa: PLC0415

    height, width = frame.shape
    corners = np.array([(0, height), (width, height), (width, 0), (0, 0), (0, height)], float)  # col, row
    steps = np.arange(4 * _EDGE_POINTS + 1) / _EDGE_POINTS
    edge = np.minimum(steps.astype(int), 3)
    along = (steps - edge)[:, None]
    cols, rows = (corners[edge] * (1 - along) + corners[edge + 1] * along).T
    to_wgs84 = Transformer.from_crs(parse_crs(frame.crs), "EPSG:4326", always_xy=True)
    t = frame.transform
    lon, lat = to_wgs84.transform(t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None, None
    lon = np.degrees(np.unwrap(np.radians(lon)))  # a ring without a jump, even if it leaves -180..180
    # Points that a straight edge passes within a decimetre say nothing.
    outline = shapely.simplify(shapely.Polygon(np.round(np.column_stack([lon, lat]), _DECIMALS)), 1e-6)
    if not outline.is_valid:
        return None, None
    pieces = []
    for turn in (-360, 0, 360):
        piece = shapely.intersection(outline, shapely.box(-180 + turn, -90, 180 + turn, 90))
        if piece.area:
            pieces.append(shapely.transform(piece, lambda xy, turn=turn: xy - (turn, 0)))
    if not pieces:
        return None, None
    pieces = [shapely.orient_polygons(piece) for piece in pieces]
    whole = pieces[0] if len(pieces) == 1 else shapely.multipolygons(pieces)
    west, east = (round((edge + 180) % 360 - 180, _DECIMALS) for edge in (lon.min(), lon.max()))
    bbox = [west, round(float(lat.min()), _DECIMALS), east, round(float(lat.max()), _DECIMALS)]
    return shapely.geometry.mapping(whole), [float(value) for value in bbox]


def _properties(record: RunRecord) -> Json:
    frame = record.frame
    note = record.about or f"Land-cover classes and polygons of {record.name} by the model {record.model}."
    if record.acquired is None:
        note += " The time of acquisition is not known; datetime is the time of processing."
    properties: Json = {
        "title": record.name,
        "description": note,
        "datetime": _time(record.acquired or record.processed),
        "created": _time(record.processed),
        "processing:software": {"geoseg": __version__},
        "processing:lineage": f"geoseg {__version__}, {'model' if record.about is None else 'method'} {record.model}",
    }
    if record.began is not None and record.acquired is not None:
        properties |= {"start_datetime": _time(record.began), "end_datetime": _time(record.acquired)}
    if frame.crs is not None:
        crs = parse_crs(frame.crs)
        authority = crs.to_authority(min_confidence=100)
        properties["proj:code"] = ":".join(authority) if authority else None
        if not authority:
            properties["proj:wkt2"] = crs.to_wkt()
        properties["proj:bbox"] = [float(edge) for edge in frame.bounds]
    properties["proj:shape"] = list(frame.shape)
    properties["proj:transform"] = [float(value) for value in frame.transform[:6]]
    return properties


def _assets(folder: Path, record: RunRecord, sha256: Mapping[str, str]) -> dict[str, Json]:
    assets: dict[str, Json] = {}
    for name, (key, media, roles, title) in _KINDS.items():
        path = folder / name
        if not path.is_file() and name not in _LATER:
            continue
        assets[key] = {"href": f"./{name}", "type": media, "title": title, "roles": roles}
        if path.is_file() and name != "run.json":
            assets[key] |= _checksum(path, sha256)
        assets[key] |= _pixels(key, record.legend)
    for path in sorted(folder.iterdir()):
        if path.suffix in _VECTORS and not path.name.startswith("."):
            key = path.stem if path.stem not in assets else path.name
            assets[key] = {
                "href": f"./{path.name}", "type": _VECTORS[path.suffix], "title": "Polygons", "roles": ["data"],
            } | _checksum(path, sha256)  # fmt: skip
    return assets


def _pixels(key: str, legend: Legend) -> Json:
    """What the pixels of a raster asset mean."""
    common: Json = {"data_type": "uint8", "nodata": NODATA}
    if key in {"classes", "change"}:
        classes = [
            {
                "value": entry.code,
                "name": re.sub(r"[^0-9A-Za-z_-]", "_", entry.name),
                "title": entry.name,
                "description": entry.name,
                "color_hint": entry.color[1:].upper(),
            }
            for entry in legend.classes
        ]
        return {
            **common,
            "bands": [{"name": "class", "description": f"Code of the {'class' if key == 'classes' else key}"}],
            "classification:classes": classes,
        }
    if key == "magnitude":
        return {"data_type": "float32", "nodata": "nan", "bands": [{"name": "magnitude"}]}
    if key == "confidence":
        return {
            **common,
            "unit": "%",
            "bands": [{"name": "confidence", "description": "Probability of the winning class"}],
        }
    if key == "probabilities":
        scale = {"raster:scale": 1 / PROBABILITY_STEPS}
        return {
            **common,
            "bands": [{"name": name, "description": f"Probability of {name}", **scale} for name in legend.names],
        }
    return {}


def _checksum(path: Path, known: Mapping[str, str]) -> Json:
    digest = known.get(path.name)
    if digest is None:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"file:checksum": _SHA256_MULTIHASH + digest, "file:size": path.stat().st_size}


def _href(path: Path, folder: Path) -> str:
    relative = Path(os.path.relpath(path, folder)).as_posix()
    return relative if relative.startswith("../") else f"./{relative}"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
