"""What a pixel costs before the network sees it: reading a strip of tiles, and normalising a tile.

    python tests/benchmarks/read.py [MODEL]

First table: a strip of 512 x 4160 pixels of 4 bands with nodata 0, by layout of the file: GDAL's own read, geoseg's,
and geoseg's with 32 pixels of mirror image at its ends, and above it as well. Second table: from a tile of 512 x 512
pixels to what a network is fed, without and with a border of nodata. All in ns of a core per pixel, the best of seven.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rasterio.windows import Window

sys.path.append(str(Path(__file__).resolve().parents[1]))
from scenes import ROLES, smooth_pixels, write_scene

from geoseg.frame import Box
from geoseg.model import Normaliser, find_bundle
from geoseg.scene import BandNeeds, Scaling, open_scene, read_mirrored
from geoseg.scene.info import forget_dataset, open_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

TILE, WIDTH = 512, 4160
TILED = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "nodata": 0}
DEFLATE = {"compress": "deflate", "predictor": 2}
LAYOUTS = {
    "uncompressed": TILED,
    "deflate": TILED | DEFLATE,
    "deflate by band": TILED | DEFLATE | {"interleave": "band"},
}


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'ns of one core per pixel':32}{'GDAL':>8}{'strip':>8}{'edges':>8}{'corner':>8}")
        for dtype in ("uint8", "uint16"):
            for name, layout in LAYOUTS.items():
                path = write_scene(Path(folder, "scene.tif"), smooth_pixels((3 * TILE, WIDTH), dtype=dtype), **layout)
                costs = strip_costs(str(path))
                print(f"{dtype + ' ' + name:32}" + "".join(f"{cost:8.1f}" for cost in costs))
    print(f"{'':32}{'tile':>8}{'border':>8}")
    for dtype in ("uint8", "uint16", "int16", "float32"):
        for gamma in (1.0, 0.7):
            costs = tile_costs(sys.argv[1] if len(sys.argv) > 1 else "aerial", dtype, gamma)
            print(f"{f'{dtype} gamma {gamma}':32}" + "".join(f"{cost:8.1f}" for cost in costs))


def tile_costs(model: str, dtype: str, gamma: float) -> list[float]:
    """Normalising a tile of a strip that is valid throughout; one of which an eighth is a border of nodata."""
    bundle = find_bundle(model)
    count = len(bundle.bands)
    scaling = Scaling.between((10,) * count, (1500,) * count, (0.1, 0.9), gamma)
    normalise = Normaliser.of(bundle, scaling, tuple(band.role for band in bundle.bands), dtype)
    tile = smooth_pixels((TILE, WIDTH), bands=count, dtype="uint16").astype(dtype)[:, :, TILE : 2 * TILE]
    valid = np.ones((TILE, TILE), bool)
    bordered = valid.copy()
    bordered[: TILE // 8] = False
    return [cost(partial(normalise, tile, mask), TILE * TILE) for mask in (valid, bordered)]


def strip_costs(path: str) -> list[float]:
    """GDAL's read of a strip; geoseg's; with mirrored left and right edges; with mirrored upper edge as well."""
    scene = open_scene(path, BandNeeds(ROLES), bands=dict(zip(ROLES, (1, 2, 3, 4), strict=True)))
    window = Window(0, TILE, WIDTH, TILE)
    strip, edges, corner = (
        Box(TILE, 0, TILE, WIDTH),
        Box(TILE, -32, TILE, WIDTH + 64),
        Box(-32, -32, TILE, WIDTH + 64),
    )
    reads = (
        lambda: open_dataset(path).read([1, 2, 3, 4], window=window),
        lambda: scene.read(strip),
        lambda: read_mirrored(scene, edges),
        lambda: read_mirrored(scene, corner),
    )

    def afresh() -> None:
        forget_dataset(path)  # and with it what GDAL holds of its blocks
        open_dataset(path)

    return [cost(read, TILE * WIDTH, afresh) for read in reads]


def cost(work: Callable[[], object], pixels: int, before: Callable[[], None] | None = None) -> float:
    """The least time of this process that `work` takes, of seven, in ns per pixel."""
    spent = []
    for _ in range(7):
        if before is not None:
            before()
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent) / pixels * 1e9


if __name__ == "__main__":
    main()
