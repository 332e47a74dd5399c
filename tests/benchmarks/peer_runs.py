"""Other ways to segment a scene, each as its users are told to; run by `peers.py` in an environment of its own.

    python peer_runs.py PEER JOB.json

All get the same network with the same weights, as a torch module that takes pixels as stored, the same tiles and
overlap, and write classes as a GeoTIFF. The last line printed is what it took, as JSON: seconds and CPU seconds from
the first read to the written file (imports and loading the network left out), and the peak of the memory in MB.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

BATCH = 4


@dataclass(frozen=True)
class Job:
    """What is asked of a peer."""

    scene: Path
    out: Path
    model: str
    tile: int
    overlap: int
    threads: int
    quick: bool
    """bf16 autocast and channels last, instead of fp32 as the library comes."""

    @property
    def stride(self) -> int:
        """From tile to tile."""
        return self.tile - self.overlap


class Fed(torch.nn.Module):
    """The network of a bundle with the scaling of the scene before it: (N, B, h, w) as stored -> logits."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        from geoseg.model import find_bundle  # noqa: PLC0415
        from geoseg.model.network import load_network  # noqa: PLC0415
        from geoseg.scene import open_scene, resolve_scaling  # noqa: PLC0415

        bundle = find_bundle(job.model)
        scene = open_scene(job.scene, bundle.needs)
        scaling = resolve_scaling(scene, bundle.scaling)
        self.classes, self.gamma, self.quick = len(bundle.legend.classes), scaling.gamma, job.quick
        for name, values in {
            "gain": scaling.gain,
            "offset": scaling.offset,
            "mean": [band.mean for band in bundle.bands],
            "std": [band.std for band in bundle.bands],
        }.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None])
        self.network = load_network(bundle).eval()
        if job.quick:
            self.network = self.network.to(memory_format=torch.channels_last)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = (pixels * self.gain + self.offset).clamp_(0, 1)
        if self.gamma != 1:
            scaled = scaled.pow_(self.gamma)
        normal = (scaled - self.mean) / self.std
        if not self.quick:
            return self.network(normal)
        with torch.autocast("cpu", torch.bfloat16):
            return self.network(normal.to(memory_format=torch.channels_last)).float()


def loop(job: Job, network: Fed) -> None:
    """A loop over windows, batches of four, probabilities added up under a Hann window in an array of the scene."""
    with rasterio.open(job.scene) as source:
        shape, profile = source.shape, source.profile
        sums, total = np.zeros((network.classes, *shape), np.float32), np.zeros(shape, np.float32)
        window = np.sin((np.arange(job.tile) + 0.5) / job.tile * np.pi) ** 2
        weights = np.maximum(window[:, None] * window, 1e-3).astype(np.float32)
        places = [(row, col) for row in starts(shape[0], job) for col in starts(shape[1], job)]
        for first in range(0, len(places), BATCH):
            batch = places[first : first + BATCH]
            pixels = np.stack([source.read(window=Window(col, row, job.tile, job.tile)) for row, col in batch])
            with torch.inference_mode():
                shares = torch.softmax(network(torch.from_numpy(pixels.astype(np.float32))), 1).numpy()
            for (row, col), share in zip(batch, shares, strict=True):
                at = (slice(row, row + job.tile), slice(col, col + job.tile))
                sums[(slice(None), *at)] += share * weights
                total[at] += weights
    sums /= total
    write(job, sums.argmax(0).astype(np.uint8), profile)


