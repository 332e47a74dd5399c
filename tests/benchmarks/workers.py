"""Two workers with one thread each against one worker with one thread.

    python tests/benchmarks/workers.py [--model aerial] [--side 8192] [--repeats 2] [--folder DIR] [--synthetic]

Both segment the same scene in turns (A B A B ...), COG included, start-up and polygons excluded; printed are the rates
and their ratio.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

from overhead import run
from quilt import quilt

from geoseg.config import Settings


def main() -> None:
    """Print a line a pair, and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="aerial")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "geoseg-benchmarks"))
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--pin", action="store_true", help="hold one worker to one core and two to two")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    scene = quilt(given.folder / f"overhead_{given.side}.tif", given.side, synthetic=given.synthetic)
    print(f"{given.model}, {given.side} x {given.side} px")
    print(f"{'1 worker, Mpx/s':>15} {'2 workers, Mpx/s':>16} {'ratio':>6}")
    ratios = []
    for _ in range(given.repeats):
        one, two = (rate(scene, given.model, workers, pin=given.pin) for workers in (1, 2))
        ratios.append(two / one)
        print(f"{one:15.3f} {two:16.3f} {two / one:6.2f}", flush=True)
    print(f"ratio {median(ratios):.2f} (median of {len(ratios)})")


def rate(scene: Path, model: str, workers: int, *, pin: bool) -> float:
    """Megapixels of the scene a second, without start-up.

    A worker of one thread reads, labels and writes beside its network, on another core where there is one: only if
    held to one core does it show what one core does.
    """
    cores = os.sched_getaffinity(0)
    if pin:
        os.sched_setaffinity(0, sorted(cores)[:workers])
    try:
        record = run(scene, Settings(model=model, workers=workers, threads=1, vectors=False))
    finally:
        os.sched_setaffinity(0, cores)
    seconds = record["seconds"]["total"] - record["seconds"].get("startup", 0)
    return float(record["megapixels"] / seconds)


if __name__ == "__main__":
    main()
