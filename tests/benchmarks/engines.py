"""Engines and precisions side by side: megapixels a second of the network alone, and how many pixels keep their class.

    python tests/benchmarks/engines.py [--model aerial] [--threads 2] [--seconds 6] [--turns 3]

Tiles are those of the embedded scenes, read and normalised once. All engines run in turns, each with as many lanes as
there are threads; the table has the median of the turns, and its ratio to torch in fp32. What an engine lacks on this
machine (a library, a precision) is told and left out.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from itertools import count, product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

import geoseg
from geoseg.config import Settings
from geoseg.errors import GeosegError
from geoseg.frame import Box
from geoseg.model import EngineChoice, Normaliser, find_bundle, open_engine
from geoseg.scene import read_mirrored
from geoseg.workflow.prepare import prepare

if TYPE_CHECKING:
    from geoseg.model import Engine

_CHOICES = (
    ("torch", "fp32"), ("torch", "bf16"), ("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"),
    ("openvino", "int8"),
)  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="aerial")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each engine in each turn")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    bundle = find_bundle(given.model)
    tiles = tiles_of(given.model)
    engines: dict[tuple[str, str], Engine] = {}
    opened = {}
    for engine, precision in _CHOICES:
        started = time.perf_counter()
        choice = EngineChoice(engine=engine, precision=precision, device="cpu", threads=given.threads)
        try:
            engines[engine, precision] = open_engine(bundle, choice, bundle.tile)
        except GeosegError as error:
            print(f"{engine} {precision}: left out, {error}")
            continue
        opened[engine, precision] = time.perf_counter() - started
    exact = [engines["torch", "fp32"](tile).argmax(axis=0) for tile in tiles]
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in engines}
    for _ in range(given.turns):
        for key, engine in engines.items():
            rates[key].append(rate(engine, tiles, given.seconds))
    print(f"{bundle.name}, tiles of {bundle.tile} px, {given.threads} threads")
    print(f"{'engine':10} {'precision':9} {'Mpx/s':>7} {'ratio':>6} {'same class':>11} {'opened in':>10}")
    base = median(rates["torch", "fp32"])
    for (name, precision), engine in engines.items():
        speed = median(rates[name, precision])
        same = np.mean([(engine(tile).argmax(axis=0) == one).mean() for tile, one in zip(tiles, exact, strict=True)])
        seconds = opened[name, precision]
        print(f"{name:10} {precision:9} {speed:7.2f} {speed / base:6.2f} {same:11.2%} {seconds:8.2f} s")


def tiles_of(model: str) -> list[np.ndarray[Any, Any]]:
    """The tiles of the embedded scenes that have something to see, as the network is fed them."""
    found = []
    for scene in sorted((Path(geoseg.__file__).parent / "demo").glob("rotterdam_*.tif")):
        prepared = prepare(scene, Settings(model=model))
        job, side = prepared.job(scene.parent), prepared.bundle.tile
        normalise = Normaliser.of(prepared.bundle, job.scaling, prepared.scene.roles, prepared.scene.dtype)
        height, width = prepared.scene.frame.shape
        for row, col in product(range(0, height, side), range(0, width, side)):
            pixels, valid = read_mirrored(prepared.scene, Box(row, col, side, side))
            if valid.any():
                found.append(normalise(pixels, valid))
    return found


def rate(engine: Engine, tiles: list[np.ndarray[Any, Any]], seconds: float) -> float:
    """Megapixels a second, with all lanes busy for about so long."""
    numbers, until, done = count(), time.perf_counter() + seconds, []

    def work() -> None:
        while time.perf_counter() < until:
            tile = tiles[next(numbers) % len(tiles)]
            engine(tile)
            done.append(tile.shape[1] * tile.shape[2])

    started = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(engine.lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / 1e6 / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
