"""A scene as it looks on another grid: another CRS, resolution, alignment, or moved by parts of a pixel.

Where a pixel of the frame lies in the scene depends on the pixel alone, never on the box that is read, so that
whatever is computed from it does not depend on how the frame is cut. GDAL's warper interpolates positions within each
window that it is given, so its pixels move with the window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from geoseg.frame import Box, Frame, parse_crs

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyproj import Transformer

    from geoseg.scene.reading import Scene

Array = np.ndarray[Any, Any]

_LATTICE = 16
"""Between frames of two CRS, every so many pixels a position is computed, and interpolated between these."""
_SAME_PX = 1e-6
"""Grids that differ by less than this many pixels at no corner are one."""
_COARSER = 1.05
"""Beyond so many pixels of the scene to one of the frame they are averaged, else interpolated by cubics."""
_MOST_PIXELS = 64
"""So many along a side are averaged into one at most: beyond that a sample of them is."""
_MOST_SIDE = 1024
"""Side, in pixels of the scene, of what is read at a time."""
_EMPTY = 1e-9
"""A pixel with less weight than this does not count, and need not be valid."""


@dataclass(frozen=True)
class WarpedScene:
    """A scene on the grid of a frame, moved by `shift`: (rows, columns) in pixels of the frame.

    What the frame shows at a place is what the scene has at that place plus `shift`. Pixels are copied where the grids
    agree; else they are interpolated by Catmull-Rom cubics (bilinearly beside nodata) or, where those of the scene are
    finer, averaged over the pixel of the frame. A pixel is valid if all that it is made of are.
    """

    scene: Scene
    frame: Frame
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def roles(self) -> tuple[str, ...]:
        """As the scene's."""
        return self.scene.roles

    @property
    def dtype(self) -> str:
        """The scene's where pixels are copied, else that of what they are interpolated in."""
        return self.scene.dtype if self._copied is not None else str(_floats(self.scene.dtype))

    @property
    def stored_scaling(self) -> tuple[tuple[float, float], ...] | None:
        """As the scene's."""
        return self.scene.stored_scaling

    @property
    def is_copy(self) -> bool:
        """Whether pixels are copied, since the grids agree."""
        return self._copied is not None

    def moved(self, shift: tuple[float, float]) -> WarpedScene:
        """The same with another shift."""
        return replace(self, shift=shift)

    def read(self, box: Box) -> tuple[Array, Array]:
        """Pixels (bands, height, width) and which are valid, (height, width) bool."""
        copied = self._copied
        if copied is not None:
            return _read_padded(self.scene, Box(box.row + copied[0], box.col + copied[1], *box.shape))
        side = max(1, floor(_MOST_SIDE / max(1.0, _ratio(self.scene.frame, self.frame))))
        if max(box.shape) <= side:
            return self._read(box)
        # Of a much finer scene as much is held at a time as of one of the same resolution.
        pixels, valid = np.zeros((len(self.roles), *box.shape), self.dtype), np.zeros(box.shape, bool)
        for row in range(box.row, box.bottom, side):
            for col in range(box.col, box.right, side):
                part = Box(row, col, side, side) & box
                at = part.slices(box)
                pixels[(slice(None), *at)], valid[at] = self._read(part)
        return pixels, valid

    def _read(self, box: Box) -> tuple[Array, Array]:
        affine = _between(self.scene.frame, self.frame)
        if affine is not None and not affine.b and not affine.d:
            return self._along_axes(box, affine)
        return self._anywhere(box, affine)

    @property
    def _copied(self) -> tuple[int, int] | None:
        """By how many rows and columns the grids differ, where that is all; None where it is not."""
        affine = _between(self.scene.frame, self.frame)
        if affine is None or affine.b or affine.d or affine.a != 1 or affine.e != 1:
            return None
        row, col = affine.f + self.shift[0], affine.c + self.shift[1]
        whole = round(row), round(col)
        return whole if max(abs(row - whole[0]), abs(col - whole[1])) < _SAME_PX else None

    def _along_axes(self, box: Box, affine: Affine) -> tuple[Array, Array]:
        """Where rows stay rows: first along columns, then along rows."""
        rows = _Taps.along(box.row, box.height, affine.e, affine.f + affine.e * self.shift[0])
        cols = _Taps.along(box.col, box.width, affine.a, affine.c + affine.a * self.shift[1])
        source = Box(rows.first, cols.first, rows.count, cols.count)
        pixels, valid = _read_padded(self.scene, source)
        values = np.where(valid, pixels, 0).astype(_floats(self.scene.dtype))
        missing = (~valid).astype(np.float32)
        out = rows.weighted(cols.weighted(values, 2), 1)
        lost = rows.counted(cols.counted(missing, 1), 0)
        if lost.any() and (rows.near is not None or cols.near is not None):
            inner_rows, inner_cols = rows.near or rows, cols.near or cols
            bilinear = inner_rows.weighted(inner_cols.weighted(values, 2), 1)
            lost_too = inner_rows.counted(inner_cols.counted(missing, 1), 0)
            out = np.where(lost > 0, bilinear, out)
            lost = lost_too
        return np.where(lost > 0, 0, out), lost == 0

    def _anywhere(self, box: Box, affine: Affine | None) -> tuple[Array, Array]:
        """Where each pixel has a position of its own."""
        floats = _floats(self.scene.dtype)
        count = _averaged(self.scene.frame, self.frame)
        total = np.zeros((len(self.roles), *box.shape), floats)
        valid = np.ones(box.shape, bool)
        steps = (np.arange(count) + 0.5) / count
        places = [self._positions(box, affine, (down, across)) for down in steps for across in steps]
        # From corners of pixels to centres.
        rows, cols = (np.stack([place[axis] for place in places]) - 0.5 for axis in (0, 1))
        if not (np.isfinite(rows).all() and np.isfinite(cols).all()):
            valid &= np.isfinite(rows).all(axis=0) & np.isfinite(cols).all(axis=0)
            rows, cols = (np.where(np.isfinite(axis), axis, -9.0) for axis in (rows, cols))
        source = _around(rows, cols, self.scene.frame.box)
        if not source:
            return total, np.zeros(box.shape, bool)
        pixels, there = _read_padded(self.scene, source)
        pixels = np.where(there, pixels, 0).astype(floats)
        for row, col in zip(rows, cols, strict=True):
            value, seen = _sampled(pixels, there, row - source.row, col - source.col, cubic=count == 1)
            total += value
            valid &= seen
        return np.where(valid, total / floats.type(count * count), 0), valid

    def _positions(self, box: Box, affine: Affine | None, at: tuple[float, float]) -> tuple[Array, Array]:
        """Rows and columns, (height, width) each, in the scene, of the places `at` within the pixels of a box."""
        row = np.arange(box.row, box.bottom, dtype=np.float64) + at[0] + self.shift[0]
        col = np.arange(box.col, box.right, dtype=np.float64) + at[1] + self.shift[1]
        if affine is not None:
            grid_col, grid_row = np.meshgrid(col, row)
            return (
                affine.d * grid_col + affine.e * grid_row + affine.f,
                affine.a * grid_col + affine.b * grid_row + affine.c,
            )
        return _interpolated(self.frame, self.scene.frame, row, col)


