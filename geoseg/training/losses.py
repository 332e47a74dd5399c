"""What training makes small."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch
from torch import nn

from geoseg.training.samples import IGNORE


class SegmentationLoss(nn.Module):
    """Cross entropy plus `dice` times the Dice loss (1 - Dice, mean over classes present), without ignored pixels.

    `weights` weighs the classes in cross entropy; empty for all alike.
    """

    def __init__(self, dice: float, weights: tuple[float, ...] = ()) -> None:
        """`dice`: weight of the Dice loss."""
        super().__init__()
        self._dice = dice
        weight = torch.tensor(weights) if weights else None
        self._cross_entropy = nn.CrossEntropyLoss(weight, ignore_index=IGNORE, reduction="sum")
        self._overlap = smp.losses.DiceLoss("multiclass", ignore_index=IGNORE)

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Logits (N, C, h, w), truth (N, h, w) of channel indices -> a scalar; 0 where all pixels are ignored."""
        known = (truth != IGNORE).sum().clamp(min=1)
        loss: torch.Tensor = self._cross_entropy(logits, truth) / known
        if self._dice:
            loss = loss + self._dice * self._overlap(logits, truth)
        return loss
