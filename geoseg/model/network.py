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


class SiameseUnet(smp.Unet):  # type: ignore[misc]  # smp has no types
    """A U-Net that sees two dates: one encoder for both, and a decoder for what its features differ by.

    After FC-Siam-diff of Daudt, Le Saux and Boulch (2018), but with the sign of differences, which tells from what to
    what. Takes the bands of the earlier date, then those of the later.
    """

    def __init__(self, *, in_channels: int, **options: Any) -> None:
        """`in_channels`: of both dates together."""
        if in_channels % 2:
            raise ValueError(f"two dates have an even number of bands; there are {in_channels}")
        super().__init__(in_channels=in_channels // 2, **options)

    def forward(self, both: torch.Tensor) -> torch.Tensor:
        """(N, 2 * bands, h, w) -> logits (N, classes, h, w)."""
        dates = torch.cat(both.chunk(2, dim=1))  # (2 N, bands, h, w): one batch, so that both are normalised alike
        features = [level.chunk(2) for level in self.encoder(dates)]
        logits: torch.Tensor = self.segmentation_head(self.decoder([after - before for before, after in features]))
        return logits


ARCHITECTURES = {"Unet": smp.Unet, "DeepLabV3Plus": smp.DeepLabV3Plus, "SiameseUnet": SiameseUnet}


def build_network(architecture: str, encoder: str, channels: int, classes: int, decoder: dict[str, Any]) -> nn.Module:
    """An untrained network: (N, channels, h, w) -> logits (N, classes, h, w), of code alone: nothing is fetched.

    Raises BundleError where the encoder is no plain name, or where segmentation-models-pytorch has no such
    architecture, encoder or decoder option.
    """
    if architecture not in ARCHITECTURES:
        raise BundleError(f"no architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}")
    check_encoder(encoder)
    plain = smp.Unet if architecture == "SiameseUnet" else ARCHITECTURES[architecture]
    unknown = set(decoder) - set(signature(plain.__init__).parameters)
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
