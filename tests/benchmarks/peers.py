"""geoseg against other ways to segment a scene: the same network, weights, tiles, overlap, scene and threads.

    python tests/benchmarks/peers.py [--models aerial resnet18] [--side 8192] [--dtype uint8|uint16] [--threads 2]
                                     [--peers loop torchgeo monai geoai dask] [--folder DIR] [--synthetic]

The peers (see `peer_runs.py`) are installed, with this geoseg, in an environment of their own in `--folder`, which is
kept for the next time; so is the scene. They run in fp32 as their libraries come, and a second time under bf16 autocast
with channels last. `resnet18` is an untrained U-Net on ResNet-18.

Seconds are from the first read to the last byte of the rasters: start-up and polygons left out. geoseg writes two COGs
with overviews, a report and a project in that time, the peers one GeoTIFF. `agree` is the share of pixels that have
the class that geoseg gives with torch in fp32; tiles that lie elsewhere cost a network some of that, geoseg with
another overlap too. `seams` is how much more often neighbours differ across the lines of the tile grid than elsewhere,
by the worst kind of line: 1 where no seam shows, give or take 0.03.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from quilt import quilt

from geoseg.config import Settings
from geoseg.workflow.prepare import prepare

sys.path.append(str(Path(__file__).resolve().parents[1]))
from processes import record_of, segment
from scenes import save_small_bundle

if TYPE_CHECKING:
    from geoseg.grid import Grid

HERE = Path(__file__).resolve().parent
PEERS = ("loop", "torchgeo", "monai", "geoai", "dask")
PACKAGES = ("torchgeo", "monai", "geoai-py", "rioxarray", "dask")
OWN = {
    "geoseg, torch fp32": ("torch", "fp32"),
    "geoseg": ("auto", "auto"),
    "geoseg, bf16": ("openvino", "bf16"),
    "geoseg, int8": ("openvino", "int8"),
}
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Took:
    """What a run took, and where it left its classes."""

    seconds: float
    cpu: float
    peak_mb: float
    classes: Path


def main() -> None:
    """Print a table for each network."""
    given = arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    python = environment(given.folder / "peers") if given.peers else Path(sys.executable)
    name = f"peers_{given.side}_{given.dtype}.tif"
    scene = quilt(given.folder / name, given.side, synthetic=given.synthetic, dtype=given.dtype)
    for model in given.models:
        with tempfile.TemporaryDirectory(dir=given.folder) as work:
            compare(scene, model, python, given, Path(work))


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["aerial", "resnet18"])
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--dtype", default="uint16", choices=["uint8", "uint16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "geoseg-benchmarks"))
    parser.add_argument("--synthetic", action="store_true")
    return parser.parse_args()


def environment(folder: Path) -> Path:
    """The Python of a virtual environment with all peers and this geoseg; made where there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, *PACKAGES, HERE.parents[1]], check=True)
    return python


def compare(scene: Path, model: str, python: Path, given: argparse.Namespace, work: Path) -> None:
    """Run all on one network and print what they took."""
    if model == "resnet18":
        full = {"encoder_depth": 5, "decoder_channels": [256, 128, 64, 32, 16]}
        save_small_bundle(work / model, decoder=full, tile=512)
        model = str(work / model)
    settings = Settings(model=model, threads=given.threads, vectors=False)
    prepared = prepare(scene, settings)
    grid = prepared.grid
    tile, overlap = sizes(grid)
    print(f"\n{Path(model).name}, {given.side} x {given.side} px {given.dtype}, tiles of {tile}, overlap {overlap}")
    print(f"{'':<22} {'s':>7} {'CPU s':>7} {'peak MB':>8} {'agree %':>8} {'seams':>6}")
    runs: dict[str, Took] = {}
    for name, (engine, precision) in OWN.items():
        # The untrained network has no int8 weights, and no record that bf16 does not change its classes.
        if precision == ("bf16" if prepared.bundle.agreement else "int8"):
            continue
        options = ["--model", model, "--threads", given.threads, "--engine", engine, "--precision", precision]
        runs[name] = run_geoseg(scene, [str(word) for word in options], work / name.replace(", ", "-"))
        show(name, runs, grid)
    job = {"scene": str(scene), "model": model, "tile": tile, "overlap": overlap, "threads": given.threads}
    for quick in (False, True):
        for peer in given.peers:
            name = f"{peer}, bf16" if quick else peer
            runs[name] = run_peer(python, peer, {**job, "quick": quick, "out": str(work / f"{peer}_{quick}.tif")})
            show(name, runs, grid)
    if given.peers:
        conclude(runs)