@dataclass(frozen=True)
class _Taps:
    """Along an axis, which pixels each pixel of the frame is made of: index (n, k) from `first`, and weight (n, k)."""

    first: int
    count: int
    index: Array
    weight: Array
    near: _Taps | None = None
    """The two nearest, for where not all are valid."""

    @classmethod
    def along(cls, start: int, length: int, scale: float, offset: float) -> _Taps:
        """For `length` pixels from `start`, of which pixel i covers scale * i + offset to scale * (i + 1) + offset."""
        edge = scale * np.arange(start, start + length + 1, dtype=np.float64) + offset
        if abs(scale) > _COARSER:
            return cls._of(*_averaging(np.minimum(edge[:-1], edge[1:]), np.maximum(edge[:-1], edge[1:])))
        place = (edge[:-1] + edge[1:]) / 2 - 0.5
        base = np.floor(place).astype(np.int64)
        part = place - base
        outer = base[:, None] + np.arange(-1, 3)
        cubic, linear = _cubic(part), np.stack([1 - part, part], axis=1)
        taps = cls._of(outer, cubic)
        near = cls(taps.first, taps.count, taps.index[:, 1:3], linear)
        return replace(taps, near=near)

    @classmethod
    def _of(cls, index: Array, weight: Array) -> _Taps:
        first = int(index.min())
        return cls(first, int(index.max()) - first + 1, index - first, weight)

    def weighted(self, values: Array, axis: int) -> Array:
        """Sums over the pixels of each, along an axis of `values`."""
        shape = [1] * values.ndim
        shape[axis] = -1
        total: Array | None = None
        for index, weight in zip(self.index.T, self.weight.T, strict=True):
            part = np.take(values, index, axis=axis)
            part *= weight.astype(values.dtype).reshape(shape)
            total = part if total is None else np.add(total, part, out=total)
        assert total is not None  # noqa: S101  # there is a pixel at least
        return total

    def counted(self, missing: Array, axis: int) -> Array:
        """The same of what is missing, each with weight one where it has any."""
        counting = replace(self, weight=(np.abs(self.weight) > _EMPTY).astype(np.float32))
        return counting.weighted(missing, axis)


