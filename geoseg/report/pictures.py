"""Pictures of scenes, classes and confidence, read reduced: bounded memory, whatever the scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geoseg.errors import FrameMismatchError
from geoseg.legend import NODATA, Legend
from geoseg.scene.info import forget_error, open_dataset, open_without_overviews
from geoseg.segment.preview import MAX_SIDE, reduced_shape, shown_bands

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from geoseg.scene import FileScene

CONFIDENCE_RAMP = (
    (0, 0x3B, 0x0F, 0x4A),
    (30, 0x4A, 0x2C, 0x73),
    (50, 0x3F, 0x56, 0x8B),
    (70, 0x2A, 0x83, 0x8A),
    (85, 0x53, 0xAE, 0x7A),
    (95, 0xB4, 0xD0, 0x75),
    (100, 0xF4, 0xEE, 0xB1),
)
"""Confidence in percent, then red, green, blue: dark where the model is unsure, ever lighter where it is sure."""

_FINEST_RETRY = 16
"""Where reading fails, pieces down to this many pixels of the picture are tried; what still fails stays empty."""

Array = np.ndarray[Any, Any]
Piece = tuple[int, int, int, int]
"""Row, column, height and width in the picture."""
Rgb = tuple[float, float, float]
Read = Callable[[Any, Window, tuple[int, int]], Array]
"""Reads a window of a dataset at a shape (height, width)."""


@dataclass(frozen=True, slots=True)
class RgbSource:
    """What a picture of a scene shows: three bands (from 1) as red, green, blue, and the values drawn black and white.

    Without `low` and `high` each band is stretched between its 1st and 99th percentile in the picture. A pixel is
    left transparent where all three bands are `nodata`, one is not finite, the `alpha` band is 0, or, with
    `file_mask`, the file's own mask is 0.
    """

    path: str | Path
    bands: tuple[int, int, int]
    low: tuple[float, float, float] | None = None
    high: tuple[float, float, float] | None = None
    nodata: float | None = None
    alpha: int | None = None
    file_mask: bool = False


def rgb_source(scene: FileScene) -> RgbSource:
    """What a picture of a scene shows: the bands of red, green and blue, else the first ones, where they are valid."""
    red, green, blue = (scene.bands[band] for band in shown_bands(scene.roles))
    file_mask = "file" in scene.info.mask
    return RgbSource(scene.info.path, (red, green, blue), nodata=scene.nodata, alpha=scene.alpha, file_mask=file_mask)


def scene_picture(source: RgbSource, max_side: int = MAX_SIDE) -> Image.Image:
    """The scene in RGBA, its longer side at most `max_side` pixels; small scenes are enlarged by a whole factor.

    What is nodata, or cannot be read because the file is damaged there, is transparent.
    """
    path = str(source.path)
    bands = [*source.bands, *([source.alpha] if source.alpha else [])]
    stack, read = _read_reduced(path, bands, max_side, Resampling.average)
    rgb = stack[:3].astype(np.float32)
    valid = read & np.isfinite(rgb).all(axis=0)
    if source.nodata is not None and not np.isnan(source.nodata):
        valid &= (rgb != np.float32(source.nodata)).any(axis=0)
    if source.alpha:
        valid &= stack[3] > 0
    if source.file_mask:
        valid &= _read_mask(path, max_side)
    limits = None if source.low is None or source.high is None else (source.low, source.high)
    return _drawn(rgb, valid, limits, max_side)


def preview_picture(pixels: Array, seen: Array) -> Image.Image:
    """What `read_preview` returns, in RGBA: stretched and enlarged as by `scene_picture`, transparent where unseen."""
    with np.errstate(over="ignore"):  # a double may be beyond all that can be drawn
        rgb = pixels.astype(np.float32)
    return _drawn(rgb, seen & np.isfinite(rgb).all(axis=0), None, MAX_SIDE)


def sampled_places(size: int, shown: int, start: int, stop: int) -> Array:
    """The pixels from `start` to before `stop`, of `size` along an axis, that a picture of `shown` pixels shows.

    >>> sampled_places(1000, 4, 0, 500).tolist()
    [125, 375]
    """
    places = ((np.arange(shown) + 0.5) * size / shown).astype(np.int64)
    return places[(places >= start) & (places < stop)]


def class_picture(classes: Path, legend: Legend, max_side: int = MAX_SIDE) -> Image.Image:
    """The class raster in the legend's colours, with a palette, sized as by `scene_picture`; nodata is transparent.

    Where it is reduced, a pixel shows the class that most of its pixels have.
    """
    stack, read = _read_reduced(str(classes), [1], max_side, Resampling.mode)
    places = np.full(256, len(legend.classes), np.uint8)
    places[list(legend.codes)] = np.arange(len(legend.classes))
    return _painted(places[np.where(read, stack[0], NODATA)], [entry.rgb for entry in legend.classes], max_side)


def confidence_picture(confidence: Path, max_side: int = MAX_SIDE) -> Image.Image:
    """The confidence raster (percent, 255 is nodata) in the colours of `CONFIDENCE_RAMP`, as by `class_picture`."""
    stack, read = _read_reduced(str(confidence), [1], max_side, Resampling.average)
    percents, stops = np.arange(101), [stop[0] for stop in CONFIDENCE_RAMP]
    ramp = [np.interp(percents, stops, [stop[channel] for stop in CONFIDENCE_RAMP]) for channel in (1, 2, 3)]
    return _painted(np.where(read, np.minimum(stack[0], 101), 101), np.rint(ramp).astype(int).T.tolist(), max_side)


def confidence_color(percent: float) -> str:
    """The colour `#rrggbb` of a confidence in percent.

    >>> confidence_color(100)
    '#f4eeb1'
    """
    stops = [stop[0] for stop in CONFIDENCE_RAMP]
    rgb = (round(float(np.interp(percent, stops, [stop[k] for stop in CONFIDENCE_RAMP]))) for k in (1, 2, 3))
    return "#" + "".join(f"{value:02x}" for value in rgb)


def overlay_picture(scene: Image.Image, classes: Image.Image, legend: Legend, alpha: float = 0.5) -> Image.Image:
    """The foreground of a `class_picture` over a `scene_picture`: areas at `alpha`, their outlines opaque.

    Both are of one size, else FrameMismatchError is raised.
    """
    if scene.size != classes.size:
        raise FrameMismatchError(f"the scene's picture has {scene.size} pixels, that of its classes {classes.size}")
    layer = foreground_picture(classes, {entry.rgb for entry in legend.classes if entry.kind == "background"})
    pixels = np.array(layer.convert("RGBA"))
    weight = np.where(_outlines(pixels), 1.0, alpha) * (pixels[..., 3:] > 0)
    base = np.array(scene.convert("RGBA"))
    base[..., :3] = np.rint(base[..., :3] * (1 - weight) + pixels[..., :3] * weight)
    return Image.fromarray(base)


def foreground_picture(classes: Image.Image, background: set[tuple[int, int, int]]) -> Image.Image:
    """A `class_picture` in which the colours of `background` are transparent."""
    if classes.mode == "P" and "transparency" not in classes.info:
        return _without(classes, background)
    pixels = np.array(classes.convert("RGBA"))
    for color in background:
        pixels[(pixels[..., :3] == color).all(axis=-1)] = 0
    return Image.fromarray(pixels)


def _outlines(pixels: Array) -> Array:
    """Which pixels (height, width, 1) of a picture lie at the rim of their colour."""
    edge = np.zeros((*pixels.shape[:2], 1), bool)
    down = (pixels[1:] != pixels[:-1]).any(axis=-1, keepdims=True)
    across = (pixels[:, 1:] != pixels[:, :-1]).any(axis=-1, keepdims=True)
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    return edge


def _read_reduced(path: str, bands: list[int], max_side: int, resampling: Resampling) -> tuple[Array, Array]:
    """Bands (bands, height, width) at the size of `reduced_shape`; where they could be read (height, width) bool."""
    dataset = open_dataset(path)
    stack = np.zeros((len(bands), *reduced_shape(dataset.shape, max_side)), dataset.dtypes[0])

    def read(dataset: Any, window: Window, shape: tuple[int, int]) -> Array:
        values: Array = dataset.read(bands, window=window, out_shape=(len(bands), *shape), resampling=resampling)
        return values

    return stack, _read_whole(path, stack, read, read)


def _read_mask(path: str, max_side: int) -> Array:
    """The file's own mask at the size of `reduced_shape`; false where it could not be read."""
    stack = np.zeros((1, *reduced_shape(open_dataset(path).shape, max_side)), np.uint8)

    def read(dataset: Any, window: Window, shape: tuple[int, int]) -> Array:
        mask: Array = dataset.read_masks(1, window=window, out_shape=shape)
        return mask

    there = _read_whole(path, stack, read, _read_full_mask)
    there &= stack[0] > 0
    return there


