"""A QGIS project over a run's outputs: the scene, the rasters, the layers, styled and named, by relative paths."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pyogrio

from geoseg.errors import DamagedSceneError
from geoseg.frame import parse_crs
from geoseg.scene.info import inspect_scene, read_file_mask, read_window, sample_boxes, undamaged
from geoseg.write.atomic import write_text
from geoseg.write.style import (
    QGIS_VERSION,
    Stretch,
    classes_renderer,
    confidence_renderer,
    layer_elements,
    scene_renderer,
)
from geoseg.write.vector import CENTERLINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from geoseg.frame import Box, Frame
    from geoseg.legend import Legend

Array = np.ndarray[Any, Any]

_CUT_PERCENT = (2, 98)
_SAMPLE = 1024
_CLASSES_OPACITY = 0.6
_MARGIN = 0.03
"""Of the scene's width and height, left free around it."""


@dataclass(frozen=True)
class ProjectLayer:
    """A layer of the project: its place in the tree and its `maplayer` element."""

    name: str
    source: str
    provider: str
    checked: bool
    content: list[ET.Element]
    geometry: str | None = None
    frame: Frame | None = None
    """Where it lies, if not on the frame of the project."""

    @property
    def key(self) -> str:
        """The layer's id, long enough: QGIS takes no notice of one of ten characters or less."""
        word = "".join(char if char.isascii() and char.isalnum() else "_" for char in self.name)
        return f"{word}_{uuid.uuid5(uuid.NAMESPACE_URL, self.source).hex}"


@dataclass(frozen=True)
class Project:
    """What a project shows."""

    title: str
    frame: Frame
    legend: Legend
    scene: Path
    bands_rgb: tuple[int, int, int]
    """Bands of the scene, from 1, shown as red, green, blue."""
    rasters: Mapping[str, Path]
    """`classes` and `confidence`, either may be missing; both are switched off at first."""
    gpkg: Path | None = None
    """Its layers lie on top."""
    stretch: Stretch | None = None
    """(lowest, highest) value drawn for each of the three bands; if None, 2 % are cut at each end of a sample."""


