"""How a workflow tells what it is doing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from geoseg.grid import Grid


class Progress(Protocol):
    """What a workflow calls while it works; the command line prints it, a notebook or service may do as it likes."""

    def note(self, message: str) -> None:
        """Say something that the user should know."""

    def advance(self, stage: str, done: int, total: int, *, pixels: int = 0) -> None:
        """Of `total` steps of a stage `done` are done; together they covered `pixels` pixels of the scene."""


class Silent:
    """Says nothing."""

    def note(self, message: str) -> None:
        """Drop the message."""

    def advance(self, stage: str, done: int, total: int, *, pixels: int = 0) -> None:
        """Drop the news."""


class TileCount:
    """Adds up the news of blocks, and tells how many tiles of all scenes are done.

    News may come late, or twice where a worker died, so that each block counts for no more than it has; what a receipt
    confirms counts in full. May be called from several threads.
    """

    def __init__(self, progress: Progress, total: int) -> None:
        """Expect so many tiles."""
        self._progress, self._total, self._said = progress, total, 0
        self._outputs = [0, 0]
        self._tiles: dict[tuple[str, int], int] = {}
        self._grids: dict[str, tuple[Grid, dict[tuple[int, int], int]]] = {}
        self._pixels = 0
        self._lock = threading.Lock()
        progress.advance("tiles", 0, total)

    def begin(self, run: str, grid: Grid, outputs: int) -> None:
        """A scene's blocks will be heard of, and so many tasks that make files of them."""
        self._outputs[1] += outputs
        self._grids[run] = grid, {block.index: place for place, block in enumerate(grid.blocks)}

    def hear(self, message: dict[str, Any]) -> None:
        """Take a message."""
        if message.get("what") != "block" or message["run"] not in self._grids:
            return
        with self._lock:
            self._add(message["run"], message["block"], message["tiles"])
            self._pixels += message["pixels"]
            self._say()

    def done(self, run: str, step: str, block: tuple[int, int] | None) -> None:
        """A task has given its receipt; `block` is None for those that make files."""
        with self._lock:
            if block is None:
                self._outputs[0] += 1
            elif step == "forward":
                grid, places = self._grids[run]
                self._add(run, places[block], len(grid.blocks[places[block]].tiles))
            self._say()

    def _add(self, run: str, place: int, tiles: int) -> None:
        most = len(self._grids[run][0].blocks[place].tiles)
        self._tiles[run, place] = min(most, self._tiles.get((run, place), 0) + tiles)

    def _say(self) -> None:
        done = sum(self._tiles.values())
        if done > self._said:
            self._said = done
            self._progress.advance("tiles", done, self._total, pixels=self._pixels)
        elif done == self._total:
            self._progress.advance("outputs", *self._outputs)
