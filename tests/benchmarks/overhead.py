"""What `segment` takes beyond the network: its wall time over the pure forward time of the same tiles.

    python tests/benchmarks/overhead.py [--model aerial] [--side 8192] [--threads 2] [--workers 0] [--repeats 2]
                                        [--block 2048] [--folder DIR] [--synthetic]

The forward time is that of the same number of tiles of the scene on the same engine, processes and threads, with
nothing else done. The wall time is that of a run, COG included, start-up and polygons excluded. Both are measured in
turns. The breakdown adds up the seconds of all threads, and gives them in percent of those of the pure forward pass.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from quilt import quilt
from rasterio.windows import Window

from geoseg.config import Settings
from geoseg.model import Normaliser, engine_of
from geoseg.workflow.prepare import Prepared, prepare

sys.path.append(str(Path(__file__).resolve().parents[1]))
from processes import record_of, segment

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from geoseg.scene import Scaling

_SAMPLE = 16
"""So many tiles are read from the scene; the network sees them again and again."""


def main() -> None:
    """Print the ratio and the breakdown."""
    given = arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    scene = quilt(given.folder / f"overhead_{given.side}.tif", given.side, synthetic=given.synthetic)
    settings = Settings(
        model=given.model, block=given.block, workers=given.workers, threads=given.threads, vectors=False
    )  # fmt: skip
    print(f"{given.model}, {given.side} x {given.side} px, {max(1, given.workers)} processes x {given.threads} threads")
    ratios = []
    for turn in range(given.repeats):
        forward = forward_seconds(scene, settings)
        record = run(scene, settings)
        wall = record["seconds"]["total"] - record["seconds"].get("startup", 0)
        ratios.append(wall / forward)
        tiles = record["tiles"]["forwarded"]
        print(f"turn {turn + 1}: {tiles} tiles forwarded in {forward:.2f} s, segmented in {wall:.2f} s", end=", ")
        print(f"ratio {ratios[-1]:.3f}", flush=True)
        print_breakdown(record, forward * max(1, given.workers) * given.threads)
    print(f"ratio {median(ratios):.3f} (median of {len(ratios)})")


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="aerial")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "geoseg-benchmarks"))
    parser.add_argument("--synthetic", action="store_true")
    return parser.parse_args()


def forward_seconds(scene: Path, settings: Settings) -> float:
    """Wall seconds of the network alone for as many tiles as the scene has, shared by as many processes as asked."""
    processes = max(1, settings.workers)
    tiles = prepare(scene, settings).grid.tile_count
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes)
    shares = [len(range(k, tiles, processes)) for k in range(processes)]
    with context.Pool(processes, _keep, (ready,)) as pool:
        waiting = [pool.apply_async(forward_tiles, (scene, settings, share)) for share in shares]
        spans = [result.get() for result in waiting]
    return max(end for _, end in spans) - min(start for start, _ in spans)


_ready: list[Barrier] = []


def _keep(ready: Barrier) -> None:
    _ready.append(ready)


def forward_tiles(scene: Path, settings: Settings, tiles: int) -> tuple[float, float]:
    """Forward so many tiles, as many at once as the engine has lanes; returns when it began, and when it ended."""
    prepared = prepare(scene, settings)
    job = prepared.job(scene.parent)  # nothing is written: the folder is never used
    engine, sample = engine_of(job.engine), read_sample(scene, prepared, job.scaling)
    with ThreadPoolExecutor(engine.lanes) as lanes:
        list(lanes.map(engine, sample))  # the first calls pay for allocations
        _ready[0].wait()
        started = time.time()
        list(lanes.map(lambda k: engine(sample[k % _SAMPLE]) is None, range(tiles)))
        return started, time.time()


def read_sample(scene: Path, prepared: Prepared, scaling: Scaling) -> list[np.ndarray[Any, Any]]:
    """Tiles (channels, h, w) of the scene's diagonal, as the network wants them."""
    height, width = prepared.fit.scene
    normalise = Normaliser.of(prepared.bundle, scaling, prepared.scene.roles, prepared.scene.dtype)
    with rasterio.open(scene) as source:
        windows = [
            Window(k * (source.width - width) // _SAMPLE, k * (source.height - height) // _SAMPLE, width, height)
            for k in range(_SAMPLE)
        ]
        pixels = [source.read(prepared.scene.bands, window=window) for window in windows]
    return [normalise(one, np.ones((height, width), bool)) for one in pixels]


def run(scene: Path, settings: Settings) -> dict[str, Any]:
    """Segment the scene from the command line; its manifest."""
    with tempfile.TemporaryDirectory(dir=scene.parent) as work:
        out = Path(work, "out")
        options = ("--model", settings.model, "--block", settings.block, "--workers", settings.workers)
        words = [str(word) for word in (*options, "--threads", settings.threads, "--no-vectors")]
        with segment(scene, "--out", out, *words, log=Path(work, "log")) as program:
            if program.finish(3600) != 0:
                raise SystemExit(program.said)
        return record_of(out)


def print_breakdown(record: dict[str, Any], forward: float) -> None:
    """Seconds by stage, added up over threads, against those of the pure forward pass."""
    print(f"  {'stage':<12} {'seconds':>8} {'% of forward':>12}")
    for stage, seconds in record["seconds"].items():
        if stage not in {"total", "startup"}:
            print(f"  {stage:<12} {seconds:8.2f} {100 * seconds / forward:12.1f}")


if __name__ == "__main__":
    main()
