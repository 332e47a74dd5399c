"""A network that looks at one pixel at a time: stitched, it must equal itself untiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from geoseg.frame import Frame
from geoseg.legend import LAND_COVER
from geoseg.model import LEVELS, ModelBand, ModelBundle
from geoseg.scene import ArrayScene, Scaling, ScalingRule
from geoseg.segment import SegmentJob, forward_block, settle_block

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.blend import Blend
    from geoseg.grid import Grid

UTM = "EPSG:32631"

BUNDLE = ModelBundle(
    name="pointwise",
    architecture="none",
    encoder="none",
    bands=(ModelBand("red", 0.5, 0.5), ModelBand("nir", 0.5, 0.5)),
    scaling=ScalingRule({"uint8": (0, 255)}),
    gsd_m=(0.3, 1.5),
    tile=32,
    legend=LAND_COVER,
    licence="Apache-2.0",
)


@dataclass(frozen=True)
class PointwiseSource:
    """Opens a pointwise engine that wants a given number of threads."""

    lanes: int = 3

    def open(self) -> PointwiseEngine:
        return PointwiseEngine(self.lanes)


class PointwiseEngine:
    """Probabilities of five classes from the values of two channels."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.name = "pointwise"

    def __call__(self, tile: np.ndarray[Any, Any], place: int = 0) -> np.ndarray[Any, Any]:  # noqa: ARG002
        return pointwise_levels(tile)


def pointwise_levels(tile: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(2, h, w) -> (5, h, w) int16."""
    phases = np.arange(5, dtype=np.float32)[:, None, None]
    mixed = 3 * np.sin(phases + 2 * tile[:1] + 3 * (phases % 2) * tile[1:])
    shares = np.exp(mixed) / np.exp(mixed).sum(axis=0, keepdims=True)
    levels: np.ndarray[Any, Any] = np.rint(shares * LEVELS).astype(np.int16)
    return levels


def frame_of(shape: tuple[int, int], gsd: float = 1.0) -> Frame:
    """A frame in UTM."""
    return Frame(shape, Affine(gsd, 0, 500_000, 0, -gsd, 5_700_000), UTM)


def random_scene(shape: tuple[int, int], seed: int, share_valid: float = 1.0) -> ArrayScene:
    """Noise of two bands, with nodata anywhere."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
    return ArrayScene(pixels, frame_of(shape), ("red", "nir"), rng.random(shape) < share_valid)


def job_for(scene: ArrayScene, grid: Grid, folder: Path, *, blend: Blend = "hann", lanes: int = 3) -> SegmentJob:
    """The job of a pointwise network over a scene."""
    return SegmentJob(
        scene=scene,
        scaling=Scaling.between((0.0, 0.0), (255.0, 255.0)),
        bundle=BUNDLE,
        engine=PointwiseSource(lanes),
        grid=grid,
        blend=blend,
        folder=folder,
        with_probabilities=True,
    )


def run_job(job: SegmentJob, order: list[int] | None = None) -> tuple[np.ndarray[Any, Any], int, int]:
    """All bands (2 + C, H, W) of a whole scene, tiles forwarded, tiles skipped; blocks forwarded in `order`."""
    blocks = job.grid.blocks
    receipts = [forward_block(job, blocks[k]) for k in (order or range(len(blocks)))]
    result = np.zeros((7, *job.grid.shape), np.uint8)
    for block in blocks:
        rows, cols = block.box.slices(job.scene.frame.box)
        result[:, rows, cols] = settle_block(job, block).bands
    return result, sum(r.forwarded for r in receipts), sum(r.skipped_nodata for r in receipts)
