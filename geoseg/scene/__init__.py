"""What is read: bands by role, one valid mask, values on one scale.

`inspect_scene` says what a file is, `open_scene` turns it into a `FileScene` that knows which band plays which role,
`read_mirrored` reads any box of it, and `resolve_scaling` fixes, once a scene, how its values become numbers in 0..1.
"""

from geoseg.scene.aoi import ClippedScene, clip_scene
from geoseg.scene.drawn import DrawnLabels, LabelledPoints, is_drawn, open_drawn, read_points
from geoseg.scene.info import SceneInfo, inspect_scene
from geoseg.scene.reading import ArrayScene, FileScene, Scene, mirror, open_scene, read_mirrored
from geoseg.scene.roles import BandNeeds, assign_roles, parse_bands
from geoseg.scene.scaling import Scaling, ScalingRule, resolve_scaling
from geoseg.scene.stacked import StackedScene, of_dates, of_one_date

__all__ = [
    "ArrayScene",
    "BandNeeds",
    "ClippedScene",
    "DrawnLabels",
    "FileScene",
    "LabelledPoints",
    "Scaling",
    "ScalingRule",
    "Scene",
    "SceneInfo",
    "StackedScene",
    "assign_roles",
    "clip_scene",
    "inspect_scene",
    "is_drawn",
    "mirror",
    "of_dates",
    "of_one_date",
    "open_drawn",
    "open_scene",
    "parse_bands",
    "read_mirrored",
    "read_points",
    "resolve_scaling",
]
