"""How good a network is on the places held out."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from geoseg.frame import Box
from geoseg.training.augment import network_input
from geoseg.training.samples import IGNORE
from geoseg.training.scores import confusion_matrix, pixel_scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from geoseg.training.config import TrainConfig
    from geoseg.training.samples import LabelledScene

Array = np.ndarray[Any, Any]

_EVERY = 4
"""Neighbours in an image say nearly the same: of rows and columns every so many-th is looked at."""
_BIASES = tuple(value / 10 for value in range(-20, 21))
_FEWEST = 100
"""True pixels of a class, among those looked at, below which nothing is said of its bias."""
_ROUNDS, _LEAST_GAIN = 4, 1e-4
"""So often every class is looked at, and by so much the mean IoU must rise for a bias to be another."""


def validate(
    network: nn.Module, config: TrainConfig, scenes: tuple[LabelledScene, ...], *, limit: int | None = None
) -> dict[str, Any]:
    """Scores by source, with all bands and, where a scene has optional ones, without them.

    Windows lie on a grid over the scenes of a source, at their own GSD; `limit` takes so many of them, evenly.
    The network is left in evaluation mode.
    """
    network.eval()
    results: dict[str, Any] = {}
    for source in dict.fromkeys(scene.source for scene in scenes):
        chosen = tuple(scene for scene in scenes if scene.source == source)
        windows = windows_of(chosen, config.fit.validation_window, limit)
        variants = {"all_bands": True}
        if any(set(config.optional_roles) & set(scene.scene.roles) for scene in chosen):
            variants["without_" + "_".join(config.optional)] = False
        results[source] = {"places": sorted({scene.place for scene in chosen})} | {
            name: _scores(network, config, windows, keep_optional=keep) for name, keep in variants.items()
        }
    return results


def bf16_agreement(network: nn.Module, config: TrainConfig, scenes: tuple[LabelledScene, ...]) -> float:
    """The share of pixels that get the same class in bf16 as in fp32, with and without optional bands.

    Looked at are windows of every source, as many as between steps. The network is left in evaluation mode.
    """
    network.eval()
    same = pixels = 0
    for (labelled, box), _, image, _ in _looks(config, scenes):
        with torch.inference_mode():
            exact = network(image).argmax(dim=1)
            with torch.autocast("cpu", torch.bfloat16):
                rounded = network(image).argmax(dim=1)
        equal = (exact == rounded)[:, *(box & labelled.scene.frame.box).slices(box)]
        same += int(equal.sum())
        pixels += equal.numel()
    return same / max(1, pixels)


def temperature(network: nn.Module, config: TrainConfig, scenes: tuple[LabelledScene, ...]) -> float:
    """By what logits are to be divided so that probabilities are as high as they are right (Guo et al. 2017).

    Found by the likelihood of the truth at a sample of pixels of all sources, with and without optional bands; 1 where
    nothing is known. The network is left in evaluation mode.
    """
    samples = _sampled(network, config, scenes)
    scored = np.concatenate([logits for logits, _ in samples.values()]) if samples else np.zeros((0, 1))
    true = np.concatenate([truth for _, truth in samples.values()]) if samples else np.zeros(0, np.int64)
    if not len(true):
        return 1.0

    def unlikely(log_temperature: float) -> float:
        scaled = scored / np.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(true)), true]).mean())

    return float(np.exp(minimize_scalar(unlikely, bounds=(-1.0, 1.5), method="bounded").x))


def best_bias(network: nn.Module, config: TrainConfig, scenes: tuple[LabelledScene, ...]) -> list[float]:
    """What is to be added to the logits of classes for the highest mean IoU, with and without optional bands.

    That is a threshold a class: one is taken where it is likelier than any other by so much. Found class by
    class at a sample of pixels of all sources, each of which counts as much. The first class gets 0, and so does each
    with too few true pixels to say anything: it is left out of the search, which would else be won by never naming it.
    The network is left in evaluation mode.
    """
    samples = _sampled(network, config, scenes)
    channels = tuple(range(len(config.legend.classes)))
    seen = sum((np.bincount(truth, minlength=len(channels)) for _, truth in samples.values()), np.zeros(len(channels)))
    known = [channel for channel in channels if seen[channel] >= _FEWEST]
    unknown = np.where(np.isin(channels, known), 0, -np.inf).astype(np.float32)

    def reached(bias: Array) -> float:
        by_source: dict[str, list[float]] = {}
        for (source, _), (logits, truth) in samples.items():
            confusion = confusion_matrix((logits + bias + unknown).argmax(axis=1), truth, channels)
            mean = pixel_scores(confusion, config.legend.names)["mean_iou"]
            by_source.setdefault(source, []).append(mean or 0.0)
        return float(np.mean([np.mean(means) for means in by_source.values()]))

    found = np.zeros(len(channels), np.float32)
    if len(known) <= 1:
        return [0.0] * len(channels)
    best = reached(found)
    for _ in range(_ROUNDS):
        start = best
        for channel, value in product(known[1:], _BIASES):
            tried = found.copy()
            tried[channel] = value
            if (now := reached(tried)) > best + _LEAST_GAIN:
                found, best = tried, now
        if best == start:
            break
    return [round(float(value), 1) for value in found]


def _sampled(
    network: nn.Module, config: TrainConfig, scenes: tuple[LabelledScene, ...]
) -> dict[tuple[str, bool], tuple[Array, Array]]:
    """By source, and whether optional bands are there, logits (n, classes) and truth (n,) int64 of pixels known."""
    network.eval()
    parts: dict[tuple[str, bool], list[tuple[Array, Array]]] = {}
    for (labelled, _), keep, image, truth in _looks(config, scenes):
        with torch.inference_mode():
            found = network(image)[0, :, ::_EVERY, ::_EVERY].numpy()
        seen = truth[::_EVERY, ::_EVERY]
        known = seen != IGNORE
        if known.any():
            parts.setdefault((labelled.source, keep), []).append((found[:, known].T, seen[known].astype(np.int64)))
    return {
        key: (np.concatenate([logits for logits, _ in some]), np.concatenate([truth for _, truth in some]))
        for key, some in parts.items()
    }


def _looks(
    config: TrainConfig, scenes: tuple[LabelledScene, ...]
) -> Iterator[tuple[tuple[LabelledScene, Box], bool, torch.Tensor, Array]]:
    """Windows of every source, as many as between steps: each with and without optional bands, and its truth."""
    for source in dict.fromkeys(scene.source for scene in scenes):
        chosen = tuple(scene for scene in scenes if scene.source == source)
        for window in windows_of(chosen, config.fit.validation_window, config.fit.validation_windows):
            for keep in (True, False):
                image, truth = load_window(config, *window, keep_optional=keep)
                yield window, keep, torch.from_numpy(image[None]), truth


def headline(scores: dict[str, Any]) -> float:
    """One number to choose by: the mean over sources of the mean IoU, over the variants of a source."""
    by_source = []
    for source in scores.values():
        ious = [part["mean_iou"] for part in source.values() if isinstance(part, dict) and part["mean_iou"] is not None]
        by_source.append(sum(ious) / len(ious) if ious else 0.0)
    return sum(by_source) / len(by_source)


def windows_of(scenes: tuple[LabelledScene, ...], size: int, limit: int | None) -> list[tuple[LabelledScene, Box]]:
    """Windows of a side on a grid over scenes; at most `limit` of them, evenly spread."""
    windows = [
        (scene, Box(row, col, size, size))
        for scene in scenes
        for row, col in product(*(range(0, side, size) for side in scene.scene.frame.shape))
    ]
    if limit is None or len(windows) <= limit:
        return windows
    return [windows[k] for k in np.linspace(0, len(windows) - 1, limit).astype(int)]


def _scores(
    network: nn.Module, config: TrainConfig, windows: list[tuple[LabelledScene, Box]], *, keep_optional: bool
) -> dict[str, Any]:
    channels = tuple(range(len(config.legend.classes)))
    confusion = np.zeros((len(channels), len(channels) + 1), np.int64)
    for start in range(0, len(windows), config.fit.batch):
        parts = [
            load_window(config, *window, keep_optional=keep_optional)
            for window in windows[start : start + config.fit.batch]
        ]
        images = torch.from_numpy(np.stack([image for image, _ in parts]))
        truth = np.stack([channels for _, channels in parts])
        with torch.inference_mode():
            predicted = network(images.to(memory_format=torch.channels_last)).argmax(dim=1)
        confusion += confusion_matrix(predicted.numpy(), truth, channels)
    return pixel_scores(confusion, config.legend.names)


def load_window(config: TrainConfig, labelled: LabelledScene, box: Box, *, keep_optional: bool) -> tuple[Array, Array]:
    """What the network is to see of a window, (channels, h, w) float32, and the truth (h, w), channels or IGNORE."""
    pixels, valid, truth = labelled.read(box)
    inside = (box & labelled.scene.frame.box).slices(box)
    outside = np.ones(box.shape, bool)
    outside[inside] = False
    truth[outside] = IGNORE
    roles = tuple(role if keep_optional or role not in config.optional_roles else "" for role in labelled.scene.roles)
    return network_input(config.bundle, labelled.scaling(pixels), valid, roles), truth
