"""Tasks: in order, after their predecessors, few at a time, and with their errors."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import EnvironmentFault, SceneError
from geoseg.runtime import InProcessRunner, Task, open_runner, run_tasks, tell

if TYPE_CHECKING:
    from collections.abc import Iterator


class Recorder:
    """Runs three at a time, newest first, and remembers."""

    limit = 3

    def __init__(self) -> None:
        self.queue: list[Task] = []
        self.most = 0

    def submit(self, task: Task) -> None:
        self.queue.append(task)
        self.most = max(self.most, len(self.queue))

    def next_done(self) -> tuple[str, Any]:
        task = self.queue.pop()
        return task.key, task.call(*task.arguments)


@given(st.lists(st.lists(st.lists(st.integers(0, 30), max_size=3), max_size=31), max_size=4))
def test_every_task_runs_once_after_its_predecessors(batches: list[list[list[int]]]) -> None:
    tasks = [
        [
            Task(f"{b}-{k}", str, (f"{b}-{k}",), tuple({f"{b}-{before}" for before in after if before < k}))
            for k, after in enumerate(links)
        ]
        for b, links in enumerate(batches)
    ]
    runner, done = Recorder(), []
    for task, result in run_tasks(tasks, runner):
        assert set(task.after) <= set(done)
        assert result == task.key
        done.append(result)
    assert sorted(done) == sorted(task.key for batch in tasks for task in batch)
    assert runner.most <= 3


def test_the_next_batch_begins_when_the_one_before_leaves_a_worker_idle() -> None:
    runner, begun = Recorder(), []

    def batches() -> Iterator[list[Task]]:
        for b in range(4):
            begun.append(b)
            chain = [Task(f"{b}-{k}", int, (), (f"{b}-{k - 1}",) if k else ()) for k in range(5)]
            yield chain

    seen = []
    for task, _ in run_tasks(batches(), runner):
        finished = {key.split("-")[0] for key in seen if key.endswith("-4")}
        assert len(begun) - len(finished) <= 2, "no more than two scenes are open at a time"
        seen.append(task.key)
    assert begun == [0, 1, 2, 3]
    assert seen.index("1-0") < seen.index("0-4"), "a chain leaves room for the next"


def test_a_predecessor_that_is_not_there_is_a_defect() -> None:
    with pytest.raises(ValueError, match="ghost"):
        list(run_tasks([[Task("a", int, (), ("ghost",))]], Recorder()))


def fail() -> None:
    """Fail as a task does."""
    raise SceneError("broken")


def read_nothing(path: str) -> None:
    """Fail as a task does when GDAL has failed."""
    try:
        with rasterio.open(path):
            pass
    except rasterio.errors.RasterioIOError as error:
        raise SceneError(f"{path} is broken") from error


def double(value: int) -> int:
    """A task."""
    return 2 * value


def test_an_error_reaches_the_caller() -> None:
    with open_runner() as runner, pytest.raises(SceneError, match="broken"):
        list(run_tasks([[Task("a", fail, ())]], runner))


def test_two_tasks_run_at_a_time_in_this_process() -> None:
    meet = threading.Barrier(2, timeout=60)
    with open_runner() as runner:
        assert len(list(run_tasks([[Task("a", meet.wait, ()), Task("b", meet.wait, ())]], runner))) == 2


def test_news_is_heard_and_stops_what_nobody_waits_for() -> None:
    heard: list[dict[str, Any]] = []
    started = threading.Event()

    def endless() -> None:
        while True:
            tell({"what": "block"})
            started.set()
            time.sleep(0.001)

    runner = InProcessRunner()
    with runner.heard(heard.append):  # at its end the task is still at work, and is told that nobody waits for it
        runner.submit(Task("endless", endless, ()))
        assert started.wait(60)
    assert heard[0] == {"what": "block"}
    before = len(heard)
    tell({"what": "nobody listens"})
    assert len(heard) == before


def speak(value: int) -> int:
    """A task that tells."""
    tell({"what": "block", "value": value})
    return value


@pytest.mark.slow
def test_local_workers_do_what_this_process_does() -> None:
    tasks = [Task(f"double-{k}", double, (k,), (f"double-{k - 3}",) if k > 3 else ()) for k in range(20)]

    def results(workers: int) -> dict[str, Any]:
        with open_runner(workers=workers) as runner:
            assert sorted(runner.everywhere(double, 4)) == [8] * max(1, workers)
            return {task.key: result for task, result in run_tasks([tasks], runner)}

    assert results(2) == results(0)


@pytest.mark.slow
def test_workers_are_heard_and_their_errors_raised() -> None:
    heard: list[dict[str, Any]] = []
    enough = threading.Event()

    def hear(message: dict[str, Any]) -> None:
        heard.append(message)
        if len(heard) >= 3:
            enough.set()

    with open_runner(workers=1) as runner, runner.heard(hear):
        list(run_tasks([[Task(f"speak-{k}", speak, (k,)) for k in range(3)]], runner))
        assert enough.wait(60)
        assert sorted(message["value"] for message in heard) == [0, 1, 2]
        with pytest.raises(SceneError, match=r"nothing\.tif is broken"):
            list(run_tasks([[Task("fail-1", read_nothing, ("nothing.tif",))]], runner))
        assert any("/geoseg" in page for page in runner.pages)


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_said() -> None:
    with (
        pytest.raises(EnvironmentFault, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        open_runner(scheduler="tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_is_raised_all_the_same() -> None:
    """What is raised while an object is deleted goes no further than a word on stderr."""

    class Deleted:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with open_runner(workers=1) as runner:
        runner.submit(Task("something", abs, (-1,)))
        Deleted()
        with pytest.raises(KeyboardInterrupt):
            runner.next_done()


def pages_taken(count: int) -> int:
    """How many pages the system has to fill for so many arrays of 8 MB, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        np.ones(8 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc is asked")
def test_workers_use_the_memory_again_that_they_have_freed() -> None:
    """Dask has them give each array back, and fill all of its pages anew."""
    with open_runner(workers=1) as runner:
        (taken,) = [found for _, found in run_tasks([[Task("arrays", pages_taken, (100,))]], runner)]
    assert taken < 5 * 2048
