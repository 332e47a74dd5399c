"""Tasks: in order, after their predecessors, few at a time, and with their errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import EnvironmentFault, SceneError
from geoseg.runtime import SerialRunner, Task, open_runner, run_tasks


class Recorder(SerialRunner):
    """Runs three at a time, newest first, and remembers."""

    limit = 3

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def submit(self, task: Task) -> None:
        self._queue.appendleft(task)
        self.most = max(self.most, len(self._queue))


@given(st.lists(st.lists(st.integers(0, 30), max_size=3), max_size=31))
def test_every_task_runs_once_after_its_predecessors(links: list[list[int]]) -> None:
    tasks = [
        Task(str(k), lambda k=k: k, (), tuple({str(before) for before in after if before < k}))
        for k, after in enumerate(links)
    ]
    runner, done = Recorder(), []
    for task, result in run_tasks(tasks, runner):
        assert set(task.after) <= {str(k) for k in done}
        done.append(result)
    assert sorted(done) == list(range(len(links)))
    assert runner.most <= 3


def test_a_predecessor_that_is_not_there_is_a_defect() -> None:
    with pytest.raises(ValueError, match="ghost"):
        list(run_tasks([Task("a", int, (), ("ghost",))], SerialRunner()))


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(SceneError, match="broken"):
        list(run_tasks([Task("a", fail, ())], SerialRunner()))


def fail() -> None:
    """Fail as a task does."""
    raise SceneError("broken")


def double(value: int) -> int:
    """A task."""
    return 2 * value


@pytest.mark.slow
def test_local_workers_do_what_this_process_does() -> None:
    tasks = [Task(f"double-{k}", double, (k,), (f"double-{k - 3}",) if k > 3 else ()) for k in range(20)]

    def results(workers: int) -> dict[str, Any]:
        with open_runner(workers=workers) as runner:
            assert len(runner.workers) == max(1, workers)
            return {task.key: result for task, result in run_tasks(tasks, runner)}

    assert results(2) == results(0)
    with open_runner(workers=1) as runner, pytest.raises(SceneError, match="broken"):
        list(run_tasks([Task("fail-1", fail, ())], runner))


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_said() -> None:
    with (
        pytest.raises(EnvironmentFault, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        open_runner(scheduler="tcp://127.0.0.1:9"),
    ):
        pass
