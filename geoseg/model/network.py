"""Networks of segmentation-models-pytorch by name, and their weights. Imports torch: only for those who run one."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

import segmentation_models_pytorch as smp
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from geoseg.errors import BundleError
from geoseg.model.bundle import ModelBundle, check_encoder, weights_path

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURES = {"Unet": smp.Unet, "DeepLabV3Plus": smp.DeepLabV3Plus}


def build_network(architecture: str, encoder: str, channels: int, classes: int, decoder: dict[str, Any]) -> nn.Module:
    """An untrained network: (N, channels, h, w) -> logits (N, classes, h, w), of code alone: nothing is fetched.

    Raises BundleError where the encoder is no plain name, or where segmentation-models-pytorch has no such
    architecture, encoder or decoder option.
    """
    if architecture not in ARCHITECTURES:
        raise BundleError(f"no architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}")
    check_encoder(encoder)
    unknown = set(decoder) - set(signature(ARCHITECTURES[architecture].__init__).parameters)
    if unknown:  # segmentation-models-pytorch would pass over them in silence
        raise BundleError(f"cannot build {architecture}: it has no option {', '.join(sorted(unknown))}")
    try:
        network: nn.Module = ARCHITECTURES[architecture](
            encoder_name=encoder, encoder_weights=None, in_channels=channels, classes=classes, **decoder
        )
    except (AttributeError, LookupError, OSError, TypeError, ValueError, RuntimeError) as error:
        message = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BundleError(f"cannot build {architecture} on the encoder {encoder!r}: {message}") from error
    return network


def load_network(bundle: ModelBundle) -> nn.Module:
    """The trained network of a bundle, in evaluation mode on the CPU.

    Raises BundleError where weights and architecture do not fit each other, with the first differences.
    """
    network = build_network(
        bundle.architecture, bundle.encoder, len(bundle.bands), len(bundle.legend.classes), bundle.decoder
    )
    path = weights_path(bundle)
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from error
    expected = network.state_dict()
    differences = [f"{key} is missing" for key in expected if key not in weights]
    differences += [f"{key} is not part of the network" for key in weights if key not in expected]
    differences += [
        f"{key} is {tuple(weights[key].shape)}, the network has {tuple(expected[key].shape)}"
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape
    ]
    if differences:
        raise BundleError(
            f"{path} does not fit {bundle.architecture} on {bundle.encoder}: {len(differences)} differences, "
            f"first: {'; '.join(differences[:3])}"
        )
    network.load_state_dict(weights)
    return network.eval()


def best_device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
