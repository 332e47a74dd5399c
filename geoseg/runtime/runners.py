"""Who runs the tasks: this process, local worker processes, or any Dask cluster."""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from geoseg.errors import EnvironmentFault, GeosegError
from geoseg.model.lanes import Lanes
from geoseg.runtime.connecting import connect
from geoseg.runtime.memory import keep_freed_memory
from geoseg.runtime.news import TOPIC, listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from geoseg.runtime.news import Listener, Message
    from geoseg.runtime.tasks import Task

    Note = Callable[[str], None]

_AT_ONCE = 2
"""Tasks that a worker runs at a time: while the tiles of one block are forwarded, another is read or written."""
_IN_HAND = 4
"""Tasks a worker that are handed out: those that run, and as many that wait at the worker."""
_PATIENCE_S = 15
"""After so long without a result it is looked whether there is anyone to give one."""
_FRESH_S = 2.0
"""A list of workers is believed for so long."""
_GONE = "the Dask scheduler is gone; start it again, and the same command goes on from what was finished"
_GOODBYE_S = 5
"""How long running tasks of this process are waited for when a run is given up."""
GPU = "GPU"
"""The resource by which Dask tells workers with a GPU apart: `dask worker --resources GPU=1`."""


_interrupted = threading.Event()
"""Whether Ctrl-C was heard. Raised while Python deletes an object, such as a future, it would be dropped."""


class _StoppedError(Exception):
    """The run was given up while a task was at work."""


