"""The whole path, for callers from Python: what the command line does, each in one function."""

from geoseg.workflow.demo import run_demo
from geoseg.workflow.opening import open_run
from geoseg.workflow.plan import Plan, plan_scene
from geoseg.workflow.progress import Progress, Silent
from geoseg.workflow.segmenting import RunResult, segment_scene, segment_scenes
from geoseg.workflow.vectors import vectorize
from geoseg.workflow.verify import verify_run

__all__ = [
    "Plan",
    "Progress",
    "RunResult",
    "Silent",
    "open_run",
    "plan_scene",
    "run_demo",
    "segment_scene",
    "segment_scenes",
    "vectorize",
    "verify_run",
]
