"""Vector layers in the formats that GIS programs read, each file complete or not there."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import warnings
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyogrio
from pyarrow.parquet import read_metadata

from geoseg.errors import EnvironmentFault, UsageError
from geoseg.frame import parse_crs
from geoseg.write.atomic import replacing
from geoseg.write.geojson import DECIMALS, lonlat_groups
from geoseg.write.geoparquet import write_geoparquet
from geoseg.write.layer import CENTERLINE, GEOMETRY, Layer, numbered, with_fid
from geoseg.write.shapefile import shapefile_schema, within_limits
from geoseg.write.style import layer_qml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["CENTERLINE", "FORMATS", "Layer", "layer_files", "write_layers"]

FORMATS = ("gpkg", "parquet", "fgb", "shp", "geojson")

_DATE = "2000-01-01T00:00:00.000Z"
"""The time of change in all files, so that equal features make equal bytes; when they were made, run.json tells."""

_OGR_OPTIONS = {
    "OGR_CURRENT_DATE": _DATE,
    # Room for the spatial index of a GeoPackage that is being written, and who builds it: left to itself, GDAL lets
    # memory and processors of the machine decide, and with them the bytes of the file.
    "OGR_GPKG_MAX_RAM_USAGE_RTREE": 1 << 26,
    "OGR_GPKG_ALLOW_THREADED_RTREE": "NO",
}

_DRIVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "fgb": ("FlatGeobuf", {}),
    "shp": ("ESRI Shapefile", {"DBF_DATE_LAST_UPDATE": _DATE[:10], "ENCODING": "UTF-8"}),
    "geojson": ("GeoJSON", {"COORDINATE_PRECISION": DECIMALS, "WRITE_NAME": "NO"}),
}

_OF_A_SHAPEFILE = (".shp", ".shx", ".dbf", ".prj", ".cpg")

_NOT_IN_NAMES = re.compile(r"[^\w-]+")
"""What file names do without, though layers may have it in theirs."""

_STYLES = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
  f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))
"""


def write_layers(
    layers: Sequence[Layer],
    folder: Path,
    stem: str,
    format: str,  # noqa: A002  # the word of the command line
) -> list[Path]:
    """Write layers of features and return the files: one for all (gpkg), else one a layer (`STEM_LAYER.EXT`).

    Memory does not grow with the number of features, but by 90 bytes a feature for FlatGeobuf, whose index GDAL sorts
    in memory. A Shapefile is the set of its members, and all are returned. Features are counted by `fid`, from 1.
    GeoPackages carry a style for each layer. Equal features make equal bytes, however they were batched.

    Raises UsageError for an unknown format, and for what a Shapefile or a GeoJSON cannot hold; MissingCrsError for
    GeoJSON without a CRS; EnvironmentFault where a file cannot be written or does not hold every feature afterwards;
    and what the batches of a layer raise.
    """
    if format not in FORMATS:
        raise UsageError(f"--format: {format!r} is not one of {', '.join(FORMATS)}")
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        raise ValueError(f"two of the layers {names} have one name")
    files = layer_files(names, folder, stem, format)
    if format == "gpkg":  # whose layers have a fid by their nature
        out = folder / f"{stem}.gpkg"
        _write_geopackage(layers, out)
        return [out]
    with ExitStack() as written:  # all layers appear, or none
        for layer in layers:
            partial = written.enter_context(replacing(files[layer.name]))
            _write_file(layer, partial, files[layer.name])
    ends = _OF_A_SHAPEFILE if format == "shp" else (f".{format}",)
    every = [out.with_suffix(end) for out in files.values() for end in ends]
    return [path for path in every if path.exists()]  # without a CRS there is no .prj


def layer_files(names: Sequence[str], folder: Path, stem: str, format: str) -> dict[str, Path]:  # noqa: A002  # as above
    """The file of each layer as `write_layers` names it; raises UsageError where two layers would share one."""
    if format == "gpkg":
        return dict.fromkeys(names, folder / f"{stem}.gpkg")
    files = {name: folder / f"{stem}_{_NOT_IN_NAMES.sub('_', name)}.{format}" for name in names}
    if len(set(files.values())) < len(files):
        raise UsageError(f"--format {format}: two of the layers {list(files)} would share one file; use gpkg")
    return files


