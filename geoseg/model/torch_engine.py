"""Networks in torch: on a CPU a tile a thread, on a GPU in batches. Imports torch: only for those who run one."""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geoseg.errors import EnvironmentFault
from geoseg.model.engine import LEVELS
from geoseg.model.hardware import dask_worker, threads_here
from geoseg.model.network import load_network

if TYPE_CHECKING:
    from geoseg.model.bundle import ModelBundle
    from geoseg.model.engine import Engine, EngineChoice

# Read when CUDA starts: without it, products of matrices on two streams may differ in their last bits.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

Array = np.ndarray[Any, Any]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_STREAMS = 2
"""Batches under way on a GPU: while one is computed, another travels."""
_LARGEST_BATCH = 8
"""More would be a fifth faster on an H200 by itself, but the tiles at hand would often not fill it."""
_SHARE = 0.4
"""Of a GPU's memory this share is filled with batches."""
_GATHER_S = 0.005
"""A batch waits so long for more tiles before it goes with empty places."""


def open_torch_engine(bundle: ModelBundle, choice: EngineChoice, network_tile: int) -> Engine:
    """The engine of a bundle in torch, in fp32 or under bf16/fp16 autocast, as `open_engine`, of a choice made."""
    device = _device(choice.device)
    network = _Network(bundle, device, _DTYPES[choice.precision], network_tile)
    if device.type == "cpu":
        return CpuEngine(network, choice.threads or threads_here())
    return GpuEngine(network, choice.batch)


class _Network:
    """From normalised tiles to levels, channels last."""

    def __init__(self, bundle: ModelBundle, device: torch.device, dtype: torch.dtype, tile: int) -> None:
        self.device, self.dtype = device, dtype
        self.channels, self.classes = len(bundle.bands), len(bundle.legend.classes)
        self.tile = tile
        self._network = load_network(bundle).to(device).to(memory_format=torch.channels_last)

    @property
    def name(self) -> str:
        return f"torch {self.device} {str(self.dtype).removeprefix('torch.')}"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, h, w) float32 on any device -> (N, classes, h, w) int16 on the network's."""
        shape = x.shape[-2:]
        with torch.inference_mode():
            x = x.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            x = _resize(x, (self.tile, self.tile), antialias=True)
            # Weights are cast anew each time: torch's cache of them is one for all threads, and hands a weight to one
            # stream of a GPU while another is still casting it.
            low = self.dtype != torch.float32
            with torch.autocast(self.device.type, self.dtype, enabled=low, cache_enabled=False):
                logits = self._network(x)
            probabilities = torch.softmax(logits.float(), dim=1)  # (N, C, tile, tile)
            probabilities = _resize(probabilities, shape, antialias=False)
            return probabilities.mul_(LEVELS).round_().to(torch.int16).contiguous()


def _resize(x: torch.Tensor, shape: tuple[int, ...], *, antialias: bool) -> torch.Tensor:
    if x.shape[-2:] == shape:
        return x
    resized: torch.Tensor = torch.nn.functional.interpolate(
        x, shape, mode="bilinear", align_corners=False, antialias=antialias
    )
    return resized


def resize(x: Array, shape: tuple[int, ...], *, antialias: bool) -> Array:
    """Images (N, channels, h, w) float32, bilinearly to another (h, w), on one thread."""
    torch.set_num_threads(1)  # of this thread
    resized: Array = _resize(torch.from_numpy(x), shape, antialias=antialias).numpy()
    return resized


class CpuEngine:
    """Each tile goes through the network alone, on one thread, several tiles at a time.

    That is nearly twice as fast as one batch on all threads, and, since torch rounds otherwise with another number of
    threads or tiles, it is what makes the result the same for any of them.
    """

    def __init__(self, network: _Network, threads: int) -> None:
        """Run a network on so many threads."""
        self.lanes = threads
        self.name = network.name
        self._network = network

    def __call__(self, tile: Array, place: int = 0) -> Array:  # noqa: ARG002  # each goes alone
        """As `Engine.__call__`."""
        torch.set_num_threads(1)  # of this thread
        levels: Array = self._network(torch.from_numpy(tile)[None])[0].numpy()
        return levels


@dataclass(frozen=True)
class _Waiting:
    """A tile on its way to the GPU, and where its levels are waited for."""

    tile: Array
    place: int
    levels: Future[Array]


