"""The words all else speaks: a `Box` of whole pixels and the `Frame` that lays pixels on the ground."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import hypot, isfinite, nan
from typing import TYPE_CHECKING

from affine import Affine

if TYPE_CHECKING:
    from pyproj import CRS, Geod, Transformer

_POLE_DEG = 90 + 1e-6
"""No latitude lies beyond, but for rounding."""


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A rectangle of whole pixels, row before column, height before width; it may lie outside of any raster.

    >>> Box(0, 0, 4, 6) & Box(2, 3, 9, 9)
    Box(row=2, col=3, height=2, width=3)
    """

    row: int
    col: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The first row below."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """The first column to the right."""
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def __bool__(self) -> bool:
        """Whether there is a pixel inside."""
        return self.height > 0 and self.width > 0

    def __and__(self, other: Box) -> Box:
        """The pixels in both; empty (height or width 0) where there are none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = max(0, min(self.bottom, other.bottom) - row)
        width = max(0, min(self.right, other.right) - col)
        return Box(row, col, height, width)

    def __or__(self, other: Box) -> Box:
        """The smallest box around both."""
        row, col = min(self.row, other.row), min(self.col, other.col)
        return Box(row, col, max(self.bottom, other.bottom) - row, max(self.right, other.right) - col)

    def slices(self, inside: Box) -> tuple[slice, slice]:
        """The slices that address this box in an array laid over `inside`.

        >>> Box(5, 7, 2, 2).slices(Box(4, 4, 10, 10))
        (slice(1, 3, None), slice(3, 5, None))
        """
        row, col = self.row - inside.row, self.col - inside.col
        return slice(row, row + self.height), slice(col, col + self.width)


@dataclass(frozen=True, slots=True)
class Frame:
    """A grid of pixels on the ground: shape (height, width), affine transform pixel to map, CRS as WKT (or None).

    The transform takes (column, row) to a map coordinate; whole numbers are the corners of pixels.
    """

    shape: tuple[int, int]
    transform: Affine
    crs: str | None

    @property
    def box(self) -> Box:
        """All pixels of the frame."""
        return Box(0, 0, *self.shape)

    def crop(self, box: Box) -> Frame:
        """The frame of `box` alone."""
        t = self.transform
        x, y = self.xy(box.row, box.col)
        return Frame(box.shape, Affine(t.a, t.b, x, t.d, t.e, y), self.crs)

    def xy(self, row: float, col: float) -> tuple[float, float]:
        """The map coordinate of a pixel coordinate; whole numbers are corners of pixels."""
        t = self.transform
        return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(xmin, ymin, xmax, ymax) in map units, around rotated frames too."""
        height, width = self.shape
        corners = [self.xy(row, col) for row in (0, height) for col in (0, width)]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def gsd_m(self) -> tuple[float, float] | None:
        """Ground sampling distance (along a column, along a row) in metres at the centre; None where it is not known.

        That is without a CRS, with one that is not tied to the Earth, or where the frame lies outside of what it maps.
        Measured on the ellipsoid, so that a degree, a foot or a Web Mercator metre counts as what it is on the ground.
        """
        if self.crs is None or _to_lonlat(self.crs) is None:
            return None
        row, col = self.shape[0] / 2, self.shape[1] / 2
        along_column = ground_distance_m(self.crs, self.xy(row - 0.5, col), self.xy(row + 0.5, col))
        along_row = ground_distance_m(self.crs, self.xy(row, col - 0.5), self.xy(row, col + 0.5))
        return (along_column, along_row) if isfinite(along_column) and isfinite(along_row) else None

    @property
    def pixel_size(self) -> float:
        """Length of a pixel's side in map units, the mean of both axes."""
        return (hypot(self.transform.a, self.transform.d) + hypot(self.transform.b, self.transform.e)) / 2


@lru_cache(maxsize=64)
def parse_crs(wkt: str) -> CRS:
    """The pyproj CRS of a WKT string, parsed once."""
    from pyproj import CRS  # noqa: PLC0415  # 0.1 s, and not every user of a box needs it

    return CRS.from_user_input(wkt)


def ground_distance_m(crs: str, start_xy: tuple[float, float], end_xy: tuple[float, float]) -> float:
    """Length in metres on the ellipsoid of the line between two map coordinates that are close to each other.

    NaN where the CRS is not tied to the Earth, or a coordinate lies outside of what it maps.
    """
    lonlat = _to_lonlat(crs)
    if lonlat is None:
        return nan
    (lon0, lon1), (lat0, lat1) = lonlat.transform([start_xy[0], end_xy[0]], [start_xy[1], end_xy[1]])
    if not all(isfinite(lon) and abs(lat) <= _POLE_DEG for lon, lat in ((lon0, lat0), (lon1, lat1))):
        return nan
    return float(_geod(crs).inv(lon0, lat0, lon1, lat1)[2])


@lru_cache(maxsize=64)
def _to_lonlat(wkt: str) -> Transformer | None:
    """From map to longitude and latitude; None for a CRS that is not tied to the Earth, or that cannot be read."""
    from pyproj import Transformer  # noqa: PLC0415
    from pyproj.exceptions import ProjError  # noqa: PLC0415

    try:
        crs = parse_crs(wkt)
        geodetic = crs.geodetic_crs
        if geodetic is None:
            return None
    except ProjError:
        return None
    return Transformer.from_crs(crs, geodetic, always_xy=True)


@lru_cache(maxsize=64)
def _geod(wkt: str) -> Geod:
    from pyproj import Geod  # noqa: PLC0415

    return parse_crs(wkt).get_geod() or Geod(ellps="WGS84")
