"""A window of a labelled scene, varied as seen from another aircraft on another day: geometry first, then light."""

from __future__ import annotations

from math import ceil, cos, exp, log, pi, sin, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, label

from geoseg.frame import Box
from geoseg.training.samples import IGNORE

if TYPE_CHECKING:
    from geoseg.legend import Legend
    from geoseg.model.bundle import ModelBundle
    from geoseg.training.config import AugmentConfig, TrainConfig
    from geoseg.training.samples import LabelledScene, SampleIndex

Array = np.ndarray[Any, Any]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Batch(NamedTuple):
    """Windows of a step, N of them."""

    images: torch.Tensor
    """(N, channels, h, w) float32, varied and normalised."""
    truth: torch.Tensor
    """(N, h, w) int64 channel indices."""
    unvaried: torch.Tensor | None = None
    """The same windows in the light they were taken in, with all of their bands, for a teacher where there is one."""
    valid: torch.Tensor | None = None
    """(N, h, w) bool: where the teacher is asked."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device, images channels last."""
        images = self.images.to(device, memory_format=torch.channels_last)
        more = (None if tensor is None else tensor.to(device) for tensor in (self.unvaried, self.valid))
        return Batch(images, self.truth.to(device), *more)


class _Sample(NamedTuple):
    """One window of a batch; (channels, h, w) or (h, w)."""

    image: Floats
    truth: Bytes
    unvaried: Floats | None
    valid: Bytes


def batch_of(index: SampleIndex, config: TrainConfig, step: int) -> Batch:
    """The batch of a step: a function of (seed, step), the same whenever and wherever it is asked for."""
    samples = [_sample(index, config, step, place) for place in range(config.fit.batch)]
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    truth = torch.from_numpy(np.stack([sample.truth for sample in samples]).astype(np.int64))
    unvaried = [sample.unvaried for sample in samples if sample.unvaried is not None]
    if not unvaried:
        return Batch(images, truth)
    valid = np.stack([sample.valid for sample in samples]).astype(bool)
    return Batch(images, truth, torch.from_numpy(np.stack(unvaried)), torch.from_numpy(valid))


def _sample(index: SampleIndex, config: TrainConfig, step: int, place: int) -> _Sample:
    rng = np.random.default_rng((config.seed, step, place))
    drawn = index.draw(rng)
    labelled = index.scenes[drawn.scene]
    scaled, valid, truth = _cut(labelled, drawn.centre, config, rng)
    roles = labelled.scene.roles
    unvaried = network_input(config.bundle, scaled, valid, roles) if config.teacher else None
    # Of its own, so that what else is drawn does not depend on it.
    brush = np.random.default_rng((config.seed, step, place, 1))
    if brush.random() < config.augment.repaint:
        scaled = repaint(scaled, truth, config.legend, brush)
    # Each date has a light of its own: what differs by that alone is no change.
    dates = np.split(scaled, 2) if config.of_two_dates else [scaled]
    scaled = np.concatenate([vary_light(date, config.augment, rng) for date in dates])
    if rng.random() < config.augment.cutout:
        _cut_out(valid, rng)
    truth[valid == 0] = IGNORE
    if rng.random() < config.augment.missing:
        roles = tuple(role if role not in config.optional_roles else "" for role in roles)
    return _Sample(network_input(config.bundle, scaled, valid, roles), truth, unvaried, valid)


def network_input(bundle: ModelBundle, scaled: Array, valid: Array, roles: tuple[str, ...]) -> Floats:
    """What the network is fed, as `ModelBundle.normalise` gives it: bands without a role count as missing."""
    return bundle.normalise(scaled, valid.astype(bool), roles)


