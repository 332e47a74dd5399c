"""`export`: a model for other programs, or for other arithmetic, and what that costs in accuracy."""

from __future__ import annotations

import glob
import tempfile
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.config import Settings
from geoseg.errors import InputError, UsageError
from geoseg.frame import Box
from geoseg.legend import NODATA
from geoseg.model import EngineChoice, Normaliser, find_bundle, open_engine, save_bundle, weights_path
from geoseg.model.exported import export_onnx
from geoseg.model.int8 import SPARED, quantise
from geoseg.scene import read_mirrored
from geoseg.training.evaluate import codes_of, open_classes, renaming, require_one_grid
from geoseg.training.scores import confusion_matrix, pixel_scores
from geoseg.workflow.prepare import prepare
from geoseg.write import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from geoseg.model import Engine, ModelBundle
    from geoseg.model.normalise import Channels

    Codes = np.ndarray[Any, np.dtype[np.uint8]]
    Say = Callable[[str], None]

MOST_LOST = 0.005
"""An int8 network whose mean IoU is lower by more than this is refused."""
_CALIBRATION = 300
"""Tiles that are looked at to see the ranges of values; more change little."""
_VALIDATION = 400
"""Tiles that are scored."""


@dataclass(frozen=True, slots=True)
class Compared:
    """How two precisions do on the same tiles."""

    agreement: float
    """Share of pixels to which both give the same class."""
    mean_iou: float
    exact_mean_iou: float


def export_graph(model: str, path: Path) -> Path:
    """Write the network of a model as an ONNX file, from normalised tiles to levels; returns its path."""
    bundle = find_bundle(model)
    if bundle.is_graph:
        raise UsageError(f"{bundle.name} is an ONNX file already: {weights_path(bundle)}")
    with replacing(path) as partial:
        export_onnx(bundle, bundle.tile, partial)
    return path


@dataclass(frozen=True, slots=True)
class Evidence:
    """The scenes that an int8 network is made from, and those that judge it: files, folders or patterns."""

    calibration: Sequence[str]
    validation: Sequence[tuple[str, str]]
    """Scenes and their class rasters; folders of both hold files of the same names."""
    bands: str | None = None
    """As for `segment`."""
    remap: dict[int, int] = field(default_factory=dict)
    """Codes of the class rasters to count as others."""


