"""From a class raster to polygons, as if the whole raster had been looked at in one pass.

`polygonize` labels each block's components and outlines them, joins those that cross a seam, and returns the polygons
of the whole raster with their confidence, background and nodata among them; `tidy` filters and simplifies them
together, so that neighbours keep their shared edges and nodata stays bare; `measure` lays them on the ground and gives
them the columns that users see.
"""

from geoseg.vector.measure import measure
from geoseg.vector.polygonize import Components, polygonize
from geoseg.vector.tidy import TidyRule, tidy

__all__ = ["Components", "TidyRule", "measure", "polygonize", "tidy"]