def _read_full_mask(dataset: Any, window: Window, shape: tuple[int, int]) -> Array:
    """The mask that lies nearest to each pixel of a picture: GDAL reads a reduced mask from its overviews, always."""
    rows = (window.row_off + (np.arange(shape[0]) + 0.5) * window.height / shape[0]).astype(int)
    cols = (window.col_off + (np.arange(shape[1]) + 0.5) * window.width / shape[1]).astype(int)
    around = Window(cols[0], rows[0], cols[-1] - cols[0] + 1, rows[-1] - rows[0] + 1)
    mask: Array = dataset.read_masks(1, window=around)
    return mask[np.ix_(rows - rows[0], cols - cols[0])]


def _read_whole(path: str, stack: Array, read: Read, read_full: Read) -> Array:
    """Fill `stack` (bands, height, width) with the whole of a raster; returns where that could be read.

    Overviews may be damaged where the raster itself is not: what fails is read once more without them, by `read_full`.
    """
    there = np.zeros(stack.shape[1:], bool)
    dataset = open_dataset(path)
    lost = _read_pieces(dataset, stack, there, read, [(0, 0, *there.shape)])
    if lost and there.shape != dataset.shape:
        with open_without_overviews(path) as full:
            _read_pieces(full, stack, there, read_full, lost)
    return there


