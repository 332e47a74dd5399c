"""Change of large pairs: time and peak memory as the scene grows, and with two workers.

    python tests/benchmarks/change.py [--small 4096] [--large 12288] [--method cva] [--folder DIR]

A quilt against itself, brighter, with noise, and with a bright square in every 512 pixels, so that polygons cross
seams. Printed are seconds, Mpx/s, seconds of each step, rounds over all pixels, the largest peak of a process, and its
ratio to that of the small pair. The last line runs the small pair on two workers and says whether the bytes are the
same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from quilt import quilt
from rasterio.windows import Window

GEOSEG = Path(sys.executable).parent / "geoseg"
_STRIP = 512


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=4096)
    parser.add_argument("--large", type=int, default=12288)
    parser.add_argument("--method", default="cva")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "geoseg-benchmarks"))
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.write:
        write_pair(given.folder, given.write)
        return
    for side in (given.small, given.large):  # by a process of its own: the peak of a child begins at its parent's
        subprocess.run([sys.executable, __file__, "--write", str(side), "--folder", given.folder], check=True)
    print(f"{'side':>6} {'workers':>7} {'s':>7} {'Mpx/s':>6} {'rounds':>6} {'peak MB':>8} {'of small':>8}  steps")
    small: dict[str, Any] = {}
    for side in (given.small, given.large):
        record = compare(given.folder, side, given.method, workers=0)
        small = small or record
        show(side, 0, record, small)
    two = compare(given.folder, given.small, given.method, workers=2)
    show(given.small, 2, two, small)
    same = all(
        two["outputs"][name] == small["outputs"][name] for name in ("change.tif", "magnitude.tif", "change.gpkg")
    )
    print("two workers give the same bytes" if same else "two workers give OTHER bytes")


def show(side: int, workers: int, record: dict[str, Any], small: dict[str, Any]) -> None:
    """One line of the table."""
    seconds, peak = record["seconds"], record["peak_rss_mb"]
    steps = "  ".join(f"{name} {spent:.0f}" for name, spent in seconds.items() if name != "total" and spent >= 1)
    print(
        f"{side:>6} {workers:>7} {seconds['total']:>7.1f} {record['megapixels'] / seconds['total']:>6.2f} "
        f"{record['method'].get('rounds', 0):>6} {peak:>8.0f} {peak / small['peak_rss_mb']:>8.2f}  {steps}"
    )


def compare(folder: Path, side: int, method: str, *, workers: int) -> dict[str, Any]:
    """Compare a pair of this side; what run.json says."""
    before, after = folder / f"memory_{side}.tif", folder / f"later_{side}.tif"
    out = folder / f"change_{side}_{workers}"
    command = [GEOSEG, "change", before, after, "--out", out, "--method", method, "--workers", str(workers), "--quiet"]
    subprocess.run([*command, "--overwrite"], check=True, stdout=subprocess.DEVNULL)
    record: dict[str, Any] = json.loads((out / "run.json").read_text())
    return record


def write_pair(folder: Path, side: int) -> None:
    """Both dates, unless they are there."""
    before, after = quilt(folder / f"memory_{side}.tif", side), folder / f"later_{side}.tif"
    if not after.exists():
        write_later(before, after)


def write_later(before: Path, after: Path) -> None:
    """The same place on another day."""
    rng = np.random.default_rng(1)
    with rasterio.open(before) as scene, rasterio.open(after, "w", **scene.profile) as later:
        later.descriptions = scene.descriptions
        for row in range(0, scene.height, _STRIP):
            window = Window(0, row, scene.width, min(_STRIP, scene.height - row))
            pixels = scene.read(window=window) * 0.9 + 12
            pixels += rng.normal(0, 2, pixels.shape)
            for col in range(0, scene.width, _STRIP):
                pixels[:, 100:140, col + 490 : col + 530] += 90
            later.write(np.clip(np.rint(pixels), 1, 255).astype("uint8"), window=window)


if __name__ == "__main__":
    main()