def _write_geopackage(layers: Sequence[Layer], out: Path) -> None:
    with replacing(out) as partial:
        counts = {
            layer.name: _write_ogr(
                layer, _Stream(layer.schema, layer.groups()), partial, driver="GPKG", layer=layer.name,
                # QGIS 3.22 and its like warn of version 1.4.
                dataset_options={"VERSION": "1.3"},
                # -1: an undefined Cartesian frame, as the standard has it; GDAL would invent a CRS.
                layer_options={"SPATIAL_INDEX": "YES"} | ({} if layer.crs else {"SRID": -1}),
            )
            for layer in layers
        }  # fmt: skip
        _add_styles(
            partial, {layer.name: layer_qml(layer.entries, layer.geometry, layer.schema.names) for layer in layers}
        )
        for name, count in counts.items():
            _check(partial, name, count, out)


def _add_styles(path: Path, styles: Mapping[str, str]) -> None:
    """The table in which QGIS, and what follows it, looks for a layer's style."""
    with closing(sqlite3.connect(path)) as database, database:
        columns = dict(database.execute("SELECT table_name, column_name FROM gpkg_geometry_columns"))
        database.execute(_STYLES)
        database.executemany(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner, ui, update_time) "
            "VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '', NULL, ?)",
            [(name, columns[name], name, qml, f"geoseg: {name}", _DATE) for name, qml in styles.items()],
        )
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change, srs_id) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?, 0)",
            (_DATE,),
        )


def _write_file(layer: Layer, partial: Path, out: Path) -> None:
    """Write a layer into a file of its own, and check it."""
    kind = out.suffix[1:]
    if kind == "parquet":
        wanted = write_geoparquet(layer, partial)
        _compare(read_metadata(partial).num_rows, wanted, out)
        return
    driver, options = _DRIVERS[kind]
    schema, groups = with_fid(layer.schema), numbered(layer.groups())
    if kind == "shp":
        schema = shapefile_schema(schema, layer.name)
        groups = within_limits(groups, layer.name, layer.geometry)
    if kind == "geojson":
        # The standard knows one CRS and has no word for it.
        layer, groups = replace(layer, crs=None), lonlat_groups(layer, groups)
    wanted = _write_ogr(layer, _Stream(schema, groups), partial, driver=driver, layer_options=options)
    _check(partial, partial.stem, wanted, out)


@dataclass
class _Stream:
    """Groups on their way into OGR, which tells neither how many features it got nor why there was no next group."""

    schema: pa.Schema
    groups: Iterable[pa.RecordBatch]
    count: int = 0
    error: BaseException | None = None

    def reader(self) -> pa.RecordBatchReader:
        schema = self.schema.append(pa.field(GEOMETRY, pa.binary()))
        return pa.RecordBatchReader.from_batches(schema, self._counted(schema))

    def _counted(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            for group in self.groups:
                self.count += len(group)
                yield pa.RecordBatch.from_arrays(group.columns, schema=schema)
        except GeneratorExit:  # OGR wants no more
            raise
        except BaseException as error:
            self.error = error
            raise


def _write_ogr(features: Layer, stream: _Stream, path: Path, **options: Any) -> int:
    """Write a layer by pyogrio with options of its own; returns how many features it had."""
    with _ogr():
        try:
            pyogrio.write_arrow(
                stream.reader(), path, geometry_name=GEOMETRY, geometry_type=features.geometry,
                crs=_ogr_crs(features.crs), **options,
            )  # fmt: skip
        except Exception as error:
            if stream.error is not None:
                raise stream.error from None
            if "sqlite3_" in str(error):  # which says what it could not do, and not that the disk was full
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from error
            raise
    return stream.count


def _ogr_crs(crs: str | None) -> str | None:
    """A CRS as OGR understands it best: by its EPSG code, which files then name."""
    if crs is None:
        return None
    parsed = parse_crs(crs)
    epsg = parsed.to_epsg()
    return f"EPSG:{epsg}" if epsg else parsed.to_wkt("WKT1_GDAL")


@contextmanager
def _ogr() -> Iterator[None]:
    """OGR with fixed options; its warning that a CRS is missing is nothing new to who has read the scene."""
    former = {name: pyogrio.get_gdal_config_option(name) for name in _OGR_OPTIONS}
    pyogrio.set_gdal_config_options(_OGR_OPTIONS)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            yield
    finally:
        pyogrio.set_gdal_config_options(former)


def _check(path: Path, layer: str, wanted: int, out: Path) -> None:
    single = out.suffix == ".geojson"  # whose one layer OGR names as it likes
    info = pyogrio.read_info(path, layer=None if single else layer, force_feature_count=True)
    _compare(int(info["features"]), wanted, out)


def _compare(found: int, wanted: int, out: Path) -> None:
    if found != wanted:
        raise EnvironmentFault(f"{out} holds {found} of {wanted} features after writing; the disk is full or faulty")
