"""What a network makes of the places held out, as pictures: image, truth, prediction, and where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from geoseg.training.samples import IGNORE
from geoseg.training.validate import load_window, windows_of

if TYPE_CHECKING:
    from torch import nn

    from geoseg.model import ModelBundle
    from geoseg.training.config import TrainConfig
    from geoseg.training.samples import LabelledScene

Array = np.ndarray[Any, Any]

_COUNT = 6
"""So many windows of each source are shown, evenly spread."""
_COLUMNS = ("image", "truth", "prediction", "errors")
_EDGE, _LINE = 8, 18
_PAPER, _INK = (255, 255, 255), (51, 51, 51)
_ANSWERS = {"wrong": (123, 45, 139), "right": (232, 232, 232), "unknown": (40, 40, 40)}


def draw_examples(network: nn.Module, config: TrainConfig, scenes: tuple[LabelledScene, ...]) -> Image.Image | None:
    """A row a window of the places held out; None where there is none. The network is left in evaluation mode."""
    network.eval()
    rows = []
    for source in dict.fromkeys(scene.source for scene in scenes):
        chosen = tuple(scene for scene in scenes if scene.source == source)
        for labelled, box in windows_of(chosen, config.fit.validation_window, _COUNT):
            image, truth = load_window(config, labelled, box, keep_optional=True)
            with torch.inference_mode():
                found = network(torch.from_numpy(image[None]))[0].argmax(dim=0).numpy()
            known = truth != IGNORE
            share = f"{(found == truth)[known].mean():.0%} right" if known.any() else "nothing known"
            name = ", ".join(dict.fromkeys((labelled.place, Path(labelled.path).stem)))
            rows.append((f"{name}, row {box.row}, column {box.col}: {share}", image, truth, found))
    return _sheet(rows, config.bundle) if rows else None


def _sheet(rows: list[tuple[str, Array, Array, Array]], bundle: ModelBundle) -> Image.Image:
    side = rows[0][2].shape[0]
    left = [_EDGE + column * (side + _EDGE) for column in range(len(_COLUMNS))]
    width, top = left[-1] + side + _EDGE, _LINE + len(rows) * (side + _LINE) + _EDGE
    keys = [*((entry.name, entry.rgb) for entry in bundle.legend.classes), *_ANSWERS.items()]
    places = _placed([name for name, _ in keys], width, top)
    sheet = Image.new("RGB", (width, places[-1][1] + _LINE + _EDGE), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for x, title in zip(left, _COLUMNS, strict=True):
        draw.text((x, 3), title, fill=_INK)
    colours = np.array([entry.rgb for entry in bundle.legend.classes], np.uint8)
    for number, (title, image, truth, found) in enumerate(rows):
        top = _LINE + number * (side + _LINE)
        draw.text((_EDGE, top + 2), title, fill=_INK)
        for x, picture in zip(left, _pictures(image, truth, found, colours, bundle), strict=True):
            sheet.paste(Image.fromarray(picture), (x, top + _LINE))
    for (x, y), (name, colour) in zip(places, keys, strict=True):
        draw.rectangle([x, y + 3, x + 10, y + 13], fill=colour)
        draw.text((x + 15, y + 2), name, fill=_INK)
    return sheet


def _placed(names: list[str], width: int, top: int) -> list[tuple[int, int]]:
    """Where the keys of a legend begin, line after line, each within the width if it is not longer by itself."""
    font = ImageFont.load_default()
    places, x, y = [], _EDGE, top
    for name in names:
        length = 30 + int(font.getlength(name))
        if x > _EDGE and x + length > width:
            x, y = _EDGE, y + _LINE
        places.append((x, y))
        x += length
    return places


def _pictures(image: Array, truth: Array, found: Array, colours: Array, bundle: ModelBundle) -> list[Array]:
    """Of one window, in the order of the columns, each (h, w, 3) uint8."""
    known = truth != IGNORE
    answers = np.array(list(_ANSWERS.values()), np.uint8)
    unknown = len(answers) - 1
    drawn_truth = np.where(known[..., None], colours[np.where(known, truth, 0)], answers[unknown])
    errors = answers[np.where(known, found == truth, unknown)]
    return [_visible(image, bundle), drawn_truth, colours[found], errors]


def _visible(image: Array, bundle: ModelBundle) -> Array:
    """Red, green and blue, of the later date where there are two, else the first bands, of a network's input."""
    roles = [band.role for band in bundle.bands]
    last = {role.rsplit(" ", 1)[-1]: place for place, role in enumerate(roles)}
    places = [last.get(role, min(number, len(roles) - 1)) for number, role in enumerate(("red", "green", "blue"))]
    scaled = [image[place] * bundle.bands[place].std + bundle.bands[place].mean for place in places]
    visible: Array = (np.clip(np.stack(scaled, axis=-1), 0, 1) * 255).astype(np.uint8)
    return visible
