"""Polygons of a large class raster: block by block on both cores, against one pass with rasterio and shapely.

    python tests/benchmarks/vectors.py [--side 16384] [--runs 3] [--folder DIR]

The raster is made of real labels of aerial imagery (naip_ca, from the data folder beside the repository), set
side by side and turned, with a confidence raster beside it. Timed in turn, each in processes of its own:

    one pass       rasterio.features.shapes over the whole raster, shapely polygons of it, GeoPackage by geopandas
    polygons       the same by geoseg: `vectorize --raw`
    tidied         `vectorize` with all filters, simplification, regular buildings, columns and centre lines

with wall time and peak memory of all processes together; the ratio is that of the medians to one pass. Counts and areas
of the polygons must be equal.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyogrio
import rasterio
from affine import Affine

from geoseg.legend import LAND_COVER
from geoseg.write.raster import LEGEND_TAG

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
_CHIP = 256
_AGAIN = {5: 0}  # car parks
Array = np.ndarray[Any, Any]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "geoseg-benchmarks"))
    parser.add_argument("--one-pass", nargs=2, metavar=("CLASSES", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_pass:
        one_pass(*map(Path, given.one_pass))
        return
    folder = given.folder / f"vectors-{given.side}"
    folder.mkdir(parents=True, exist_ok=True)
    classes = labels(folder, given.side)
    command = [sys.executable, "-m", "geoseg", "vectorize", str(classes), "--overwrite", "--out"]
    ways = {
        "one pass": [sys.executable, __file__, "--one-pass", str(classes), str(folder / "one.gpkg")],
        "polygons": [*command, str(folder / "raw.gpkg"), "--raw"],
        "tidied": [*command, str(folder / "tidy.gpkg")],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(given.runs):
        for name, way in ways.items():
            found[name].append(measured(way))
            print(f"{name:9}{found[name][-1][0]:8.1f} s {found[name][-1][1]:6.0f} MB", flush=True)
    print(f"\n{given.side} x {given.side} px\n| | s | to one pass | peak MB |\n| --- | --- | --- | --- |")
    reference = statistics.median(seconds for seconds, _ in found["one pass"])
    for name, runs in found.items():
        seconds, peak = statistics.median(s for s, _ in runs), max(mb for _, mb in runs)
        print(f"| {name} | {seconds:.1f} | {seconds / reference:.2f} | {peak:.0f} |")
    one, raw = (summary(folder / name) for name in ("one.gpkg", "raw.gpkg"))
    print(f"\npolygons and m2: one pass {one}, geoseg {raw}; {'equal' if one == raw else 'NOT EQUAL'}")


def labels(folder: Path, side: int) -> Path:
    """A class raster with legend and confidence; kept if it is there already."""
    path = folder / "classes.tif"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    chips = [read(chip) for chip in sorted((DATA / "naip_ca" / "labels").glob("*.tif"))]
    if not chips:
        sys.exit(f"no label rasters in {DATA / 'naip_ca' / 'labels'}")
    codes = np.zeros((side, side), np.uint8)
    for row in range(0, side, _CHIP):
        for col in range(0, side, _CHIP):
            chip = np.rot90(chips[rng.integers(len(chips))], rng.integers(4))
            codes[row : row + _CHIP, col : col + _CHIP] = chip[: side - row, : side - col]
    profile = {
        "driver": "GTiff", "count": 1, "height": side, "width": side, "dtype": "uint8", "nodata": 255, "tiled": True,
        "blockxsize": 512, "blockysize": 512, "compress": "deflate", "crs": "EPSG:26911",
        "transform": Affine(0.6, 0, 430_000, 0, -0.6, 3_770_000), "num_threads": 2,
    }  # fmt: skip
    with rasterio.open(folder / "confidence.tif", "w", **profile) as raster:
        raster.write(np.where(codes == 255, 255, 60 + codes * 7).astype(np.uint8), 1)
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(codes, 1)
        raster.update_tags(**{LEGEND_TAG: json.dumps(LAND_COVER.to_json())})
    return path


def read(chip: Path) -> Array:
    """The codes of a chip, those of land cover alone."""
    with rasterio.open(chip) as raster:
        codes: Array = raster.read(1)
    for code, other in _AGAIN.items():
        codes[codes == code] = other
    return codes[:_CHIP, :_CHIP]


def one_pass(classes: Path, out: Path) -> None:
    """What a script does without geoseg."""
    import geopandas as gpd  # noqa: PLC0415
    from rasterio.features import shapes  # noqa: PLC0415
    from shapely.geometry import shape  # noqa: PLC0415

    with rasterio.open(classes) as raster:
        codes, transform, crs = raster.read(1), raster.transform, raster.crs
    found = [(shape(geometry), int(code)) for geometry, code in shapes(codes, transform=transform) if 0 < code < 255]
    frame = gpd.GeoDataFrame({"code": [code for _, code in found]}, geometry=[g for g, _ in found], crs=crs)
    out.unlink(missing_ok=True)
    for entry in LAND_COVER.foreground:
        frame[frame.code == entry.code].to_file(out, layer=entry.name, driver="GPKG")


def summary(path: Path) -> tuple[int, float]:
    """Number of polygons, and their area."""
    count, area = 0, 0.0
    for entry in LAND_COVER.foreground:
        frame = pyogrio.read_dataframe(path, layer=entry.name, columns=[])
        count, area = count + len(frame), area + frame.area.sum()
    return count, round(area, 1)


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds, and the most MB that the process and its children had resident together (shared pages counted once)."""
    peak, stop = [0.0], threading.Event()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root = psutil.Process(process.pid)

    def watch() -> None:
        while not stop.wait(0.05):
            total = 0
            try:
                for one in (root, *root.children(recursive=True)):
                    info = one.memory_info()
                    total += info.rss - (info.shared if one is not root else 0)
            except psutil.Error:
                continue
            peak[0] = max(peak[0], total / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    stop.set()
    watcher.join()
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}")
    return time.perf_counter() - started, peak[0]


if __name__ == "__main__":
    main()
