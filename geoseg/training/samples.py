"""Labelled scenes, and windows drawn from them on the fly.

Which window stands at place k of batch n is a function of (seed, n, k) alone, so that a training that was interrupted
goes on with the very windows that it would have seen.
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import InputError, UsageError
from geoseg.frame import Box
from geoseg.legend import NODATA, Legend
from geoseg.scene import (
    BandNeeds,
    FileScene,
    Scaling,
    Scene,
    StackedScene,
    open_scene,
    read_mirrored,
    resolve_scaling,
)
from geoseg.training.evaluate import open_truth, require_one_grid
from geoseg.training.ground import refuse_shared_ground

if TYPE_CHECKING:
    from geoseg.training.config import SourceConfig, TrainConfig

Array = np.ndarray[Any, Any]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

IGNORE = 255
"""The channel index of pixels that count neither in the loss nor in scores."""
CELL = 32
"""Windows are drawn around cells of so many pixels a side."""

_UNKNOWN = 254
_STRIP = 1024


@dataclass(frozen=True)
class LabelledScene:
    """A scene, the raster of its labels on the same grid, and how both become numbers."""

    source: str
    place: str
    path: str
    """Of the scene, or of the earlier one."""
    scene: Scene
    """Both dates as one, for a network that takes two."""
    labels: Scene | None
    """On the grid of the scene: a file, or polygons that are drawn onto it; None where there are none."""
    gsd_m: float
    scaling: Scaling
    """As the bundle scales this data type."""
    stretch: Scaling
    """As the bundle would scale it if it knew no range for the data type."""
    labels_path: str
    channel_of_code: tuple[int, ...]
    """256 entries: label code to output channel, IGNORE, or 254 where the code means nothing."""

    def read(self, box: Box) -> tuple[Array, Bytes, Bytes]:
        """Pixels (bands, h, w) as stored, valid (h, w) as 0 and 1, channels (h, w) of a box, mirrored at the edge."""
        pixels, valid = read_mirrored(self.scene, box)
        return pixels, valid.astype(np.uint8), self.truth(box, valid)

    def truth(self, box: Box, valid: Array | None = None) -> Bytes:
        """The output channel (h, w) that each pixel of a box should win; IGNORE where unknown."""
        if self.labels is None:
            return np.full(box.shape, IGNORE, np.uint8)
        codes, known = read_mirrored(self.labels, box)
        channels: Bytes = np.asarray(self.channel_of_code, np.uint8)[codes[0]]
        channels[~known] = IGNORE
        if valid is not None:
            channels[~valid] = IGNORE
        if (channels == _UNKNOWN).any():
            code = int(codes[0][channels == _UNKNOWN][0])
            raise InputError(
                f"{self.labels_path} holds the code {code}, which is no class; remap it to a class or to 255"
            )
        return channels


def gather(config: TrainConfig) -> tuple[tuple[LabelledScene, ...], tuple[LabelledScene, ...]]:
    """The scenes to train on and those held out.

    Raises UsageError where a source has no labelled scene or a held-out place is not there, FrameMismatchError where
    scene and labels lie on different grids, UsageError where a place held out shows the ground of another.
    """
    training: list[LabelledScene] = []
    held_out: list[LabelledScene] = []
    for source in config.data:
        scenes = _scenes_of(source, config)
        places = {scene.place for scene in scenes}
        for place in source.hold_out:
            if place not in places:
                raise UsageError(f"data {source.name}: hold_out names {place!r}; there are {', '.join(sorted(places))}")
        training += [scene for scene in scenes if scene.place not in source.hold_out]
        held_out += [scene for scene in scenes if scene.place in source.hold_out]
    if not training or not held_out:
        raise UsageError("training needs places to train on and places held out; see hold_out of each source in data")
    refuse_shared_ground(training, held_out)
    return tuple(training), tuple(held_out)


def _scenes_of(source: SourceConfig, config: TrainConfig) -> list[LabelledScene]:
    pattern = str(config.folder / source.scenes)
    found = [labelled for path in sorted(glob.glob(pattern)) if (labelled := _labelled(Path(path), source, config))]  # noqa: PTH207  # the pattern may climb above the folder, which Path.glob does not
    if not found:
        lacking = f" has a label file {config.folder / source.labels}" if source.labels else " is there"
        raise UsageError(f"data {source.name}: no scene {pattern}{lacking}")
    return found


def _labelled(path: Path, source: SourceConfig, config: TrainConfig) -> LabelledScene | None:
    match = re.search(source.pattern, path.stem)
    if match is None or "place" not in match.groupdict():
        return None
    label_path = config.folder / source.labels.format(stem=path.stem, **match.groupdict())
    if source.labels and not label_path.is_file():
        return None
    needs = BandNeeds(config.bands, config.optional)
    first = open_scene(path, needs, bands=source.bands or None, require_crs=False)
    scene: Scene = first
    if source.after:
        later_path = config.folder / source.after.format(stem=path.stem, **match.groupdict())
        later = open_scene(later_path, needs, bands=source.bands or None, require_crs=False)
        require_one_grid(first.frame, later.frame, str(path), str(later_path))
        scene = StackedScene.of(first, later)
    labels: Scene | None = None
    if source.labels:
        labels = open_truth(label_path, scene.frame, config.legend, column=source.column, outside=source.outside)
        require_one_grid(scene.frame, labels.frame, str(path), str(label_path))
    scaling = resolve_scaling(scene, config.scaling)
    percentiles = replace(config.scaling, ranges={}, reflectance=None)
    return LabelledScene(
        source=source.name,
        place=match["place"],
        path=str(path),
        scene=scene,
        labels=labels,
        labels_path=str(label_path),
        gsd_m=_gsd(first, source),
        scaling=scaling,
        stretch=resolve_scaling(scene, percentiles) if percentiles.percentiles else scaling,
        channel_of_code=channel_table(config.legend, source.remap),
    )


def _gsd(scene: FileScene, source: SourceConfig) -> float:
    measured = scene.frame.gsd_m
    if measured is not None:
        return sqrt(measured[0] * measured[1])
    if source.gsd_m is None:
        raise UsageError(f"data {source.name}: {scene.info.path} has no CRS; give gsd_m of the source")
    return source.gsd_m


def channel_table(legend: Legend, remap: dict[int, int]) -> tuple[int, ...]:
    """For each code 0..255 of a label raster, the output channel; IGNORE for 255, 254 for what means nothing."""
    of_code = {code: channel for channel, code in enumerate(legend.codes)} | {NODATA: IGNORE}
    for code, target in remap.items():
        if target not in of_code:
            raise UsageError(f"remap: {code} would become {target}; classes are {list(legend.codes)}, 255 is ignored")
    return tuple(of_code.get(remap.get(code, code), _UNKNOWN) for code in range(256))


@dataclass(frozen=True)
class Window:
    """Where a sample is taken: a scene (by number) and its centre (row, column)."""

    scene: int
    centre: tuple[int, int]


class SampleIndex:
    """Where in the scenes each class occurs, by cells; reads all labels once."""

    def __init__(self, config: TrainConfig, scenes: tuple[LabelledScene, ...]) -> None:
        """Raises InputError where a label code means nothing."""
        self.scenes = scenes
        self._balance = config.fit.balance
        self._weight = {source.name: source.weight for source in config.data}
        tables = [_cells(scene, number, len(config.legend.classes)) for number, scene in enumerate(scenes)]
        table = np.concatenate(tables)
        # Of what has no labels at all any place will do.
        unlabelled = np.array([scene.labels is None for scene in scenes])
        self._table = table[table[:, 3:].any(axis=1) | unlabelled[table[:, 0]]]
        """(cells, 3 + classes) int32: scene, row, column, then how many pixels of each class."""

    @cached_property
    def _sources(self) -> tuple[tuple[float, ...], tuple[tuple[Array, ...], ...]]:
        """Shares of the sources, and for each the cells of any class, then of each class that occurs there."""
        names = [name for name in self._weight if any(scene.source == name for scene in self.scenes)]
        origin = np.array([names.index(scene.source) for scene in self.scenes])[self._table[:, 0]]
        total = sum(self._weight[name] for name in names)
        cells = []
        for number in range(len(names)):
            rows = self._table[origin == number]
            by_class = [rows[rows[:, 3 + c] > 0] for c in range(self._table.shape[1] - 3)]
            cells.append((rows, *(part for part in by_class if len(part))))
        return tuple(self._weight[name] / total for name in names), tuple(cells)

    def draw(self, rng: np.random.Generator) -> Window:
        """A window: of a source by its weight, around a class (all alike) or anywhere."""
        shares, cells = self._sources
        anywhere, *by_class = cells[rng.choice(len(shares), p=shares)]
        balanced = rng.random() < self._balance and by_class
        rows = by_class[rng.integers(len(by_class))] if balanced else anywhere
        scene, row, col = (int(value) for value in rows[rng.integers(len(rows))][:3])
        jitter = rng.integers(0, CELL, 2)
        return Window(scene, (row + int(jitter[0]), col + int(jitter[1])))


def _cells(labelled: LabelledScene, number: int, classes: int) -> Array:
    """(cells, 3 + classes) int32 of one scene."""
    height, width = labelled.scene.frame.shape
    parts = []
    for top in range(0, height, _STRIP):
        strip = labelled.truth(Box(top, 0, min(_STRIP, height - top), width))
        rows, cols = -(-strip.shape[0] // CELL), -(-width // CELL)
        padded = np.full((rows * CELL, cols * CELL), IGNORE, np.uint8)
        padded[: strip.shape[0], :width] = strip
        cells = padded.reshape(rows, CELL, cols, CELL)
        counts = np.stack([np.count_nonzero(cells == c, axis=(1, 3)) for c in range(classes)], axis=-1)
        row, col = np.meshgrid(top + np.arange(rows) * CELL, np.arange(cols) * CELL, indexing="ij")
        place = np.stack([np.full_like(row, number), row, col], axis=-1)
        parts.append(np.concatenate([place, counts], axis=-1).reshape(-1, 3 + classes).astype(np.int32))
    return np.concatenate(parts)
