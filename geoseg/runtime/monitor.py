"""What the scheduler knows of the scenes in work, and the page of its dashboard that shows them.

News come in as small dicts (see `news`). A scene costs the scheduler a byte a block for its state and sixteen for its
place, whatever happens to it; of times only the sums of the last seconds are kept.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed.diagnostics.plugin import SchedulerPlugin

from geoseg.errors import EnvironmentFault
from geoseg.runtime.news import TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

STATES = ("waiting", "reading", "forward", "forwarded", "done", "failed")
"""What a block can be in, each state further on than the one before; a block is `failed` when a tile of it is lost."""
ROUTE = "geoseg"
RECENT_S = 30
"""The speed shown is that of so many last seconds."""
_STEADY_S = 120
"""The remaining time follows the speed of so many last seconds: more, since it should not jump."""
_SCENES = 8
_WORKERS = 256

_WAITING, _READING, _, _FORWARDED, _DONE, _FAILED = range(len(STATES))


class Tempo:
    """Pixels a second: over all its time, and over its last seconds."""

    def __init__(self, now: float) -> None:
        """Start the clock."""
        self.since = now
        self.pixels = 0
        self._seconds: deque[tuple[int, int]] = deque(maxlen=_STEADY_S + 2)

    def add(self, now: float, pixels: int) -> None:
        """Count pixels that were finished just now."""
        self.pixels += pixels
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            pixels += self._seconds.pop()[1]
        self._seconds.append((second, pixels))

    def overall(self, now: float) -> float:
        """Pixels a second from the start until now."""
        return self.pixels / max(1.0, now - self.since)

    def recent(self, now: float, window_s: int = RECENT_S) -> float:
        """Pixels a second within the window, or since the start where that is later."""
        first = max(int(now) - window_s, int(self.since))
        pixels = sum(pixels for second, pixels in self._seconds if second >= first)
        return pixels / max(1.0, now - max(first, self.since))


@dataclass
class Share:
    """What one worker has done for a scene."""

    tempo: Tempo
    news_at: float
    tiles: int = 0


@dataclass
class _Part:
    """What one attempt at a block has counted so far: to be taken back if another one starts over."""

    worker: str
    tiles: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a scene is; speeds in pixels a second, times in seconds, `left_s` None where there is no telling."""

    tiles: int
    of: int
    recent: float
    overall: float
    left_s: float | None
    lasted_s: float
    silent_s: float
    ended: bool

    @property
    def share(self) -> float:
        """The part of the tiles that is done, 0 to 1."""
        return self.tiles / self.of if self.of else 1.0


@dataclass
class SceneNews:
    """A scene as far as the news tell: a block's state goes forward, unless it is begun anew, and its tiles count once.

    `reading` begins an attempt at a block, and what comes from another worker is another attempt; with `forwarded` all
    its tiles are told.
    """

    run: str
    name: str
    shape: tuple[int, int]
    boxes: NDArray[np.int32]  # (blocks, 4): row, column, height, width
    tiles: int
    tempo: Tempo
    news_at: float
    ended_at: float | None = None
    workers: dict[str, Share] = field(default_factory=dict)
    _steps: bytearray = field(default_factory=bytearray)
    _failed: set[int] = field(default_factory=set)
    _parts: dict[int, _Part] = field(default_factory=dict)  # of blocks that are not done
    _tiles_done: int = 0

    @property
    def states(self) -> bytes:
        """The state of each block, as an index into STATES."""
        states = bytearray(self._steps)
        for block in self._failed:
            states[block] = _FAILED
        return bytes(states)

    def counts(self) -> dict[str, int]:
        """How many blocks are in each state."""
        counted = Counter(self.states)
        return {name: counted[code] for code, name in enumerate(STATES)}

    def progress(self, now: float) -> Progress:
        """How far it is, and how long it will take at the speed of the last minutes."""
        until = now if self.ended_at is None else self.ended_at
        tiles = min(self._tiles_done, self.tiles)
        left = self.shape[0] * self.shape[1] * (1 - tiles / max(1, self.tiles))
        speed = self.tempo.recent(until, _STEADY_S) or self.tempo.overall(until)
        return Progress(
            tiles=tiles,
            of=self.tiles,
            recent=self.tempo.recent(until),
            overall=self.tempo.overall(until),
            left_s=0.0 if tiles == self.tiles else left / speed if speed else None,
            lasted_s=until - self.tempo.since,
            silent_s=0.0 if self.ended_at is not None else now - self.news_at,
            ended=self.ended_at is not None,
        )

    def take_block(self, worker: str, message: Mapping[str, Any], now: float) -> None:
        """Take news of a block; raises ValueError where there is no such block or state."""
        block, state = int(message["block"]), message["state"]
        if not 0 <= block < len(self._steps) or state not in STATES:
            raise ValueError(f"scene {self.run} has {len(self._steps)} blocks, and block {block} is said to be {state}")
        step = STATES.index(state)
        self.news_at = now
        before = self._steps[block]
        if step == _FAILED:
            self._failed.add(block)
        if before == _DONE:  # a second attempt at what was finished: nothing new
            return
        if step != _FAILED and self._is_new(block, step, worker):
            self._tiles_done -= self._parts.pop(block).tiles
            before = _WAITING
        if before < _FORWARDED:
            # What was found finished from an earlier run counts, but took no time.
            found = before == _WAITING and step in {_FORWARDED, _DONE}
            self._count(block, worker, message, None if found else now)
        self._steps[block] = before if step == _FAILED else max(before, step)
        if step == _DONE:
            self._parts.pop(block, None)

    def _is_new(self, block: int, step: int, worker: str) -> bool:
        part = self._parts.get(block)
        if part is None:
            return False
        return step == _READING or (part.worker != worker and step <= _FORWARDED and self._steps[block] < _FORWARDED)

    def _count(self, block: int, worker: str, message: Mapping[str, Any], now: float | None) -> None:
        tiles, pixels = int(message.get("tiles", 0)), int(message.get("pixels", 0))
        self._parts.setdefault(block, _Part(worker)).tiles += tiles
        self._tiles_done += tiles
        if now is None:
            return
        self.tempo.add(now, pixels)
        share = self.workers.get(worker) or self._welcome(worker, now)
        share.tempo.add(now, pixels)
        share.tiles += tiles
        share.news_at = now

    def _welcome(self, worker: str, now: float) -> Share:
        if len(self.workers) >= _WORKERS:  # workers come and go on some clusters, for days
            del self.workers[min(self.workers, key=lambda name: self.workers[name].news_at)]
        return self.workers.setdefault(worker, Share(Tempo(now), now))