def _read_pieces(dataset: Any, stack: Array, there: Array, read: Read, pieces: list[Piece]) -> list[Piece]:
    """Fill `pieces` of a stack and mark them in `there`; one that fails is cut up. Returns those that fail for good."""
    per_row, per_col = dataset.height / there.shape[0], dataset.width / there.shape[1]
    pending, lost = list(pieces), []
    while pending:
        row, col, height, width = piece = pending.pop()
        window = Window(col * per_col, row * per_row, width * per_col, height * per_row)
        at = np.s_[row : row + height, col : col + width]
        try:
            stack[:, *at] = read(dataset, window, (height, width))
            there[at] = True
        except RasterioError:  # damaged somewhere here: the picture shows what is whole, a hole tells the rest
            forget_error()
            quarters = _quarters(*piece)
            pending += quarters
            lost += [] if quarters else [piece]
    return lost


def _quarters(row: int, col: int, height: int, width: int) -> list[Piece]:
    if max(height, width) <= _FINEST_RETRY:
        return []
    rows = [(row, height // 2), (row + height // 2, height - height // 2)]
    cols = [(col, width // 2), (col + width // 2, width - width // 2)]
    return [(top, left, tall, wide) for top, tall in rows for left, wide in cols if tall and wide]


def _drawn(rgb: Array, valid: Array, limits: tuple[Rgb, Rgb] | None, max_side: int) -> Image.Image:
    """Bands (3, height, width) float32 as a picture, stretched between black and white or the percentiles."""
    picture = np.dstack([_stretched(rgb, valid, limits), np.where(valid, 255, 0).astype(np.uint8)])
    return _enlarged(Image.fromarray(picture), max_side)


def _stretched(rgb: Array, valid: Array, limits: tuple[Rgb, Rgb] | None) -> Array:
    """Bands (3, height, width) float32 -> (height, width, 3) uint8."""
    if limits is not None:
        low, high = (np.array(limit, np.float32) for limit in limits)
    elif valid.any():
        low, high = np.percentile(rgb[:, valid], (1, 99), axis=1).astype(np.float32)
    else:
        low, high = np.zeros(3, np.float32), np.ones(3, np.float32)
    span = np.maximum(high - low, np.float32(1e-9))
    scaled = (np.where(valid, rgb, 0) - low[:, None, None]) / span[:, None, None]
    stretched: Array = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return np.moveaxis(np.where(valid, stretched, 0), 0, -1)


def _painted(places: Array, colors: Sequence[Sequence[int]], max_side: int) -> Image.Image:
    """A picture of places (height, width) uint8 in a palette; the place after the last colour is transparent."""
    return _enlarged(_indexed(places, [*((*color, 255) for color in colors), (0, 0, 0, 0)]), max_side)


def _indexed(places: Array, colors: Sequence[Sequence[int]]) -> Image.Image:
    """A picture of places (height, width) uint8 in a palette of at most 256 colours (red, green, blue, alpha)."""
    picture = Image.fromarray(places)
    picture.putpalette(bytes(value for color in colors for value in color), "RGBA")
    return picture


def _without(picture: Image.Image, background: set[tuple[int, int, int]]) -> Image.Image:
    """A picture with a palette of which some colours are made transparent."""
    colors = np.array(picture.getpalette("RGBA"), np.uint8).reshape(-1, 4)
    gone = [place for place, (*rgb, alpha) in enumerate(colors.tolist()) if not alpha or tuple(rgb) in background]
    places = np.arange(256, dtype=np.uint8)
    places[gone] = gone[:1]  # one place for all of them: that is stored in less
    colors[gone] = 0
    return _indexed(places[np.array(picture)], colors.tolist())


def _enlarged(picture: Image.Image, max_side: int) -> Image.Image:
    """Enlarged by the largest whole factor that fits `max_side`; pixels stay sharp squares."""
    factor = max(1, max_side // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
