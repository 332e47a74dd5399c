"""Networks of segmentation-models-pytorch by name, and their weights. Imports torch: only for those who run one."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

import segmentation_models_pytorch as smp
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from geoseg.errors import BundleError
from geoseg.model.bundle import ENSEMBLE, ModelBundle, check_encoder, members_of, weights_path

if TYPE_CHECKING:
    from collections.abc import Iterable


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


class FCN(nn.Module):
    """A fully convolutional network after Long, Shelhamer and Darrell (2015): the plain baseline.

    Features of the three coarsest levels are brought to as many channels and added up, from coarse to fine.
    """

    def __init__(
        self,
        *,
        encoder_name: str,
        in_channels: int,
        classes: int,
        encoder_weights: str | None = None,
        encoder_depth: int = 5,
        decoder_channels: int = 64,
    ) -> None:
        """As the networks of segmentation-models-pytorch; `decoder_channels`: to which features are brought."""
        super().__init__()
        self.encoder = smp.encoders.get_encoder(
            encoder_name, in_channels=in_channels, depth=encoder_depth, weights=encoder_weights
        )
        levels = self.encoder.out_channels[-_LEVELS:]
        self.decoder = nn.ModuleList([nn.Conv2d(channels, decoder_channels, 1) for channels in levels])
        self.segmentation_head = nn.Sequential(nn.Conv2d(decoder_channels, classes, 1))

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """(N, channels, h, w) -> logits (N, classes, h, w)."""
        levels = self.encoder(tiles)[-_LEVELS:]
        total = self.decoder[-1](levels[-1])
        for convolution, level in zip(list(self.decoder)[-2::-1], levels[-2::-1], strict=True):
            total = convolution(level) + _enlarged(total, level.shape[-2:])
        return _enlarged(self.segmentation_head(total), tiles.shape[-2:])


class Ensemble(nn.Module):
    """Several networks that see the same tile, of whose probabilities the mean counts."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        """`members` take the same channels and give the same classes."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """(N, channels, h, w) -> logits (N, classes, h, w): the logarithm of the mean of probabilities."""
        total = torch.softmax(self.members[0](tiles), dim=1)
        for member in list(self.members)[1:]:
            total = total + torch.softmax(member(tiles), dim=1)
        return torch.log((total / len(self.members)).clamp_min(_LEAST))


_LEVELS = 3
_LEAST = 1e-6
"""A probability that is none, in whole levels of any engine, and has a logarithm in any precision."""


def _enlarged(x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return torch.nn.functional.interpolate(x, shape, mode="bilinear", align_corners=False)


_OF_SMP = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet",
    "Segformer", "DPT",
)  # fmt: skip
ARCHITECTURES = {name: getattr(smp, name) for name in _OF_SMP if hasattr(smp, name)} | {
    "SiameseUnet": SiameseUnet,
    "FCN": FCN,
}
_FIXED = {"DPT": {"dynamic_img_size": True}}
"""Options without which an architecture would take tiles of one size alone."""


def build_network(architecture: str, encoder: str, channels: int, classes: int, decoder: dict[str, Any]) -> nn.Module:
    """An untrained network: (N, channels, h, w) -> logits (N, classes, h, w), of code alone: nothing is fetched.

    Raises BundleError where the encoder is no plain name, or where segmentation-models-pytorch has no such
    architecture, encoder or decoder option.
    """
    if architecture == ENSEMBLE:
        return Ensemble(
            build_network(part.architecture, part.encoder, channels, classes, part.decoder)
            for part in members_of(decoder)
        )
    if architecture not in ARCHITECTURES:
        raise BundleError(f"no architecture {architecture!r}; there are {', '.join((*ARCHITECTURES, ENSEMBLE))}")
    check_encoder(encoder)
    plain = smp.Unet if architecture == "SiameseUnet" else ARCHITECTURES[architecture]
    unknown = set(decoder) - set(signature(plain.__init__).parameters)
    if unknown:  # segmentation-models-pytorch would pass over them in silence
        raise BundleError(f"cannot build {architecture}: it has no option {', '.join(sorted(unknown))}")
    try:
        network: nn.Module = ARCHITECTURES[architecture](
            encoder_name=encoder,
            encoder_weights=None,
            in_channels=channels,
            classes=classes,
            **_FIXED.get(architecture, {}),
            **decoder,
        )
    except (AttributeError, LookupError, OSError, TypeError, ValueError, RuntimeError) as error:
        message = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BundleError(f"cannot build {architecture} on the encoder {encoder!r}: {message}") from error
    return network


def network_of(bundle: ModelBundle) -> nn.Module:
    """The network that a bundle describes, untrained; raises as `build_network`."""
    return build_network(
        bundle.architecture, bundle.encoder, len(bundle.bands), len(bundle.legend.classes), bundle.decoder
    )


def load_network(bundle: ModelBundle) -> nn.Module:
    """The trained network of a bundle, in evaluation mode on the CPU.

    Raises BundleError where weights and architecture do not fit each other, with the first differences.
    """
    network = network_of(bundle)
    path = weights_path(bundle)
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from error
    fit_weights(network, weights, str(path), f"{bundle.architecture} on {bundle.encoder}")
    return network.eval()


def fit_weights(network: nn.Module, weights: dict[str, torch.Tensor], source: str, wanted: str) -> None:
    """Load weights into a network; raises BundleError, with the first differences, where they are not its own."""
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
            f"{source} does not fit {wanted}: {len(differences)} differences, first: {'; '.join(differences[:3])}"
        )
    network.load_state_dict(weights)