class Monitor:
    """The last few scenes of a cluster, told by their news."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know of no scene; `clock` gives seconds."""
        self.clock = clock
        self.scenes: dict[str, SceneNews] = {}  # oldest first

    def take(self, worker: str, message: Mapping[str, Any]) -> None:
        """Take a worker's message; news of a scene that is not known, or of other things, change nothing.

        Raises KeyError, TypeError or ValueError where a message lacks what its kind holds.
        """
        now = self.clock()
        if message.get("what") == "scene":
            self._begin(message, now)
            return
        scene = self.scenes.get(str(message.get("run")))
        if scene is None:
            return
        if message.get("what") == "block":
            scene.take_block(worker, message, now)
        elif message.get("what") == "end":
            scene.ended_at = now

    def shown(self) -> SceneNews | None:
        """The newest scene in work; where none is, the newest."""
        newest_first = list(reversed(self.scenes.values()))
        return next((scene for scene in newest_first if scene.ended_at is None), next(iter(newest_first), None))

    def others(self) -> list[SceneNews]:
        """All but the one shown, newest first."""
        shown = self.shown()
        return [scene for scene in reversed(self.scenes.values()) if scene is not shown]

    def _begin(self, message: Mapping[str, Any], now: float) -> None:
        boxes = np.asarray(message["boxes"], dtype=np.int32).reshape(-1, 4)
        height, width = message["shape"]
        scene = SceneNews(
            run=str(message["run"]), name=str(message["name"]), shape=(int(height), int(width)), boxes=boxes,
            tiles=int(message["tiles"]), tempo=Tempo(now), news_at=now, _steps=bytearray(len(boxes)),
        )  # fmt: skip
        self.scenes.pop(scene.run, None)  # a resumed run tells everything again
        while len(self.scenes) >= _SCENES:
            ended = (run for run, old in self.scenes.items() if old.ended_at is not None)
            del self.scenes[next(ended, next(iter(self.scenes)))]
        self.scenes[scene.run] = scene


class BlockMap(SchedulerPlugin):
    """Hears the news on the scheduler and shows them at /geoseg; to register a second one leaves the first in place."""

    name = "geoseg"
    idempotent = True

    def __init__(self) -> None:
        """Know of no scene."""
        self.monitor = Monitor()

    async def start(self, scheduler: Any) -> None:
        """Add the page to the scheduler's dashboard; raises EnvironmentFault where it has none."""
        prefix = _dashboard_prefix(scheduler)
        from geoseg.runtime.page import add_page  # noqa: PLC0415  # needs bokeh, which the client can do without

        add_page(self.monitor, scheduler, prefix)

    def log_event(self, topic: str, msg: Any) -> None:
        """Take what is told on geoseg's topic; the scheduler has added who sent it, if it was a worker."""
        if topic == TOPIC and isinstance(msg, dict):
            self.monitor.take(str(msg.get("worker", "client")), msg)


def open_page(client: Any) -> str:
    """The address of geoseg's page in the dashboard of the client's scheduler, which is added if it is not there.

    Raises EnvironmentFault where the scheduler has no dashboard, or neither bokeh nor this geoseg to show it with.
    """
    try:
        client.register_plugin(BlockMap())
        status = str(client.dashboard_link or "")
    except EnvironmentFault:
        raise
    except ImportError as error:
        raise EnvironmentFault(
            f"the Dask scheduler cannot show the map of blocks ({error}); install the same geoseg where it runs"
        ) from error
    except (OSError, TimeoutError, KeyError) as error:
        raise EnvironmentFault(
            f"the Dask scheduler did not take the map of blocks ({type(error).__name__}: {error}); look into its log"
        ) from error
    address, _, page = status.rpartition("/")
    if page != "status":
        raise EnvironmentFault(
            f"the map of blocks has no address, since the dashboard's is {status or 'empty'}; "
            "let distributed.dashboard.link in Dask's configuration end in /status"
        )
    return f"{address}/{ROUTE}"


def _dashboard_prefix(scheduler: Any) -> str:
    """Where on the server the dashboard starts: Dask keeps it with the dashboard's application alone."""
    for application in scheduler.http_application.applications:
        if hasattr(application, "app_paths"):  # of bokeh's server
            return str(application.prefix)
    raise EnvironmentFault(
        "the Dask scheduler has no dashboard to show the map of blocks in; "
        "install bokeh where it runs, and start it with --dashboard"
    )
