"""Small rasters on disk, and a small untrained model, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine

from geoseg.legend import LAND_COVER
from geoseg.model import ModelBand, ModelBundle, save_bundle
from geoseg.scene import ScalingRule
from geoseg.workflow.progress import Silent

if TYPE_CHECKING:
    from pathlib import Path

ROLES = ("red", "green", "blue", "nir")


def write_scene(path: Path, pixels: np.ndarray[Any, Any], **profile: Any) -> Path:
    """Write pixels (bands, height, width) as a GeoTIFF of 1 m in UTM, with descriptions, colorinterp, mask as given."""
    descriptions, colorinterp = profile.pop("descriptions", ()), profile.pop("colorinterp", None)
    mask = profile.pop("mask", None)
    defaults = {
        "driver": "GTiff",
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype,
        "crs": "EPSG:32631",
        "transform": Affine(1, 0, 593_000, 0, -1, 5_747_000),
        "photometric": "minisblack",
    }
    with rasterio.open(path, "w", **(defaults | profile)) as dataset:
        if colorinterp is not None:
            dataset.colorinterp = colorinterp
        dataset.write(pixels)
        for band, text in enumerate(descriptions, 1):
            dataset.set_band_description(band, text)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def smooth_pixels(shape: tuple[int, int], seed: int = 0, bands: int = 4, dtype: str = "uint8") -> np.ndarray[Any, Any]:
    """Soft blobs of different brightness: something for a network to see."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((bands, shape[0] // 8 + 2, shape[1] // 8 + 2))
    fine = np.kron(coarse, np.ones((1, 8, 8)))[:, : shape[0], : shape[1]]
    noisy = np.clip(fine + 0.05 * rng.standard_normal(fine.shape), 0.01, 1)
    return (noisy * (255 if dtype == "uint8" else 2000)).astype(dtype)


def save_small_bundle(folder: Path, *, seed: int = 7, **changes: Any) -> ModelBundle:
    """An untrained U-Net on a shallow ResNet-18, the same in every process."""
    import torch  # noqa: PLC0415
    from safetensors.torch import save  # noqa: PLC0415

    from geoseg.model.network import build_network  # noqa: PLC0415

    decoder = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    torch.manual_seed(seed)
    network = build_network("Unet", changes.get("encoder", "resnet18"), 4, len(LAND_COVER.classes), decoder)
    details: dict[str, Any] = {
        "name": folder.name,
        "architecture": "Unet",
        "encoder": "resnet18",
        "decoder": decoder,
        "bands": tuple(ModelBand(role, 0.5, 0.25, optional=role == "nir") for role in ROLES),
        "scaling": ScalingRule({"uint8": (0, 255)}, (1, 99), (0.1, 0.9)),
        "gsd_m": (0.3, 1.5),
        "tile": 64,
        "legend": LAND_COVER,
        "licence": "Apache-2.0",
    }
    return save_bundle(ModelBundle(**(details | changes)), save(network.state_dict()), folder)


def smash(path: Path, row: int, col: int, *, opened: str | None = None, overview: int | None = None) -> None:
    """Overwrite one block (counted in blocks) of a GeoTIFF, or of one of its directories or overviews."""
    with rasterio.open(opened or path) as dataset:
        keys = (f"BLOCK_{what}_{col}_{row}" for what in ("OFFSET", "SIZE"))
        offset, size = (int(dataset.get_tag_item(key, "TIFF", bidx=1, ovr=overview)) for key in keys)
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"\xff" * size
    path.write_bytes(content)


class Notes(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)
