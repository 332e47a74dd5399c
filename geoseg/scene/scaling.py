"""How stored values become numbers in 0..1: fixed once a scene, never per tile."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import BundleError, SceneError
from geoseg.frame import Box
from geoseg.scene.info import sample_boxes, undamaged

if TYPE_CHECKING:
    from geoseg.scene.reading import Array, Scene

_SAMPLE = 1024
"""Side of the square that has as many pixels as are looked at for percentiles."""
_ENOUGH = 4096
"""With fewer valid pixels than this in the sample, the whole scene is looked at."""
_WALK = (512, 2048)
"""Height and width of the boxes in which that is done: whole blocks of most files."""
_KEPT = 1 << 20
"""At most as many pixels as these are kept of it."""


_NOTHING = (1.0, 0.0)
"""The scale and offset of a file that states none."""
_NO_SPREAD = 1e-30
"""A band whose values lie this close together has one value; a gain for it would not fit into float32."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """value * gain + offset, a pair a band, clipped to 0..1, to the power of gamma."""

    gain: tuple[float, ...]
    offset: tuple[float, ...]
    gamma: float = 1.0

    def __call__(self, pixels: Array) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Scale pixels (bands, height, width) of any dtype to float32 in 0..1."""
        scaled = np.empty(pixels.shape, np.float32)
        for band, values in enumerate(pixels):
            self.scale_band(band, values, scaled[band])
        return scaled

    def scale_band(self, band: int, values: Array, out: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """Scale one band (from 0), values of any dtype and shape, into `out`."""
        if values.dtype.itemsize > 2:
            self._scale_wide(band, values, out)
        else:
            out[...] = values
            out *= np.float32(self.gain[band])
            out += np.float32(self.offset[band])
        np.clip(out, 0, 1, out=out)
        if self.gamma != 1:
            np.power(out, np.float32(self.gamma), out=out)

    def _scale_wide(self, band: int, values: Array, out: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """In float64, shifted before it is stretched: large values that differ little keep their differences."""
        gain, offset = self.gain[band], self.offset[band]
        if gain == 0:
            out[...] = offset
            return
        wide = values.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # of nodata such as -1.8e308, or NaN: it is masked
            wide += offset / gain
            wide *= gain
        out[...] = np.clip(wide, 0, 1, out=wide)

    @classmethod
    def between(
        cls, low: tuple[float, ...], high: tuple[float, ...], to: tuple[float, float] = (0, 1), gamma: float = 1.0
    ) -> Scaling:
        """The scaling that maps low to `to[0]`, high to `to[1]` in each band; a band of one value to their middle."""
        middle = ((to[0] + to[1]) / 2) ** (1 / gamma)
        to = (to[0] ** (1 / gamma), to[1] ** (1 / gamma))
        gains = tuple((to[1] - to[0]) / (b - a) if b - a > _NO_SPREAD else 0.0 for a, b in zip(low, high, strict=True))
        return cls(gains, tuple(to[0] - a * g if g else middle for a, g in zip(low, gains, strict=True)), gamma)


@dataclass(frozen=True, slots=True)
class ScalingRule:
    """How a model wants a scene scaled: a fixed range for a data type, else reflectance, else percentiles of the scene.

    `ranges` maps a dtype to (low, high), which become 0 and 1. Any other dtype is taken as reflectance if that is
    given: value * scale + offset, as the file states them by band, else this pair. Without, it is stretched so that its
    `percentiles`, band by band, become the two values of `to`; a `gamma` below 1 lifts what lies between, as the
    makers of 8-bit imagery do.
    """

    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    percentiles: tuple[float, float] | None = None
    to: tuple[float, float] = (0.0, 1.0)
    gamma: float = 1.0
    reflectance: tuple[float, float] | None = None
    """(scale, offset) where the file states none."""

    def to_json(self) -> dict[str, Any]:
        """As stored in `model.json`."""
        data: dict[str, Any] = {"ranges": {dtype: list(pair) for dtype, pair in self.ranges.items()}}
        if self.reflectance is not None:
            data["reflectance"] = list(self.reflectance)
        if self.percentiles is not None:
            data |= {"percentiles": list(self.percentiles), "to": list(self.to), "gamma": self.gamma}
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ScalingRule:
        """The inverse of `to_json`; raises BundleError where it makes no sense."""
        try:
            ranges = {str(dtype): (float(low), float(high)) for dtype, (low, high) in data.get("ranges", {}).items()}
            to = tuple(float(value) for value in data.get("to", (0, 1)))
            percentiles = tuple(float(value) for value in data["percentiles"]) if "percentiles" in data else None
            reflectance = tuple(float(value) for value in data["reflectance"]) if "reflectance" in data else None
            gamma = float(data.get("gamma", 1))
        except (AttributeError, TypeError, ValueError) as error:
            raise BundleError(f"scaling is not readable: {error}") from error
        if not ranges and percentiles is None and reflectance is None:
            raise BundleError("scaling needs ranges, reflectance or percentiles")
        if not all(low < high for low, high in ranges.values()):
            raise BundleError("scaling: ranges are pairs, low before high")
        if reflectance is not None and not (
            len(reflectance) == 2 and reflectance[0] > 0 and all(map(isfinite, reflectance))
        ):
            raise BundleError("scaling: reflectance is a scale above 0 and an offset, as [0.0001, 0]")
        if len(to) != 2 or (percentiles is not None and (len(percentiles) != 2 or percentiles[0] >= percentiles[1])):
            raise BundleError("scaling: percentiles and to are pairs, low before high")
        if not 0 < gamma <= 10:
            raise BundleError(f"scaling: gamma is {gamma}; it takes more than 0, at most 10")
        pairs = [None if pair is None else (pair[0], pair[1]) for pair in (percentiles, reflectance)]
        return cls(ranges, pairs[0], (to[0], to[1]), gamma, pairs[1])


def resolve_scaling(scene: Scene, rule: ScalingRule) -> Scaling:
    """Fix the scaling of a scene by a model's rule.

    Percentiles come from a sample of windows spread over the scene (all of it up to 1024 x 1024 pixels), valid pixels
    alone; where these are few, from pixels evenly spaced among all valid ones. Raises SceneError where the rule says
    nothing of the scene's dtype.
    """
    count = len(scene.roles)
    if scene.dtype in rule.ranges:
        low, high = rule.ranges[scene.dtype]
        return Scaling.between((low,) * count, (high,) * count)
    if rule.reflectance is not None:
        stated = scene.stored_scaling or (_NOTHING,) * count
        pairs = [rule.reflectance if pair == _NOTHING else pair for pair in stated]
        return Scaling(tuple(scale for scale, _ in pairs), tuple(offset for _, offset in pairs))
    if rule.percentiles is None:
        raise SceneError(f"the model takes {', '.join(rule.ranges)}; the scene is {scene.dtype}; convert it")
    values = _sample(scene)
    if values.shape[1] < _ENOUGH and scene.frame.box.area > _SAMPLE * _SAMPLE:
        values = _walk(scene)
    if values.shape[1] == 0:  # nothing valid: whatever scaling, nothing will be forwarded
        return Scaling.between((0.0,) * count, (1.0,) * count, rule.to, rule.gamma)
    low_high = np.percentile(values, rule.percentiles, axis=1)
    return Scaling.between(tuple(map(float, low_high[0])), tuple(map(float, low_high[1])), rule.to, rule.gamma)


def _sample(scene: Scene) -> Array:
    """Valid pixels (bands, n) of windows spread over the scene, in float64."""
    boxes = sample_boxes(scene.frame.shape, _SAMPLE)
    parts = [pixels[:, valid].astype(np.float64) for pixels, valid in undamaged(boxes, scene.read)]
    return np.concatenate(parts, axis=1)


def _walk(scene: Scene) -> Array:
    """Valid pixels (bands, n), in float64, evenly spaced among all of the scene, at most `_KEPT`."""
    (height, width), (rows, cols) = _WALK, scene.frame.shape
    places = ((row, col) for row in range(0, rows, height) for col in range(0, cols, width))
    boxes = (Box(row, col, height, width) & scene.frame.box for row, col in places)
    kept: list[Array] = []
    seen, held, step = 0, 0, 1
    for pixels, valid in undamaged(boxes, scene.read):
        count = int(np.count_nonzero(valid))
        if count == 0:
            continue
        kept.append(pixels[:, valid][:, -seen % step :: step])
        seen, held = seen + count, held + kept[-1].shape[1]
        while held > _KEPT:
            kept = [np.concatenate(kept, axis=1)[:, ::2]]
            held, step = kept[0].shape[1], step * 2
    return np.concatenate(kept, axis=1).astype(np.float64) if kept else np.empty((len(scene.roles), 0))
