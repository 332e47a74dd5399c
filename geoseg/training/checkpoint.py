"""The state of a training on disk, whole or not at all."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from geoseg.errors import InputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

Weights = dict[str, torch.Tensor]

MAY_CHANGE = {
    "fit.steps", "fit.bias", "fit.tune_bias", "fit.calibrate", "fit.tensorboard", "name", "description", "licence",
    "card",
}  # fmt: skip
"""Keys on which the steps so far do not depend (but for the rate, if `fit.steps` changes)."""


@dataclass(frozen=True)
class Checkpoint:
    """All that the rest of a training depends on."""

    config: dict[str, Any]
    network: Weights
    average: Weights
    optimizer: dict[str, Any]
    random: torch.Tensor
    step: int
    best: float
    seconds: float
    history: list[dict[str, Any]]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write it beside `path` and put it there at once."""
    buffer = io.BytesIO()
    torch.save({field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, config: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint in `path`; None where there is none.

    Raises UsageError where it belongs to another configuration, InputError where it is damaged.
    """
    if not path.is_file():
        return None
    try:
        checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, TypeError, EOFError) as error:
        raise InputError(
            f"{path} is damaged ({str(error).splitlines()[0]}); delete it or train with --no-resume"
        ) from error
    changed = differing_keys(checkpoint.config, config)
    if changed:
        raise UsageError(
            f"{path} is of another configuration ({', '.join(changed)} differ); choose another --out or --no-resume"
        )
    return checkpoint


def differing_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys under which two configurations differ, leaving out `MAY_CHANGE`.

    >>> differing_keys({"seed": 1, "fit": {"steps": 5}}, {"seed": 2, "fit": {"steps": 9}})
    ['seed']
    """
    found = []
    for key in sorted(set(old) | set(new)):
        name, a, b = f"{prefix}{key}", old.get(key), new.get(key)
        if name in MAY_CHANGE or a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            found += differing_keys(a, b, f"{name}.")
        else:
            found.append(name)
    return found


def write_atomically(path: Path, content: bytes) -> None:
    """Put a whole file under its name."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