def _averaging(low: Array, high: Array) -> tuple[Array, Array]:
    """Pixels, and how much of each lies between `low` and `high`, of the whole."""
    base = np.floor(low).astype(np.int64)
    count = int((np.ceil(high).astype(np.int64) - base).max())
    index = base[:, None] + np.arange(count)
    covered = np.minimum(high[:, None], index + 1) - np.maximum(low[:, None], index)
    weight = np.clip(covered, 0, None) / (high - low)[:, None]
    return np.where(weight > _EMPTY, index, base[:, None]), np.where(weight > _EMPTY, weight, 0)


def _cubic(part: Array) -> Array:
    """Weights of Catmull-Rom cubics, (..., 4), for places `part` (0..1) between the two in the middle."""
    t = part[..., None] if part.ndim > 1 else part[:, None]
    one = -0.5 * t + t**2 - 0.5 * t**3
    two = 1 - 2.5 * t**2 + 1.5 * t**3
    three = 0.5 * t + 2 * t**2 - 1.5 * t**3
    four = -0.5 * t**2 + 0.5 * t**3
    return np.concatenate([one, two, three, four], axis=-1)


def _sampled(pixels: Array, there: Array, row: Array, col: Array, *, cubic: bool) -> tuple[Array, Array]:
    """Pixels (bands, height, width) at places (h, w) in rows and columns; which of them are valid."""
    base_row, base_col = np.floor(row).astype(np.int64), np.floor(col).astype(np.int64)
    part_row, part_col = row - base_row, col - base_col
    near = _gathered(
        pixels, there, (base_row, base_col), [np.stack([1 - part, part], -1) for part in (part_row, part_col)], 0
    )
    if not cubic:
        return near
    value, valid = _gathered(pixels, there, (base_row, base_col), [_cubic(part_row), _cubic(part_col)], -1)
    return np.where(valid, value, near[0]), near[1]


def _gathered(
    pixels: Array, there: Array, base: tuple[Array, Array], weights: list[Array], start: int
) -> tuple[Array, Array]:
    height, width = there.shape
    total = np.zeros((pixels.shape[0], *base[0].shape), pixels.dtype)
    valid = np.ones(base[0].shape, bool)
    for down in range(weights[0].shape[-1]):
        row = base[0] + start + down
        for across in range(weights[1].shape[-1]):
            col = base[1] + start + across
            weight = weights[0][..., down] * weights[1][..., across]
            inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
            at = np.clip(row, 0, height - 1), np.clip(col, 0, width - 1)
            valid &= (inside & there[at]) | (np.abs(weight) <= _EMPTY)
            total += pixels[(slice(None), *at)] * weight.astype(pixels.dtype)
    return total, valid


def _around(rows: Array, cols: Array, inside: Box) -> Box:
    """The pixels that cubics at these places may need, as far as there are any."""
    top, left = floor(float(rows.min())) - 1, floor(float(cols.min())) - 1
    return Box(top, left, floor(float(rows.max())) + 3 - top, floor(float(cols.max())) + 3 - left) & inside


def _read_padded(scene: Scene, box: Box) -> tuple[Array, Array]:
    """As `Scene.read` for any box: what lies outside is 0 and not valid."""
    inside = box & scene.frame.box
    if inside == box:
        return scene.read(box)
    pixels, valid = np.zeros((len(scene.roles), *box.shape), scene.dtype), np.zeros(box.shape, bool)
    if inside:
        at = inside.slices(box)
        pixels[(slice(None), *at)], valid[at] = scene.read(inside)
    return pixels, valid


