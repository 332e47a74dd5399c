"""Threads that run the network, each a tile at a time, for all blocks of a process."""

from __future__ import annotations

import heapq
import threading
from concurrent.futures import Future
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Lanes:
    """A pool of threads that takes what is of the lowest rank first, then what came first.

    The block that began first gets all lanes as long as it has tiles. Were they shared, two blocks would end together,
    and the lanes stand idle while both are written and the next two read.
    """

    def __init__(self, threads: int) -> None:
        """Start so many threads, which live as long as the process."""
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._arrivals = count()
        self._ranks = count()
        self._some = threading.Condition()
        for k in range(threads):
            threading.Thread(target=self._work, name=f"lane-{k}", daemon=True).start()

    def rank(self) -> int:
        """A rank below all that were given out before."""
        return next(self._ranks)

    def submit(self, rank: int, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Queue a call; what it returns or raises comes with the future, which can be cancelled until it begins."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call(*arguments)
            except BaseException as error:  # noqa: BLE001  # raised where the future is waited for
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._some:
            heapq.heappush(self._waiting, (rank, next(self._arrivals), run))
            self._some.notify()
        return future

    def _work(self) -> None:
        while True:
            with self._some:
                while not self._waiting:
                    self._some.wait()
                _, _, run = heapq.heappop(self._waiting)
            run()
            del run  # which holds the pixels of a strip