def _cut(
    labelled: LabelledScene, centre: tuple[int, int], config: TrainConfig, rng: np.random.Generator
) -> tuple[Floats, Bytes, Bytes]:
    """A window at a drawn GSD and angle: scaled (bands, h, w) in 0..1, valid (h, w), truth (h, w)."""
    size = config.fit.window
    zoom = _zoom(labelled.gsd_m, config.augment.gsd_m, rng)
    turned = rng.random() < config.augment.rotate
    angle = rng.uniform(-pi / 4, pi / 4)
    between = ceil(size * sqrt(2)) if turned else size
    side = max(1, round(between / zoom))
    pixels, valid, truth = labelled.read(Box(centre[0] - side // 2, centre[1] - side // 2, side, side))
    scaling = labelled.stretch if rng.random() < config.augment.stretch else labelled.scaling
    bands = [Image.fromarray(band) for band in scaling(pixels)]
    maps = [Image.fromarray(layer) for layer in (valid, truth)]
    if side != between:
        # Bilinear is an average over the window's pixel where it shrinks.
        bands = [band.resize((between, between), Image.Resampling.BILINEAR) for band in bands]
        maps = [layer.resize((between, between), Image.Resampling.NEAREST) for layer in maps]
    if turned:
        bands = [_turn(band, angle, size, Image.Resampling.BILINEAR) for band in bands]
        maps = [_turn(layer, angle, size, Image.Resampling.NEAREST) for layer in maps]
    quarters, flip = int(rng.integers(4)), bool(rng.integers(2))
    stacks = [np.rot90(np.stack([np.asarray(layer) for layer in layers]), quarters, (1, 2)) for layers in (bands, maps)]
    image, codes = (np.ascontiguousarray(stack[:, :, ::-1] if flip else stack) for stack in stacks)
    return image, codes[0], codes[1]


def _zoom(gsd_m: float, wanted_m: tuple[float, float] | None, rng: np.random.Generator) -> float:
    """How many pixels of the window one of the scene becomes."""
    fraction = rng.random()
    if wanted_m is None:
        return 1.0
    return gsd_m / exp(log(wanted_m[0]) + fraction * (log(wanted_m[1]) - log(wanted_m[0])))


def _turn(layer: Image.Image, angle: float, size: int, how: Image.Resampling) -> Image.Image:
    """Turn about the centre and keep the inner square of `size`."""
    c, s = cos(angle), sin(angle)
    outer, inner = layer.width / 2, size / 2
    coefficients = (c, -s, outer - inner * (c - s), s, c, outer - inner * (s + c))
    return layer.transform((size, size), Image.Transform.AFFINE, coefficients, how)


def vary_light(scaled: Floats, augment: AugmentConfig, rng: np.random.Generator) -> Floats:
    """Gain, offset and gamma for all bands and for each, then darkness, blur and noise; (bands, h, w) in 0..1."""
    strength = augment.radiometry
    bands = (scaled.shape[0], 1, 1)
    gain = np.exp(strength * (rng.normal(0, 0.18) + rng.normal(0, 0.10, bands)))
    offset = strength * (rng.normal(0, 0.06) + rng.normal(0, 0.03, bands))
    gamma = np.exp(strength * (rng.normal(0, 0.20) + rng.normal(0, 0.08, bands)))
    press = rng.uniform(0.25, 0.8) * rng.uniform(0.85, 1.15, bands)
    black = rng.uniform(0.02, 0.12)
    darkened, blurred, noisy = (rng.random() < share for share in (augment.darken, augment.blur, augment.noise))
    sigma, grain = rng.uniform(0.3, 1.0), rng.uniform(0.0, 0.03)
    varied = np.power(np.clip(scaled, 0, 1), gamma.astype(np.float32))
    # About the middle, so that more contrast does not also mean more light.
    varied = (varied - np.float32(0.4)) * gain.astype(np.float32) + (offset + 0.4).astype(np.float32)
    if darkened:
        varied = (varied - np.float32(black)) * press.astype(np.float32) + np.float32(black)
    if blurred:
        varied = gaussian_filter(varied, (0, sigma, sigma), truncate=3)
    if noisy:
        varied = varied + np.float32(grain) * rng.standard_normal(varied.shape, np.float32)
    result: Floats = np.clip(varied, 0, 1)
    return result


def repaint(scaled: Floats, truth: Bytes, legend: Legend, rng: np.random.Generator) -> Floats:
    """Give each connected part of a class of objects or lines a gain of its own; (bands, h, w) in 0..1, as it came.

    So that a network does not learn that a roof is bright and a street is grey.
    """
    gain = np.ones(scaled.shape, np.float32)
    for channel, entry in enumerate(legend.classes):
        if entry.kind not in {"object", "line"}:
            continue
        parts, count = label(truth == channel)
        common = np.clip(rng.normal(-0.25, 0.5, count), -1.3, 0.5)[None] + rng.normal(0, 0.12, (len(scaled), count))
        gain *= np.concatenate([np.ones((len(scaled), 1)), np.exp(common)], axis=1, dtype=np.float32)[:, parts]
    painted: Floats = np.clip(scaled * gaussian_filter(gain, (0, 0.7, 0.7), truncate=3), 0, 1)
    return painted


def _cut_out(valid: Bytes, rng: np.random.Generator) -> None:
    """Make what lies beyond a random line nodata, as the edge of a swath does."""
    height, width = valid.shape
    angle, reach = rng.uniform(0, 2 * pi), rng.uniform(0.1, 0.45)
    rows, cols = np.ogrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    valid[rows * cos(angle) + cols * sin(angle) > reach] = 0
