"""What training makes small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import segmentation_models_pytorch as smp
import torch
from torch import nn

from geoseg.training.samples import IGNORE

if TYPE_CHECKING:
    from geoseg.training.config import FitConfig


class SegmentationLoss(nn.Module):
    """A weighted sum of losses over the pixels that are not ignored.

    Cross entropy, in which classes may weigh differently; the Dice loss (1 - Dice, mean over classes present); the
    focal loss (gamma 2), for classes that are rare or hard; the Lovasz-Softmax loss, close to the IoU itself.
    """

    def __init__(self, fit: FitConfig) -> None:
        """`fit` has the weights of the losses, and of the classes."""
        super().__init__()
        self._fit = fit
        weight = torch.tensor(fit.class_weights) if fit.class_weights else None
        self._cross_entropy = nn.CrossEntropyLoss(weight, ignore_index=IGNORE, reduction="sum")
        self._dice = smp.losses.DiceLoss("multiclass", ignore_index=IGNORE)
        self._focal = smp.losses.FocalLoss("multiclass", ignore_index=IGNORE, reduction="sum")
        self._lovasz = smp.losses.LovaszLoss("multiclass", ignore_index=IGNORE)

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Logits (N, C, h, w), truth (N, h, w) of channel indices -> a scalar; 0 where all pixels are ignored."""
        known = truth != IGNORE
        if not known.any():
            return logits.sum() * 0
        count, fit = known.sum(), self._fit
        total = logits.new_zeros(())
        if fit.cross_entropy:
            total = total + fit.cross_entropy * self._cross_entropy(logits, truth) / count
        if fit.dice:
            total = total + fit.dice * self._dice(logits, truth)
        if fit.focal:
            total = total + fit.focal * self._focal(logits, truth) / count
        if fit.lovasz:
            total = total + fit.lovasz * self._lovasz(logits, truth)
        return total
