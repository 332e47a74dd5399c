"""A network that teaches another: by what it says of the same windows, labelled or not.

Hinton et al. 2015 (distillation); Tarvainen and Valpola 2017 (the moving average as teacher); Sohn et al. 2020 (it
looks at the window as it is and counts where it is sure, the pupil looks at the window varied).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from geoseg.errors import UsageError
from geoseg.model import find_bundle
from geoseg.model.network import load_network, network_of

if TYPE_CHECKING:
    from torch import nn

    from geoseg.training.augment import Batch
    from geoseg.training.config import TeacherConfig, TrainConfig

SELF = "self"
"""Where the teacher is the moving average of the pupil."""


class Teacher:
    """Says how far a network is from what its teacher says."""

    def __init__(self, config: TrainConfig, given: TeacherConfig, device: torch.device) -> None:
        """Load the teacher that `given` names; raises UsageError where its bands or classes are others."""
        self._given, self._half = given, config.fit.precision == "bf16"
        network = network_of(config.bundle) if given.model == SELF else _other(config, given)
        self._network = network.eval().to(device).to(memory_format=torch.channels_last)

    def follow(self, average: dict[str, torch.Tensor]) -> None:
        """Become the moving average of the pupil, if that is who teaches."""
        if self._given.model == SELF:
            self._network.load_state_dict(average)

    def loss(self, logits: torch.Tensor, batch: Batch, step: int) -> torch.Tensor:
        """How far logits (N, C, h, w) float32 of a step (from 0) are from the teacher's, weighted."""
        assert batch.unvaried is not None  # noqa: S101  # batches have both where a teacher is
        assert batch.valid is not None  # noqa: S101
        with torch.no_grad(), torch.autocast(logits.device.type, torch.bfloat16, enabled=self._half):
            told = self._network(batch.unvaried).float()
        given = self._given
        sure = torch.softmax(told, dim=1).amax(dim=1) >= given.confidence
        weight = given.weight * min(1.0, step / given.ramp if given.ramp else 1.0)
        return weight * divergence(logits, told, batch.valid & sure, given.temperature)


def divergence(logits: torch.Tensor, told: torch.Tensor, counted: torch.Tensor, temperature: float) -> torch.Tensor:
    """The Kullback-Leibler divergence of what is said from what was told, mean over the pixels that are counted.

    Logits and told (N, C, h, w), counted (N, h, w) bool -> a scalar, 0 where none is counted. Times the square of the
    temperature, so that gradients are as large at any.
    """
    said = functional.log_softmax(logits / temperature, dim=1)
    meant = functional.log_softmax(told / temperature, dim=1)
    each = functional.kl_div(said, meant, reduction="none", log_target=True).sum(dim=1)  # (N, h, w)
    return (each * counted).sum() / counted.sum().clamp(min=1) * temperature**2


def _other(config: TrainConfig, given: TeacherConfig) -> nn.Module:
    bundle, wanted = find_bundle(given.model), config.bundle
    for what, theirs, ours in (
        ("bands", [(b.role, b.mean, b.std) for b in bundle.bands], [(b.role, b.mean, b.std) for b in wanted.bands]),
        ("classes", bundle.legend.names, wanted.legend.names),
        ("scaling", bundle.scaling, wanted.scaling),
    ):
        if theirs != ours:
            raise UsageError(f"teacher {given.model}: its {what} are {theirs}; those of the training are {ours}")
    return load_network(bundle)
