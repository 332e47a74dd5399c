"""Networks as graphs of other libraries than torch: OpenVINO and ONNX Runtime, each tile alone on one thread."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import BundleError, EnvironmentFault, UsageError
from geoseg.model.bundle import INT8, bundle_file
from geoseg.model.engine import LEVELS
from geoseg.model.exported import exported_network
from geoseg.model.hardware import threads_here

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from geoseg.model.bundle import ModelBundle
    from geoseg.model.engine import EngineChoice

    Run = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
    """(1, channels, tile, tile) float32 -> (1, classes, tile, tile) int16."""

Array = np.ndarray[Any, Any]


class GraphEngine:
    """Tiles go through a graph for one tile of a fixed side, several at a time, each on one thread.

    With one thread a tile the result cannot depend on how many run beside it.
    """

    def __init__(self, name: str, run: Run, tile: int, threads: int) -> None:
        """Run so many tiles at a time; `run` may be called by any of that many threads."""
        self.name, self.lanes = name, threads
        self._run, self._tile = run, tile

    def __call__(self, tile: Array, place: int = 0) -> Array:  # noqa: ARG002  # each goes alone
        """As `Engine.__call__`."""
        shape, side = tile.shape[1:], (self._tile, self._tile)
        levels: Array
        if shape == side:
            levels = self._run(tile[None])[0]
            return levels
        from geoseg.model.torch_engine import resize  # noqa: PLC0415  # torch, for those alone who need it

        levels = self._run(resize(tile[None], side, antialias=True)).astype(np.float32)
        levels = resize(levels, shape, antialias=False)[0]
        return np.rint(levels, out=levels).astype(np.int16)


def open_openvino(bundle: ModelBundle, choice: EngineChoice, tile: int) -> GraphEngine:
    """The engine of a bundle in OpenVINO on the CPU; `choice` says the precision: fp32, bf16 or int8.

    Raises EnvironmentFault where OpenVINO is not installed, BundleError where the network is none that it runs.
    """
    try:
        import openvino  # noqa: PLC0415  # a third of a second
    except ImportError as error:
        raise EnvironmentFault("--engine openvino: OpenVINO is not installed; pip install openvino") from error
    whole_numbers = choice.precision == "int8"
    path = bundle_file(bundle, INT8[0]) if whole_numbers else exported_network(bundle, tile)
    if whole_numbers and (tile != bundle.tile):
        raise UsageError(
            f"--precision int8: the int8 weights of {bundle.name} are for tiles of {bundle.tile}, not {tile}"
        )
    threads = choice.threads or threads_here()
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if choice.precision == "bf16" else "f32",
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # else several processes would share the first cores
    }
    try:
        core = openvino.Core()
        parts = [path, bundle_file(bundle, INT8[1])] if whole_numbers else [path]
        model = core.read_model(*parts)
        if bundle.is_graph:
            model.reshape([1, len(bundle.bands), tile, tile])
        compiled = core.compile_model(model, "CPU", options)
        shape = tuple(compiled.output(0).shape)  # fails where it depends on what is seen
    except RuntimeError as error:
        raise BundleError(f"{path}: OpenVINO cannot run it: {_first_line(error)}") from error
    _check_shape(path, shape, bundle, tile)
    # Made here and handed around, with memory of their own, and each run once: the first `data` of a process sets up a
    # table for whose end one thread may wait with Python's lock in its hand, while the thread that makes it wants that.
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(threads):
        request = compiled.create_infer_request()
        request.get_input_tensor(0).data[...] = 0
        request.infer()
        _ = request.get_output_tensor(0).data
        idle.put(request)

    def run(tiles: Array) -> Array:
        request = idle.get()
        try:
            request.get_input_tensor(0).data[...] = tiles
            request.infer()
            levels: Array = request.get_output_tensor(0).data.copy()
            return levels
        finally:
            idle.put(request)

    return GraphEngine(f"openvino cpu {choice.precision}", _to_levels(bundle, run), tile, threads)


def open_onnxruntime(bundle: ModelBundle, choice: EngineChoice, tile: int) -> GraphEngine:
    """The engine of a bundle in ONNX Runtime on the CPU, in fp32; raises as `open_openvino`."""
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise EnvironmentFault("--engine onnx: ONNX Runtime is not installed; pip install onnxruntime") from error
    path = exported_network(bundle, tile)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        shape = session.run(None, {name: np.zeros((1, len(bundle.bands), tile, tile), np.float32)})[0].shape
    except Exception as error:  # its exceptions share no other base
        raise BundleError(f"{path}: ONNX Runtime cannot run it: {_first_line(error)}") from error
    _check_shape(path, shape, bundle, tile)

    def run(tiles: Array) -> Array:
        levels: Array = session.run(None, {name: tiles})[0]
        return levels

    return GraphEngine("onnx cpu fp32", _to_levels(bundle, run), tile, choice.threads or threads_here())


def _to_levels(bundle: ModelBundle, run: Run) -> Run:
    """`run`, or, of a network that came as a graph and gives logits or probabilities, what makes levels of them."""
    if not bundle.is_graph:
        return run
    logits = bundle.decoder["output"] == "logits"

    def levels(tiles: Array) -> Array:
        found = run(tiles).astype(np.float32, copy=False)
        if logits:
            found = np.exp(found - found.max(axis=1, keepdims=True))
            found /= found.sum(axis=1, keepdims=True)
        return np.rint(np.clip(found, 0, 1) * LEVELS).astype(np.int16)

    return levels


def _check_shape(path: Path, found: tuple[int, ...], bundle: ModelBundle, tile: int) -> None:
    wanted = (1, len(bundle.legend.classes), tile, tile)
    if found != wanted:
        raise BundleError(f"{path} gives {found} for a tile; by its legend {bundle.name} should give {wanted}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