def torchgeo(job: Job, network: Fed) -> None:
    """`RasterDataset`, `GridGeoSampler` and a `DataLoader`; what comes later lies above what came before."""
    from torch.utils.data import DataLoader  # noqa: PLC0415
    from torchgeo.datasets import RasterDataset, stack_samples  # noqa: PLC0415
    from torchgeo.samplers import GridGeoSampler  # noqa: PLC0415

    dataset = RasterDataset(str(job.scene))
    sampler = GridGeoSampler(dataset, size=job.tile, stride=job.stride)
    with rasterio.open(job.scene) as source:
        transform, shape, profile = source.transform, source.shape, source.profile
    classes = np.full(shape, 255, np.uint8)
    loader = DataLoader(dataset, batch_size=BATCH, sampler=sampler, collate_fn=stack_samples)
    for sample in loader:
        with torch.inference_mode():
            found = network(sample["image"].float()).argmax(1).to(torch.uint8).numpy()
        for tile, (x, y, _) in zip(found, sample["bounds"], strict=True):
            col, row = (round(value) for value in ~transform * (x.start, y.stop))
            top, left = max(row, 0), max(col, 0)  # the last ones reach beyond the scene
            inside = tile[top - row : shape[0] - row, left - col : shape[1] - col]
            classes[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    write(job, classes, profile)


def monai(job: Job, network: Fed) -> None:
    """`sliding_window_inference` with Gaussian weights over the scene as one tensor."""
    from monai.inferers import SlidingWindowInferer  # noqa: PLC0415

    infer = SlidingWindowInferer(job.tile, BATCH, overlap=job.overlap / job.tile, mode="gaussian")
    with rasterio.open(job.scene) as source:
        pixels, profile = source.read(), source.profile
    with torch.inference_mode():
        logits = infer(torch.from_numpy(pixels.astype(np.float32))[None], network)
        classes = logits[0].argmax(0).to(torch.uint8).numpy()
    write(job, classes, profile)


def geoai(job: Job, network: Fed) -> None:
    """`semantic_inference_on_geotiff`, which divides by 255."""
    from geoai.train import semantic_inference_on_geotiff  # noqa: PLC0415

    class Times255(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return network(pixels * 255)

    semantic_inference_on_geotiff(
        Times255(), str(job.scene), str(job.out), job.tile, job.overlap, BATCH, 4, network.classes,
        device=torch.device("cpu"), quiet=True,
    )  # fmt: skip


def dask(job: Job, network: Fed) -> None:
    """Rioxarray in chunks, `map_overlap` by half the overlap, and of each tile the middle."""
    import rioxarray  # noqa: PLC0415

    margin, tiles = job.overlap // 2, 8

    def segment(pixels: Array) -> Array:
        height, width = pixels.shape[1:]
        classes = np.zeros((1, height, width), np.uint8)
        places = [
            (min(row, height - job.tile), min(col, width - job.tile))
            for row in range(0, height - job.overlap, job.stride)
            for col in range(0, width - job.overlap, job.stride)
        ]
        inner = slice(margin, job.tile - margin)
        for first in range(0, len(places), BATCH):
            batch = places[first : first + BATCH]
            cut = np.stack([pixels[:, row : row + job.tile, col : col + job.tile] for row, col in batch])
            with torch.inference_mode():
                found = network(torch.from_numpy(cut.astype(np.float32))).argmax(1).to(torch.uint8).numpy()
            for (row, col), tile in zip(batch, found, strict=True):
                at = (slice(row + margin, row + job.tile - margin), slice(col + margin, col + job.tile - margin))
                classes[(0, *at)] = tile[inner, inner]
        return classes[:, margin : height - margin, margin : width - margin]

    side = job.stride * tiles
    scene = rioxarray.open_rasterio(job.scene, chunks={"band": -1, "y": side, "x": side}, lock=False)
    depth = {0: 0, 1: margin, 2: margin}
    chunks = ((1,), *scene.data.chunks[1:])
    found = scene.data.map_overlap(segment, depth=depth, boundary="reflect", trim=False, dtype=np.uint8, chunks=chunks)
    classes = scene.isel(band=[0]).copy(data=found).drop_attrs()  # names of four bands
    classes.rio.to_raster(job.out, tiled=True, compress="deflate", lock=threading.Lock())


PEERS: dict[str, tuple[Callable[[Job, Fed], None], tuple[str, ...]]] = {
    "loop": (loop, ()),
    "torchgeo": (torchgeo, ("torchgeo.datasets", "torchgeo.samplers", "torch.utils.data")),
    "monai": (monai, ("monai.inferers",)),
    "geoai": (geoai, ("geoai.train",)),
    "dask": (dask, ("rioxarray", "dask.array")),
}
"""Each peer, and what it imports."""


def starts(size: int, job: Job) -> list[int]:
    """Where tiles begin along an axis; the last one ends with it."""
    return [*range(0, size - job.tile, job.stride), size - job.tile]


def write(job: Job, classes: Array, profile: dict[str, Any]) -> None:
    """Classes (H, W) uint8 as a tiled, compressed GeoTIFF."""
    keep = {name: profile[name] for name in ("crs", "transform", "height", "width")}
    more = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    with rasterio.open(job.out, "w", driver="GTiff", count=1, dtype="uint8", **keep, **more) as target:
        target.write(classes, 1)


def main() -> None:
    """Run one peer."""
    warnings.filterwarnings("ignore")
    details = json.loads(Path(sys.argv[2]).read_text())
    job = Job(**details | {"scene": Path(details["scene"]), "out": Path(details["out"])})
    torch.set_num_threads(job.threads)
    network = Fed(job)
    run, modules = PEERS[sys.argv[1]]
    for module in modules:
        import_module(module)
    with torch.inference_mode():  # the first call pays for allocations
        network(torch.ones(BATCH, len(network.gain), job.tile, job.tile))
    began, cpu = time.perf_counter(), time.process_time()
    run(job, network)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "peak_mb": peak}
    print("\n" + json.dumps(took))


if __name__ == "__main__":
    main()
