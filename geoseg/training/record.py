"""What a training leaves for people to look at."""

from __future__ import annotations

import io
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from geoseg.legend import Legend
from geoseg.scene import ScalingRule
from geoseg.training.checkpoint import write_atomically

_SIZE = (960, 480)
_EDGE = 48


def plain(value: Any) -> Any:
    """A configuration as dicts, lists, numbers and text, as YAML and JSON hold it."""
    if isinstance(value, Legend | ScalingRule):
        return value.to_json()
    if is_dataclass(value):
        # `folder` says where a configuration was read, not what it says.
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.name != "folder"}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def draw_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Loss (grey, scaled to its largest) and mean IoU on the places held out (red, 0..1) over the steps, as PNG."""
    image = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    width, height = _SIZE[0] - 2 * _EDGE, _SIZE[1] - 2 * _EDGE
    last = max((row["step"] for row in history), default=1)
    peak = max((row["loss"] for row in history), default=1.0) or 1.0

    def at(step: float, share: float) -> tuple[float, float]:
        return _EDGE + width * step / last, _EDGE + height * (1 - share)

    for tenth in range(0, 11, 2):
        draw.line([at(0, tenth / 10), at(last, tenth / 10)], fill="#dddddd")
        draw.text((8, at(0, tenth / 10)[1] - 6), f"{tenth / 10:.1f}", fill="#333333")
    draw.text((_EDGE, _SIZE[1] - _EDGE + 8), f"0 .. {last} steps", fill="#333333")
    draw.text((_EDGE, 12), f"grey: loss / {peak:.2f}    red: mean IoU on the places held out", fill="#333333")
    draw.line([at(row["step"], row["loss"] / peak) for row in history], fill="#888888")
    judged = [(row["step"], row["validation"]["mean_iou"]) for row in history if "validation" in row]
    draw.line([at(*point) for point in judged], fill="#c8452f", width=3)
    write_picture(image, path)


def write_picture(image: Image.Image, path: Path) -> None:
    """Write a picture as PNG, at once."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
