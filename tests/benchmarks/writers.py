"""Rows per second, file size and peak memory of the writers of vector layers.

    python tests/benchmarks/writers.py [--rows 1000000] [--folder DIR] [--formats gpkg,parquet,fgb,shp,geojson]

Polygons of 8 to 20 corners, half of them stairs as pixels make them, half turned as buildings are, are made batch by
batch and written as one layer: a tenth of the rows, then all, each in a process of its own. Seconds to make them are
taken off. `growth` is what a row more adds to the peak. `write_dataframe` and `to_parquet` are pyogrio's and GeoPandas'
own writers, given all rows in memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyproj
import shapely

from geoseg.legend import LAND_COVER
from geoseg.write.columns import columns_of, schema_of
from geoseg.write.vector import FORMATS, Layer, write_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH = 20_000
STEPS = (2, 3, 4, 5)
CELL_M = 30.0
ACROSS = 2000
UTM = pyproj.CRS.from_epsg(32631).to_wkt()
OWN = {"gpkg": "write_dataframe", "parquet": "to_parquet"}


def main() -> None:
    """Print the table, or, as a child, one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        measure(given.child, given.rows, given.folder)
        return
    print(f"{'format':<16} {'rows':>9} {'s':>7} {'rows/s':>8} {'MB':>7} {'bytes/row':>9}", end=" ")
    print(f"{'peak MB':>8} {'growth, bytes/row':>17}")
    for name in given.formats.split(","):
        compare(name, given.rows, given.folder)
        if name in OWN:
            compare(OWN[name], given.rows, given.folder)


def compare(name: str, most: int, folder: Path) -> None:
    """Print a line for a tenth of the rows, and one for all."""
    small = 0.0
    for rows in (most // 10, most):
        with tempfile.TemporaryDirectory(dir=folder) as work:
            command = [sys.executable, __file__, "--child", name, "--rows", str(rows), "--folder", work]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        seconds, size, peak = map(float, told)
        growth = f"{(peak - small) * 1e6 / (0.9 * most):17.0f}" if small else " " * 17
        print(f"{name:<16} {rows:9} {seconds:7.2f} {rows / seconds:8.0f} {size / 1e6:7.1f} {size / rows:9.0f}", end=" ")
        print(f"{peak:8.0f} {growth}", flush=True)
        small = peak


def measure(name: str, rows: int, folder: Path) -> None:
    """Print seconds, bytes of the files and peak of this process in MB."""
    layer = Layer("building", LAND_COVER.classes[1], schema_of(columns_of("object")), UTM, lambda: batches(rows))
    if name in OWN.values():
        seconds = write_whole(layer, name, folder)
    else:
        start = time.perf_counter()
        for _ in batches(rows):
            pass
        making = time.perf_counter() - start
        start = time.perf_counter()
        write_layers([layer], folder, "features", name)
        seconds = time.perf_counter() - start - making
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(seconds, size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def write_whole(layer: Layer, name: str, folder: Path) -> float:
    """Seconds that the libraries' own writers take."""
    import geopandas as gpd  # noqa: PLC0415  # for these alone

    table = pa.Table.from_batches(layer.batches())
    shapes = shapely.from_wkb(table.column("geometry").to_numpy())
    frame = gpd.GeoDataFrame(table.drop_columns(["geometry"]).to_pandas(), geometry=shapes, crs=UTM)
    del table
    start = time.perf_counter()
    if name == "to_parquet":
        frame.to_parquet(folder / "a.parquet", compression="zstd", schema_version="1.1.0", write_covering_bbox=True)
    else:
        frame.to_file(folder / "a.gpkg", engine="pyogrio", driver="GPKG")
    return time.perf_counter() - start


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    """So many features, the same each time, in the order of a scene: from north to south, then west to east."""
    for start in range(0, rows, BATCH):
        yield batch(start, min(BATCH, rows - start))


def batch(start: int, count: int) -> pa.RecordBatch:
    """Features from number `start` on."""
    random = np.random.default_rng(start)
    shapes = outlines(count, random)
    place = np.arange(start, start + count)
    centre = np.stack([400_000 + CELL_M * (place % ACROSS), 5_000_000 - CELL_M * (place // ACROSS)], axis=1)
    corners = shapely.get_num_coordinates(shapes)
    shapes = shapely.transform(shapes, lambda xy: xy + np.repeat(centre, corners, axis=0))
    confidence = np.round(random.uniform(0.5, 1, count), 4)
    columns = {
        "class": ["building"] * count,
        "code": np.ones(count, np.int32),
        "confidence": confidence,
        "confidence_min": np.round(confidence / 2, 2),
        "area_m2": np.round(shapely.area(shapes), 3),
        "perimeter_m": np.round(shapely.length(shapes), 3),
        "touches_edge": random.random(count) < 0.01,
        "orientation_deg": np.round(random.uniform(0, 180, count), 2),
        "geometry": pa.array(shapely.to_wkb(shapes), pa.binary()),
    }
    return pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})


def outlines(count: int, random: np.random.Generator) -> np.ndarray:
    """Bands of stairs around (0, 0), less than a cell large; every other one is turned."""
    steps = random.choice(STEPS, count)
    shapes = np.empty(count, object)
    for step in STEPS:
        own = np.flatnonzero(steps == step)
        along = np.cumsum(random.integers(1, 4, (len(own), 2, step + 2)) * 0.5, axis=2)  # x and y of each step
        along -= along.mean(axis=2, keepdims=True)
        k = np.arange(step)
        lower = np.stack([np.stack([k, k], 1), np.stack([k + 1, k], 1)], axis=1).reshape(-1, 2)
        upper = np.stack([np.stack([k + 1, k + 2], 1), np.stack([k, k + 2], 1)], axis=1)[::-1].reshape(-1, 2)
        index = np.concatenate([lower, upper])  # (4 steps, 2): which x, which y
        xy = np.stack([along[:, 0, index[:, 0]], along[:, 1, index[:, 1]]], axis=2)
        angle = np.where(random.random(len(own)) < 0.5, random.uniform(0, np.pi / 2, len(own)), 0)
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], axis=1)
        shapes[own] = shapely.polygons(xy @ turn)
    return shapes


if __name__ == "__main__":
    main()
