"""Numbers, tables and pictures of a run.

`count_classes` counts what a class raster holds, the functions of `pictures` draw scene, classes and confidence from
reduced reads, `render_report` lays all of it out as one self-contained page, `contact_sheet` several scenes as one
picture.
"""

from geoseg.report.numbers import ClassNumbers, SceneNumbers, count_classes, count_jointly, scene_numbers
from geoseg.report.page import RunReport, render_report
from geoseg.report.pictures import (
    RgbSource,
    class_picture,
    confidence_picture,
    overlay_picture,
    preview_picture,
    rgb_source,
    scene_picture,
)
from geoseg.report.score_page import ScoreReport, WorstWindow, render_scores
from geoseg.report.sheet import SheetEntry, contact_sheet, draw_scale_bar, ground_width_m

__all__ = [
    "ClassNumbers",
    "RgbSource",
    "RunReport",
    "SceneNumbers",
    "ScoreReport",
    "SheetEntry",
    "WorstWindow",
    "class_picture",
    "confidence_picture",
    "contact_sheet",
    "count_classes",
    "count_jointly",
    "draw_scale_bar",
    "ground_width_m",
    "overlay_picture",
    "preview_picture",
    "render_report",
    "render_scores",
    "rgb_source",
    "scene_numbers",
    "scene_picture",
]
