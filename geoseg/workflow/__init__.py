"""The whole path, for callers from Python: what the command line does, each in one function.

The names here are looked up when they are asked for, so that describing a scene imports neither torch nor geopandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoseg.workflow.changing import detect_change
    from geoseg.workflow.demo import run_demo
    from geoseg.workflow.opening import open_run
    from geoseg.workflow.plan import Plan, plan_scene
    from geoseg.workflow.progress import Progress, Silent
    from geoseg.workflow.running import RunResult
    from geoseg.workflow.segmenting import segment_scene, segment_scenes
    from geoseg.workflow.vectors import vectorize
    from geoseg.workflow.verify import verify_run

__all__ = [
    "Plan",
    "Progress",
    "RunResult",
    "Silent",
    "detect_change",
    "open_run",
    "plan_scene",
    "run_demo",
    "segment_scene",
    "segment_scenes",
    "vectorize",
    "verify_run",
]

_HOME = {
    "Plan": "plan",
    "Progress": "progress",
    "RunResult": "running",
    "Silent": "progress",
    "detect_change": "changing",
    "open_run": "opening",
    "plan_scene": "plan",
    "run_demo": "demo",
    "segment_scene": "segmenting",
    "segment_scenes": "segmenting",
    "vectorize": "vectors",
    "verify_run": "verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
