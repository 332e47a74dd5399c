"""A QGIS project over a comparison: both dates, the rasters and the polygons of change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pyogrio

from geoseg.write.atomic import write_text
from geoseg.write.qgis import ProjectLayer, project_root, raster_layer, relative_path, scene_stretch
from geoseg.write.style import classes_renderer, confidence_renderer, layer_elements, magnitude_renderer, scene_renderer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from geoseg.frame import Frame
    from geoseg.legend import ClassEntry, Legend

_OPACITY = 0.7


@dataclass(frozen=True)
class SceneShown:
    """A date of a project: its file, the bands (from 1) shown as red, green, blue, and where it lies."""

    name: str
    path: Path
    bands_rgb: tuple[int, int, int]
    frame: Frame


@dataclass(frozen=True)
class ChangeProject:
    """What a project of a comparison shows, from top to bottom: changes, rasters, the later and the earlier date."""

    title: str
    frame: Frame
    legend: Legend
    """Of the change raster."""
    before: SceneShown
    after: SceneShown
    rasters: Mapping[str, Path]
    """`change`, `confidence` and `magnitude`."""
    highest: float
    """The magnitude drawn darkest."""
    gpkg: Path
    layers: Mapping[str, tuple[str, Sequence[ClassEntry]]]
    """The layers of `gpkg`: name -> geometry and the classes by which it is drawn."""


def write_change_project(out: Path, project: ChangeProject) -> None:
    """Write a project (`.qgs`) that QGIS 3.22 and later open, with paths relative to `out`.

    Raises SceneError where a date cannot be read, EnvironmentFault where `out` cannot be written.
    """
    base, layers = out.parent, []
    for name, (geometry, entries) in project.layers.items():
        fields = pyogrio.read_info(project.gpkg, layer=name)["fields"].tolist()
        content = layer_elements(entries, geometry, ["fid", *fields])
        source = f"{relative_path(project.gpkg, base)}|layername={name}"
        checked = name == "change"  # objects are in the way of what lies below them
        layers.append(ProjectLayer(name, source, "ogr", checked=checked, content=content, geometry=geometry))
    renderers = {
        "change": classes_renderer(project.legend, _OPACITY),
        "magnitude": magnitude_renderer(project.highest),
        "confidence": confidence_renderer(),
    }
    for name, renderer in renderers.items():
        label = "change (raster)" if name == "change" else name
        layers.append(raster_layer(label, project.rasters[name], base, renderer, checked=False))
    for shown in (project.after, project.before):
        drawn = scene_renderer(shown.bands_rgb, scene_stretch(shown.path, shown.bands_rgb))
        layers.append(raster_layer(shown.name, shown.path, base, drawn, checked=True, frame=shown.frame))
    root = project_root(layers, project.frame, project.title)
    ET.indent(root, " ")
    write_text(out, ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n")
