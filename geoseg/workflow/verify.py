"""`verify`: whether a finished run is still what it was when it finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyogrio
import rasterio
import shapely
from pyarrow import parquet

from geoseg.errors import RunFolderError
from geoseg.workflow.folder import MANIFEST, file_sha256, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VECTORS = {".gpkg", ".parquet", ".fgb", ".shp", ".geojson"}
_AT_A_TIME = 50_000


def verify_run(folder: Path) -> list[str]:
    """What is wrong with the run in a folder, a sentence each; nothing where all is well.

    Compares every output with its hash, opens rasters as COGs and reads all their blocks, and checks every geometry.
    A folder of several runs is verified run by run. Raises RunFolderError where there is no run.
    """
    if not (folder / MANIFEST).exists():
        runs = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
        if runs:
            return [wrong for run in runs for wrong in verify_run(run)]
    manifest = read_manifest(folder)
    found: list[str] = []
    for name, expected in manifest["outputs"].items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise RunFolderError(f"{folder / MANIFEST} lists {name}, which lies outside of the run")
        if not path.is_file():
            found.append(f"{path} is missing")
        elif file_sha256(path) != expected.get("sha256"):
            found.append(f"{path} is not what the run wrote: its SHA-256 differs from that in {MANIFEST}")
        elif path.suffix == ".tif":
            found += _raster_faults(path)
        elif path.suffix in _VECTORS:
            found += _vector_faults(path)
    return found


def _raster_faults(path: Path) -> Iterator[str]:
    try:
        with rasterio.open(path, driver="GTiff") as raster:
            if raster.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") != "COG":
                yield f"{path} is no cloud-optimised GeoTIFF"
            for _, window in raster.block_windows(1):
                raster.read(window=window)
    except rasterio.errors.RasterioError as error:
        yield f"{path} cannot be read: {error}"


def _vector_faults(path: Path) -> Iterator[str]:
    invalid: dict[str, int] = {}
    try:
        for layer, geometries in _geometries(path):
            invalid[layer] = invalid.get(layer, 0) + int((~shapely.is_valid(geometries)).sum())
    except (pyogrio.errors.DataSourceError, pa.ArrowException, OSError) as error:
        yield f"{path} cannot be read: {error}"
    yield from (f"{path}, layer {layer}: {count} geometries are invalid" for layer, count in invalid.items() if count)


def _geometries(path: Path) -> Iterator[tuple[str, Any]]:
    """Geometries of all layers of a file, some thousands at a time."""
    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_AT_A_TIME, columns=["geometry"]):
                yield path.stem, shapely.from_wkb(batch.column("geometry").to_numpy(zero_copy_only=False))
        return
    for layer, kind in pyogrio.list_layers(path):
        if kind is None:  # a table, as the styles are
            continue
        for start in range(0, pyogrio.read_info(path, layer=layer)["features"], _AT_A_TIME):
            frame = pyogrio.read_dataframe(path, layer=layer, skip_features=start, max_features=_AT_A_TIME)
            yield layer, frame.geometry.array