class GpuEngine:
    """Tiles of any threads go through the network in batches of one shape; each caller gets its own tile back.

    A tile always has the same place in its batch, which follows from its place in the scene: GPUs cut the work of a
    layer across the batch, and round otherwise at another place. The batch is as large as asked for, or as fits into
    the memory of the GPU, and is halved where that runs out.
    """

    def __init__(self, network: _Network, batch: int) -> None:
        """Run a network on its GPU.

        Among the ways to compute a layer those are chosen that give the same bits each time: others add up in the order
        in which the GPU's units happen to finish.
        """
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        self._network = network
        self._arriving: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._left: list[_Waiting] = []
        """Tiles whose place was taken in the last batch."""
        self._gathering = threading.Lock()
        self.batch = self._tried(batch or self._fitting())
        self.lanes = 2 * _STREAMS * self.batch
        self.name = f"{network.name} batches of {self.batch}"
        for _ in range(_STREAMS):
            threading.Thread(target=self._serve, daemon=True, name="gpu").start()

    def __call__(self, tile: Array, place: int = 0) -> Array:
        """As `Engine.__call__`."""
        waiting = _Waiting(tile, place, Future())
        self._arriving.put(waiting)
        return waiting.levels.result()

    def _fitting(self) -> int:
        """The batch that fits into memory: measured with one tile, so that the same GPU always gets the same answer."""
        network, device = self._network, self._network.device
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        network(torch.zeros((1, network.channels, network.tile, network.tile), device=device))
        a_tile = max(1, torch.cuda.max_memory_allocated(device) - before)
        total = torch.cuda.get_device_properties(device).total_memory
        fits = int(total * _SHARE / (_STREAMS * a_tile))
        return max(1, min(_LARGEST_BATCH, 1 << max(0, fits.bit_length() - 1)))

    def _tried(self, batch: int) -> int:
        """A batch that the memory holds now: this one, halved as often as need be."""
        shape = self._network.channels, self._network.tile, self._network.tile
        while batch > 1:
            try:
                self._network(torch.zeros((batch, *shape), device=self._network.device))
                break
            except torch.cuda.OutOfMemoryError:
                batch //= 2
            torch.cuda.empty_cache()
        return batch

    def _serve(self) -> None:
        """Gather tiles, run them, hand them back; for as long as the process lives."""
        stream = torch.cuda.Stream(self._network.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            while True:
                with self._gathering:
                    batch, places = self.batch, self._gather()
                try:
                    for place, levels in self._run({place: one.tile for place, one in places.items()}, batch).items():
                        places[place].levels.set_result(levels)
                except Exception as error:  # noqa: BLE001  # whatever it is, it is raised where the tile came from
                    for one in places.values():
                        if not one.levels.done():
                            one.levels.set_exception(error)

    def _gather(self) -> dict[int, _Waiting]:
        """Tiles of a batch by their place: all that come in a moment, until one finds its place taken."""
        places: dict[int, _Waiting] = {}
        left, self._left = self._left, []
        while len(places) < self.batch:
            try:
                one = left.pop(0) if left else self._arriving.get(timeout=_GATHER_S if places else None)
            except queue.Empty:
                break
            if places.setdefault(one.place % self.batch, one) is not one:
                self._left.append(one)
                if not left:
                    break
        self._left += left
        return places

    def _run(self, tiles: dict[int, Array], batch: int) -> dict[int, Array]:
        """Levels of tiles by place; what has no tile is empty, since a batch of another shape rounds otherwise."""
        try:
            shape = next(iter(tiles.values())).shape
            full = torch.zeros((batch, *shape), pin_memory=True)
            for place, tile in tiles.items():
                full[place] = torch.from_numpy(tile)
            found = self._network(full)
            arrived = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            arrived.copy_(found, non_blocking=True)
            torch.cuda.current_stream(self._network.device).synchronize()
            return {place: arrived[place].numpy() for place in tiles}
        except torch.cuda.OutOfMemoryError as error:
            if batch == 1:
                raise EnvironmentFault(
                    f"the memory of {self._network.device} does not hold one tile; use a smaller --tile or --device cpu"
                ) from error
        half = batch // 2
        self.batch = min(self.batch, half)
        torch.cuda.empty_cache()
        halves = ({place % half: tile for place, tile in tiles.items() if place // half == k} for k in range(2))
        first, second = (self._run(one, half) if one else {} for one in halves)
        return first | {place + half: levels for place, levels in second.items()}


def _device(chosen: str) -> torch.device:
    """The device of a choice made; `cuda` is that of this worker's place."""
    kind, _, index = chosen.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise EnvironmentFault(f"--device {chosen}: this machine shows {count} CUDA devices; use --device cpu")
    return torch.device("cuda", int(index) if index else _place() % count)


def _place() -> int:
    """Where this worker stands among those of a local cluster, so that each takes a GPU of its own."""
    name = str(getattr(dask_worker(), "name", 0))
    return int(name) if name.isdigit() else 0
