"""A sheet of pictures: scenes beside what was found in them, with captions, scale bars and a legend."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import TYPE_CHECKING, TypeGuard

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.frame import Frame
    from geoseg.legend import Legend

PAPER = "#ffffff"
INK = "#23282b"
SOFT = "#62696c"


@dataclass(frozen=True)
class SheetEntry:
    """One scene of a sheet: pictures that stand side by side, and the words under them."""

    pictures: tuple[Image.Image, ...]
    caption: str
    ground_width_m: float | None = None
    """Width of the pictures on the ground; with it the first gets a scale bar."""


def ground_width_m(frame: Frame) -> float | None:
    """Width of a scene on the ground, along its middle row; None without a CRS."""
    gsd_m = frame.gsd_m
    return None if gsd_m is None else gsd_m[1] * frame.shape[1]


def is_width(width_m: float | None) -> TypeGuard[float]:
    """Whether a scale bar can be drawn for a width on the ground: some CRS lead to no number."""
    return width_m is not None and isfinite(width_m) and width_m > 0


def scale_bar_m(width_m: float, share: float = 0.25) -> float:
    """The longest round length (1, 2 or 5 times a power of ten) that is at most `share` of `width_m`.

    >>> scale_bar_m(300), scale_bar_m(154), scale_bar_m(19000), scale_bar_m(1)
    (50.0, 20.0, 2000.0, 0.2)
    """
    room = width_m * share
    power = 10.0 ** floor(log10(room))
    return max(float(f"{step * power:g}") for step in (1, 2, 5) if step * power <= room * (1 + 1e-9))


def length_text(metres: float) -> str:
    """A length as one writes it on a map.

    >>> length_text(50.0), length_text(2000.0), length_text(0.2)
    ('50 m', '2 km', '20 cm')
    """
    if metres >= 1000:
        return f"{metres / 1000:g} km"
    return f"{metres:g} m" if metres >= 1 else f"{metres * 100:g} cm"


def draw_scale_bar(picture: Image.Image, width_m: float | None) -> Image.Image:
    """A copy of a picture that is `width_m` wide on the ground, with a scale bar in its lower left corner.

    Where the width is not known (None, NaN) there is no bar.
    """
    drawn = picture.convert("RGBA")
    if not is_width(width_m):
        return drawn
    draw = ImageDraw.Draw(drawn)
    unit = max(1, round(min(picture.size) / 320))
    font = ImageFont.load_default(size=12 * unit)
    length_m = scale_bar_m(width_m)
    length = max(1, round(length_m / width_m * picture.width))
    text = length_text(length_m)
    text_width, text_height = draw.textlength(text, font=font), 12 * unit
    left, pad = 8 * unit, 6 * unit
    bottom = picture.height - 8 * unit
    top = bottom - text_height - 3 * pad
    draw.rectangle((left, top, left + max(length, text_width) + 2 * pad, bottom), fill="#ffffffe6")
    draw.text((left + pad, top + pad // 2), text, fill=INK, font=font)
    base = bottom - pad
    draw.rectangle((left + pad, base - 2 * unit, left + pad + length, base), fill=INK)
    for end in (left + pad, left + pad + length - unit):
        draw.rectangle((end, base - 5 * unit, end + unit, base), fill=INK)
    return drawn


def contact_sheet(
    entries: Sequence[SheetEntry], legend: Legend, *, cell: int = 560, across: bool = False
) -> Image.Image:
    """Scenes one below the other, each a row of its pictures over its caption, and the legend at the foot: RGB.

    With `across` the scenes stand side by side, the pictures of each one below the other. Every picture is fitted
    into `cell` x `cell` pixels: enlarged by a whole factor, or reduced.
    """
    gap, size = max(6, cell // 45), max(12, cell // 26)
    blocks = []
    for entry in entries:
        fitted = [_fitted(picture, cell) for picture in entry.pictures]
        if fitted:
            fitted[0] = draw_scale_bar(fitted[0], entry.ground_width_m)
        pictures = _joined(fitted, gap, down=across)
        blocks.append(_joined([pictures, _caption(entry.caption, size)], gap // 2, down=True))
    body = _joined(blocks, gap if across else gap * 2, down=not across)
    sheet = _joined([body, _legend_strip(legend, size)], gap * 2, down=True)
    framed = Image.new("RGB", (sheet.width + 2 * gap, sheet.height + 2 * gap), PAPER)
    framed.paste(sheet, (gap, gap), sheet)
    return framed


def _fitted(picture: Image.Image, cell: int) -> Image.Image:
    factor = cell / max(picture.size)
    if factor >= 1:
        factor = floor(factor)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    return picture.convert("RGBA").resize(size, how)


def _joined(pictures: Sequence[Image.Image], gap: int, *, down: bool) -> Image.Image:
    """Pictures in a column (or a row), `gap` pixels apart, aligned at their left (or upper) sides."""
    widths, heights = [picture.width for picture in pictures], [picture.height for picture in pictures]
    between = gap * max(0, len(pictures) - 1)
    size = (
        (max(widths, default=1), sum(heights) + between) if down else (sum(widths) + between, max(heights, default=1))
    )
    joined = Image.new("RGBA", (max(1, size[0]), max(1, size[1])))
    at = 0
    for picture in pictures:
        joined.paste(picture, (0, at) if down else (at, 0))
        at += (picture.height if down else picture.width) + gap
    return joined


def _caption(text: str, size: int) -> Image.Image:
    font = ImageFont.load_default(size=size)
    left, _, right, _ = font.getbbox(text)
    picture = Image.new("RGBA", (max(1, round(right - left) + 2), round(size * 1.4)))
    ImageDraw.Draw(picture).text((0, 0), text, fill=INK, font=font)
    return picture


def _legend_strip(legend: Legend, size: int) -> Image.Image:
    items = []
    for entry in legend.foreground:
        swatch = Image.new("RGBA", (round(size * 1.3), round(size * 1.3)))
        ImageDraw.Draw(swatch).rectangle((0, size // 6, size, size // 6 + size), fill=entry.color, outline=SOFT)
        items.append(_joined([swatch, _caption(entry.name, size)], size // 4, down=False))
    return _joined(items, size, down=False)
