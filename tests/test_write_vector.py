"""Laws of vector layers: streams in, files out that independent readers open and find complete."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyogrio
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from geoseg.errors import EnvironmentFault, MissingCrsError, UsageError
from geoseg.legend import LAND_COVER
from geoseg.write import FORMATS
from geoseg.write import layer as layer_module
from geoseg.write import shapefile as shapefile_module
from geoseg.write.columns import CENTERLINE_COLUMNS, COLUMNS, columns_of, schema_of
from geoseg.write.geojson import lonlat_groups
from geoseg.write.vector import Layer, write_layers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

UTM = pyproj.CRS.from_epsg(32631).to_wkt()
SHORT = {column.name: column.short for column in COLUMNS}
LINE = "road_centerline"


def frame_of(name: str, count: int, crs: str | None = UTM) -> gpd.GeoDataFrame:
    """Squares with round holes, or bent lines; the area of interest cuts buildings."""
    entry = next(entry for entry in LAND_COVER.classes if entry.name == name.removesuffix("_centerline"))
    x = 400_000 + 20 * np.arange(count)
    if name == LINE:
        geometry = [shapely.LineString([(at, 4_999_900), (at + 5, 4_999_900), (at + 9, 4_999_903)]) for at in x]
        known = CENTERLINE_COLUMNS
    else:
        geometry = [
            shapely.box(at, 4_999_900, at + 10, 4_999_910 + i) - shapely.Point(at + 5, 4_999_905).buffer(2)
            for i, at in enumerate(x)
        ]
        known = columns_of(entry.kind, crosses_aoi=entry.kind == "object")
    values = {
        "class": [entry.name] * count, "code": [entry.code] * count, "confidence": np.linspace(0.5, 1, count),
        "confidence_min": np.linspace(0.2, 0.4, count), "area_m2": [shape.area for shape in geometry],
        "perimeter_m": [shape.length for shape in geometry], "touches_edge": [i % 2 == 0 for i in range(count)],
        "crosses_aoi": [i % 3 == 0 for i in range(count)], "orientation_deg": [12.5] * count,
        "length_m": [shape.length for shape in geometry], "width_m": [3.0] * count,
        "start_node": [2**40 + i for i in range(count)], "end_node": [2**40 + i + 1 for i in range(count)],
        "bridged": [i % 2 == 1 for i in range(count)],
    }  # fmt: skip
    return gpd.GeoDataFrame(
        {column.name: values[column.name] for column in known}, geometry=gpd.GeoSeries(geometry, crs=crs), crs=crs
    )


def frames_of(crs: str | None = UTM) -> dict[str, gpd.GeoDataFrame]:
    counts = {"building": 5, "road": 2, "vegetation": 3, "water": 0, LINE: 4}
    return {name: frame_of(name, count, crs) for name, count in counts.items()}


def layers_of(crs: str | None = UTM) -> list[Layer]:
    return [Layer.of(name, frame, LAND_COVER) for name, frame in frames_of(crs).items()]


def rebatched(layer: Layer, sizes: Iterable[int]) -> Layer:
    """The same features in batches of these sizes, over and over."""

    def batches() -> Iterator[pa.RecordBatch]:
        table = pa.Table.from_batches(layer.batches())
        start = 0
        while start < len(table):
            for size in sizes:
                yield from table.slice(start, size).to_batches()
                start += size

    return replace(layer, batches=batches)


def read(path: Path, name: str) -> gpd.GeoDataFrame:
    """A layer with its fid, in the order of fid."""
    if path.suffix == ".parquet":
        return gpd.read_parquet(path)
    if path.suffix == ".gpkg":  # whose fid is no column but what rows are counted by
        return pyogrio.read_dataframe(path, layer=name, fid_as_index=True).reset_index()
    found = pyogrio.read_dataframe(path)
    # A FlatGeobuf's index puts features in an order of its own.
    return found.sort_values("fid", ignore_index=True) if len(found) else found


# -- streams -----------------------------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(4, 40), max_size=60),
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=5),
    rows=st.integers(1, 20),
    most=st.integers(100, 3000),
)
@settings(deadline=None, max_examples=60)
def test_groups_are_as_large_as_they_may_be_whatever_the_batches(
    lengths: list[int], sizes: list[int], rows: int, most: int
) -> None:
    shapes = [shapely.Point(0, 0).buffer(1).exterior.interpolate(np.arange(n) / n, normalized=True) for n in lengths]
    wkb = [shapely.to_wkb(shapely.LineString(points)) for points in shapes]
    table = pa.table({"k": pa.array(range(len(wkb)), pa.int16()), "geometry": pa.array(wkb, pa.binary())})
    schema = pa.schema([("k", pa.int32())])
    layer = Layer(LINE, LAND_COVER.classes[2], schema, None, table.to_batches, "LineString")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_module, "ROWS", rows)
        patch.setattr(layer_module, "GROUP_BYTES", most)
        groups = list(rebatched(layer, sizes).groups() if wkb else layer.groups())
    assert [key for group in groups for key in group.column("k").to_pylist()] == list(range(len(wkb)))
    assert [shape for group in groups for shape in group.column("geometry").to_pylist()] == wkb
    assert all(group.schema.field("k").type == pa.int32() for group in groups)
    weights = [[len(shape) for shape in group.column("geometry").to_pylist()] for group in groups]
    for weight in weights:
        assert len(weight) <= rows
        assert sum(weight) <= most or len(weight) == 1
    for weight, following in pairwise(weights):
        assert len(weight) == rows or sum(weight) + following[0] > most


@pytest.mark.parametrize("kind", FORMATS)
def test_equal_features_make_equal_bytes_however_they_are_batched(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_module, "ROWS", 7)
    layers = [Layer.of(name, frame_of(name, 40), LAND_COVER) for name in ("building", LINE)]
    layers += [Layer.of("water", frame_of("water", 0), LAND_COVER)]
    for folder, sizes in (("a", [40]), ("b", [40]), ("c", [3, 1, 11])):
        write_layers([rebatched(layer, sizes) for layer in layers[:2]] + layers[2:], tmp_path / folder, "x", kind)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    for folder in ("b", "c"):
        assert names == sorted(path.name for path in (tmp_path / folder).iterdir())
        for name in names:
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / folder / name).read_bytes(), name


@pytest.mark.parametrize("kind", FORMATS)
def test_what_goes_wrong_in_a_stream_is_told_and_leaves_what_was_there(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_module, "ROWS", 2)
    layer = Layer.of("building", frame_of("building", 9), LAND_COVER)
    write_layers([layer], tmp_path, "x", kind)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class SpillLostError(Exception):
        pass

    def broken() -> Iterator[pa.RecordBatch]:
        yield from rebatched(layer, [2]).batches()
        raise SpillLostError("block 7")

    water = Layer.of("water", frame_of("water", 3), LAND_COVER)  # whose file would be complete
    with pytest.raises(SpillLostError, match="block 7"):
        write_layers([water, replace(layer, batches=broken)], tmp_path, "x", kind)
    lacking = [batch.drop_columns(["confidence"]) for batch in layer.batches()]
    with pytest.raises(ValueError, match=r"'building'.*confidence"):
        write_layers([replace(layer, batches=lambda: lacking)], tmp_path, "x", kind)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["/usr/bin/env", "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts no tmpfs")
    layer = Layer.of("building", frame_of("building", 1000), LAND_COVER)
    batches = list(layer.batches())
    try:
        for kind in FORMATS:
            with pytest.raises(EnvironmentFault, match=rf"x.*\.{kind} cannot be written"):
                write_layers([replace(layer, batches=lambda: batches * 200)], disk, "x", kind)
            assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["/usr/bin/env", "umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpkg", "parquet"])
def test_memory_does_not_grow_with_the_features(tmp_path: Path, kind: str) -> None:
    """200 000 features more are 88 MB; the spatial index of a GeoPackage may add 10 MB to the peak."""
    peaks = []
    for rows in (100_000, 300_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        program = Path(__file__).parent / "benchmarks" / "writers.py"
        command = [sys.executable, program, "--child", kind, "--rows", str(rows), "--folder", folder]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peaks.append(float(told[2]))
    assert peaks[1] - peaks[0] < 35


# -- every format ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_keeps_features_columns_and_areas(tmp_path: Path, kind: str) -> None:
    frames = frames_of()
    files = write_layers(layers_of(), tmp_path, "features", kind)
    assert {path.parent for path in files} == {tmp_path}
    assert {path.name for path in files} == {path.name for path in tmp_path.iterdir()}
    assert len(files) == {"gpkg": 1, "shp": 25}.get(kind, 5)
    files = [path for path in files if path.suffix == f".{kind}"]
    short = SHORT if kind == "shp" else {}
    for index, (name, frame) in enumerate(frames.items()):
        found = read(files[0] if kind == "gpkg" else files[index], name)
        assert len(found) == len(frame)
        if kind == "geojson" and frame.empty:
            continue  # a GeoJSON without features has no columns
        assert list(found.columns) == ["fid", *(short.get(column, column) for column in frame.columns)]
        assert found.fid.tolist() == list(range(1, len(frame) + 1))
        if frame.empty:
            continue
        if kind == "geojson":
            assert found.crs.to_epsg() == 4326
            assert found.geometry.is_valid.all()
        else:
            assert found.crs == frame.crs
            assert shapely.equals(found.geometry.normalize(), frame.geometry.normalize()).all()
        shapes = found.geometry.to_crs(32631)
        rtol = 0.005 if kind == "geojson" else 1e-12
        np.testing.assert_allclose(shapes.area, frame.geometry.area, rtol=rtol)
        np.testing.assert_allclose(shapes.length, frame.geometry.length, rtol=rtol)
        for column in frame.columns.drop("geometry"):
            told = found[short.get(column, column)]
            kept = (
                np.allclose(told, frame[column]) if told.dtype.kind == "f" else told.tolist() == frame[column].tolist()
            )
            assert kept, column
            assert frame[column].dtype != bool or told.dtype == bool


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["road", LINE])
def test_a_layer_without_features_has_its_columns_and_geometry(tmp_path: Path, kind: str, name: str) -> None:
    empty = Layer.of(name, gpd.GeoDataFrame(geometry=[], crs=UTM), LAND_COVER)
    wanted = CENTERLINE_COLUMNS if name == LINE else columns_of("line")
    assert empty.schema == schema_of(wanted)
    files = write_layers([empty], tmp_path, "x", kind)
    path = next(path for path in files if path.suffix == f".{kind}")
    if kind == "parquet":
        schema = parquet.read_schema(path)
        assert schema.names == ["fid", *(column.name for column in wanted), "geometry", "bbox"]
        assert len(gpd.read_parquet(path)) == 0
        return
    info = pyogrio.read_info(path, layer=0, force_feature_count=True)
    assert info["features"] == 0
    if kind == "geojson":  # which has nowhere to say it
        return
    first = [] if kind == "gpkg" else ["fid"]
    assert list(info["fields"]) == first + [column.short if kind == "shp" else column.name for column in wanted]
    assert list(info["dtypes"])[len(first) :] == [column.dtype for column in wanted]
    assert info["geometry_type"] == ("LineString" if name == LINE else "Polygon")


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_not_known_is_null(tmp_path: Path, kind: str) -> None:
    frame = frame_of("building", 2).assign(orientation_deg=[np.nan, 30.0])
    files = write_layers([Layer.of("building", frame, LAND_COVER)], tmp_path, "x", kind)
    path = next(path for path in files if path.suffix == f".{kind}")
    assert read(path, "building")[SHORT["orientation_deg"] if kind == "shp" else "orientation_deg"].isna().tolist() == [
        True,
        False,
    ]
    if kind == "geojson":
        json.loads(path.read_text(), parse_constant=pytest.fail)
    if kind == "parquet":
        assert parquet.read_table(path).column("orientation_deg").null_count == 1


def test_other_columns_are_written_as_they_are(tmp_path: Path) -> None:
    frame = frame_of("water", 3).assign(note=["ä", None, "c"], small=np.arange(3, dtype=np.uint8))
    frame["group"] = frame.note.astype("category")
    [out] = write_layers([Layer.of("water", frame, LAND_COVER)], tmp_path, "x", "gpkg")
    found = read(out, "water")
    assert found.note.fillna("-").tolist() == ["ä", "-", "c"]
    assert found.group.fillna("-").tolist() == ["ä", "-", "c"]
    assert found.small.tolist() == [0, 1, 2]


def test_layers_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"kml.*gpkg, parquet"):
        write_layers(layers_of(), tmp_path, "features", "kml")
    with pytest.raises(MissingCrsError, match="GeoJSON"):
        write_layers(layers_of(None), tmp_path, "features", "geojson")
    with pytest.raises(ValueError, match="one name"):
        write_layers(layers_of()[:1] * 2, tmp_path, "features", "gpkg")
    mixed = gpd.GeoDataFrame(geometry=[shapely.Point(0, 0), shapely.box(0, 0, 1, 1)])
    with pytest.raises(ValueError, match="mixes"):
        Layer.of("water", mixed, LAND_COVER)
    assert list(tmp_path.iterdir()) == []


# -- GeoPackage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crs", [UTM, None], ids=["utm", "none"])
def test_a_geopackage_brings_its_styles(tmp_path: Path, crs: str | None) -> None:
    layers = layers_of(crs)
    names = {layer.name for layer in layers}
    [out] = write_layers(layers, tmp_path, "features", "gpkg")
    with closing(sqlite3.connect(out)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (10300,)
        contents = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents"))
        assert contents == dict.fromkeys(names, "features") | {"layer_styles": "attributes"}
        geometry = database.execute(
            "SELECT table_name, column_name, geometry_type_name, srs_id FROM gpkg_geometry_columns"
        )
        kinds = {name: (column, kind, srs) for name, column, kind, srs in geometry}
        srs = -1 if crs is None else 32631
        assert kinds["water"] == ("geom", "POLYGON", srs)
        assert kinds[LINE] == ("geom", "LINESTRING", srs)
        styles = database.execute(
            "SELECT f_table_name, f_geometry_column, styleQML FROM layer_styles WHERE useAsDefault = 1"
        ).fetchall()
        indexed = database.execute(
            "SELECT table_name FROM gpkg_extensions WHERE extension_name = 'gpkg_rtree_index'"
        ).fetchall()
        assert {name for (name,) in indexed} == names
        for layer in layers:
            [(checked,)] = database.execute("SELECT rtreecheck('main', ?)", [f"rtree_{layer.name}_geom"])
            assert checked == "ok"
    assert [row[:2] for row in styles] == [(layer.name, "geom") for layer in layers]
    qml = {name: ET.fromstring(text) for name, _, text in styles}  # noqa: S314  # our own
    fill = qml["building"].find(".//Option[@name='color']").get("value")
    assert fill.split(",")[:3] == [str(value) for value in LAND_COVER.classes[1].rgb]
    assert 0 < int(fill.split(",")[3]) < 255
    assert qml[LINE].find(".//symbol").get("type") == "line"
    for name, columns in (("road", columns_of("line")), (LINE, CENTERLINE_COLUMNS)):
        aliases = {alias.get("field"): alias.get("name") for alias in qml[name].iter("alias")}
        assert aliases == {column.name: column.title for column in columns}


# -- GeoParquet --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crs", [UTM, None], ids=["utm", "none"])
def test_a_geoparquet_says_what_the_specification_asks_for(
    tmp_path: Path, crs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_module, "ROWS", 16)
    frame = frame_of("building", 50, crs)
    frame.geometry = frame.geometry.reverse()  # which the writer turns again
    [out] = write_layers([Layer.of("building", frame, LAND_COVER)], tmp_path, "x", "parquet")
    file = parquet.ParquetFile(out)
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [16, 16, 16, 2]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    geo = json.loads(file.metadata.metadata[b"geo"])
    assert set(geo) == {"version", "primary_column", "columns"}
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    [(name, column)] = geo["columns"].items()
    bounds = frame.total_bounds.tolist()
    covering = {corner: ["bbox", corner] for corner in ("xmin", "ymin", "xmax", "ymax")}
    assert name == "geometry"
    assert column.pop("crs") == (pyproj.CRS(UTM).to_json_dict() if crs else None)
    assert column == {
        "encoding": "WKB", "geometry_types": ["Polygon"], "edges": "planar", "orientation": "counterclockwise",
        "bbox": bounds, "covering": {"bbox": covering},
    }  # fmt: skip
    table = file.read()
    assert table.schema.field("geometry").type == pa.binary()
    boxes = np.array([[box[corner] for corner in covering] for box in table.column("bbox").to_pylist()])
    shapes = shapely.from_wkb(table.column("geometry").to_numpy())
    np.testing.assert_array_equal(boxes, shapely.bounds(shapes))
    assert shapely.is_ccw(shapely.get_exterior_ring(shapes)).all()
    assert not shapely.is_ccw(shapely.get_interior_ring(shapes, 0)).any()
    # Statistics of each row group let readers pass over those that lie elsewhere.
    group = file.metadata.row_group(1)
    xmin = next(group.column(k) for k in range(group.num_columns) if group.column(k).path_in_schema == "bbox.xmin")
    assert xmin.statistics.min == boxes[16:32, 0].min()


def test_a_geoparquet_is_read_by_window(tmp_path: Path) -> None:
    frame = frame_of("building", 50)
    [out] = write_layers([Layer.of("building", frame, LAND_COVER)], tmp_path, "x", "parquet")
    window = (400_205, 4_999_800, 400_301, 5_000_000)
    found = gpd.read_parquet(out, bbox=window)
    wanted = frame[frame.intersects(shapely.box(*window))]
    assert 0 < len(wanted) < len(frame)
    assert found.area_m2.tolist() == wanted.area_m2.tolist()
    assert found.crs == frame.crs


# -- GeoJSON -----------------------------------------------------------------------------------------------------------

SCENES = [(32601, 50), (32660, 50), (32701, -17), (32760, -17), (3832, -17), (2193, -44), (32631, 50), (3413, 75)]


@pytest.mark.parametrize(("epsg", "latitude"), SCENES)
def test_a_geojson_is_cut_at_the_antimeridian(tmp_path: Path, epsg: int, latitude: float) -> None:
    """Stars, one with a hole, on a line across 180 degrees (or in zone 31, where nothing is to be cut)."""
    to_map = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
    across = epsg != 32631
    angles = np.arange(14) * np.pi / 7
    outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.where(np.arange(14) % 2, 30, 20)[:, None]
    centres = np.array([to_map.transform(180 if across else 3, latitude)]) + [[40 * k, 3 * k] for k in range(-6, 7)]
    shapes = shapely.polygons(outline + centres[:, None])
    shapes[3] = shapely.difference(shapes[3], shapely.buffer(shapely.points(centres[3]), 5))
    shapes[6] = shapely.difference(shapes[6], shapely.buffer(shapely.points(centres[6]), 5))
    frame = gpd.GeoDataFrame({"code": np.full(13, 4)}, geometry=shapes, crs=epsg)
    [out] = write_layers([Layer.of("water", frame, LAND_COVER)], tmp_path, "x", "geojson")
    document = json.loads(out.read_text(), parse_float=str)
    numbers = [number for feature in document["features"] for number in flat(feature["geometry"]["coordinates"])]
    assert max(len(str(number).partition(".")[2]) for number in numbers) <= 7
    assert "crs" not in document
    found = read(out, "x")
    parts = shapely.get_parts(found.geometry.array)
    west, south, east, north = shapely.bounds(parts).T
    assert found.is_valid.all()
    assert shapely.is_ccw(shapely.get_exterior_ring(parts)).all()
    assert (west >= -180).all()
    assert (east <= 180).all()
    assert (east - west).max() < 0.01
    assert (north - south).max() < 0.01
    cut = found[found.geom_type == "MultiPolygon"]
    assert (len(cut) > 0) == across
    # What was cut comes together again as what went in.
    back = [shapely.transform(shape, lambda xy: np.stack(to_map.transform(*xy.T), axis=1)) for shape in found.geometry]
    for shape, wanted in zip(back, shapes, strict=True):
        assert shapely.symmetric_difference(shape, wanted).area < 0.01 * wanted.area


@pytest.mark.parametrize(
    ("epsg", "wanted"),
    [
        (4326, [shapely.box(-180, -80, 175, 80), shapely.box(-179, 0, 179, 10) - shapely.box(-9, 2, 9, 8)]),
        (4326, [shapely.box(-170, 20, -160, 30), shapely.box(1, 2, 3, 4)]),
        (3857, [shapely.segmentize(shapely.box(-180, -10, 175, 10), 50)]),
    ],
)
def test_a_wide_feature_is_not_taken_for_one_across_the_antimeridian(
    tmp_path: Path, epsg: int, wanted: list[shapely.Geometry]
) -> None:
    frame = gpd.GeoDataFrame({"code": np.zeros(len(wanted), int)}, geometry=wanted, crs=4326).to_crs(epsg)
    [out] = write_layers([Layer.of("water", frame, LAND_COVER)], tmp_path, "x", "geojson")
    assert shapely.equals(shapely.set_precision(read(out, "x").geometry.array, 1e-6), wanted).all()


def test_longitudes_beyond_180_come_back(tmp_path: Path) -> None:
    shapes = [shapely.box(190, 20, 200, 30), shapely.box(170, 0, 200, 5), shapely.box(0, 0, 360, 10)]
    frame = gpd.GeoDataFrame({"code": [4, 4, 4]}, geometry=shapes, crs=4326)
    [out] = write_layers([Layer.of("water", frame, LAND_COVER)], tmp_path, "x", "geojson")
    bounds = [sorted(part.bounds for part in shapely.get_parts(shape)) for shape in read(out, "x").geometry]
    assert bounds == [
        [(-170, 20, -160, 30)],
        [(-180, 0, -160, 5), (170, 0, 180, 5)],
        [(-180, 0, 180, 10)],
    ]


@pytest.mark.parametrize(
    ("crs", "shape", "error"),
    [
        ("EPSG:3413", shapely.box(-1000, -1000, 1000, 1000), UsageError),
        ("EPSG:32631", shapely.box(1e12, 0, 1e12 + 10, 10), UsageError),
        ('LOCAL_CS["site",UNIT["metre",1]]', shapely.box(0, 0, 1, 1), MissingCrsError),
    ],
)
def test_what_longitudes_and_latitudes_cannot_draw_is_refused(
    tmp_path: Path, crs: str, shape: shapely.Geometry, error: type[Exception]
) -> None:
    frame = gpd.GeoDataFrame({"code": [4]}, geometry=[shape], crs=crs)
    with pytest.raises(error, match=r"GeoJSON|geojson.*gpkg"):
        write_layers([Layer.of("water", frame, LAND_COVER)], tmp_path, "x", "geojson")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.tuples(*[st.floats(-0.1, 0.1)] * 6), min_size=1, max_size=20))
@settings(deadline=None, max_examples=40)
def test_seven_decimals_make_no_feature_invalid(corners: list[tuple[float, ...]]) -> None:
    """Triangles of centimetres on a thin strip."""
    xy = np.array(corners).reshape(-1, 3, 2) + [[0, 0], [3, 0.01], [6, 0]] + (500_000, 5_000_000)
    shapes = shapely.polygons(xy)
    shapes = shapes[shapely.is_valid(shapes) & (shapely.area(shapes) > 0.02)]
    layer = Layer.of(
        "water", gpd.GeoDataFrame({"code": np.zeros(len(shapes), int)}, geometry=shapes, crs=UTM), LAND_COVER
    )
    for group in lonlat_groups(layer, layer.groups()):
        found = shapely.from_wkb(group.column("geometry").to_numpy(zero_copy_only=False))
        assert shapely.is_valid(found).all()
        units = shapely.get_coordinates(found) * 1e7
        np.testing.assert_allclose(units, np.round(units), rtol=0, atol=1e-5)


def flat(nested: list) -> Iterator[str]:
    for value in nested:
        if isinstance(value, list):
            yield from flat(value)
        else:
            yield value


# -- Shapefile ---------------------------------------------------------------------------------------------------------


def test_no_column_name_is_too_long_for_a_shapefile() -> None:
    shorts = [column.short for column in COLUMNS]
    assert len(set(shorts)) == len(shorts)
    assert all(len(name.encode()) <= 10 for name in shorts)
    assert all(column.title for column in COLUMNS)


@pytest.mark.parametrize("name", ["building", LINE])
@pytest.mark.parametrize("letters", [3, 200])
def test_a_shapefile_is_refused_one_byte_beyond_its_limit(
    tmp_path: Path, name: str, letters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_module, "ROWS", 10)
    frame = frame_of(name, 45).assign(note=["ü" * 3] * 44 + ["x" * letters])
    layer = Layer.of(name, frame, LAND_COVER)
    files = write_layers([layer], tmp_path / "free", "x", "shp")
    size = max(path.stat().st_size for path in files if path.suffix in {".shp", ".dbf"})
    monkeypatch.setattr(shapefile_module, "LIMIT_BYTES", size)
    write_layers([layer], tmp_path / "exact", "x", "shp")
    monkeypatch.setattr(shapefile_module, "LIMIT_BYTES", size - 1)
    with pytest.raises(
        UsageError, match=rf"'{name}' needs a \.(shp|dbf) of {size / 1000:.1f} kB.*gpkg, fgb or parquet"
    ):
        write_layers([replace(layer, name="small", batches=list), layer], tmp_path / "beyond", "x", "shp")
    assert list((tmp_path / "beyond").iterdir()) == []


def test_columns_that_a_shapefile_cannot_keep_are_refused(tmp_path: Path) -> None:
    frame = frame_of("water", 2)
    columns = {f"c{k}": [k, k] for k in range(255)}  # and fid
    many = gpd.GeoDataFrame(columns, geometry=frame.geometry)
    with pytest.raises(UsageError, match="256 columns"):
        write_layers([Layer.of("water", many, LAND_COVER)], tmp_path, "x", "shp")
    alike = frame.assign(confidence_of_me=[1, 2], Confidence_of_you=[1, 2])
    with pytest.raises(UsageError, match="keep apart"):
        write_layers([Layer.of("water", alike, LAND_COVER)], tmp_path, "x", "shp")
    assert list(tmp_path.iterdir()) == []
