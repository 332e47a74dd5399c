"""Who runs the tasks: this process, local worker processes, or any Dask cluster.

A task is a function, its arguments, and the keys of the tasks that must be done before. `run_tasks` hands them out in
order, at most `limit` at a time, so that neither the scheduler nor the folder of waiting sums grows with the scene.
"""

from __future__ import annotations

import heapq
import logging
import signal
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from geoseg.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_CONNECT_S = 10


@dataclass(frozen=True)
class Task:
    """A call to be made once the tasks in `after` are done; `key` is unique and reads well in a dashboard."""

    key: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: tuple[str, ...] = ()


class Runner(Protocol):
    """Something that runs tasks."""

    @property
    def limit(self) -> int:
        """How many tasks it wants to have in hand."""

    @property
    def workers(self) -> list[str]:
        """Names of the processes that compute."""

    def submit(self, task: Task) -> None:
        """Take a task whose predecessors are done."""

    def next_done(self) -> tuple[str, Any]:
        """Wait for any task; its key and result. Raises what the task raised."""


class SerialRunner:
    """Runs each task when its result is asked for, in this process."""

    def __init__(self) -> None:
        """Start idle."""
        self.limit = 1
        self.workers = ["this process"]
        self._queue: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        """Queue the task."""
        self._queue.append(task)

    def next_done(self) -> tuple[str, Any]:
        """Run the oldest task."""
        task = self._queue.popleft()
        return task.key, task.call(*task.arguments)


class DaskRunner:
    """Runs tasks on the workers of a Dask client."""

    def __init__(self, client: Any) -> None:  # distributed.Client, untyped
        """Use a connected client."""
        from distributed import as_completed  # noqa: PLC0415

        self._client = client
        self._done = as_completed(loop=client.loop)

    @property
    def limit(self) -> int:
        """Two tasks a thread: one running, one waiting at the worker."""
        threads: int = sum(worker["nthreads"] for worker in self._info().values())
        return 2 * max(1, threads)

    @property
    def workers(self) -> list[str]:
        """Worker addresses."""
        return sorted(self._info())

    def submit(self, task: Task) -> None:
        """Send the task; a dead worker's tasks are run again elsewhere, which is why tasks write atomically."""
        self._done.add(self._client.submit(task.call, *task.arguments, key=task.key, pure=False))

    def next_done(self) -> tuple[str, Any]:
        """The next finished task."""
        from distributed import KilledWorker  # noqa: PLC0415

        future = next(self._done)
        try:
            return future.key, future.result()
        except KilledWorker as error:
            raise EnvironmentFault(
                f"task {future.key} killed every worker that tried it: most likely out of memory; "
                "use a smaller --block or fewer --workers"
            ) from error

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return info


def run_tasks(tasks: Sequence[Task], runner: Runner) -> Iterator[tuple[Task, Any]]:
    """Run tasks, earlier ones first as far as their predecessors are done; yields each with its result when it is done.

    Raises ValueError where a task waits for one that is not there, and whatever a task raises.
    """
    by_key = {task.key: task for task in tasks}
    rank = {task.key: k for k, task in enumerate(tasks)}
    missing = {task.key: set(task.after) for task in tasks}
    unknown = {key for after in missing.values() for key in after} - by_key.keys()
    if unknown:
        raise ValueError(f"tasks wait for {sorted(unknown)[:3]}, which are not among them")
    followers: dict[str, list[str]] = {key: [] for key in by_key}
    for key, after in missing.items():
        for before in after:
            followers[before].append(key)
    ready = [rank[key] for key, after in missing.items() if not after]
    heapq.heapify(ready)
    in_hand = 0
    while ready or in_hand:
        while ready and in_hand < runner.limit:
            runner.submit(tasks[heapq.heappop(ready)])
            in_hand += 1
        key, result = runner.next_done()
        in_hand -= 1
        for follower in followers[key]:
            missing[follower].discard(key)
            if not missing[follower]:
                heapq.heappush(ready, rank[follower])
        yield by_key[key], result


@contextmanager
def open_runner(*, workers: int = 0, scheduler: str | None = None) -> Iterator[Runner]:
    """The runner asked for: a scheduler's address wins, then `workers` local processes (0: this process).

    Raises EnvironmentFault where nobody answers at the address.
    """
    if scheduler is None and workers < 1:
        yield SerialRunner()
        return
    from distributed import Client, LocalCluster  # noqa: PLC0415  # 0.7 s

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise EnvironmentFault(
                f"no Dask scheduler answers at {scheduler} ({type(error).__name__}); start one with `dask scheduler`, "
                "or use --workers N"
            ) from error
        with client:
            yield _checked(DaskRunner(client), scheduler)
        return
    # Addresses of the loopback alone: a dashboard for the world to see would be a leak. What goes wrong in a worker
    # comes back as the error of its task; its own log would only repeat it, and complain of every goodbye.
    with _interrupts_ignored():
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            memory_limit=0, silence_logs=logging.CRITICAL,
        )  # fmt: skip
    with cluster, Client(cluster, set_as_default=False) as client:
        yield DaskRunner(client)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes that inherit a deaf ear to Ctrl-C: this one hears it, ends them, and tells the user once."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _checked(runner: DaskRunner, address: str) -> DaskRunner:
    if not runner.workers:
        raise EnvironmentFault(f"the Dask scheduler at {address} has no worker; start one: dask worker {address}")
    return runner
