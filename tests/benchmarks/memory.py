"""Peak memory: of a worker against what `geoseg plan` predicts, and of all processes as the scene grows.

    python tests/benchmarks/memory.py [MODEL] [--small 4096] [--large 20480] [--folder DIR] [--synthetic]

First table: for each setting one worker segments a scene of noise, four blocks large; printed are the peak resident
size of the worker, the prediction, and their ratio. Second table: a small and a large scene with the same settings and
a tiny untrained network, on two local workers and on a `dask scheduler` with two workers; printed are the largest
worker, its ratio to the prediction and to that of the small scene, and the client and the scheduler. With local workers
the scheduler lives in the client.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from quilt import ROLES, quilt
from rasterio.windows import Window

sys.path.append(str(Path(__file__).resolve().parents[1]))
from processes import dask_scheduler, dask_worker, record_of, segment, wait_for_workers
from scenes import save_small_bundle

SETTINGS = (
    {"tile": 256, "threads": 2, "block": 1024},
    {"tile": 512, "threads": 1, "block": 1024},
    {"tile": 512, "threads": 2, "block": 1024},
    {"tile": 512, "threads": 2, "block": 2048},
    {"tile": 512, "threads": 2, "block": 4096},
)


@dataclass(frozen=True)
class Peaks:
    """What a run took, in MB; `scheduler_mb` is 0 where it was part of the client."""

    worker_mb: float
    client_mb: float
    scheduler_mb: float
    seconds: float


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="aerial")
    parser.add_argument("--small", type=int, default=4096)
    parser.add_argument("--large", type=int, default=20480)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "geoseg-benchmarks"))
    parser.add_argument("--synthetic", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print_settings(given.folder, given.model)
    scenes = [
        quilt(given.folder / f"memory_{side}.tif", side, synthetic=given.synthetic)
        for side in (given.small, given.large)
    ]
    print_growth(given.folder, scenes)


def print_settings(folder: Path, model: str) -> None:
    """Peak of one worker by tile, threads and block."""
    print(f"{'tile':>5} {'threads':>7} {'block':>5} {'peak MB':>8} {'plan MB':>8} {'ratio':>6}")
    for details in SETTINGS:
        scene = write_noise(folder / f"noise_{2 * details['block']}.tif", 2 * details["block"])
        options = ["--model", model, "--workers", "1", "--no-vectors"]
        options += [word for name, value in details.items() for word in (f"--{name}", str(value))]
        planned = predict(scene, options)
        peak = measure(scene, options).worker_mb
        print(f"{details['tile']:5} {details['threads']:7} {details['block']:5}", end=" ")
        print(f"{peak:8.0f} {planned:8.0f} {peak / planned:6.2f}", flush=True)


def print_growth(folder: Path, scenes: list[Path]) -> None:
    """Peaks of all processes, scene by scene."""
    print(f"\n{'scene':<18} {'cluster':<13} {'worker MB':>9} {'to plan':>7} {'to small':>8}", end=" ")
    print(f"{'client MB':>9} {'scheduler MB':>12} {'seconds':>7}")
    with tempfile.TemporaryDirectory(dir=folder) as work:
        model = Path(work, "tiny")
        save_small_bundle(model, tile=512)
        options = ["--model", str(model), "--block", "2048", "--workers", "2", "--threads", "1", "--no-vectors"]
        for remote in (False, True):
            first = 0.0
            for scene in scenes:
                peaks = measure(scene, options, remote=remote)
                first = first or peaks.worker_mb
                print(f"{scene.stem:<18} {'dask worker' if remote else 'local':<13} {peaks.worker_mb:9.0f}", end=" ")
                print(f"{peaks.worker_mb / predict(scene, options):7.2f} {peaks.worker_mb / first:8.2f}", end=" ")
                print(f"{peaks.client_mb:9.0f} {peaks.scheduler_mb:12.0f} {peaks.seconds:7.1f}", flush=True)


def predict(scene: Path, options: list[str]) -> float:
    """Predicted memory of a worker, in MB."""
    command = [sys.executable, "-m", "geoseg", "plan", scene, "--json", *options]
    return float(json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["memory_mb"])


def measure(scene: Path, options: list[str], *, remote: bool = False) -> Peaks:
    """Segment a scene on fresh processes, with two `dask worker` if `remote`."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scene.parent)))
        scheduler = None
        if remote:
            scheduler, address = stack.enter_context(dask_scheduler(work))
            for name in ("first", "second"):
                stack.enter_context(dask_worker(address, work, name))
            wait_for_workers(address, 2)
            options = [*options, "--scheduler", address]
        client = stack.enter_context(segment(scene, "--out", work / "out", *options, log=work / "log"))
        if client.finish(3600) != 0:
            raise SystemExit(client.said)
        record = record_of(work / "out")
        worker = max(one["peak_rss_mb"] for one in record["workers"])
        return Peaks(worker, client.peak_mb, scheduler.peak_mb if scheduler else 0, record["seconds"]["total"])


def write_noise(path: Path, side: int) -> Path:
    """Four bands of 16-bit noise, written row of blocks by row of blocks."""
    if path.exists():
        return path
    rng, partial = np.random.default_rng(0), path.with_name(f".{path.name}.partial")
    with rasterio.open(
        partial, "w", driver="GTiff", count=4, height=side, width=side, dtype="uint16", crs="EPSG:32631",
        transform=Affine(1, 0, 5e5, 0, -1, 5e6), tiled=True,
    ) as dataset:  # fmt: skip
        for top in range(0, side, 256):
            height = min(256, side - top)
            pixels = rng.integers(1, 2000, (4, height, side), dtype=np.uint16)
            dataset.write(pixels, window=Window(0, top, side, height))
        for band, role in enumerate(ROLES, 1):
            dataset.set_band_description(band, role)
    partial.replace(path)
    return path


if __name__ == "__main__":
    main()
