"""What a class raster amounts to: pixels, areas and confidence of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import FrameMismatchError, InputError
from geoseg.frame import Box
from geoseg.legend import NODATA, Kind, Legend
from geoseg.scene.info import inspect_scene, read_window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from geoseg.scene.info import SceneInfo

BINS = 10
"""Bins of the histogram of confidence, each a tenth wide; the last holds 100 % too."""

_SIDE = 1024
"""About the side of the windows that are counted at a time."""

_PIECE = 1 << 16
"""About so many pixels are counted at a time."""

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Counts = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class ClassNumbers:
    """One class of a scene: pixels, their share of the valid ones (0..1), how sure the model was of them (0..1)."""

    code: int
    name: str
    color: str
    pixels: int
    share: float
    area_m2: float | None
    """None where the scene has no CRS."""
    mean_confidence: float | None
    """None where the class has no pixel."""
    kind: Kind = "area"

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0..255."""
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@dataclass(frozen=True, slots=True)
class SceneNumbers:
    """All classes of a scene in the legend's order, also those without a pixel, and what lies beside them."""

    classes: tuple[ClassNumbers, ...]
    valid_pixels: int
    nodata_pixels: int
    confidence_histogram: tuple[int, ...]
    """Valid pixels by confidence: 0 to 10 %, ..., 90 to 100 %."""

    @property
    def area_m2(self) -> float | None:
        """Area of all valid pixels; None without a CRS."""
        areas = [entry.area_m2 for entry in self.classes]
        return None if None in areas else sum(area for area in areas if area is not None)

    @property
    def mean_confidence(self) -> float | None:
        """Mean over all valid pixels, 0..1; None where there is none."""
        parts = [entry.share * entry.mean_confidence for entry in self.classes if entry.mean_confidence is not None]
        return sum(parts) if parts else None


def count_classes(classes: Path, confidence: Path, legend: Legend, pixel_area_m2: float | None) -> SceneNumbers:
    """Count a class raster and its confidence (both uint8 on one grid, 255 is nodata, confidence in percent).

    Reads window by window, so that memory does not grow with the scene. Raises FrameMismatchError where the two
    rasters differ in size, InputError where a code is not in the legend or a class has no confidence.
    """
    info, other = inspect_scene(classes), inspect_scene(confidence)
    if info.frame.shape != other.frame.shape:
        raise FrameMismatchError(
            f"{classes} has {info.frame.shape} pixels (height, width), {confidence} has {other.frame.shape}; "
            "they must come from one run"
        )
    joint = np.zeros((256, 256), np.int64)
    for box in _boxes(info):
        joint += count_jointly(read_window(info.path, [1], box)[0], read_window(other.path, [1], box)[0])
    _check(joint, legend, info.path, other.path)
    return scene_numbers(joint, legend, pixel_area_m2)


def count_jointly(codes: Bytes, confidence: Bytes) -> Counts:
    """How many pixels have a code and a confidence: (H, W) and (H, W) uint8 -> (256, 256) int64, [code, confidence]."""
    counts = np.zeros(256 * 256, np.int64)
    rows = max(1, _PIECE // codes.shape[1])
    for top in range(0, codes.shape[0], rows):  # numpy counts in indices of eight bytes: a piece's stay in the cache
        pairs = codes[top : top + rows].astype(np.intp)
        pairs <<= 8
        pairs |= confidence[top : top + rows]
        found = np.bincount(pairs.ravel())
        counts[: len(found)] += found
    return counts.reshape(256, 256)


def _boxes(info: SceneInfo) -> Iterator[Box]:
    """Cut a raster along its blocks into windows of about `_SIDE` x `_SIDE` pixels."""
    block_height, block_width = info.blocks
    width = min(info.frame.shape[1], block_width * max(1, _SIDE // block_width))
    height = block_height * max(1, _SIDE * _SIDE // (width * block_height))
    for row in range(0, info.frame.shape[0], height):
        for col in range(0, info.frame.shape[1], width):
            yield Box(row, col, height, width) & info.frame.box


def _check(joint: Counts, legend: Legend, classes: str, confidence: str) -> None:
    found = np.flatnonzero(joint[:NODATA].any(axis=1)).tolist()
    unknown = sorted(set(found) - set(legend.codes))
    if unknown:
        raise InputError(
            f"{classes} holds the codes {unknown}; the legend has {sorted(legend.codes)}, and {NODATA} is nodata"
        )
    unsure = int(joint[:NODATA, 101:].sum())
    if unsure:
        raise InputError(f"{confidence} has no confidence of 0..100 % at {unsure} pixels that {classes} gives a class")


def scene_numbers(joint: Counts, legend: Legend, pixel_area_m2: float | None) -> SceneNumbers:
    """What the counts of all pixels of a scene, added up from `count_jointly`, amount to."""
    by_percent = joint[:NODATA, :101]
    valid = int(by_percent.sum())
    percents = np.arange(101)
    rows = []
    for entry in legend.classes:
        pixels = int(by_percent[entry.code].sum())
        mean = float(by_percent[entry.code] @ percents) / pixels / 100 if pixels else None
        area = None if pixel_area_m2 is None else pixels * pixel_area_m2
        share = pixels / valid if valid else 0.0
        rows.append(ClassNumbers(entry.code, entry.name, entry.color, pixels, share, area, mean, entry.kind))
    bins = np.bincount(np.minimum(percents // BINS, BINS - 1), weights=by_percent.sum(axis=0), minlength=BINS)
    return SceneNumbers(tuple(rows), valid, int(joint[NODATA].sum()), tuple(int(count) for count in bins))
