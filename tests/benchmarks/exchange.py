"""How the sums of overlaps travel between blocks: through files in the run's folder, or as results of Dask tasks.

    python tests/benchmarks/exchange.py [--repeats 3] [--folder DIR]

A block keeps the sums of its own border, and has sums for the borders of its neighbours. Two tasks a block, as in a
run: the first makes these arrays (of the sizes of real ones; the network is left out), the second adds up what came
from all sides. *files*: the first task writes them as the kernel does, the second reads its own and its neighbours'.
*results*: the first task returns them, each piece for a neighbour is a task of its own, so that no more travels than is
needed, and Dask brings them to the second. Two `dask worker`, tiles 512 px with 64 px overlap, five classes. Printed
are the seconds from the first task to the last, and the peaks of the larger worker and of the scheduler.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from distributed import Client

from geoseg.grid import Block, Grid
from geoseg.segment import border_boxes
from geoseg.segment.job import appearing

sys.path.append(str(Path(__file__).resolve().parents[1]))
from processes import dask_scheduler, dask_worker, peak_mb, wait_for_workers

BLOCKS = (2048, 4096)
CLASSES = 5
BLOCKS_A_SIDE = 4
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Cost:
    """What one way took."""

    seconds: float
    worker_mb: float
    scheduler_mb: float
    total: int
    """What all sums add up to, which is the same either way."""


def main() -> None:
    """Print a line a block size and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "geoseg-benchmarks"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'block':>5} {'blocks':>6} {'MB a block':>10} {'way':<8} {'seconds':>7} {'ms a block':>10}", end=" ")
    print(f"{'worker MB':>9} {'scheduler MB':>12} {'ratio':>6}")
    for size in BLOCKS:
        grid = Grid((BLOCKS_A_SIDE * size,) * 2, (512, 512), (64, 64), size)
        a_block = sum(sum(array.nbytes for array in sums_of(grid, block).values()) for block in grid.blocks)
        a_block //= len(grid.blocks)
        costs: dict[str, list[Cost]] = {"files": [], "results": []}
        for _ in range(given.repeats):
            for way, found in costs.items():
                found.append(measure(way, grid, given.folder))
        if len({cost.total for found in costs.values() for cost in found}) > 1:
            raise SystemExit("the two ways add up to different sums")
        usual = median(cost.seconds for cost in costs["files"])
        for way, found in costs.items():
            seconds = median(cost.seconds for cost in found)
            worker, scheduler = max(c.worker_mb for c in found), max(c.scheduler_mb for c in found)
            print(f"{size:5} {len(grid.blocks):6} {a_block / 1e6:10.2f} {way:<8} {seconds:7.2f}", end=" ")
            print(f"{1000 * seconds / len(grid.blocks):10.1f} {worker:9.0f} {scheduler:12.0f}", end=" ")
            print(f"{seconds / usual:6.2f}", flush=True)


def measure(way: str, grid: Grid, folder: Path) -> Cost:
    """All blocks of a grid, one way, on a new cluster."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        scheduler, address = stack.enter_context(dask_scheduler(work))
        workers = [stack.enter_context(dask_worker(address, work, name)) for name in ("first", "second")]
        wait_for_workers(address, len(workers))
        client = stack.enter_context(Client(address, set_as_default=False))
        client.run(sums_of, grid, grid.blocks[0])  # imports
        started = time.perf_counter()
        tasks = through_files(client, grid, work) if way == "files" else through_results(client, grid)
        total = sum(client.gather(tasks))
        seconds = time.perf_counter() - started
        peaks = [peak_mb(pid) for program in workers for pid in program.workers()]
        return Cost(seconds, max(peaks), scheduler.peak_mb, total)


def through_files(client: Client, grid: Grid, folder: Path) -> list[Any]:
    """Submit all tasks; sums lie in a folder that all workers reach."""
    first = {b.index: client.submit(write_sums, folder, grid, b, pure=False) for b in grid.blocks}
    return [
        client.submit(add_files, folder, grid, b, [first[c.index] for c in grid.contributors[b.index]], pure=False)
        for b in grid.blocks
    ]


def through_results(client: Client, grid: Grid) -> list[Any]:
    """Submit all tasks; sums are results."""
    first = {b.index: client.submit(sums_of, grid, b, pure=False) for b in grid.blocks}
    last = []
    for block in grid.blocks:
        pieces = {
            source.index: client.submit(itemgetter(f"to_{block.name}"), first[source.index], pure=False)
            for source in grid.contributors[block.index]
            if source.index != block.index
        }
        last.append(client.submit(add_up, grid, block, first[block.index], pieces, pure=False))
    return last


def sums_of(grid: Grid, block: Block) -> Arrays:
    """Arrays of the sizes that a forwarded block leaves: int32 sums (classes, height, width)."""
    boxes = {f"border_{k}": box for k, box in enumerate(border_boxes(grid, block))}
    boxes |= {f"to_{other.name}": block.reach & other.box for other in grid.receivers[block.index]}
    rng = np.random.default_rng(block.index)
    return {name: rng.integers(0, 1 << 28, (CLASSES, *box.shape), np.int32) for name, box in boxes.items()}


def write_sums(folder: Path, grid: Grid, block: Block) -> None:
    """Put them into a file, for good."""
    arrays = sums_of(grid, block)
    with appearing(folder / f"{block.name}.npz") as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def add_files(folder: Path, grid: Grid, block: Block, _written: list[None]) -> int:
    """Read what concerns the block, and add up."""
    with np.load(folder / f"{block.name}.npz") as file:
        own = {name: file[name] for name in file.files if name.startswith("border_")}
    pieces = {}
    for source in grid.contributors[block.index]:
        if source.index != block.index:
            with np.load(folder / f"{source.name}.npz") as file:
                pieces[source.index] = file[f"to_{block.name}"]
    return add_up(grid, block, own, pieces)


def add_up(grid: Grid, block: Block, own: Arrays, pieces: dict[tuple[int, int], np.ndarray[Any, Any]]) -> int:
    """Add the neighbours' sums to the block's own; returns a number that depends on all of them."""
    reach = {source.index: source.reach & block.box for source in grid.contributors[block.index]}
    total = 0
    for k, box in enumerate(border_boxes(grid, block)):
        sums = own[f"border_{k}"].copy()  # results of tasks are not ours to change
        for index, arrived in pieces.items():
            common = box & reach[index]
            at = (slice(None), *common.slices(box))
            sums[at] += arrived[(slice(None), *common.slices(reach[index]))]
        total += int(sums.sum(dtype=np.int64))
    return total


if __name__ == "__main__":
    main()
