"""Peak memory of a worker against what `geoseg plan` predicts.

    python tests/benchmarks/memory.py [MODEL]

For each setting a fresh process segments one block of a scene of noise; printed are the peak resident size, the
prediction, and their ratio.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from affine import Affine

from geoseg.config import Settings
from geoseg.segment import forward_block, peak_rss_mb, settle_block
from geoseg.workflow.plan import plan_scene
from geoseg.workflow.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = (
    {"tile": 256, "batch": 2, "block": 1024},
    {"tile": 512, "batch": 1, "block": 1024},
    {"tile": 512, "batch": 4, "block": 1024},
    {"tile": 512, "batch": 4, "block": 2048},
    {"tile": 512, "batch": 4, "block": 4096},
)


def main() -> None:
    """Print the table."""
    model = sys.argv[1] if len(sys.argv) > 1 else "aerial"
    print(f"{'tile':>5} {'batch':>5} {'block':>5} {'peak MB':>8} {'plan MB':>8} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for details in SETTINGS:
            scene = Path(folder) / f"{details['block']}.tif"
            write_noise(scene, details["block"])
            settings = Settings(model=model, **details)
            planned = alone(predict, scene, settings)
            peak = alone(measure, scene, settings)
            sizes = " ".join(f"{details[name]:5}" for name in ("tile", "batch", "block"))
            print(f"{sizes} {peak:8.0f} {planned:8.0f} {peak / planned:6.2f}", flush=True)


def alone(call: Callable[[Path, Settings], float], scene: Path, settings: Settings) -> float:
    """What a call returns in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, (scene, settings))


def predict(scene: Path, settings: Settings) -> float:
    """Predicted memory of a worker, in MB."""
    return plan_scene(scene, settings).memory_mb


def measure(scene: Path, settings: Settings) -> float:
    """Peak memory of one block, in MB."""
    job = prepare(scene, settings).job(scene.parent)
    (block,) = job.grid.blocks
    forward_block(job, block)
    settle_block(job, block)
    return peak_rss_mb()


def write_noise(path: Path, side: int) -> None:
    """Four bands of 16-bit noise."""
    if path.exists():
        return
    pixels = np.random.default_rng(0).integers(1, 2000, (4, side, side), dtype=np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=side, width=side, dtype="uint16", crs="EPSG:32631",
        transform=Affine(1, 0, 5e5, 0, -1, 5e6), tiled=True,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
        for band, role in enumerate(("red", "green", "blue", "nir"), 1):
            dataset.set_band_description(band, role)


if __name__ == "__main__":
    main()
