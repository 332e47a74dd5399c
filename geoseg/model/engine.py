"""Engines: what turns tiles into probabilities, whatever runs the network."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from geoseg.errors import UsageError
from geoseg.model.averaged import AveragedEngine
from geoseg.model.hardware import bf16_pays, may_have_gpu
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
    tta: str = "none"
    """Views of each tile that are averaged: `none`, `flip` or `d4`."""


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

    Raises UsageError for a choice that cannot be, EnvironmentFault where device or library are not there, BundleError
    where the weights do not fit. What no other engine can run goes to torch, unless another is asked for.
    """
    engine = _open(bundle, choice, network_tile)
    return engine if choice.tta == "none" else AveragedEngine(engine, choice.tta)


def _open(bundle: ModelBundle, choice: EngineChoice, network_tile: int) -> Engine:
    chosen = choose_engine(bundle, choice)
    if chosen.engine == "openvino":
        from geoseg.model.exported import ExportError  # noqa: PLC0415  # each loads its library alone
        from geoseg.model.graph_engine import open_openvino  # noqa: PLC0415

        try:
            return open_openvino(bundle, chosen, network_tile)
        except ExportError:
            if choice.engine != "auto":
                raise
            chosen = choose_engine(bundle, replace(choice, engine="torch"))
    if chosen.engine == "onnx":
        from geoseg.model.graph_engine import open_onnxruntime  # noqa: PLC0415

        return open_onnxruntime(bundle, chosen, network_tile)
    from geoseg.model.torch_engine import open_torch_engine  # noqa: PLC0415  # torch takes 1.6 s to import

    return open_torch_engine(bundle, chosen, network_tile)


def choose_engine(bundle: ModelBundle, choice: EngineChoice) -> EngineChoice:
    """The choice with nothing left to `auto` but which of several GPUs.

    On a GPU that is torch; on a CPU OpenVINO, the fastest there, if it is installed. The precision is bf16 where the
    machine gains by it and the bundle has it on record that at least `AGREEMENT` of pixels keep their class, else fp32.
    """
    if bundle.is_graph and choice.engine == "auto":
        choice = replace(choice, engine="openvino" if find_spec("openvino") else "onnx")
    device = _device(choice)
    engine = choice.engine
    if engine not in _PRECISIONS and engine != "auto":
        raise UsageError(f"--engine: {engine!r} is not one of auto, {', '.join(_PRECISIONS)}")
    if engine == "auto":
        only_openvino = choice.precision == "int8"
        engine = "openvino" if device == "cpu" and (only_openvino or find_spec("openvino")) else "torch"
    if bundle.is_graph and engine == "torch":
        raise UsageError(f"--engine torch: {bundle.name} is an ONNX network; use --engine openvino or onnx")
    if engine != "torch" and device != "cpu":
        raise UsageError(f"--engine {engine} runs on the CPU alone; use --device cpu, or --engine torch on a GPU")
    precision = choice.precision
    if precision == "auto":
        safe = bundle.agreement.get("bf16", 0.0) >= AGREEMENT
        precision = _faster_precision(engine, device) if safe else "fp32"
    if precision not in _PRECISIONS[engine]:
        there = ", ".join(_PRECISIONS[engine])
        raise UsageError(f"--precision: {precision!r} is none of what --engine {engine} takes: auto, {there}")
    if precision == "fp16" and device == "cpu":
        raise UsageError("--precision: fp16 runs on a GPU alone; use bf16 or fp32 on the CPU")
    if precision == "int8" and not bundle.files:
        raise UsageError(
            f"--precision int8: the model {bundle.name} has no int8 weights; make them with geoseg export --int8"
        )
    return replace(choice, engine=engine, device=device, precision=precision)


AGREEMENT = 0.995
"""What has the class of fp32 at so many pixels may stand in for it unasked."""
_PRECISIONS = {"torch": ("fp32", "bf16", "fp16"), "openvino": ("fp32", "bf16", "int8"), "onnx": ("fp32",)}
_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?", re.ASCII)


def _device(choice: EngineChoice) -> str:
    """`cpu`, `cuda` or `cuda:N`; torch, which takes seconds to load, is asked only where there may be a GPU."""
    if choice.device != "auto":
        if not _DEVICE.fullmatch(choice.device):
            raise UsageError(f"--device: {choice.device!r} is not one of auto, cpu, cuda, cuda:N")
        return choice.device
    if choice.engine in {"openvino", "onnx"} or choice.precision == "int8" or not may_have_gpu():
        return "cpu"
    import torch  # noqa: PLC0415

    return "cuda" if torch.cuda.is_available() else "cpu"


def _faster_precision(engine: str, device: str) -> str:
    if device == "cpu":
        return "bf16" if bf16_pays() and "bf16" in _PRECISIONS[engine] else "fp32"
    import torch  # noqa: PLC0415  # which runs the network there

    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"  # which rounds less
