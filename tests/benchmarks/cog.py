"""Time to write a scene's parts and its COGs, against the COG driver of GDAL.

    python tests/benchmarks/cog.py [SIDE]

A scene of SIDE (8192) x SIDE pixels of smooth classes and noisy confidence, in parts of 2048 x 2048. Each COG is
written from the parts by geoseg, which also reads it back, and from one plain GTiff by `COPY ... driver="COG"` of GDAL
with its defaults and all cores, which does not; last, both by geoseg in two threads. `cpu` is user and system time.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from scipy.ndimage import gaussian_filter

from geoseg.frame import Box, Frame
from geoseg.legend import LAND_COVER, NODATA
from geoseg.write import RasterSpec, write_block, write_cog

if TYPE_CHECKING:
    from collections.abc import Callable

PART = 2048


def main() -> None:
    """Print the table."""
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 8192
    frame = Frame((side, side), Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32631")
    specs = {
        "classes": RasterSpec(frame, "uint8", NODATA, ("class",), "mode", legend=LAND_COVER),
        "confidence": RasterSpec(frame, "uint8", NODATA, ("confidence",), "average", units=("%",)),
    }
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        boxes = [Box(row, col, PART, PART) & frame.box for row in range(0, side, PART) for col in range(0, side, PART)]
        paths = [folder / f"part_{box.row}_{box.col}.tif" for box in boxes]
        pixels = [block(box) for box in boxes]
        print(f"{'':24} {'wall s':>7} {'cpu s':>7} {'MB':>7}")
        measure("parts", lambda: [write_block(*each) for each in blocks(paths, pixels, boxes, frame)], paths)
        for first, (what, spec) in enumerate(specs.items(), 1):
            parts = [(path, box, first) for path, box in zip(paths, boxes, strict=True)]
            ours, theirs, plain = (folder / f"{what}_{end}.tif" for end in ("geoseg", "gdal", "plain"))
            measure(what, lambda parts=parts, spec=spec, out=ours: write_cog(out, parts, spec), [ours])
            write_plain(plain, [array[first - 1] for array in pixels], boxes, frame)
            measure(f"{what}, GDAL's driver", lambda a=plain, b=theirs, spec=spec: copy(a, b, spec), [theirs])
        with ThreadPoolExecutor(2) as pool:
            jobs = [
                (folder / f"{what}.tif", [(path, box, first) for path, box in zip(paths, boxes, strict=True)], spec)
                for first, (what, spec) in enumerate(specs.items(), 1)
            ]
            measure("both in two threads", lambda: [*pool.map(lambda job: write_cog(*job), jobs)], [jobs[0][0]])


def measure(what: str, call: Callable[[], object], outs: list[Path]) -> None:
    """Run once and print a line."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    call()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = sum(out.stat().st_size for out in outs) / 1e6
    print(f"{what:24} {wall:7.2f} {cpu:7.2f} {size:7.1f}", flush=True)


def block(box: Box) -> np.ndarray:
    """Classes and confidence (2, height, width) of a box: one field, rolled."""
    generator = np.random.default_rng(0)
    field = gaussian_filter(generator.standard_normal((PART, PART), np.float32), 12)
    classes = np.digitize(field, np.quantile(field, [0.4, 0.6, 0.8, 0.9])).astype(np.uint8)
    noise = gaussian_filter(generator.standard_normal((PART, PART), np.float32), 3)
    confidence = np.clip(60 + 75 * noise, 20, 100).astype(np.uint8)
    rolled = np.roll(np.stack([classes, confidence]), box.row // 21 + box.col // 66, 1)
    return rolled[:, : box.height, : box.width]


def blocks(paths: list[Path], pixels: list[np.ndarray], boxes: list[Box], frame: Frame) -> list[tuple]:
    """The arguments of `write_block` for each part."""
    crops = [frame.crop(box) for box in boxes]
    return list(zip(paths, pixels, crops, [NODATA] * len(boxes), strict=True))


def write_plain(path: Path, arrays: list[np.ndarray], boxes: list[Box], frame: Frame) -> None:
    """One band as a GTiff without compression, which is what the COG driver reads fastest."""
    height, width = frame.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype="uint8", nodata=NODATA, crs=frame.crs,
        transform=frame.transform, tiled=True, blockxsize=512, blockysize=512,
    ) as raster:  # fmt: skip
        for array, box in zip(arrays, boxes, strict=True):
            raster.write(array, 1, window=((box.row, box.bottom), (box.col, box.right)))


def copy(source: Path, out: Path, spec: RasterSpec) -> None:
    """The plain way: GDAL's COG driver."""
    rasterio.shutil.copy(
        source, out, driver="COG", compress="deflate", overview_resampling=spec.resampling, num_threads="all_cpus",
        predictor="yes" if spec.resampling == "average" else "no",
    )  # fmt: skip


if __name__ == "__main__":
    main()
