"""Who runs the tasks of a run, in which order, and how one can watch."""

from geoseg.runtime.news import tell
from geoseg.runtime.runners import AnyRunner, DaskRunner, InProcessRunner, open_runner
from geoseg.runtime.tasks import Runner, Task, run_tasks

__all__ = ["AnyRunner", "DaskRunner", "InProcessRunner", "Runner", "Task", "open_runner", "run_tasks", "tell"]
