"""Vector layers in the formats that GIS programs read, each file complete or not there."""

from __future__ import annotations

import re
import sqlite3
import warnings
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyogrio

from geoseg.errors import EnvironmentFault, MissingCrsError, UsageError
from geoseg.legend import ClassEntry
from geoseg.write.atomic import replacing
from geoseg.write.columns import BY_NAME, columns_of, short_name
from geoseg.write.style import layer_qml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import geopandas as gpd

    from geoseg.legend import Legend

FORMATS = ("gpkg", "parquet", "fgb", "shp", "geojson")

CENTERLINE = "_centerline"
"""What follows a class's name in the name of the layer of its centre lines."""

_DATE = "2000-01-01T00:00:00.000Z"
"""The time of change in all files, so that equal features make equal bytes; when they were made, run.json tells."""

_DRIVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "fgb": ("FlatGeobuf", {}),
    "shp": ("ESRI Shapefile", {"DBF_DATE_LAST_UPDATE": _DATE[:10], "ENCODING": "UTF-8"}),
    # Seven decimals of a degree are a centimetre.
    "geojson": ("GeoJSON", {"RFC7946": "YES", "COORDINATE_PRECISION": 7, "WRITE_NAME": "NO"}),
}

_OF_A_SHAPEFILE = (".shp", ".shx", ".dbf", ".prj", ".cpg")

_NOT_IN_NAMES = re.compile(r"[^\w-]+")
"""What file names do without, though layers may have it in theirs."""

_GEOMETRIES = (
    ({"Polygon"}, "Polygon"),
    ({"LineString"}, "LineString"),
    ({"Polygon", "MultiPolygon"}, "MultiPolygon"),
    ({"LineString", "MultiLineString"}, "MultiLineString"),
)

_STYLES = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
  f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))
