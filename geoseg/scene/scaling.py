"""How stored values become numbers in 0..1: fixed once a scene, never per tile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import BundleError, SceneError
from geoseg.scene.info import sample_boxes

if TYPE_CHECKING:
    from geoseg.scene.reading import Array, Scene

_SAMPLE = 1024
"""Side of the square that has as many pixels as are looked at for percentiles."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """value * gain + offset, a pair a band, clipped to 0..1, to the power of gamma."""

    gain: tuple[float, ...]
    offset: tuple[float, ...]
    gamma: float = 1.0

    def __call__(self, pixels: Array) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Scale pixels (bands, height, width) of any dtype to float32 in 0..1."""
        gain = np.asarray(self.gain, np.float32)[:, None, None]
        offset = np.asarray(self.offset, np.float32)[:, None, None]
        scaled = pixels.astype(np.float32)
        scaled *= gain
        scaled += offset
        np.clip(scaled, 0, 1, out=scaled)
        return scaled if self.gamma == 1 else np.power(scaled, np.float32(self.gamma), out=scaled)

    @classmethod
    def between(
        cls, low: tuple[float, ...], high: tuple[float, ...], to: tuple[float, float] = (0, 1), gamma: float = 1.0
    ) -> Scaling:
        """The scaling that maps low to `to[0]` and high to `to[1]` in each band."""
        to = (to[0] ** (1 / gamma), to[1] ** (1 / gamma))
        gains = tuple((to[1] - to[0]) / max(b - a, 1e-9) for a, b in zip(low, high, strict=True))
        return cls(gains, tuple(to[0] - a * g for a, g in zip(low, gains, strict=True)), gamma)


@dataclass(frozen=True, slots=True)
class ScalingRule:
    """How a model wants a scene scaled: a fixed range for a data type, else percentiles of the scene.

    `ranges` maps a dtype to (low, high), which become 0 and 1. Any other dtype is stretched so that its
    `percentiles`, band by band, become the two values of `to`; a `gamma` below 1 lifts what lies between, as the
    makers of 8-bit imagery do.
    """

    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    percentiles: tuple[float, float] | None = None
    to: tuple[float, float] = (0.0, 1.0)
    gamma: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """As stored in `model.json`."""
        ranges = {dtype: list(pair) for dtype, pair in self.ranges.items()}
        if self.percentiles is None:
            return {"ranges": ranges}
        return {"ranges": ranges, "percentiles": list(self.percentiles), "to": list(self.to), "gamma": self.gamma}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ScalingRule:
        """The inverse of `to_json`; raises BundleError where it makes no sense."""
        try:
            ranges = {str(dtype): (float(low), float(high)) for dtype, (low, high) in data.get("ranges", {}).items()}
            to = tuple(float(value) for value in data.get("to", (0, 1)))
            percentiles = tuple(float(value) for value in data["percentiles"]) if "percentiles" in data else None
            gamma = float(data.get("gamma", 1))
        except (AttributeError, TypeError, ValueError) as error:
            raise BundleError(f"scaling is not readable: {error}") from error
        if not ranges and percentiles is None:
            raise BundleError("scaling needs ranges, percentiles or both")
        if len(to) != 2 or (percentiles is not None and (len(percentiles) != 2 or percentiles[0] >= percentiles[1])):
            raise BundleError("scaling: percentiles and to are pairs, low before high")
        if not 0 < gamma <= 10:
            raise BundleError(f"scaling: gamma is {gamma}; it takes more than 0, at most 10")
        return cls(ranges, percentiles and (percentiles[0], percentiles[1]), (to[0], to[1]), gamma)


def resolve_scaling(scene: Scene, rule: ScalingRule) -> Scaling:
    """Fix the scaling of a scene by a model's rule.

    Percentiles come from a sample of windows spread over the scene (all of it up to 1024 x 1024 pixels), valid pixels
    alone. Raises SceneError where the rule says nothing of the scene's dtype.
    """
    count = len(scene.roles)
    if scene.dtype in rule.ranges:
        low, high = rule.ranges[scene.dtype]
        return Scaling.between((low,) * count, (high,) * count)
    if rule.percentiles is None:
        raise SceneError(f"the model takes {', '.join(rule.ranges)}; the scene is {scene.dtype}; convert it")
    values = _sample(scene)
    if values.shape[1] == 0:  # nothing valid: whatever scaling, nothing will be forwarded
        return Scaling.between((0.0,) * count, (1.0,) * count, rule.to, rule.gamma)
    low_high = np.percentile(values, rule.percentiles, axis=1)
    return Scaling.between(tuple(map(float, low_high[0])), tuple(map(float, low_high[1])), rule.to, rule.gamma)


def _sample(scene: Scene) -> Array:
    """Valid pixels (bands, n) of windows spread over the scene, in float64."""
    parts = []
    for box in sample_boxes(scene.frame.shape, _SAMPLE):
        pixels, valid = scene.read(box)
        parts.append(pixels[:, valid].astype(np.float64))
    return np.concatenate(parts, axis=1)
