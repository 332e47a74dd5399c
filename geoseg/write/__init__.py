"""What is written: rasters, vectors, styles, a QGIS project and STAC, each complete or not at all."""

from geoseg.write.atomic import replacing, sweep_partials, write_text
from geoseg.write.layer import Layer
from geoseg.write.qgis import Project, write_project
from geoseg.write.raster import RasterSpec, read_legend, write_block, write_cog
from geoseg.write.stac import RunRecord, stac_catalog, stac_item, tiff_datetime
from geoseg.write.style import classes_qml, confidence_qml
from geoseg.write.vector import FORMATS, write_layers

__all__ = [
    "FORMATS",
    "Layer",
    "Project",
    "RasterSpec",
    "RunRecord",
    "classes_qml",
    "confidence_qml",
    "read_legend",
    "replacing",
    "stac_catalog",
    "stac_item",
    "sweep_partials",
    "tiff_datetime",
    "write_block",
    "write_cog",
    "write_layers",
    "write_project",
    "write_text",
]
