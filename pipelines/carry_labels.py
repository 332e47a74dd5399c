"""Carry the labels of one date over to other dates of the same places, to train on more seasons and more light.

    geoseg segment OTHER_DATES/*.tif --out runs --no-vectors --probabilities
    python pipelines/carry_labels.py runs LABELS OUT --place '(?P<place>[a-z_]+)_[0-9]{4}_(?P<number>[0-9]+)'

Every run (a folder of RUNS) whose scene has the place of a label raster, by the named groups of --place in both file
names, gets a label raster of its own in OUT, named as the run. There a label stays where the model does not surely
contradict it (`--contradiction`), cover that follows the season (`--seasonal`, codes) is the model's where it is sure
(`--sure`), and all else is 255: not to be trained on. Scenes of a place must lie on one grid.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import rasterio

UNKNOWN = 255


def main() -> int:
    """Carry all labels; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of finished runs with probabilities.tif")
    parser.add_argument("labels", type=Path, help="folder of label rasters of other dates")
    parser.add_argument("out", type=Path, help="folder for the label rasters of the runs")
    parser.add_argument("--place", required=True, help="expression whose named groups tell places apart")
    parser.add_argument("--seasonal", type=int, nargs="*", default=[0, 3], help="codes (default: %(default)s)")
    parser.add_argument("--contradiction", type=float, default=0.8, help="probability (default: %(default)s)")
    parser.add_argument("--sure", type=float, default=0.9, help="probability (default: %(default)s)")
    arguments = parser.parse_args()
    labels = {place_of(path.stem, arguments.place): path for path in sorted(arguments.labels.glob("*.tif"))}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for run in sorted(path.parent for path in arguments.runs.glob("*/probabilities.tif")):
        source = labels.get(place_of(run.name, arguments.place))
        if source is None:
            print(f"{run.name}: left out, no label raster of its place", file=sys.stderr)
            continue
        with rasterio.open(source) as label, rasterio.open(run / "probabilities.tif") as found:
            if (label.shape, label.transform, label.crs) != (found.shape, found.transform, found.crs):
                print(f"{run.name}: its grid is not that of {source}", file=sys.stderr)
                return 3
            codes, probabilities = label.read(1), found.read(masked=True)
            profile = {**label.profile, "driver": "GTiff", "compress": "deflate", "nodata": UNKNOWN}
        target = arguments.out / f"{run.name}.tif"
        carried = carry(codes, probabilities.filled(0) / 250, arguments)
        carried[probabilities.mask.all(axis=0)] = UNKNOWN
        with rasterio.open(target, "w", **profile) as sink:
            sink.write(carried, 1)
        print(target)
    return 0


def place_of(stem: str, expression: str) -> tuple[str, ...] | None:
    """The named groups in a file's stem, which tell its place; None where they do not match."""
    match = re.search(expression, stem)
    return tuple(match.groupdict().values()) if match else None


def carry(codes: np.ndarray, probabilities: np.ndarray, rule: argparse.Namespace) -> np.ndarray:
    """Labels (h, w) of another date, from those of one (h, w) and probabilities (classes, h, w) of the other.

    The codes of the model are the places of its probabilities; codes beyond them count as background.
    """
    of_model = np.where(codes < len(probabilities), codes, 0)
    best, share = probabilities.argmax(axis=0), probabilities.max(axis=0)
    carried = codes.copy()
    carried[(best != of_model) & (share >= rule.contradiction)] = UNKNOWN
    seasonal = np.isin(codes, rule.seasonal)
    carried[seasonal & (best != of_model)] = UNKNOWN
    turned = seasonal & np.isin(best, rule.seasonal) & (share >= rule.sure)
    carried[turned] = best[turned]
    carried[codes == UNKNOWN] = UNKNOWN
    return carried


if __name__ == "__main__":
    sys.exit(main())