def _floats(dtype: str) -> np.dtype[Any]:
    """In what pixels are interpolated: doubles for what a single float does not hold."""
    kind = np.dtype(dtype)
    return np.dtype(np.float64 if kind.itemsize > (4 if kind.kind == "f" else 2) else np.float32)


@lru_cache(maxsize=32)
def _between(scene: Frame, frame: Frame) -> Affine | None:
    """From pixels of the frame to those of the scene; None where their CRS differ."""
    if not same_place(scene.crs, frame.crs):
        return None
    affine: Affine = ~scene.transform * frame.transform
    height, width = frame.shape
    # What is left of rounding is taken away, so that equal grids are equal.
    row_step, col_step = (
        1 if abs(step - 1) * side < _SAME_PX else step for step, side in ((affine.e, height), (affine.a, width))
    )
    across, down = (0.0 if abs(part) * max(height, width) < _SAME_PX else part for part in (affine.b, affine.d))
    return Affine(col_step, across, affine.c, down, row_step, affine.f)


def same_place(one: str | None, other: str | None) -> bool:
    """Whether two CRS (as WKT, or None) mean the same coordinates, however they are spelled."""
    if one is None or other is None or one == other:
        return one == other
    return bool(parse_crs(one).equals(parse_crs(other), ignore_axis_order=True))


def _averaged(scene: Frame, frame: Frame) -> int:
    """How many places along each side of a pixel of the frame are looked at: one where the scene is no finer."""
    ratio = _ratio(scene, frame)
    return 1 if ratio <= _COARSER else min(ceil(ratio), _MOST_PIXELS)


@lru_cache(maxsize=32)
def _ratio(scene: Frame, frame: Frame) -> float:
    """How many pixels of the scene there are along a side of one of the frame, in its middle; 1 where it is lost."""
    row, col = frame.shape[0] // 2, frame.shape[1] // 2
    rows, cols = transformed(frame, scene)(np.array([0.0, 1.0, 0.0]) + row, np.array([0.0, 0.0, 1.0]) + col)
    down, across = (float(np.hypot(rows[k] - rows[0], cols[k] - cols[0])) for k in (1, 2))
    ratio = max(down, across)
    return ratio if np.isfinite(ratio) else 1.0


@lru_cache(maxsize=32)
def _transformer(frame: str | None, scene: str | None) -> Transformer:
    from pyproj import Transformer  # noqa: PLC0415

    return Transformer.from_crs(frame, scene, always_xy=True)


def transformed(frame: Frame, other: Frame) -> Callable[[Array, Array], tuple[Array, Array]]:
    """A function from rows and columns of a frame to those of another, by way of the ground; not finite where lost."""
    here, back = frame.transform, ~other.transform

    def move(row: Array, col: Array) -> tuple[Array, Array]:
        x, y = here.a * col + here.b * row + here.c, here.d * col + here.e * row + here.f
        if not same_place(frame.crs, other.crs):
            x, y = _transformer(frame.crs, other.crs).transform(x, y)
        return back.d * x + back.e * y + back.f, back.a * x + back.b * y + back.c

    return move


def _interpolated(frame: Frame, scene: Frame, row: Array, col: Array) -> tuple[Array, Array]:
    """Places (rows x columns) of a frame in a scene of another CRS, between those of a lattice that lies still."""
    move = transformed(frame, scene)
    first_row, first_col = (floor(float(axis.min()) / _LATTICE) for axis in (row, col))
    last_row, last_col = (floor(float(axis.max()) / _LATTICE) + 2 for axis in (row, col))
    node_col, node_row = np.meshgrid(
        np.arange(first_col, last_col) * float(_LATTICE), np.arange(first_row, last_row) * float(_LATTICE)
    )
    nodes = move(node_row, node_col)
    at_row, at_col = row / _LATTICE - first_row, col / _LATTICE - first_col
    r, c = np.floor(at_row).astype(np.int64), np.floor(at_col).astype(np.int64)
    down, across = (at_row - r)[:, None], (at_col - c)[None]
    r, c = r[:, None], c[None]

    def between(node: Array) -> Array:
        upper = node[r, c] * (1 - across) + node[r, c + 1] * across
        lower = node[r + 1, c] * (1 - across) + node[r + 1, c + 1] * across
        between_both: Array = upper * (1 - down) + lower * down
        return between_both

    return between(nodes[0]), between(nodes[1])
