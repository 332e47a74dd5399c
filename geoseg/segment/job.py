"""What a worker is told of a scene, and what it reports of a block."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from geoseg.frame import Box

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from geoseg.blend import Blend
    from geoseg.grid import Block, Grid
    from geoseg.model import EngineSource, ModelBundle
    from geoseg.scene import Scaling, Scene


@dataclass(frozen=True)
class SegmentJob:
    """All that determines the classes of a scene, and the folder where sums wait for their neighbours."""

    scene: Scene
    scaling: Scaling
    bundle: ModelBundle
    engine: EngineSource
    grid: Grid
    blend: Blend
    folder: Path
    with_probabilities: bool = False
    area: bytes | None = None
    """The area of interest (WKB, in the scene's CRS), where the scene reaches beyond it for the sake of objects."""

    def sums_path(self, block: Block) -> Path:
        """Where `forward_block` puts what it computed."""
        return self.folder / f"sums_{block.name}.npz"

    def preview_path(self, block: Block) -> Path:
        """Where `forward_block` puts the block's share of the picture of the scene."""
        return self.folder / f"preview_{block.name}.npz"

    def part_path(self, block: Block) -> Path:
        """Where a settled block lies until the final rasters are written."""
        return self.folder / f"part_{block.name}.tif"

    def receipt_path(self, step: str, block: Block) -> Path:
        """Where the receipt of a step (`forward`, `settle`) lies once that is done; all of them are the journal."""
        return self.folder / f"{step}_{block.name}.json"


@dataclass(frozen=True, slots=True)
class FailedTile:
    """A tile that could not be read, the part of its box that lies in the frame, and why."""

    tile: tuple[int, int]
    window: Box
    cause: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return {"tile": list(self.tile), "window": asdict(self.window), "cause": self.cause}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FailedTile:
        """The inverse of `to_json`."""
        row, col = data["tile"]
        return cls((row, col), Box(**data["window"]), data["cause"])


def peak_rss_mb() -> float:
    """The largest resident size of this process so far, in MB."""
    unit = 1024**2 if sys.platform == "darwin" else 1024  # bytes there, kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def return_memory() -> None:
    """Give what was freed back to the system: pieces that lie between others would pile up from block to block.

    glibc alone needs to be told, and it takes some milliseconds.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def this_worker() -> str:
    """Name of this process among those of a cluster."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a task reports instead of arrays."""

    block: tuple[int, int]
    forwarded: int = 0
    skipped_nodata: int = 0
    """Tiles without a valid pixel, those that failed among them."""
    retried: int = 0
    """Tiles that were read again after a fault."""
    failed: tuple[FailedTile, ...] = ()
    content: str = ""
    """A hash of the pixels that were read."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of work by step, added over threads."""
    counts: tuple[tuple[int, int, int], ...] = ()
    """Of a settled block: how many pixels have a code and a confidence, as (code, confidence, pixels)."""
    peak_rss_mb: float = field(default_factory=peak_rss_mb)
    worker: str = field(default_factory=this_worker)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the journal."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "block": list(self.block), "failed": [tile.to_json() for tile in self.failed]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Receipt:
        """The inverse of `to_json`."""
        row, col = data["block"]
        failed = tuple(FailedTile.from_json(tile) for tile in data["failed"])
        counts = tuple((code, confidence, pixels) for code, confidence, pixels in data["counts"])
        return cls(**{**data, "block": (row, col), "failed": failed, "counts": counts})


def read_receipt(path: Path) -> Receipt | None:
    """The receipt of a step that is done; None where it is not."""
    try:
        return Receipt.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def write_receipt(path: Path, receipt: Receipt) -> None:
    """Note that a step is done, for good: after this, what the step wrote is used and not computed again."""
    with appearing(path) as partial:
        partial.write_text(json.dumps(receipt.to_json()), encoding="utf-8")


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A path to write to, which is on the disk and named `path` at the end; two that write it at once do no harm."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # else a machine that fails might find the name, but not the content
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class Stopwatch:
    """Adds up seconds by step, of any threads: `with watch("read"): ...`."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Measure a step."""
        since = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - since
            with self._lock:
                self.seconds[step] = self.seconds.get(step, 0.0) + spent