"""


def write_layers(
    layers: Mapping[str, gpd.GeoDataFrame],
    folder: Path,
    stem: str,
    format: str,  # noqa: A002  # the word of the command line
    legend: Legend,
) -> list[Path]:
    """Write layers of features and return the files: one for all (gpkg), else one a layer (`STEM_LAYER.EXT`).

    A Shapefile is the set of its members, and all are returned. Features are counted by `fid`, from 1.

    Layers are named as their class (or class + `_centerline`). An empty one is written too, with the columns of its
    class, so that what reads the files need not ask which are there. GeoPackages carry a style for each layer.
    Equal features make equal bytes. Raises UsageError for an unknown format, MissingCrsError for GeoJSON without a
    CRS, EnvironmentFault where a file cannot be written or does not hold every feature afterwards.
    """
    if format not in FORMATS:
        raise UsageError(f"--format: {format!r} is not one of {', '.join(FORMATS)}")
    ready = {name: _complete(frame, _entry(name, legend)) for name, frame in layers.items()}
    files = layer_files(list(ready), folder, stem, format)
    if format == "gpkg":  # whose layers have a fid by their nature
        out = folder / f"{stem}.gpkg"
        _write_geopackage(ready, out, legend)
        return [out]
    for name, out in files.items():
        numbered = ready[name].copy(deep=False)
        numbered.insert(0, "fid", np.arange(1, len(numbered) + 1, dtype=np.int32))
        if format == "parquet":
            _write_parquet(numbered, out)
        else:
            _write_file(numbered, out, format)
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


def geometry_type(frame: gpd.GeoDataFrame, name: str) -> str:
    """What OGR calls the geometries of a layer; of an empty one, what its name says.

    Raises ValueError where a layer mixes areas, lines or points.
    """
    found = set(frame.geometry.geom_type.dropna())
    if not found:
        return "LineString" if name.endswith(CENTERLINE) else "Polygon"
    fitting = next((kind for kinds, kind in _GEOMETRIES if found <= kinds), None)
    if fitting is None:
        raise ValueError(f"layer {name!r} mixes geometries: {sorted(found)}")
    return fitting


def _entry(name: str, legend: Legend) -> ClassEntry:
    """The class of a layer; a grey one for layers of which the legend knows nothing."""
    class_name = name.removesuffix(CENTERLINE)
    known = next((entry for entry in legend.classes if entry.name in {name, class_name}), None)
    return known or ClassEntry(0, name, "#808080", "area")


def _complete(frame: gpd.GeoDataFrame, entry: ClassEntry) -> gpd.GeoDataFrame:
    """The layer with the types of the contract, which an empty frame has lost, and, if empty, its columns."""
    import geopandas as gpd  # noqa: PLC0415  # 1.5 s, and callers have it anyway

    if frame.empty:
        names = dict.fromkeys(column.name for column in columns_of(entry.kind))
        names |= dict.fromkeys(name for name in frame.columns if name != frame.active_geometry_name)
        crs = frame.crs if frame.active_geometry_name else None
        frame = gpd.GeoDataFrame({name: [] for name in names}, geometry=gpd.GeoSeries([], crs=crs), crs=crs)
    if frame.geometry.name != "geometry":
        frame = frame.rename_geometry("geometry")
    known = [name for name in frame.columns if name in BY_NAME]
    typed: gpd.GeoDataFrame = frame.astype({name: BY_NAME[name].dtype for name in known})
    return typed


def _write_geopackage(layers: Mapping[str, gpd.GeoDataFrame], out: Path, legend: Legend) -> None:
    with replacing(out) as partial:
        geometries = {name: geometry_type(frame, name) for name, frame in layers.items()}
        with _ogr():
            for name, frame in layers.items():
                pyogrio.write_dataframe(
                    frame, partial, layer=name, driver="GPKG", geometry_type=geometries[name],
                    # QGIS 3.22 and its like warn of version 1.4.
                    dataset_options={"VERSION": "1.3"},
                    # -1: an undefined Cartesian frame, as the standard has it; GDAL would invent a CRS.
                    layer_options={"SPATIAL_INDEX": "YES"} | ({} if frame.crs else {"SRID": -1}),
                )  # fmt: skip
        _add_styles(partial, {
            name: layer_qml(_entry(name, legend), geometries[name], _fields(frame)) for name, frame in layers.items()
        })  # fmt: skip
        for name, frame in layers.items():
            _check(partial, name, len(frame), out)


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


def _write_parquet(frame: gpd.GeoDataFrame, out: Path) -> None:
    from pyarrow.parquet import read_metadata  # noqa: PLC0415  # for this format alone

    with replacing(out) as partial:
        frame.to_parquet(partial, index=False, compression="zstd", schema_version="1.1.0", write_covering_bbox=True)
        _compare(read_metadata(partial).num_rows, len(frame), out)


def _write_file(frame: gpd.GeoDataFrame, out: Path, kind: str) -> None:
    driver, options = _DRIVERS[kind]
    if kind == "geojson" and frame.crs is None:
        raise MissingCrsError("GeoJSON is in WGS 84 by its standard and the scene has no CRS; use --format gpkg")
    geometry = geometry_type(frame, out.stem)
    if kind == "shp":
        names = {name: short_name(name) for name in _fields(frame)}
        if len(set(names.values())) < len(names):
            raise UsageError(f"--format shp: ten bytes a name do not keep apart the columns {list(names)}; use gpkg")
        frame = frame.rename(columns=names)
    with replacing(out) as partial:
        with _ogr():
            pyogrio.write_dataframe(frame, partial, driver=driver, geometry_type=geometry, layer_options=options)
        _check(partial, out.stem, len(frame), out)


def _fields(frame: gpd.GeoDataFrame) -> list[str]:
    return [name for name in frame.columns if name != frame.geometry.name]


@contextmanager
def _ogr() -> Iterator[None]:
    """OGR with a fixed date; its warning that a CRS is missing is nothing new to who has read the scene."""
    former = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _DATE})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": former})


def _check(path: Path, layer: str, wanted: int, out: Path) -> None:
    single = out.suffix == ".geojson"  # whose one layer OGR names as it likes
    info = pyogrio.read_info(path, layer=None if single else layer, force_feature_count=True)
    _compare(int(info["features"]), wanted, out)


def _compare(found: int, wanted: int, out: Path) -> None:
    if found != wanted:
        raise EnvironmentFault(f"{out} holds {found} of {wanted} features after writing; the disk is full or faulty")
