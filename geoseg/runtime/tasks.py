"""Tasks, and the order in which they are handed out.

A task is a function, its arguments, and the keys of the tasks that must be done before. Tasks come in batches, a scene
each. They are handed out in order, as many at a time as the runner wants to have in hand, so that neither the scheduler
nor the folder of waiting sums grows with the scene; and the next batch is asked for as soon as the ones before leave
workers idle, so that no worker waits at the border of two scenes.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_NEWEST = 1
"""So many batches beyond the oldest unfinished one are begun: what scenes leave on disk until they are done is
bounded."""


@dataclass(frozen=True)
class Task:
    """A call to be made once the tasks in `after` are done; `key` is unique and reads well in a dashboard."""

    key: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: tuple[str, ...] = ()
    network: bool = False
    """Whether it runs a network, and so wants a worker with a GPU where the cluster tells such apart."""


class Runner(Protocol):
    """Something that runs tasks."""

    @property
    def limit(self) -> int:
        """How many tasks it wants to have in hand."""

    def submit(self, task: Task) -> None:
        """Take a task whose predecessors are done."""

    def next_done(self) -> tuple[str, Any]:
        """Wait for any task; its key and result. Raises what the task raised."""


@dataclass
class _Queue:
    """Tasks that are not done: those that are ready by rank, and for each of the others what it still waits for."""

    ready: list[tuple[int, Task]] = field(default_factory=list)
    by_key: dict[str, tuple[int, int, Task]] = field(default_factory=dict)
    """Key -> rank, batch, task."""
    missing: dict[str, set[str]] = field(default_factory=dict)
    followers: dict[str, list[str]] = field(default_factory=dict)
    open: dict[int, int] = field(default_factory=dict)
    """Batch -> tasks of it that are not done."""
    batches: int = 0
    ranks: int = 0

    def add(self, batch: Sequence[Task]) -> None:
        own = {task.key for task in batch}
        unknown = {key for task in batch for key in task.after} - own
        if unknown:
            raise ValueError(f"tasks wait for {sorted(unknown)[:3]}, which are not among them")
        for task in batch:
            self.by_key[task.key] = (self.ranks, self.batches, task)
            self.missing[task.key] = set(task.after)
            for before in self.missing[task.key]:
                self.followers.setdefault(before, []).append(task.key)
            if not self.missing[task.key]:
                heapq.heappush(self.ready, (self.ranks, task))
            self.ranks += 1
        if batch:
            self.open[self.batches] = len(batch)
        self.batches += 1

    def done(self, key: str) -> Task:
        _, batch, task = self.by_key.pop(key)
        del self.missing[key]
        for follower in self.followers.pop(key, ()):
            waits = self.missing[follower]
            waits.discard(key)
            if not waits:
                rank, _, ready = self.by_key[follower]
                heapq.heappush(self.ready, (rank, ready))
        self.open[batch] -= 1
        if not self.open[batch]:
            del self.open[batch]
        return task


def run_tasks(batches: Iterable[Sequence[Task]], runner: Runner) -> Iterator[tuple[Task, Any]]:
    """Run tasks, earlier ones first as far as their predecessors are done; yields each with its result when it is done.

    Predecessors are of the same batch. Raises ValueError where a task waits for one that is not there, and whatever a
    task raises.
    """
    queue, coming, in_hand = _Queue(), iter(batches), 0
    more = True
    while True:
        while in_hand < runner.limit:
            while more and not queue.ready and len(queue.open) <= _NEWEST:
                batch = next(coming, None)
                more = batch is not None
                queue.add(batch or ())
            if not queue.ready:
                break
            runner.submit(heapq.heappop(queue.ready)[1])
            in_hand += 1
        if not in_hand:
            return
        key, result = runner.next_done()
        in_hand -= 1
        yield queue.done(key), result
