"""A scene on a GPU against the network alone.

    python tests/benchmarks/gpu.py [SIDE]

For the embedded model, and for an untrained U-Net on a ResNet-152: first the network by itself, in bf16 on tiles that
lie in the memory of the GPU, for several batches; then whole scenes, uncompressed and DEFLATE, with blocks of several
sizes, rasters out: seconds by step, and the rate of the scene beside that of the network. Then the laws: equal bytes
for all blocks, a batch that is too large for the memory is halved, and nearly all classes are those of the CPU in fp32.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.windows import Window
from safetensors.torch import save

from geoseg.config import Settings
from geoseg.model import find_bundle, save_bundle
from geoseg.model.network import build_network, load_network
from geoseg.workflow import segment_scene

TILE = 512
ROLES = ("red", "green", "blue", "nir")


def main() -> None:
    """Print the tables."""
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 8192
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        scenes = {how: write_texture(place / f"{how}.tif", side, how) for how in ("none", "deflate")}
        broken = False
        for model in ("aerial", str(save_large_bundle(place / "large"))):
            print(model)
            best = print_network(model)
            outs = []
            for compress, block in itertools.product(scenes, (side // 4, side // 2)):
                outs.append(place / f"{Path(model).name}_{compress}_{block}")
                record = run(scenes[compress], outs[-1], model, block=block, device="cuda")
                print_scene(f"{compress} {block}", record, best)
            broken |= not same_bytes(outs)
        small = write_texture(place / "small.tif", 2048, "none")
        run(small, place / "cuda", "aerial", device="cuda")
        record = run(small, place / "halved", "aerial", device="cuda", batch=1 << 14)
        print("a batch that was too large:", record["engine"])
        run(small, place / "cpu", "aerial", device="cpu", precision="fp32")
        print(f"classes as on the CPU in fp32: {agreement(place / 'cuda', place / 'cpu'):.3%}")
    sys.exit(broken)


def save_large_bundle(folder: Path) -> Path:
    """An untrained U-Net on a ResNet-152."""
    like = find_bundle("aerial")
    torch.manual_seed(0)
    network = build_network("Unet", "resnet152", len(like.bands), len(like.legend.classes), {})
    bundle = replace(like, name="large", architecture="Unet", encoder="resnet152", decoder={}, card={}, scores={})
    save_bundle(bundle, save(network.state_dict()), folder)
    return folder


def print_network(model: str) -> float:
    """Mpx/s of the network alone by batch; returns the best."""
    bundle = find_bundle(model)
    network = load_network(bundle).cuda().to(memory_format=torch.channels_last)
    rates = []
    for batch in (4, 8, 16, 32, 64):
        tiles = torch.rand((batch, len(bundle.bands), TILE, TILE), device="cuda")
        tiles = tiles.to(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            for _ in range(5):
                network(tiles)
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(20):
                network(tiles)
            torch.cuda.synchronize()
        rates.append(20 * batch * TILE**2 / 1e6 / (time.perf_counter() - started))
        print(f"network alone, batch {batch:3}: {rates[-1]:8.1f} Mpx/s", flush=True)
    return max(rates)


def print_scene(what: str, record: dict[str, Any], best: float) -> None:
    """The rate of a scene, and how long its tiles would have taken in the network alone."""
    seconds = record["seconds"]
    spent = seconds["total"] - seconds["startup"]
    alone = record["tiles"]["planned"] * TILE**2 / 1e6 / best
    print(f"scene {what:13}: {record['megapixels'] / spent:6.1f} Mpx/s, {spent:.2f} s, network alone {alone:.2f} s")
    print("   ", record["engine"], {step: value for step, value in seconds.items() if value}, flush=True)


def run(scene: Path, out: Path, model: str, **details: Any) -> dict[str, Any]:
    """Segment without polygons; the manifest."""
    settings = Settings(model=model, vectors=False, **details)
    manifest: dict[str, Any] = segment_scene(scene, out, settings).manifest
    return manifest


def same_bytes(folders: list[Path]) -> bool:
    """Whether all runs wrote the same classes and confidence."""
    same = True
    for name in ("classes.tif", "confidence.tif"):
        contents = {(folder / name).read_bytes() for folder in folders}
        print(f"{name}: {len(contents)} different among {len(folders)} runs")
        same &= len(contents) == 1
    return same


def agreement(first: Path, second: Path) -> float:
    """The share of pixels of one class."""
    with rasterio.open(first / "classes.tif") as one, rasterio.open(second / "classes.tif") as other:
        return float((one.read(1) == other.read(1)).mean())


def write_texture(path: Path, side: int, compress: str) -> Path:
    """Four bands of 8 bits: soft patches, repeated, so that the file is quickly made."""
    rng = np.random.default_rng(0)
    patch = np.kron(rng.random((4, 128, 128)), np.ones((1, 16, 16))) + 0.1 * rng.standard_normal((4, 2048, 2048))
    patch = (np.clip(patch, 0.01, 1) * 255).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=side, width=side, dtype="uint8", crs="EPSG:32631",
        transform=Affine(0.6, 0, 5e5, 0, -0.6, 5e6), tiled=True, blockxsize=512, blockysize=512, compress=compress,
        photometric="minisblack", num_threads="all_cpus",
    ) as dataset:  # fmt: skip
        for row in range(0, side, 2048):
            for col in range(0, side, 2048):
                window = Window(col, row, min(2048, side - col), min(2048, side - row))
                turned = np.roll(patch, row // 2048 * 331 + col // 2048 * 97, axis=2)
                dataset.write(turned[:, : window.height, : window.width], window=window)
        for band, role in enumerate(ROLES, 1):
            dataset.set_band_description(band, role)
    return path


if __name__ == "__main__":
    main()
