"""From pixels as stored to what a network is fed, in one pass over each band."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.model.bundle import ModelBand, ModelBundle, fill_from_nearest

if TYPE_CHECKING:
    from geoseg.scene.reading import Array
    from geoseg.scene.scaling import Scaling

Channels = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Normaliser:
    """What `ModelBundle.normalise` makes of what `Scaling` makes of pixels, bit for bit, at less cost."""

    bands: tuple[ModelBand, ...]
    """One a channel, in the network's order."""
    scaling: Scaling
    roles: tuple[str, ...]
    """Of the bands of the pixels, in their order."""
    dtype: str

    @classmethod
    def of(cls, bundle: ModelBundle, scaling: Scaling, roles: tuple[str, ...], dtype: str) -> Normaliser:
        """The normaliser of a scene (its scaling, roles and dtype) for a model."""
        return cls(bundle.bands, scaling, roles, dtype)

    def __call__(self, pixels: Array, valid: Array) -> Channels:
        """Pixels (bands, height, width) of `dtype`, valid (height, width) -> (channels, height, width) float32."""
        channels = np.zeros((len(self.bands), *pixels.shape[1:]), np.float32)
        table = _table(self) if self._tabled else None
        for channel, band in enumerate(self.bands):
            if band.role not in self.roles:
                continue
            values = pixels[self.roles.index(band.role)]
            if table is None:
                self._fill(channel, values, channels[channel])
            else:
                np.take(table[channel], values.view(_unsigned(self.dtype)), out=channels[channel], mode="clip")
        fill_from_nearest(channels, valid)
        return channels

    @property
    def _tabled(self) -> bool:
        """Whether looking values up is cheaper: powers are dear, and so few values have a table."""
        dtype = np.dtype(self.dtype)
        return self.scaling.gamma != 1 and dtype.kind in "iu" and dtype.itemsize <= 2

    def _fill(self, channel: int, values: Array, out: Channels) -> None:
        """Scale the band of a channel, values of any shape, and normalise it."""
        band = self.bands[channel]
        self.scaling.scale_band(self.roles.index(band.role), values, out)
        out -= np.float32(band.mean)
        out /= np.float32(band.std)


def _unsigned(dtype: str) -> str:
    """The type in which values of an integer type count from 0 and so are places in a table."""
    return f"u{np.dtype(dtype).itemsize}"


@lru_cache(maxsize=4)
def _table(normaliser: Normaliser) -> Channels:
    """What becomes of every value of the dtype: (channels, values), as the values' bits count."""
    size = 256 ** np.dtype(normaliser.dtype).itemsize
    values = np.arange(size, dtype=_unsigned(normaliser.dtype)).view(normaliser.dtype)
    table = np.zeros((len(normaliser.bands), size), np.float32)
    for channel, band in enumerate(normaliser.bands):
        if band.role in normaliser.roles:
            normaliser._fill(channel, values, table[channel])  # noqa: SLF001  # its own table
    table.flags.writeable = False
    return table
