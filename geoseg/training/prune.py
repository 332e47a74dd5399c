"""A U-Net with fewer channels in its decoder, made from one that is trained: the strongest are kept.

After Li et al. 2017, with the scale of the normalisation between two layers as part of a channel's strength (Liu et al.
2017). The encoder stays whole. What was cut away is missed at first, so that training has to go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.model import ModelBundle
    from geoseg.training.config import NetworkConfig

Weights = dict[str, torch.Tensor]

_CHANNELS = "decoder_channels"
_HEAD = "segmentation_head"


def is_narrower(config: NetworkConfig, bundle: ModelBundle) -> bool:
    """Whether `config` describes the U-Net of the bundle with fewer channels in its decoder."""
    ours, theirs = dict(config.decoder), dict(bundle.decoder)
    fewer, more = ours.pop(_CHANNELS, None), theirs.pop(_CHANNELS, None)
    return (
        config.architecture == bundle.architecture == "Unet"
        and (config.encoder, ours) == (bundle.encoder, theirs)
        and not {"decoder_attention_type", "decoder_use_norm", "decoder_use_batchnorm"} & set(ours)
        and fewer is not None
        and more is not None
        and len(fewer) == len(more)
        and fewer != more
        and all(few <= many for few, many in zip(fewer, more, strict=True))
    )


def prune_decoder(weights: Weights, channels: Sequence[int]) -> Weights:
    """The weights of a U-Net with so many channels in each block of its decoder, none more than there are.

    The strength of a channel is the scale that its normalisation gives it, times the sum of the absolute weights with
    which the next layer takes it up.
    """
    layers = [f"decoder.blocks.{block}.conv{conv}" for block in range(len(channels)) for conv in (1, 2)]
    pruned, kept, before = dict(weights), torch.empty(0, dtype=torch.long), 0
    for place, layer in enumerate(layers):
        kernel = _without(weights[f"{layer}.0.weight"], kept, before)
        before = len(kernel)
        following = weights[f"{[*layers, _HEAD][place + 1]}.0.weight"][:, :before]
        strength = weights[f"{layer}.1.weight"].abs() * following.abs().sum((0, 2, 3))
        kept = strength.topk(channels[place // 2]).indices.sort().values
        pruned[f"{layer}.0.weight"] = kernel[kept]
        for name in ("weight", "bias", "running_mean", "running_var"):
            pruned[f"{layer}.1.{name}"] = weights[f"{layer}.1.{name}"][kept]
    pruned[f"{_HEAD}.0.weight"] = _without(weights[f"{_HEAD}.0.weight"], kept, before)
    return pruned


def _without(kernel: torch.Tensor, kept: torch.Tensor, before: int) -> torch.Tensor:
    """A kernel (out, in, h, w) that takes `kept` of the layer before, which had `before` channels, and all skips."""
    return kernel[:, torch.cat([kept, torch.arange(before, kernel.shape[1])])]
