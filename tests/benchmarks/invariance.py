"""The same bytes, however a scene is computed: blocks, workers, faults.

    python tests/benchmarks/invariance.py [--tiny] [--side 4096] [--seed N] [--folder DIR] [--synthetic]

A quilt of aerial imagery with nodata is segmented in this process, then by every pair of block size and number of
workers, then under faults: a worker is killed; all processes are killed at random moments and the same command is
given again; a worker joins late; one of two workers of a `dask scheduler` is killed; three scenes share one cluster.
Each line compares the SHA-256 of classes.tif and confidence.tif with the first run's, and counts the tiles. Leaves
with 1 if a byte differs, a run fails, or a tile is computed twice or never.

`--tiny` takes a small untrained network instead of the embedded model `aerial`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from quilt import quilt

sys.path.append(str(Path(__file__).resolve().parents[1]))
from processes import dask_scheduler, dask_worker, receipts, record_of, segment, wait_for_workers
from scenes import save_small_bundle

BLOCKS = (512, 1024, 2048, 4096)
WORKERS = (0, 1, 2, 3)
KILLS = 5
RASTERS = ("classes.tif", "confidence.tif")


@dataclass
class Table:
    """The lines printed so far, what all of them have to equal, and how many do not."""

    model: str
    work: Path
    expected: dict[str, str] = field(default_factory=dict)
    """Scene -> hashes of its rasters."""
    wrong: int = 0
    runs: int = 0

    def options(self, block: int = 1024, workers: int = 2, *more: str) -> tuple[str, ...]:
        """Options of `segment`, without scene and folder."""
        shared = ("--model", self.model, "--no-vectors", "--block", str(block), "--workers", str(workers))
        return (*shared, "--threads", "2" if workers < 2 else "1", *more)

    def new_out(self) -> Path:
        """A folder for one more run."""
        self.runs += 1
        return self.work / f"run_{self.runs:03d}"

    def line(self, case: str, scene: str, out: Path, code: int, seconds: float) -> None:
        """Print and judge one run."""
        if code != 0:
            self.wrong += 1
            print(f"{case:<44} {seconds:7.1f}  failed with exit code {code}", flush=True)
            return
        tiles = record_of(out)["tiles"]
        found = " ".join(sha256(out / name)[:12] for name in RASTERS)
        equal = found == self.expected.setdefault(scene, found)
        once = tiles["forwarded"] + tiles["skipped_nodata"] == tiles["planned"] and not tiles["failed"]
        self.wrong += not (equal and once)
        counts = f"{tiles['forwarded']} + {tiles['skipped_nodata']} of {tiles['planned']}"
        verdict = ("equal" if equal else "DIFFERS") + ("" if once else ", NOT ONCE")
        print(f"{case:<44} {seconds:7.1f}  {found}  {verdict:<7}  {counts}", flush=True)


def main() -> None:
    """Print the table."""
    given = arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    name = f"invariance_{given.side}.tif"
    scene = quilt(given.folder / name, given.side, nodata=True, synthetic=given.synthetic)
    with tempfile.TemporaryDirectory(dir=given.folder) as work:
        model = "aerial"
        if given.tiny:
            model = str(Path(work, "small"))
            save_small_bundle(Path(model), tile=512)
        table = Table(model, Path(work))
        print(f"{'untrained U-Net' if given.tiny else model}, {given.side} x {given.side} px, seed {given.seed}")
        print(f"{'case':<44} {'seconds':>7}  {'classes':<12} {'confidence':<12}  {'bytes':<7}  tiles")
        matrix(table, scene)
        worker_killed(table, scene)
        all_killed(table, scene, random.Random(given.seed))  # noqa: S311  # moments, no secrets
        worker_joins_late(table, scene)
        one_of_two_workers_killed(table, scene)
        batch(table, given.folder, synthetic=given.synthetic)
    print("all equal, each tile once" if not table.wrong else f"{table.wrong} lines are wrong")
    sys.exit(1 if table.wrong else 0)


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "geoseg-benchmarks"))
    parser.add_argument("--synthetic", action="store_true")
    return parser.parse_args()


def matrix(table: Table, scene: Path) -> None:
    """Every block size with every number of workers; the first run is what all others have to equal."""
    for workers in WORKERS:
        for block in BLOCKS:
            run(table, f"block {block}, {workers or 'no'} workers", scene, *table.options(block, workers))


def worker_killed(table: Table, scene: Path) -> None:
    """SIGKILL to one of two workers, once a quarter of the blocks is forwarded."""
    out, began = table.new_out(), time.perf_counter()
    with segment(scene, "--out", out, *table.options(), log=table.work / "log") as program:
        program.until(lambda: len(receipts(out)) >= 4)
        os.kill(program.workers()[0], signal.SIGKILL)
        table.line("a worker killed", scene.name, out, program.finish(), time.perf_counter() - began)


def all_killed(table: Table, scene: Path, moments: random.Random) -> None:
    """SIGKILL to all processes at a random moment of the run, then the same command again; five times."""
    _, undisturbed = run(table, "the same, undisturbed", scene, *table.options())
    blocks = record_of(undisturbed)["blocks"]["planned"]
    for _ in range(KILLS):
        out, began = table.new_out(), time.perf_counter()
        done, later = moments.randrange(1 + blocks * 3 // 4), moments.uniform(0, 1)
        with segment(scene, "--out", out, *table.options(), log=table.work / "log") as program:
            program.until(lambda out=out, done=done: len(receipts(out)) >= done)
            time.sleep(later)
            program.kill()
        done = len(receipts(out))
        with segment(scene, "--out", out, *table.options(), log=table.work / "log") as program:
            code = program.finish()
        table.line(f"all killed when {done} blocks were done", scene.name, out, code, time.perf_counter() - began)


def worker_joins_late(table: Table, scene: Path) -> None:
    """A scheduler with one worker, and another that joins when a block is forwarded."""
    out, began = table.new_out(), time.perf_counter()
    with dask_scheduler(table.work) as (_, address), dask_worker(address, table.work, "early"):
        wait_for_workers(address, 1)
        options = table.options(512, 2, "--scheduler", address)
        with segment(scene, "--out", out, *options, log=table.work / "log") as program:
            program.until(lambda: receipts(out))
            with dask_worker(address, table.work, "late"):
                code = program.finish()
                workers = len(record_of(out)["workers"]) if code == 0 else 0
                case = f"a second worker joins, {workers} took part"
                table.line(case, scene.name, out, code, time.perf_counter() - began)


def one_of_two_workers_killed(table: Table, scene: Path) -> None:
    """A scheduler and two workers; one is killed with its nanny and does not come back."""
    out, began = table.new_out(), time.perf_counter()
    with (
        dask_scheduler(table.work) as (_, address),
        dask_worker(address, table.work, "stays"),
        dask_worker(address, table.work, "dies") as victim,
    ):
        wait_for_workers(address, 2)
        options = table.options(1024, 2, "--scheduler", address)
        with segment(scene, "--out", out, *options, log=table.work / "log") as program:
            program.until(lambda: len(receipts(out)) >= 4)
            victim.kill()
            case = "one of two workers of a scheduler killed"
            table.line(case, scene.name, out, program.finish(), time.perf_counter() - began)


def batch(table: Table, folder: Path, *, synthetic: bool) -> None:
    """Three scenes one by one in this process, then together on one cluster."""
    scenes = [
        quilt(folder / f"batch_{side}.tif", side, nodata=True, synthetic=synthetic, seed=side)
        for side in (2048, 1536, 1000)
    ]
    for scene in scenes:
        run(table, f"{scene.stem} alone, no workers", scene, *table.options(1024, 0))
    out, began = table.new_out(), time.perf_counter()
    with segment(*scenes, "--out", out, *table.options(512, 2), log=table.work / "log") as program:
        code, seconds = program.finish(), time.perf_counter() - began
    for scene in scenes:
        table.line(f"{scene.stem} in a batch of three", scene.name, out / scene.stem, code, seconds)


def run(table: Table, case: str, scene: Path, *options: str) -> tuple[float, Path]:
    """One undisturbed run; its seconds and folder."""
    out, began = table.new_out(), time.perf_counter()
    with segment(scene, "--out", out, *options, log=table.work / "log") as program:
        code, seconds = program.finish(), time.perf_counter() - began
    table.line(case, scene.name, out, code, seconds)
    return seconds, out


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
