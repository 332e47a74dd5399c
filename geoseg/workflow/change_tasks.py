"""The tasks of a comparison: what workers are sent, pass after pass over the blocks of the common frame.

    look       a picture of both dates, and the moments of their bands
    reweigh    the moments again, weighted by the probability of no change: until nothing moves
    spread     how far indices differ
    measure    how much each pixel changed, and how
    judge      what of it is a change, once the threshold is known
    mosaic     one file from the parts, for each raster
    outline    for each block of the change raster: the polygons that end in it
    polygons   those that cross seams, and files of all

A task leaves its result in the run's folder under a name of its own; one that finds it there only reads it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.change.kernel import (
    differences_of,
    gathered,
    judge_block,
    measure_block,
    moments_of,
    sample_origin,
    windows_of,
)
from geoseg.change.methods import Measured
from geoseg.change.moments import cells_of
from geoseg.change.numbers import count_block
from geoseg.change.registration import Shift, estimate_shift
from geoseg.change.threshold import histogram
from geoseg.errors import DamagedSceneError
from geoseg.frame import Box
from geoseg.legend import NODATA
from geoseg.report.pictures import sampled_places
from geoseg.segment import Stopwatch, peak_rss_mb, return_memory, this_worker
from geoseg.segment.preview import reduced_shape, shown_bands
from geoseg.write import RasterSpec, replacing, write_block, write_cog, write_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from geoseg.change.indices import Indices
    from geoseg.change.irmad import Canonical, Lines
    from geoseg.change.methods import Method
    from geoseg.change.pair import Pair
    from geoseg.change.sieve import Sieve
    from geoseg.change.threshold import Cut
    from geoseg.frame import Frame
    from geoseg.scene.warped import WarpedScene
    from geoseg.workflow.change_vectors import ChangeVectors

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

_places = threading.BoundedSemaphore(2)
"""Blocks in work at a time in a process: one is computed while another is read or written."""


@dataclass(frozen=True)
class Found:
    """What a task reports: arrays, and what it took."""

    arrays: Arrays = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    worker: str = field(default_factory=this_worker)
    peak_rss_mb: float = field(default_factory=peak_rss_mb)
    failed: tuple[tuple[Box, str], ...] = ()
    value: Any = None


@dataclass(frozen=True)
class ChangeJob:
    """The blocks of a comparison, and the folder in which they leave what they found."""

    imagery: Pair
    """Both dates as they were taken."""
    compared: Pair
    """The same, or the probabilities of their classes."""
    boxes: tuple[Box, ...]
    folder: Path
    sieve: Sieve

    @property
    def frame(self) -> Frame:
        """The frame of both."""
        return self.imagery.frame

    def path(self, step: str, box: Box, suffix: str) -> Path:
        """Where a step leaves what it found of a block."""
        return self.folder / f"{step}_{box.row}_{box.col}{suffix}"


def _once(path: Path, step: str, compute: Callable[[], Arrays]) -> Found:
    """Arrays by name that are computed once, and read where they have been."""
    watch = Stopwatch()
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            return Found({name: stored[name] for name in stored.files})
    with _places, watch(step):
        arrays = compute()
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # its own flags are keywords as well
        return_memory()
    return Found(arrays, watch.seconds)


def register(before: WarpedScene, after: WarpedScene, path: Path) -> Found:
    """How far the dates are apart."""

    def compute() -> Arrays:
        shift = estimate_shift(before, after)
        return {"shift": np.array([shift.row, shift.col, shift.spread_px, shift.windows, shift.agreeing])}

    found = _once(path, "register", compute)
    row, col, spread, windows, agreeing = found.arrays["shift"].tolist()
    return Found(seconds=found.seconds, value=Shift(row, col, spread, int(windows), int(agreeing)))


def origin_of(pair: Pair, path: Path) -> Found:
    """About where the values of both dates lie."""
    return _once(path, "look", lambda: {"origin": sample_origin(pair)})


def look(job: ChangeJob, box: Box, origin: Array | None) -> Found:
    """The picture of a block, and its moments if there is an origin to count from."""

    def compute() -> Arrays:
        arrays = _picture(job.imagery, box)
        if origin is not None:
            arrays |= _moments(job, box, origin, None)
        return arrays

    return _once(job.path("look", box, ".npz"), "look", compute)


def reweigh(job: ChangeJob, box: Box, round_: int, canonical: Canonical) -> Found:
    """The moments of a block, weighted by what the round before says of each pixel."""
    path = job.path(f"round{round_}", box, ".npz")
    return _once(path, "reweigh", lambda: _moments(job, box, canonical.origin, canonical))


def _moments(job: ChangeJob, box: Box, origin: Array, canonical: Canonical | None) -> Arrays:
    """The moments of each cell, and where it lies."""
    places = [[cell.row, cell.col] for cell in cells_of(box)]
    return {"moments": moments_of(job.imagery, box, origin, canonical), "cells": np.array(places, np.int64)}


def spread(job: ChangeJob, box: Box, lines: Lines, indices: Indices) -> Found:
    """How far indices differ in a block."""
    path = job.path("spread", box, ".npz")
    return _once(path, "spread", lambda: {"counts": differences_of(job.imagery, box, lines, indices)})


def measure(job: ChangeJob, box: Box, method: Method) -> Found:
    """How much each pixel of a block changed, and how; reports a histogram of what no shift explains or of all."""
    failed: dict[Box, str] = {}

    def compute() -> Arrays:
        found, damage = measure_block(job.compared, box, method)
        failed.update(damage)
        rasters = [found.magnitude, found.code, *([] if found.states is None else [found.states])]
        for name, raster in zip(("magnitude", "code", "states"), rasters, strict=False):
            with replacing(job.path(name, box, ".npy")) as partial, partial.open("wb") as file:
                np.save(file, raster)
        windows = np.array([[b.row, b.col, b.height, b.width] for b in damage], np.int64).reshape(-1, 4)
        causes = np.array(list(damage.values()), np.str_)
        return {"counts": histogram(found.magnitude[found.code != NODATA]), "failed": windows, "causes": causes}

    found = _once(job.path("measure", box, ".npz"), "measure", compute)
    listed = zip(found.arrays["failed"].tolist(), found.arrays["causes"].tolist(), strict=True)
    return Found(found.arrays, found.seconds, failed=tuple((Box(*window), cause) for window, cause in listed))


def judge(job: ChangeJob, box: Box, cut: Cut | None) -> Found:
    """What of a block is change, as a part of the final rasters; reports its areas."""

    def compute() -> Arrays:
        around, inside = windows_of(box, job.sieve.halo, job.frame.box)
        found = gathered(around, list(job.boxes), lambda other: _measured(job, other))
        judged = judge_block(found, inside, cut, job.sieve)
        states = None if found.states is None else found.states[(slice(None), *inside)]
        frame = job.frame.crop(box)
        write_block(job.path("part", box, ".tif"), np.stack([judged.codes, judged.confidence]), frame, NODATA)
        write_block(job.path("amount", box, ".tif"), judged.magnitude[None], frame, np.nan)
        return {"areas": count_block(judged, states, box, job.frame)}

    return _once(job.path("judge", box, ".npz"), "judge", compute)


def _measured(job: ChangeJob, box: Box) -> Measured:
    """What was found of a block; read where it lies, since of its neighbours only the edge is needed."""
    states = job.path("states", box, ".npy")
    return Measured(
        np.load(job.path("magnitude", box, ".npy"), mmap_mode="r"),
        np.load(job.path("code", box, ".npy"), mmap_mode="r"),
        np.load(states, mmap_mode="r") if states.exists() else None,
    )


def mosaic(job: ChangeJob, name: str, spec: RasterSpec, stage: Path) -> Found:
    """Write one of the final rasters from the parts."""
    watch = Stopwatch()
    step, band = {"change.tif": ("part", 1), "confidence.tif": ("part", 2), "magnitude.tif": ("amount", 1)}[name]
    with watch("mosaic"):
        write_cog(stage / name, [(job.path(step, box, ".tif"), box, band) for box in job.boxes], spec)
    return Found(seconds=watch.seconds)


def outline(job: ChangeVectors, box: Box) -> Found:
    """Make polygons of a block of the change raster."""
    watch = Stopwatch()
    with watch("vectorize"):
        job.outline(box)
        return_memory()
    return Found(seconds=watch.seconds)


def polygons(job: ChangeVectors, formats: Sequence[str], stage: Path) -> Found:
    """Write the polygons of all blocks in all formats."""
    watch = Stopwatch()
    with watch("vectorize"):
        objects, counts = job.object_layers()
        layers = [*job.layers(), *objects]
        for name in formats:
            write_layers(layers, stage, "change", name)
        features = job.count()
    return Found(seconds=watch.seconds, value=(features, counts))


def _picture(pair: Pair, box: Box) -> Arrays:
    """What a block shows of the picture of both dates: (2, 3, h, w) and where it is seen, (2, h, w)."""
    rows, cols = (
        sampled_places(size, shown, start, start + length)
        for size, shown, start, length in zip(
            pair.frame.shape, reduced_shape(pair.frame.shape), (box.row, box.col), box.shape, strict=True
        )
    )
    pixels = np.zeros((2, 3, len(rows), len(cols)), np.float32)
    seen = np.zeros((2, len(rows), len(cols)), bool)
    bands = list(shown_bands(pair.roles))
    strips = range(box.row, box.bottom, 256)
    for top in strips:
        strip = Box(top, box.col, min(256, box.bottom - top), box.width)
        own = np.flatnonzero((rows >= strip.row) & (rows < strip.bottom))
        if not len(own) or not len(cols):
            continue
        down, across = rows[own, None] - strip.row, cols[None] - strip.col
        for date, scene in enumerate((pair.before, pair.after)):
            try:
                values, valid = scene.read(strip)
            except DamagedSceneError:  # a hole in the picture; what it does to the result is said elsewhere
                continue
            pixels[date][:, own] = values[bands][:, down, across]
            seen[date][own] = valid[down, across]
    return {"rows": rows, "cols": cols, "pixels": pixels, "seen": seen}
