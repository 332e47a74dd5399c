"""Spectral indices: which there are, what they are made of, and what it means when they rise or fall."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

_LETTERS = {
    "coastal": "A", "blue": "B", "green": "G", "yellow": "Y", "red": "R", "rededge": "RE1", "nir": "N",
    "watervapor": "WV", "swir1": "S1", "swir2": "S2", "thermal": "T",
}  # fmt: skip
"""What spyndex calls a role."""

_MEANING = {
    "NDVI": ("vegetation gain", "vegetation loss", "no vegetation", "vegetation", "#2f9e44", "#c2255c"),
    "NDWI": ("water gain", "water loss", "land", "water", "#1c7ed6", "#e8590c"),
    "MNDWI": ("water gain", "water loss", "land", "water", "#1c7ed6", "#e8590c"),
    "NBR": ("regrowth", "burn", "burnt", "unburnt", "#82c91e", "#343a40"),
    "NDBI": ("built-up gain", "built-up loss", "not built-up", "built-up", "#d9480f", "#94d82d"),
    "NDSI": ("snow gain", "snow loss", "no snow", "snow", "#66d9e8", "#868e96"),
    "NDMI": ("wetter", "drier", "dry", "moist", "#15aabf", "#e67700"),
}
"""Of an index: what its rise and its fall are called, what is there while it is low and high, and two colours."""

_OF_WATER = {"NDWI", "MNDWI"}
"""McFeeters (1996), Xu (2006)."""

USUAL = ("NDVI", "NDWI", "NBR")
"""Taken where the bands for them are there, unless others are named."""

BINS = 8192
_FINE, _REACH = 1e-3, 30.0
"""Differences are counted in bins that are even up to about `_FINE` and of equal ratio beyond (inverse hyperbolic
sine), so that one set of bins serves indices of any size."""
_MAD = 1.4826
_LEAST = 0.01
"""No index is known better than this."""


@dataclass(frozen=True)
class Indices:
    """Spectral indices by their names in the Awesome Spectral Indices list (Montero et al. 2023), of bands by role."""

    names: tuple[str, ...]
    roles: tuple[str, ...]

    def __call__(self, pixels: Array) -> Array:
        """(indices, h, w) of pixels (bands, h, w) in the order of `roles`; 0 where an index has no value."""
        import spyndex  # noqa: PLC0415  # reads a long list

        bands = {_LETTERS[role]: band for role, band in zip(self.roles, pixels, strict=True) if role in _LETTERS}
        constants = {
            name: constant.default for name, constant in spyndex.constants.items() if constant.default is not None
        }
        out = np.zeros((len(self.names), *pixels.shape[1:]))
        with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
            for place, name in enumerate(self.names):
                out[place] = spyndex.computeIndex(name, params={**constants, **bands})
        found: Array = np.clip(np.nan_to_num(out, nan=0.0, posinf=0.0, neginf=0.0), -1e6, 1e6)
        return found

    @property
    def tells_water(self) -> Array:
        """(indices,) bool: which are above zero on water, and below it elsewhere."""
        return np.array([name in _OF_WATER for name in self.names])

    @property
    def kinds(self) -> list[tuple[str, str, str, str]]:
        """(name, from, to, colour) of a rise, then of a fall, of each index."""
        found: list[tuple[str, str, str, str]] = []
        for name in self.names:
            meaning = (f"{name} rise", f"{name} fall", f"low {name}", f"high {name}", "#2b8a3e", "#a61e4d")
            told = _MEANING.get(name, meaning)
            if any(kind[0] == told[0] for kind in found):  # two indices of one thing
                told = meaning
            rise, fall, low, high, up, down = told
            found += [(rise, low, high, up), (fall, high, low, down)]
        return found


def choose_indices(asked: Sequence[str], roles: tuple[str, ...]) -> Indices:
    """The indices that are asked for, or the usual ones that the bands allow.

    Raises UsageError where one is unknown, or needs a band that is not there.
    """
    import spyndex  # noqa: PLC0415

    there = {_LETTERS[role] for role in roles if role in _LETTERS}
    fit = [name for name in USUAL if _bands_of(spyndex.indices[name], spyndex) <= there]
    if not asked and not fit:
        raise UsageError(
            f"indices need bands whose role is known; there are {', '.join(roles)}; name them with --bands red=3,nir=4"
        )
    for name in asked:
        if name not in spyndex.indices:
            raise UsageError(
                f"--indices: there is no index {name!r}; as NDVI, NDWI, NBR, ... of the Awesome Spectral Indices"
            )
        missing = sorted(_bands_of(spyndex.indices[name], spyndex) - there)
        if missing:
            raise UsageError(
                f"--indices {name} needs {', '.join(missing)}; the bands that are known are {', '.join(roles)}"
            )
    return Indices(tuple(asked) or tuple(fit), roles)


def _bands_of(index: Any, spyndex: Any) -> set[str]:
    """What an index is made of, but for constants that have a value: some lists leave to the user, as a wavelength."""
    constants = spyndex.constants
    return {name for name in index.bands if name not in constants or constants[name].default is None}


def difference_counts(differences: Array, valid: Array) -> Array:
    """(indices, BINS) int64: how many valid pixels lie in each bin of differences (indices, h, w)."""
    places = np.arcsinh(differences[:, valid] / _FINE)
    bins = np.clip(((places + _REACH) / (2 * _REACH) * BINS).astype(np.int64), 0, BINS - 1)
    return np.stack([np.bincount(row, minlength=BINS) for row in bins]).astype(np.int64)


def middle_and_spread(counts: Array) -> tuple[Array, Array]:
    """Median and scaled median deviation, (indices,) each, of counts (indices, BINS)."""
    centres = np.sinh(-_REACH + (np.arange(BINS) + 0.5) * 2 * _REACH / BINS) * _FINE
    middles, spreads = [], []
    for row in counts:
        middle = _median(centres, row)
        order = np.argsort(np.abs(centres - middle), kind="stable")
        middles.append(middle)
        spreads.append(max(_MAD * _median(np.abs(centres - middle)[order], row[order]), _LEAST))
    return np.array(middles), np.array(spreads)


def _median(values: Array, counts: Array) -> float:
    until = np.cumsum(counts)
    return float(values[np.searchsorted(until, until[-1] / 2)]) if until[-1] else 0.0