class InProcessRunner:
    """Runs tasks in threads of this process, two at a time."""

    def __init__(self) -> None:
        """Start idle."""
        self.limit = _AT_ONCE + 1
        self.pages: tuple[str, ...] = ()
        self._threads = Lanes(_AT_ONCE)
        self._open: set[Future[Any]] = set()
        self._done: queue.SimpleQueue[tuple[str, Future[Any]]] = queue.SimpleQueue()
        self._stopped = threading.Event()

    def submit(self, task: Task) -> None:
        """Queue the task."""
        future = self._threads.submit(0, task.call, *task.arguments)
        self._open.add(future)
        future.add_done_callback(lambda future: self._done.put((task.key, future)))

    def next_done(self) -> tuple[str, Any]:
        """The next finished task."""
        key, future = self._done.get()
        self._open.discard(future)
        return key, future.result()

    def everywhere(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The result of a call in each process that computes: this one."""
        return [call(*arguments)]

    def tell(self, message: Message) -> None:
        """Nobody listens but the caller itself."""

    @contextmanager
    def heard(self, listener: Listener) -> Iterator[None]:
        """Hear the news of tasks."""

        def pass_on(message: Message) -> None:
            if self._stopped.is_set():
                raise _StoppedError
            listener(message)

        with listening(pass_on):
            try:
                yield
            finally:  # while tasks can still be told that nobody waits for them
                self.close()

    def close(self) -> None:
        """Give up what is not done; a task that does not hear of it in time goes on until the process ends."""
        self._stopped.set()
        running = [future for future in self._open if not future.cancel()]
        wait(running, timeout=_GOODBYE_S)
        self._open.clear()


class DaskRunner:
    """Runs tasks on the workers of a Dask client."""

    def __init__(self, client: Any, note: Note, pages: tuple[str, ...] = ()) -> None:  # distributed.Client, untyped
        """Use a connected client; `note` takes what the user should know."""
        self.pages = pages
        self._client = client
        self._note = note
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._held: dict[str, Any] = {}  # Dask forgets a task of which nobody holds the future
        self._known: tuple[float, dict[str, Any]] = (-_FRESH_S, {})

    @property
    def limit(self) -> int:
        """As many as keep all workers busy."""
        return _IN_HAND * max(1, len(self._info()))

    @property
    def workers(self) -> list[str]:
        """Worker addresses."""
        return sorted(self._info())

    def submit(self, task: Task) -> None:
        """Send the task; a dead worker's tasks are run again elsewhere, which is why tasks write atomically."""
        gpus = any(GPU in worker.get("resources", {}) for worker in self._info().values())
        # Half of one, so that two blocks share a GPU: one is forwarded, the other read or written.
        resources = {GPU: 1 / _AT_ONCE} if task.network and gpus else None
        with self._there():
            future = self._client.submit(
                _plainly, task.call, *task.arguments, key=task.key, pure=False, resources=resources
            )
        self._held[task.key] = future
        future.add_done_callback(self._done.put)

    def next_done(self) -> tuple[str, Any]:
        """The next finished task; waits for workers to come, if there are none.

        Raises EnvironmentFault where a task kills its workers, or the scheduler is gone.
        """
        from distributed import KilledWorker  # noqa: PLC0415
        from distributed.comm.core import CommClosedError  # noqa: PLC0415

        future = None
        while future is None:
            if _interrupted.is_set():
                raise KeyboardInterrupt
            try:
                future = self._done.get(timeout=_PATIENCE_S)
            except queue.Empty:
                self._look_around()
        self._held.pop(future.key, None)
        if future.cancelled():
            raise EnvironmentFault(_GONE)
        try:
            return future.key, future.result()
        except KilledWorker as error:
            raise EnvironmentFault(
                f"task {future.key} killed every worker that tried it: most likely out of memory; "
                "use a smaller --block or fewer --workers"
            ) from error
        except CommClosedError as error:
            raise EnvironmentFault(_GONE) from error

    def everywhere(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The result of a call in each process that computes."""
        stamp = f"{time.time_ns():x}"
        # At another worker, where one dies meanwhile: else its call would wait for it to come back.
        how = {"allow_other_workers": True, "pure": False}
        futures = [
            self._client.submit(
                _plainly, call, *arguments, workers=[address], key=f"{call.__name__}-{stamp}-{k}", **how
            )
            for k, address in enumerate(self.workers)
        ]
        for future in futures:
            future.add_done_callback(self._done.put)
        results = []
        for _ in futures:
            _, result = self.next_done()
            results.append(result)
        return results

    def tell(self, message: Message) -> None:
        """Tell whoever listens to the scheduler; if that is gone, nobody does."""
        with suppress(EnvironmentFault), self._there():
            self._client.log_event(TOPIC, message)

    @contextmanager
    def heard(self, listener: Listener) -> Iterator[None]:
        """Hear the news of tasks."""
        with self._there():
            self._client.subscribe_topic(TOPIC, lambda event: listener(event[1]))
        try:
            yield
        finally:
            with suppress(EnvironmentFault), self._there():
                self._client.unsubscribe_topic(TOPIC)

    def close(self) -> None:
        """Give up what is not done."""
        with suppress(EnvironmentFault), self._there():
            self._client.cancel(list(self._held.values()), force=True)
        self._held.clear()

    def _info(self) -> dict[str, Any]:
        at, workers = self._known
        if time.monotonic() - at > _FRESH_S:
            with self._there():
                workers = self._client.scheduler_info(n_workers=-1)["workers"]
            self._known = (time.monotonic(), workers)
        return workers

    def _look_around(self) -> None:
        if not self.workers:
            self._note("no Dask worker is left; waiting for one to join")

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Raise EnvironmentFault where the scheduler does not answer."""
        if self._client.status != "running":
            raise EnvironmentFault(_GONE)
        try:
            yield
        except (OSError, TimeoutError, CancelledError) as error:
            raise EnvironmentFault(_GONE) from error


def _plainly(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call; an error of ours leaves without what it was raised from, which, if it is of GDAL, cannot be unpickled."""
    keep_freed_memory()
    try:
        return call(*arguments)
    except GeosegError as error:
        error.__cause__ = error.__context__ = None
        raise


AnyRunner = InProcessRunner | DaskRunner


@contextmanager
def open_runner(*, workers: int = 0, scheduler: str | None = None, note: Note | None = None) -> Iterator[AnyRunner]:
    """The runner asked for: a scheduler's address wins, then `workers` local processes (0: this process).

    `note` takes what the user should know. Raises EnvironmentFault where nobody answers at the address.
    """
    note = note or _unheard
    if scheduler is None and workers < 1:
        yield from _closing(InProcessRunner())
        return
    from distributed import Client, LocalCluster  # noqa: PLC0415  # 0.7 s

    # What goes wrong comes back as the error of a task, or as a sentence of ours; Dask's own words would repeat it.
    for name in ("distributed", "distributed.client"):  # Dask gives each of them a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheduler is not None:
        with connect(scheduler) as client, _interrupts_remembered():
            yield from _closing(_checked(DaskRunner(client, note, _pages(client, note)), scheduler))
        return
    # Addresses of the loopback alone: a dashboard for the world to see would be a leak. What goes wrong in a worker
    # comes back as the error of its task; its own log would only repeat it, and complain of every goodbye.
    with _interrupts_ignored():
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=_AT_ONCE, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            memory_limit=0, silence_logs=logging.CRITICAL,
        )  # fmt: skip
    with cluster, Client(cluster, set_as_default=False) as client, _interrupts_remembered():
        yield from _closing(DaskRunner(client, note, _pages(client, note)))


def _closing(runner: AnyRunner) -> Iterator[AnyRunner]:
    try:
        yield runner
    finally:
        runner.close()


def _unheard(_message: str) -> None:
    """Nobody wants to know."""


def _pages(client: Any, note: Note) -> tuple[str, ...]:
    """Addresses to watch the run at: the dashboard and the map of blocks in it."""
    from geoseg.runtime.monitor import open_page  # noqa: PLC0415  # bokeh

    try:
        return (open_page(client), str(client.dashboard_link))
    except EnvironmentFault as fault:
        note(str(fault))
        return ()


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


@contextmanager
def _interrupts_remembered() -> Iterator[None]:
    """Note Ctrl-C besides raising it, so that it is raised again where it was dropped."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or not ours:
        yield
        return

    def remember(number: int, frame: FrameType | None) -> None:
        _interrupted.set()
        signal.default_int_handler(number, frame)

    _interrupted.clear()
    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _interrupted.clear()


def _checked(runner: DaskRunner, address: str) -> DaskRunner:
    if not runner.workers:
        raise EnvironmentFault(f"the Dask scheduler at {address} has no worker; start one: dask worker {address}")
    return runner
