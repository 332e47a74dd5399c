"""News of a running scene: from the process that computes to the progress bar and the map of blocks.

A message is a small dict. In a Dask worker it travels through the scheduler, as an event of the topic `geoseg`; in the
process of the caller it reaches the listeners at once.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from geoseg.model.hardware import dask_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Message = dict[str, Any]
    Listener = Callable[[Message], None]

TOPIC = "geoseg"

_listeners: list[Listener] = []
_lock = threading.Lock()


def tell(message: Message) -> None:
    """Tell all who listen; what a listener of this process raises is raised, which is how a task is stopped."""
    worker = dask_worker()
    if worker is not None:
        worker.log_event(TOPIC, message)
        return
    for listener in tuple(_listeners):
        listener(message)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear what is told in this process."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)
