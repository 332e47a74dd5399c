"""HTML and SVG as values: what is text is escaped, what is markup says so by its type."""

from __future__ import annotations

import zlib
from base64 import b64encode
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, features

Array = np.ndarray[Any, Any]

_EMPTY = {"img", "input", "meta", "br", "hr", "rect", "line", "path"}
_SVG_EMPTY = {"rect", "line", "path"}
_PALETTE = 256
_LEVEL = 6
"""Of zlib: level 9 takes up to ten times as long for a few percent less."""
_FEW = 16
"""Areas of so few colours, two or more pixels a byte, take the least time and room as runs alone."""
_PHOTO_PIXELS = 300_000
"""Pictures with more colours than a palette holds and more pixels than this are stored with loss."""


class Markup(str):
    """Text that is markup already; any other `str` is escaped where it becomes part of a page."""

    __slots__ = ()


def joined(parts: list[Markup] | tuple[Markup, ...]) -> Markup:
    """Pieces of markup, one after the other."""
    return Markup("".join(parts))


def tag(name: str, /, *children: str, **attributes: str | float | bool | None) -> Markup:
    """An element. Children and attribute values are escaped, but for children that are Markup.

    `class_` means class, `aria_label` aria-label; an attribute that is None or False is left out, True stands bare.

    >>> tag("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    >>> tag("td", tag("b", "x"), hidden=True, colspan=None)
    '<td hidden><b>x</b></td>'
    """
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if name in _EMPTY:
        return Markup(f"<{name}{written}{'/' if name in _SVG_EMPTY else ''}>")
    inner = "".join(child if isinstance(child, Markup) else escape(child, quote=False) for child in children)
    return Markup(f"<{name}{written}>{inner}</{name}>")


def _attribute(key: str, value: str | float | bool | None) -> str:  # noqa: FBT001  # HTML has boolean attributes
    if value is None or value is False:
        return ""
    if value is True:
        return f" {key}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f' {key}="{escape(text)}"'


def data_uri(picture: Image.Image) -> str:
    """A picture inside its own address: PNG where it has few colours or pixels, else JPEG, or WebP if it has holes."""
    if picture.mode == "P":
        return _png(picture)
    drawn = picture.convert("RGBA")
    if colors := drawn.getcolors(_PALETTE):
        return _png(_indexed(drawn, np.array([color for _, color in colors])))
    if drawn.getchannel("A").getextrema() == (255, 255):
        drawn = drawn.convert("RGB")
    if drawn.width * drawn.height <= _PHOTO_PIXELS:
        return _png(drawn)
    if drawn.mode == "RGB":
        return _encoded(drawn, "JPEG", quality=88, optimize=True, progressive=True)
    if features.check("webp"):
        return _encoded(drawn, "WEBP", quality=88, method=4)
    return _png(drawn)


def _indexed(picture: Image.Image, colors: Array) -> Image.Image:
    """An RGBA picture of known colours (n, 4) with a palette, without loss: Pillow's own quantizers merge some."""
    packed = np.sort(colors.astype(np.uint8).view(np.uint32)[:, 0])
    pixels = np.ascontiguousarray(np.array(picture)).view(np.uint32)[..., 0]
    indexed = Image.fromarray(np.searchsorted(packed, pixels).astype(np.uint8))
    indexed.putpalette(packed.tobytes(), "RGBA")
    return indexed


def _png(picture: Image.Image) -> str:
    few = picture.mode == "P" and len(picture.getpalette("RGB") or ()) <= 3 * _FEW
    return _encoded(picture, "PNG", compress_level=_LEVEL, compress_type=zlib.Z_RLE if few else zlib.Z_DEFAULT_STRATEGY)


def _encoded(picture: Image.Image, kind: str, **options: int | bool | bytes) -> str:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(buffer.getvalue()).decode('ascii')}"