def write_project(out: Path, project: Project) -> None:
    """Write a project (`.qgs`) that QGIS 3.22 and later open on the scene with all layers styled.

    Paths are stored relative to `out`, so that the folder can be moved. Raises SceneError where the scene cannot be
    read, EnvironmentFault where `out` cannot be written.
    """
    base, legend, scene = out.parent, project.legend, project.scene
    layers = list(_vector_layers(project.gpkg, base, legend)) if project.gpkg is not None else []
    renderers = {"classes": classes_renderer(legend, _CLASSES_OPACITY), "confidence": confidence_renderer()}
    for name, renderer in renderers.items():
        if name in project.rasters:
            layers.append(raster_layer(name, project.rasters[name], base, renderer, checked=False))
    drawn = scene_renderer(project.bands_rgb, project.stretch or scene_stretch(scene, project.bands_rgb))
    layers.append(raster_layer(scene.stem, scene, base, drawn, checked=True))
    root = project_root(layers, project.frame, project.title)
    ET.indent(root, " ")
    write_text(out, ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n")


def scene_stretch(scene: Path, bands_rgb: tuple[int, int, int]) -> Stretch:
    """(2 %, 98 %) of each band, of a sample of valid pixels; (0, 1) where there is none.

    Valid is what neither nodata nor the file's mask nor an alpha band leaves out.
    """
    info = inspect_scene(scene)
    boxes = sample_boxes(info.frame.shape, _SAMPLE)
    masked = info.mask != "none" and info.alpha_band not in bands_rgb  # what GDAL calls a mask is an alpha band too

    def read(box: Box) -> Array:
        pixels = read_window(str(scene), list(bands_rgb), box).reshape(3, -1)
        return pixels[:, read_file_mask(str(scene), box).ravel()] if masked else pixels

    try:
        pixels = np.concatenate(list(undamaged(boxes, read)), axis=1)
    except DamagedSceneError:  # of which nothing will be seen either
        return ((0.0, 1.0),) * 3
    return pixel_stretch(pixels, info.nodata)


def pixel_stretch(pixels: Array, nodata: float | None) -> Stretch:
    """(2 %, 98 %) of each of three bands of pixels (3, n), without those that are `nodata`; (0, 1) where none is left.

    Without a declared nodata value, pixels that are zero throughout are most likely borders, and are left out too.
    """
    empty = ~np.isfinite(pixels).all(axis=0)
    empty |= (pixels == (0 if nodata is None else nodata)).all(axis=0)
    pixels = pixels[:, ~empty]
    if not pixels.size:
        return ((0.0, 1.0),) * 3
    cuts = np.percentile(pixels, _CUT_PERCENT, axis=1)  # (2, 3)
    low, high = cuts[0], np.maximum(cuts[1], np.nextafter(cuts[0], np.inf))
    red, green, blue = ((float(a), float(b)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _vector_layers(gpkg: Path, base: Path, legend: Legend) -> Iterator[ProjectLayer]:
    """The layers of a GeoPackage that belong to a class: lines above areas, classes in the order of the legend."""
    present = dict(pyogrio.list_layers(gpkg).tolist())
    for ending in (CENTERLINE, ""):
        for entry in legend.foreground:
            name = entry.name + ending
            if name in present:
                fields = pyogrio.read_info(gpkg, layer=name)["fields"].tolist()
                content = layer_elements([entry], present[name], ["fid", *fields])
                source = f"{relative_path(gpkg, base)}|layername={name}"
                yield ProjectLayer(name, source, "ogr", checked=True, content=content, geometry=present[name])


def raster_layer(
    name: str, path: Path, base: Path, renderer: ET.Element, *, checked: bool, frame: Frame | None = None
) -> ProjectLayer:
    """A raster with its renderer, its path relative to the folder `base`."""
    pipe = ET.Element("pipe")
    pipe.append(renderer)
    return ProjectLayer(name, relative_path(path, base), "gdal", checked=checked, content=[pipe], frame=frame)


def relative_path(path: Path, base: Path) -> str:
    """A path as a project stores it."""
    try:
        relative = Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return path.resolve().as_posix()
    return relative if relative.startswith("../") else f"./{relative}"


def project_root(layers: list[ProjectLayer], frame: Frame, title: str) -> ET.Element:
    """A project of layers, the first on top."""
    root = ET.Element("qgis", version=QGIS_VERSION, projectname=title)
    ET.SubElement(root, "homePath", path="")
    ET.SubElement(root, "title").text = title
    ET.SubElement(root, "projectCrs").append(_crs(frame.crs))
    tree = ET.SubElement(root, "layer-tree-group")
    for layer in layers:
        ET.SubElement(
            tree, "layer-tree-layer", id=layer.key, name=layer.name, source=layer.source, providerKey=layer.provider,
            checked="Qt::Checked" if layer.checked else "Qt::Unchecked", expanded="0",
        )  # fmt: skip
    root.append(_canvas(frame))
    stack = ET.SubElement(root, "projectlayers")
    stack.extend(_map_layer(layer, frame) for layer in layers)
    order = ET.SubElement(root, "layerorder")
    for layer in layers:
        ET.SubElement(order, "layer", id=layer.key)
    properties = ET.SubElement(root, "properties")
    ET.SubElement(ET.SubElement(properties, "Paths"), "Absolute", type="bool").text = "false"
    enabled = ET.SubElement(ET.SubElement(properties, "SpatialRefSys"), "ProjectionsEnabled", type="int")
    enabled.text = "0" if frame.crs is None else "1"
    view = ET.SubElement(root, "ProjectViewSettings", UseProjectScales="0")
    extent = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(repr, _view(frame)), strict=True))
    ET.SubElement(view, "DefaultViewExtent", extent).append(_crs(frame.crs))
    return root


def _canvas(frame: Frame) -> ET.Element:
    canvas = ET.Element("mapcanvas", name="theMapCanvas", annotationsVisible="1")
    ET.SubElement(canvas, "units").text = "unknown" if frame.crs is None else _units(frame.crs)
    canvas.append(_extent(_view(frame)))
    ET.SubElement(canvas, "rotation").text = "0"
    ET.SubElement(canvas, "destinationsrs").append(_crs(frame.crs))
    return canvas


def _map_layer(layer: ProjectLayer, frame: Frame) -> ET.Element:
    kind = {"type": "raster" if layer.geometry is None else "vector"}
    if layer.geometry is not None:
        kind |= {"geometry": "Line" if "LineString" in layer.geometry else "Polygon", "wkbType": layer.geometry}
    element = ET.Element("maplayer", kind | {"styleCategories": "AllStyleCategories"})
    frame = layer.frame or frame
    element.append(_extent(frame.bounds))
    for name, text in (("id", layer.key), ("datasource", layer.source), ("layername", layer.name)):
        ET.SubElement(element, name).text = text
    ET.SubElement(element, "srs").append(_crs(frame.crs))
    provider = {} if layer.geometry is None else {"encoding": "UTF-8"}
    ET.SubElement(element, "provider", provider).text = layer.provider
    element.extend(layer.content)
    return element


def _extent(bounds: tuple[float, float, float, float]) -> ET.Element:
    extent = ET.Element("extent")
    for name, value in zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True):
        ET.SubElement(extent, name).text = repr(float(value))
    return extent


def _view(frame: Frame) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = map(float, frame.bounds)
    dx, dy = (xmax - xmin) * _MARGIN, (ymax - ymin) * _MARGIN
    return xmin - dx, ymin - dy, xmax + dx, ymax + dy


def _crs(wkt: str | None) -> ET.Element:
    element = ET.Element("spatialrefsys")
    authority = None if wkt is None else parse_crs(wkt).to_authority(min_confidence=100)
    ET.SubElement(element, "wkt").text = "" if wkt is None else parse_crs(wkt).to_wkt()
    ET.SubElement(element, "authid").text = "" if authority is None else ":".join(authority)
    return element


def _units(wkt: str) -> str:
    name = parse_crs(wkt).axis_info[0].unit_name
    return {"metre": "meters", "foot": "feet", "US survey foot": "feet", "degree": "degrees"}.get(name, "unknown")
