"""Pixels and their valid mask, by box."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from geoseg.errors import MissingCrsError
from geoseg.frame import Box, Frame
from geoseg.scene.info import SceneInfo, inspect_scene, read_file_mask, read_window
from geoseg.scene.roles import BandNeeds, assign_roles

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]


class Scene(Protocol):
    """Something with bands by role on a frame."""

    @property
    def frame(self) -> Frame:
        """Where the pixels lie."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The role of each band that `read` returns, in order."""

    @property
    def dtype(self) -> str:
        """The data type of the pixels as stored."""

    @property
    def stored_scaling(self) -> tuple[tuple[float, float], ...] | None:
        """(scale, offset) of each band, as the file states them (1 and 0 where not); None where no file could."""

    def read(self, box: Box) -> tuple[Array, Array]:
        """Pixels (bands, height, width) as stored, and which of them are valid: (height, width) bool.

        `box` lies inside the frame.
        """


@dataclass(frozen=True)
class ArrayScene:
    """A scene in memory: pixels (bands, height, width), valid (height, width) bool."""

    pixels: Array
    frame: Frame
    roles: tuple[str, ...]
    valid: Array | None = field(default=None)

    @property
    def dtype(self) -> str:
        """The data type of the pixels."""
        return str(self.pixels.dtype)

    @property
    def stored_scaling(self) -> None:
        """Nothing is known of it."""
        return

    def read(self, box: Box) -> tuple[Array, Array]:
        """A copy of what is inside `box`."""
        rows, cols = box.slices(self.frame.box)
        pixels = self.pixels[:, rows, cols].copy()
        valid = np.ones(box.shape, bool) if self.valid is None else self.valid[rows, cols].copy()
        return pixels, valid & _finite(pixels)


@dataclass(frozen=True)
class FileScene:
    """A raster file of which some bands are read; a value that pickles, the open file is found again by its path."""

    info: SceneInfo
    roles: tuple[str, ...]
    bands: tuple[int, ...]
    """The band (from 1) of each role."""
    nodata: float | None

    @property
    def frame(self) -> Frame:
        """The grid of the file."""
        return self.info.frame

    @property
    def dtype(self) -> str:
        """The data type as stored."""
        return self.info.dtype

    @property
    def stored_scaling(self) -> tuple[tuple[float, float], ...]:
        """(scale, offset) of each band that is read, as the file states them."""
        return tuple((self.info.scales[band - 1], self.info.offsets[band - 1]) for band in self.bands)

    @property
    def alpha(self) -> int | None:
        """The alpha band that masks, unless it plays a role: then it is no mask, whatever its tag says."""
        return None if self.info.alpha_band in self.bands else self.info.alpha_band

    def read(self, box: Box) -> tuple[Array, Array]:
        """Pixels and valid mask of a box inside the frame.

        A pixel is valid unless all its bands are nodata, one is NaN or infinite, or the file's mask or alpha is zero.
        Raises SceneError, naming file and window, where the file is damaged.
        """
        bands = list(self.bands)
        read = [*bands, self.alpha] if self.alpha else bands
        stack = read_window(self.info.path, read, box)
        pixels = stack[: len(bands)]
        valid = _finite(pixels)
        if self.nodata is not None and not np.isnan(self.nodata):
            valid &= _any_differs(pixels, self.nodata)
        if self.alpha:
            valid &= stack[-1] > 0
        if "file" in self.info.mask:
            valid &= read_file_mask(self.info.path, box)
        return pixels, valid


def open_scene(
    path: str | Path,
    needs: BandNeeds,
    *,
    bands: dict[str, int] | None = None,
    nodata: float | None = None,
    require_crs: bool = True,
) -> FileScene:
    """The scene in `path` with the bands that a model needs.

    `bands` and `nodata` are the user's word and win over what the file says. Raises SceneError, BandRoleError or,
    unless `require_crs` is off, MissingCrsError.
    """
    info = inspect_scene(path)
    if require_crs and info.frame.crs is None:
        raise MissingCrsError(
            f"{path} has no CRS or no georeference, so neither its GSD nor any area is known; assign one "
            "(gdal_edit.py -a_srs EPSG:...) or go on without by --force"
        )
    if require_crs and info.frame.gsd_m is None:
        raise MissingCrsError(
            f"{path}: its coordinates lie outside of its CRS, or that is not tied to the Earth, so neither its GSD nor "
            "any area is known; assign the right one (gdal_edit.py -a_srs EPSG:...) or go on without by --force"
        )
    assigned = assign_roles(info, needs, bands)
    return FileScene(
        info=info,
        roles=tuple(assigned),
        bands=tuple(assigned.values()),
        nodata=info.nodata if nodata is None else nodata,
    )


def mirror(start: int, stop: int, size: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The indices start..stop-1 folded back into 0..size-1 by reflection at both ends, as often as need be.

    >>> mirror(-2, 6, 3).tolist()
    [2, 1, 0, 1, 2, 1, 0, 1]
    """
    if size == 1:
        return np.zeros(stop - start, np.intp)
    folded = np.arange(start, stop) % (2 * size - 2)
    return np.minimum(folded, 2 * size - 2 - folded)


def read_mirrored(scene: Scene, box: Box) -> tuple[Array, Array]:
    """As `Scene.read`, for any box that is not empty: outside of the frame lies its mirror image."""
    rows = mirror(box.row, box.bottom, scene.frame.shape[0])
    cols = mirror(box.col, box.right, scene.frame.shape[1])
    top, left = int(rows.min()), int(cols.min())
    inside = Box(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)
    pixels, valid = scene.read(inside)
    if inside == box:
        return pixels, valid
    rows, cols = rows - top, cols - left
    return _taken(_taken(pixels, cols, 2), rows, 1), _taken(_taken(valid, cols, 1), rows, 0)


def _taken(array: Array, index: np.ndarray[Any, np.dtype[np.intp]], axis: int) -> Array:
    """As `np.take`, for an index that counts up and down: each run of it is copied as a slice."""
    if np.array_equal(index, np.arange(array.shape[axis])):
        return array
    starts = [0, *(np.flatnonzero(np.diff(index, n=2)) + 2), len(index)]
    out = np.empty((*array.shape[:axis], len(index), *array.shape[axis + 1 :]), array.dtype)
    before = (slice(None),) * axis
    for start, stop in pairwise(starts):
        first, last = int(index[start]), int(index[stop - 1])
        step = 1 if last >= first else -1
        end = last + step
        out[(*before, slice(start, stop))] = array[(*before, slice(first, end if end >= 0 else None, step))]
    return out


def _any_differs(pixels: Array, nodata: float) -> Array:
    """Where a band of pixels (bands, height, width) is not `nodata`: (height, width) bool."""
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.asarray(nodata).astype(pixels.dtype)  # as a float it would make floats of all pixels
    if pixels.dtype.kind in "iu" and value != nodata:  # a value that none of them can have
        return np.ones(pixels.shape[1:], bool)
    differs: Array = pixels[0] != value
    for band in pixels[1:]:
        differs |= band != value
    return differs


def _finite(pixels: Array) -> Array:
    if pixels.dtype.kind != "f":
        return np.ones(pixels.shape[1:], bool)
    finite: Array = np.isfinite(pixels[0])
    for band in pixels[1:]:
        finite &= np.isfinite(band)
    return finite
