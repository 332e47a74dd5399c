"""Curves and examples of a training as TensorBoard shows them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import EnvironmentFault

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image


class Board:
    """The folder `tensorboard/` of a training; one that goes on takes what came after its checkpoint back."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open it at the step that was done last, 0 to start anew, and take back what was noted after it.

        Raises EnvironmentFault where TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # an extra
        except ImportError as error:
            raise EnvironmentFault(
                'fit.tensorboard: TensorBoard is not installed; pip install "geoseg[train]"'
            ) from error
        if not step:
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def learnt(self, step: int, loss: float, learning_rate: float) -> None:
        """Note a step."""
        self._writer.add_scalar("loss", loss, step)
        self._writer.add_scalar("learning rate", learning_rate, step)

    def judged(self, step: int, scores: dict[str, Any], reached: float, examples: Image.Image | None) -> None:
        """Note a look at the places held out: `scores` as `validate` gives them, and the number to choose by."""
        self._writer.add_scalar("mean IoU", reached, step)
        for source, parts in scores.items():
            for variant, part in parts.items():
                if isinstance(part, dict):
                    for name, row in part["classes"].items():
                        if row["iou"] is not None:
                            self._writer.add_scalar(f"{source}, {variant}/{name}", row["iou"], step)
        if examples is not None:
            self._writer.add_image("examples", np.asarray(examples), step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
