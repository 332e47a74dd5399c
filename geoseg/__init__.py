"""geoseg: from large multispectral scenes to polygons, tile by tile."""

__version__ = "0.1.0"