def export_int8(model: str, out: Path, evidence: Evidence, say: Say | None = None) -> ModelBundle:
    """A copy of a model in the folder `out` that also has its network in int8; returns its bundle.

    Layers at both ends of the network stay in floats, a few more at each try, until the mean IoU is lower by no more
    than `MOST_LOST`. What was measured is put on record in the bundle. Raises UsageError where it stays lower, or where
    paths name nothing.
    """
    say = say or (lambda _: None)
    bundle = find_bundle(model)
    if bundle.of_two_dates or bundle.is_graph:
        kind = "compares two dates" if bundle.of_two_dates else "is an ONNX network"
        raise UsageError(f"{bundle.name} {kind}; int8 is made of networks of one date that geoseg builds itself")
    settings = Settings(model=model, bands=evidence.bands, force=True)
    scenes, pairs = _scenes(evidence.calibration), _pairs(evidence.validation)
    seen = [tile for tile, _ in _tiles(settings, [(scene, None) for scene in scenes], _CALIBRATION, {})]
    judged = list(_tiles(settings, pairs, _VALIDATION, evidence.remap))
    exact = open_engine(bundle, EngineChoice(engine="openvino", precision="fp32"), bundle.tile)
    say(f"{len(seen)} tiles to calibrate on, {len(judged)} to judge by")
    weights = weights_path(bundle).read_bytes()
    found = Compared(0.0, 0.0, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for spared in SPARED:
            files = quantise(bundle, seen, spared)
            tried = save_bundle(bundle, weights, Path(folder) / str(spared), files)
            engine = open_engine(tried, EngineChoice(engine="openvino", precision="int8"), bundle.tile)
            found = compare_engines(engine, exact, judged, bundle)
            say(
                f"{spared} layers in floats: mean IoU {found.mean_iou:.4f} ({found.exact_mean_iou:.4f} in fp32), "
                f"{found.agreement:.2%} of pixels with the same class"
            )
            if found.exact_mean_iou - found.mean_iou <= MOST_LOST:
                return _with_int8(bundle, weights, out, files, found)
    raise UsageError(
        f"{bundle.name}: int8 loses more than {MOST_LOST} of the mean IoU (at last {found.exact_mean_iou:.4f} to "
        f"{found.mean_iou:.4f}), whatever layers are spared; calibrate on scenes like those of --validation"
    )


def _with_int8(bundle: ModelBundle, weights: bytes, out: Path, files: dict[str, bytes], found: Compared) -> ModelBundle:
    score = {"mean_iou": round(found.mean_iou, 4), "fp32_mean_iou": round(found.exact_mean_iou, 4)}
    kept = replace(
        bundle,
        agreement={**bundle.agreement, "int8": round(found.agreement, 4)},
        scores={**bundle.scores, "int8": score},
    )
    return save_bundle(kept, weights, out, files)


def compare_engines(
    engine: Engine, exact: Engine, judged: Iterable[tuple[Channels, Codes]], bundle: ModelBundle
) -> Compared:
    """Both engines on tiles (channels, h, w) with true codes (h, w)."""
    codes = np.array(bundle.legend.codes, np.uint8)
    counts = np.zeros((2, len(codes), len(codes) + 1), np.int64)
    same = pixels = 0
    for tile, truth in judged:
        first, second = (codes[one(tile).argmax(axis=0)] for one in (engine, exact))
        same += int((first == second).sum())
        pixels += first.size
        for k, found in enumerate((first, second)):
            counts[k] += confusion_matrix(found, truth, bundle.legend.codes)
    ious = [pixel_scores(count, bundle.legend.names)["mean_iou"] or 0.0 for count in counts]
    return Compared(same / max(1, pixels), *ious)


def _scenes(sources: Sequence[str]) -> list[Path]:
    """The rasters that files, folders and patterns name; raises UsageError where one names none."""
    found: list[Path] = []
    for source in sources:
        pattern = f"{source}/*.tif" if Path(source).is_dir() else source
        here = [Path(source)] if Path(source).is_file() else [Path(name) for name in sorted(glob.glob(pattern))]  # noqa: PTH207  # a pattern may be absolute
        if not here:
            raise UsageError(f"{source} names no raster")
        found += here
    return found


def _pairs(sources: Sequence[tuple[str, str]]) -> list[tuple[Path, Path | None]]:
    pairs: list[tuple[Path, Path | None]] = []
    for scenes, labels in sources:
        folder = Path(labels)
        found = _scenes([scenes])
        if folder.is_dir():
            here = [(scene, folder / scene.name) for scene in found if (folder / scene.name).is_file()]
            if not here:
                raise UsageError(f"{labels} has no file with the name of one of {scenes}")
            pairs += here
        elif len(found) == 1:
            pairs.append((found[0], folder))
        else:
            raise UsageError(f"{scenes} names {len(found)} scenes; {labels} must be a folder with a raster for each")
    return pairs


def _tiles(
    settings: Settings, scenes: list[tuple[Path, Path | None]], limit: int, remap: dict[int, int]
) -> Iterator[tuple[Channels, Codes]]:
    """Up to `limit` tiles, evenly over scenes, as the network is fed them, and the codes of their pixels.

    Where a scene has bands that the model can do without, each tile comes a second time without them.
    """
    share = max(1, limit // len(scenes))
    for path, labels in scenes:
        prepared = prepare(path, settings)
        bundle, scene, side = prepared.bundle, prepared.scene, prepared.bundle.tile
        if prepared.fit.scene != (side, side):
            raise InputError(f"{path}: its GSD is none that {bundle.name} knows as it is; resample it first")
        job = prepared.job(path.parent)
        truth = None if labels is None else open_classes(labels)
        if truth is not None:
            require_one_grid(scene.frame, truth.frame, str(path), str(labels))
        optional = {band.role for band in bundle.bands if band.optional} & set(scene.roles)
        variants = [scene.roles, *([tuple("" if r in optional else r for r in scene.roles)] if optional else [])]
        height, width = scene.frame.shape
        boxes = [Box(*corner, side, side) for corner in product(range(0, height, side), range(0, width, side))]
        chosen = np.unique(np.linspace(0, len(boxes) - 1, max(1, share // len(variants))).astype(int))
        for box in (boxes[k] for k in chosen):
            pixels, valid = read_mirrored(scene, box)
            codes = np.full(box.shape, NODATA, np.uint8)
            if truth is not None:
                inside = box & scene.frame.box
                rename = renaming(bundle.legend, remap, str(labels))
                codes[inside.slices(box)] = rename(codes_of(truth, inside))
            for roles in variants:
                yield Normaliser.of(bundle, job.scaling, roles, scene.dtype)(pixels, valid), codes
