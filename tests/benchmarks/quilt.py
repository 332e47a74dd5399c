"""A real scene of any size: chips of aerial imagery sewn into one GeoTIFF.

    python tests/benchmarks/quilt.py OUT.tif [--side 4096] [--nodata] [--synthetic] [--seed 0]

The chips are NAIP, red green blue near-infrared, uint8, 0.6 m, 256 x 256 px, from ../shared/data/naip_ca beside the
repository. Where they do not reach they come again, turned and mirrored. `--nodata` lays an irregular frame and a hole
of nodata over it. `--synthetic` takes soft waves and noise instead, for machines without the data folder.
"""

from __future__ import annotations

import argparse
import random
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable

CHIPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "naip_ca" / "images"
ROLES = ("red", "green", "blue", "nir")
_CHIP = 256
_TILE = 512
Array = np.ndarray[Any, Any]


def main() -> None:
    """Write one quilt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodata", action="store_true")
    parser.add_argument("--synthetic", action="store_true")
    given = parser.parse_args()
    print(quilt(given.out, given.side, nodata=given.nodata, synthetic=given.synthetic, seed=given.seed))


def quilt(
    path: Path, side: int, *, nodata: bool = False, synthetic: bool = False, seed: int = 0, dtype: str = "uint8"
) -> Path:
    """Write a scene of `side` x `side` pixels, row of file tiles by row; a scene that is there already is kept.

    As uint16 the pixels are what 11 bits of a sensor could have been: eight times as bright.

    Leaves the program with a sentence where there are no chips and `synthetic` does not say to go on without.
    """
    if path.exists():
        return path
    piece_at = _waves(seed) if synthetic else _chips(seed)
    partial = path.with_name(f".{path.name}.partial")
    profile = {
        "driver": "GTiff", "count": len(ROLES), "height": side, "width": side, "dtype": dtype, "crs": "EPSG:26911",
        "transform": Affine(0.6, 0, 430_000, 0, -0.6, 3_770_000), "tiled": True, "blockxsize": _TILE,
        "blockysize": _TILE, "compress": "deflate", "num_threads": 2, "bigtiff": "if_safer",
        "photometric": "minisblack", "alpha": "no", "nodata": 0 if nodata else None,
    }  # fmt: skip
    with rasterio.open(partial, "w", **profile) as scene:
        for band, role in enumerate(ROLES, 1):
            scene.set_band_description(band, role)
        for top in range(0, side, _TILE):
            pixels = _rows(piece_at, side, top)
            if nodata:
                pixels *= _valid(side, top, pixels.shape[1])
            if dtype == "uint16":
                pixels = pixels.astype(np.uint16) * 8
            scene.write(pixels, window=Window(0, top, side, pixels.shape[1]))
    partial.replace(path)
    return path


def _rows(piece_at: Callable[[int, int], Array], side: int, top: int) -> Array:
    """One row of file tiles: (bands, up to 512, side)."""
    bottom = min(top + _TILE, side)
    height = -(-(bottom - top) // _CHIP) * _CHIP
    pixels = np.zeros((len(ROLES), height, -(-side // _CHIP) * _CHIP), np.uint8)
    for row in range(0, height, _CHIP):
        for col in range(0, pixels.shape[2], _CHIP):
            pixels[:, row : row + _CHIP, col : col + _CHIP] = piece_at((top + row) // _CHIP, col // _CHIP)
    # 0 is kept for nodata.
    return np.maximum(pixels[:, : bottom - top, :side], 1)


def _chips(seed: int) -> Callable[[int, int], Array]:
    """All chips in an order of their own; each round of them turned or mirrored otherwise."""
    paths = sorted(CHIPS.glob("*.tif"))
    if not paths:
        raise SystemExit(f"skipped: there are no chips at {CHIPS}; --synthetic goes on with pixels made up")
    random.Random(seed).shuffle(paths)  # noqa: S311  # an order, not a secret

    def piece_at(row: int, col: int) -> Array:
        # Rows are shifted, so that no chip has the same neighbours again and no columns of one chip arise.
        turn, place = divmod(row * 37 + col, len(paths))
        chip = np.rot90(_read_chip(paths[place]), turn % 4, axes=(1, 2))
        return chip[:, ::-1] if turn // 4 % 2 else chip

    return piece_at


@lru_cache(maxsize=512)
def _read_chip(path: Path) -> Array:
    with rasterio.open(path) as chip:
        pixels: Array = chip.read(out_dtype="uint8")  # band 4 is tagged alpha; it is near infrared
    return pixels


def _waves(seed: int) -> Callable[[int, int], Array]:
    """Soft waves through all pieces, with noise that belongs to the place."""
    lengths = np.random.default_rng(seed).uniform(20, 200, (len(ROLES), 2, 1, 1))

    def piece_at(row: int, col: int) -> Array:
        y = np.arange(row * _CHIP, (row + 1) * _CHIP)[:, None]
        x = np.arange(col * _CHIP, (col + 1) * _CHIP)[None, :]
        wave = 120 + 60 * np.sin(y / lengths[:, 0]) + 50 * np.cos((x + y / 3) / lengths[:, 1])
        noise = np.random.default_rng((seed, row, col)).normal(0, 8, wave.shape)
        return np.clip(wave + noise, 1, 255).astype(np.uint8)

    return piece_at


def _valid(side: int, top: int, height: int) -> Array:
    """Where nothing is cut away, (height, side): a frame of uneven width and a round hole are."""
    y, x = (np.arange(top, top + height)[:, None] + 0.5) / side, (np.arange(side)[None, :] + 0.5) / side
    by_row, by_col = 0.03 + 0.02 * np.sin(23 * y), 0.03 + 0.02 * np.cos(19 * x)
    inside = (x > by_row) & (x < 1 - by_row) & (y > by_col) & (y < 1 - by_col)
    return (inside & (np.hypot(x - 0.6, y - 0.4) > 0.2)).astype(np.uint8)


if __name__ == "__main__":
    main()
