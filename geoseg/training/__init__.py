"""Training and scoring of models: `train` makes a bundle from scenes with labels, `evaluate_rasters` judges a result.

Stands beside the list of stages and uses scene, grid and model of it. The names here are looked up when they are asked
for, so that scoring a raster does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoseg.training.config import TrainConfig, load_config
    from geoseg.training.evaluate import evaluate_rasters
    from geoseg.training.loop import train
    from geoseg.training.scores import score_arrays

__all__ = ["TrainConfig", "evaluate_rasters", "load_config", "score_arrays", "train"]

_HOME = {
    "TrainConfig": "config",
    "evaluate_rasters": "evaluate",
    "load_config": "config",
    "score_arrays": "scores",
    "train": "loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