def sizes(grid: Grid) -> tuple[int, int]:
    """Tile and overlap, in pixels; geoseg spreads its tiles evenly, so that the overlap may be a pixel more or less."""
    axis = grid.axes[0]
    return axis.tile, axis.tile - (axis.starts[2] - axis.starts[1])


def run_geoseg(scene: Path, options: list[str], out: Path) -> Took:
    """`geoseg segment` without polygons."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with segment(scene, "--out", out, "--no-vectors", *options, log=out.with_suffix(".log")) as program:
        if program.finish(7200) != 0:
            raise SystemExit(program.said)
    after, record = resource.getrusage(resource.RUSAGE_CHILDREN), record_of(out)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = record["seconds"]["total"] - record["seconds"].get("startup", 0)
    return Took(seconds, cpu, record["peak_rss_mb"], out / "classes.tif")


def run_peer(python: Path, peer: str, job: dict[str, Any]) -> Took:
    """One of the peers in its own environment."""
    path = Path(job["out"]).with_suffix(".json")
    path.write_text(json.dumps(job))
    ran = subprocess.run(
        [python, HERE / "peer_runs.py", peer, path], capture_output=True, text=True, check=False,
        cwd=path.parent,
    )  # fmt: skip
    if ran.returncode != 0:
        raise SystemExit(f"{peer} ended with {ran.returncode}:\n{ran.stderr[-2000:]}")
    return Took(**json.loads(ran.stdout.splitlines()[-1]), classes=Path(job["out"]))


def show(name: str, runs: dict[str, Took], grid: Grid) -> None:
    """Print the line of a run; the first of all is what the others are compared with."""
    took, first = runs[name], next(iter(runs.values()))
    classes = read(took.classes)
    same = 100 * float((classes == read(first.classes)).mean())
    tile, overlap = sizes(grid)
    own = np.array(grid.axes[0].starts), np.array(grid.axes[1].starts)
    starts = own if name.startswith("geoseg") else tile_starts(name, len(classes), tile, overlap)
    seam = seams(classes, starts, tile, overlap)
    line = f"{took.seconds:7.1f} {took.cpu:7.1f} {took.peak_mb:8.0f} {same:8.2f} {seam:6.2f}"
    print(f"{name:<22} {line}", flush=True)


def conclude(runs: dict[str, Took]) -> None:
    """The ratios that matter: against the fastest and the leanest of the peers."""
    peers = {name: took for name, took in runs.items() if not name.startswith("geoseg")}
    plain = min(took.seconds for name, took in peers.items() if "bf16" not in name)
    quick = min(took.seconds for name, took in peers.items() if "bf16" in name)
    lean = min(took.peak_mb for took in peers.values())
    print(f"\n{'':<22} {'fastest peer':>12} {'fastest, bf16':>13} {'leanest peer':>12}   (over geoseg's)")
    for name, took in runs.items():
        if name.startswith("geoseg"):
            print(f"{name:<22} {plain / took.seconds:12.2f} {quick / took.seconds:13.2f} {lean / took.peak_mb:12.2f}")


def read(path: Path) -> Array:
    """Classes (H, W)."""
    with rasterio.open(path) as source:
        classes: Array = source.read(1)
    return classes


def tile_starts(name: str, size: int, tile: int, overlap: int) -> tuple[Array, Array]:
    """Where the tiles of a peer begin along rows and columns of a scene of `size` pixels a side."""
    stride = tile - overlap
    forward = np.array([*range(0, size - tile, stride), size - tile])
    if name.startswith("dask"):
        forward = np.arange(0, size, stride) - overlap // 2
    if name.startswith("torchgeo"):  # from the lower left corner
        return size - tile - np.arange(0, size, stride), np.arange(0, size, stride)
    return forward, forward


def seams(classes: Array, starts: tuple[Array, Array], tile: int, overlap: int) -> float:
    """How much more often neighbours differ across lines of the tile grid, by the worst kind of line.

    Kinds are where tiles begin, where they end, and the middles of overlaps. The chips that a scene is sewn from end at
    multiples of 256: what lies within 8 pixels of that is left out.
    """
    worst = 0.0
    for begins, labels in zip(starts, (classes, classes.T), strict=True):
        differ = np.array([(labels[k - 1] != labels[k]).mean() for k in range(1, len(labels))])
        places = np.arange(1, len(labels))
        inner = abs((places + 128) % 256 - 128) >= 8
        kinds = [begins, begins + tile, begins + overlap // 2]
        elsewhere = differ[inner & ~np.isin(places, np.concatenate(kinds))].mean()
        on_each = [differ[inner & np.isin(places, kind)] for kind in kinds]
        worst = max([worst, *(float(on.mean() / elsewhere) for on in on_each if on.size)])
    return worst


if __name__ == "__main__":
    main()
