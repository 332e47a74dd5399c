"""Engines: what turns tiles into probabilities, whatever runs the network."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from geoseg.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from geoseg.model.bundle import ModelBundle

Array = np.ndarray[Any, Any]

LEVELS = 8191
"""Probabilities leave an engine as whole numbers 0..LEVELS.

Whole numbers, because their sums do not depend on the order of adding: that is what makes a class raster the same for
any block size, number of workers or restart. 13 bits, so that weighted sums stay within 32 (see `geoseg.blend`).
"""


_GPU_BATCH = 4


class Engine(Protocol):
    """A callable from tiles to probabilities."""

    @property
    def batch(self) -> int:
        """How many tiles one call takes."""

    @property
    def name(self) -> str:
        """What runs, on what, how precisely, for the record."""

    def __call__(self, tiles: Array) -> Array:
        """Tiles (N, channels, h, w) float32, normalised, N <= batch -> (N, classes, h, w) int16 in 0..LEVELS."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """How a network is to be run; a value that travels to the workers."""

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    """How many threads of one process run the network, each a tile of its own; 0 takes all cores."""
    batch: int = 0
    """Tiles in hand at a time; 0 is one a thread on a CPU, four on a GPU."""


class EngineSource(Protocol):
    """Where a worker gets its engine from: a small value that pickles and hashes."""

    def open(self) -> Engine:
        """Load the engine; called once a process."""

    def __hash__(self) -> int:
        """Equal sources open equal engines."""


@dataclass(frozen=True, slots=True)
class BundleEngine:
    """The engine of the bundle in a folder; `sha256` of its weights tells bundles of one folder apart."""

    folder: Path
    sha256: str
    choice: EngineChoice
    network_tile: int

    def open(self) -> Engine:
        """Load the network; raises BundleError or EnvironmentFault as `open_engine`."""
        from geoseg.model.bundle import load_bundle  # noqa: PLC0415

        return open_engine(load_bundle(self.folder), self.choice, self.network_tile)


@lru_cache(maxsize=2)
def engine_of(source: EngineSource) -> Engine:
    """The engine of a source, loaded once a process."""
    return source.open()


def open_engine(bundle: ModelBundle, choice: EngineChoice, network_tile: int) -> Engine:
    """The engine for a bundle; `network_tile` is the side to which tiles are resampled where theirs is another.

    Raises EnvironmentFault where the device is not there, BundleError where the weights do not fit.
    """
    if choice.engine not in {"auto", "torch"}:
        raise UsageError(f"--engine: {choice.engine!r} is not one of auto, torch")
    return TorchEngine(bundle, choice, network_tile)


class TorchEngine:
    """The network in torch, channels last, in fp32 or under bf16/fp16 autocast.

    On a CPU each tile goes through the network alone, on one thread, several tiles at a time: that is nearly twice as
    fast as one batch on all threads, and, since torch rounds otherwise with another number of threads or tiles, it is
    what makes the result the same for any of them. On a GPU tiles go in batches of one shape.
    """

    def __init__(self, bundle: ModelBundle, choice: EngineChoice, network_tile: int) -> None:
        """Load the network onto its device."""
        import torch  # noqa: PLC0415  # 1.6 s, and only here

        from geoseg.model.network import load_network  # noqa: PLC0415

        self._torch = torch
        self._device = _device(choice.device)
        self._dtype = _precision(choice.precision, self._device)
        self._tile = network_tile
        self._network = load_network(bundle).to(self._device).to(memory_format=torch.channels_last)
        threads = choice.threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(threads) if self._device.type == "cpu" else None
        self.batch = choice.batch or (threads if self._pool else _GPU_BATCH)

    @property
    def name(self) -> str:
        """Engine, device, precision."""
        return f"torch {self._device} {str(self._dtype).removeprefix('torch.')}"

    def __call__(self, tiles: Array) -> Array:
        """As `Engine.__call__`."""
        if self._pool is not None:
            alone = [tiles[k : k + 1] for k in range(len(tiles))]
            return np.concatenate(list(self._pool.map(self._forward, alone)))
        full = np.zeros((self.batch, *tiles.shape[1:]), np.float32)  # the last batch too has the shape of the others
        full[: len(tiles)] = tiles
        return self._forward(full)[: len(tiles)]

    def _forward(self, tiles: Array) -> Array:
        """One pass through the network: (N, channels, h, w) -> (N, classes, h, w) int16."""
        torch = self._torch
        if self._pool is not None:
            torch.set_num_threads(1)  # of this thread
        with torch.inference_mode():
            x = torch.from_numpy(tiles).to(self._device, memory_format=torch.channels_last)
            x = self._resize(x, (self._tile, self._tile), antialias=True)
            with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
                logits = self._network(x)
            probabilities = torch.softmax(logits.float(), dim=1)  # (N, C, tile, tile)
            probabilities = self._resize(probabilities, tiles.shape[-2:], antialias=False)
            levels: Array = probabilities.mul_(LEVELS).round_().to(torch.int16).contiguous().cpu().numpy()
        return levels

    def _resize(self, x: torch.Tensor, shape: tuple[int, ...], *, antialias: bool) -> torch.Tensor:
        if x.shape[-2:] == shape:
            return x
        resized: torch.Tensor = self._torch.nn.functional.interpolate(
            x, shape, mode="bilinear", align_corners=False, antialias=antialias
        )
        return resized


def _device(wanted: str) -> torch.device:
    import torch  # noqa: PLC0415

    from geoseg.model.network import best_device  # noqa: PLC0415

    if wanted == "auto":
        return best_device()
    if wanted == "cpu":
        return torch.device("cpu")
    kind, _, index = wanted.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise UsageError(f"--device: {wanted!r} is not one of auto, cpu, cuda, cuda:N")
    if int(index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise EnvironmentFault(f"--device {wanted}: this machine shows {count} CUDA devices; use --device cpu")
    return torch.device("cuda", int(index or 0))


def _precision(wanted: str, device: torch.device) -> torch.dtype:
    import torch  # noqa: PLC0415

    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wanted in named:
        if wanted == "fp16" and device.type == "cpu":
            raise UsageError("--precision: fp16 runs on a GPU alone; use bf16 or fp32 on the CPU")
        return named[wanted]
    if wanted != "auto":
        raise UsageError(f"--precision: {wanted!r} is not one of auto, fp32, bf16, fp16")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # Without bf16 instructions, autocast on a CPU emulates them, slower than fp32.
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001  # torch offers no other way to ask
    return torch.bfloat16 if supported else torch.float32
