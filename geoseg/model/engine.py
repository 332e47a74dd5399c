"""Engines: what turns tiles into probabilities, whatever runs the network."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from geoseg.errors import UsageError
from geoseg.model.lanes import Lanes

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.model.bundle import ModelBundle

Array = np.ndarray[Any, Any]

LEVELS = 8191
"""Probabilities leave an engine as whole numbers 0..LEVELS.

Whole numbers, because their sums do not depend on the order of adding: that is what makes a class raster the same for
any block size, number of workers or restart. 13 bits, so that weighted sums stay within 32 (see `geoseg.blend`).
"""


class Engine(Protocol):
    """A callable from tiles to probabilities, which several threads may call at a time."""

    @property
    def lanes(self) -> int:
        """How many threads should call it at a time."""

    @property
    def name(self) -> str:
        """What runs, on what, how precisely: engines of equal names give equal bits on one machine."""

    def __call__(self, tile: Array, place: int = 0) -> Array:
        """A tile (channels, h, w) float32, normalised -> (classes, h, w) int16 in 0..LEVELS.

        `place` is a number that a tile of a scene always has, whatever runs beside it.
        """


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """How a network is to be run; a value that travels to the workers."""

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    """How many threads of one process run the network on a CPU, each a tile of its own; 0 takes the cores there are."""
    batch: int = 0
    """Tiles that go through the network together on a GPU; 0 takes as many as its memory holds, up to a limit."""


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


_once = threading.RLock()
"""Two blocks that begin together need one engine, not two."""


def engine_of(source: EngineSource) -> Engine:
    """The engine of a source, loaded once a process."""
    with _once:
        return _opened(source)


def lanes_of(source: EngineSource) -> Lanes:
    """The threads that call the engine of a source: one pool a process, whichever blocks their tiles belong to."""
    with _once:
        return _pool(source)


@lru_cache(maxsize=2)
def _opened(source: EngineSource) -> Engine:
    return source.open()


@lru_cache(maxsize=2)
def _pool(source: EngineSource) -> Lanes:
    return Lanes(engine_of(source).lanes)


def open_engine(bundle: ModelBundle, choice: EngineChoice, network_tile: int) -> Engine:
    """The engine for a bundle; `network_tile` is the side to which tiles are resampled where theirs is another.

    Raises EnvironmentFault where the device is not there, BundleError where the weights do not fit.
    """
    if choice.engine not in {"auto", "torch"}:
        raise UsageError(f"--engine: {choice.engine!r} is not one of auto, torch")
    from geoseg.model.torch_engine import open_torch_engine  # noqa: PLC0415  # torch takes 1.6 s to import

    return open_torch_engine(bundle, choice, network_tile)


def dask_worker() -> Any:
    """The Dask worker whose task this thread runs; None outside of one."""
    if "distributed" not in sys.modules:  # then this is no worker, and it takes 0.7 s to import
        return None
    from distributed import get_worker  # noqa: PLC0415

    try:
        return get_worker()
    except ValueError:
        return None
