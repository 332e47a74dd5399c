"""Iteratively reweighted multivariate alteration detection (Nielsen 2007), on moments alone.

Canonical correlation finds the combinations of the bands of either date that go together best; their differences, the
MAD variates, are what one date does not tell of the other (Nielsen, Conradsen and Simpson 1998). Standardised, their
squares add up to a chi-square of as many degrees of freedom as there are bands, if nothing has changed. That is turned
into a probability of no change, which is the weight of each pixel in the next round, until nothing moves any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from geoseg.errors import InputError

if TYPE_CHECKING:
    from geoseg.change.moments import Moments

Array = np.ndarray[Any, Any]

MOST_ROUNDS = 50
STILL = 1e-3
"""Rounds end when no canonical correlation moves by more."""
LEAST_SHARE = 0.02
"""Or when the pixels that count as unchanged are no more than this share of all: where much has changed, the rounds
would go on to a few pixels that are alike for reasons of their own, such as deep water, and call all else changed."""
_RANK = 1e-10
"""Combinations of bands with less than this share of the largest variance say nothing."""
_SURE = 1e-12


@dataclass(frozen=True)
class Canonical:
    """What MAD variates are made of: matrices (bands, variates) and means (bands,) of each date, counted from `origin`.

    deviation: (variates,) the standard deviation of each variate where nothing has changed; rho: (variates,)
    canonical correlations, the least first.
    """

    origin: Array
    """(2 * bands,), of both dates."""
    of_before: Array
    of_after: Array
    mean_before: Array
    mean_after: Array
    deviation: Array
    rho: Array

    @classmethod
    def of(cls, moments: Moments, origin: Array, quantum: float) -> Self:
        """Solve for the moments of both dates' bands, those of the earlier date first, counted from an origin.

        quantum: the step in which pixels are stored: differences cannot be told better than that. Raises InputError
        where a date does not vary.
        """
        bands = len(origin) // 2
        covariance, mean = moments.covariance, moments.mean
        white = [_whitening(covariance[part, part]) for part in (slice(bands), slice(bands, None))]
        if min(matrix.shape[1] for matrix in white) == 0:
            raise InputError("one of the two dates is of one value throughout where both are valid: nothing to compare")
        left, rho, right = np.linalg.svd(white[0].T @ covariance[:bands, bands:] @ white[1], full_matrices=False)
        order = np.argsort(rho, kind="stable")
        rho = np.clip(rho[order], 0, 1)
        of_before, of_after = white[0] @ left[:, order], white[1] @ right.T[:, order]
        # Of two opposite solutions the one that goes along with the bands of the earlier date.
        sign = np.where((covariance[:bands, :bands] @ of_before).sum(axis=0) < 0, -1.0, 1.0)
        of_before, of_after = of_before * sign, of_after * sign
        rounding = quantum**2 / 12 * ((of_before**2).sum(axis=0) + (of_after**2).sum(axis=0))
        deviation = np.sqrt(np.maximum(np.maximum(2 * (1 - rho), rounding), _SURE))
        return cls(origin, of_before, of_after, mean[:bands], mean[bands:], deviation, rho)

    def variates(self, values: Array) -> tuple[Array, Array]:
        """The canonical variates (variates, h, w) of both dates, of values (2 * bands, h, w) counted from the origin.

        In standard deviations of their differences, so that their squared differences add up to the chi-square.
        """
        bands = len(self.mean_before)
        return (
            _combined(self.of_before / self.deviation, values[:bands] - self.mean_before[:, None, None]),
            _combined(self.of_after / self.deviation, values[bands:] - self.mean_after[:, None, None]),
        )

    def chi_square(self, values: Array) -> Array:
        """(h, w) of values (2 * bands, h, w) counted from the origin."""
        one, other = self.variates(values)
        squares: Array = ((one - other) ** 2).sum(axis=0)
        return squares

    def no_change(self, values: Array) -> Array:
        """The probability (h, w) that so large a chi-square comes about without change."""
        from scipy.special import chdtrc  # noqa: PLC0415

        probability: Array = chdtrc(len(self.rho), self.chi_square(values))
        return probability


def _whitening(covariance: Array) -> Array:
    """(bands, rank): combinations of bands that are uncorrelated and of variance one."""
    scale = np.sqrt(np.maximum(np.diag(covariance), 0))
    known = np.where(scale > 0, scale, 1.0)
    variances, vectors = np.linalg.eigh(covariance / np.outer(known, known))
    kept = variances > max(_RANK * variances.max(initial=0), 0)
    whitening: Array = vectors[:, kept] / np.sqrt(variances[kept]) / known[:, None]
    return whitening


def _combined(matrix: Array, values: Array) -> Array:
    """(variates, h, w) from (bands, variates) and (bands, h, w), each pixel by itself."""
    out = np.zeros((matrix.shape[1], *values.shape[1:]))
    for variate, weights in enumerate(matrix.T):
        for weight, band in zip(weights, values, strict=True):
            out[variate] += weight * band
    return out


@dataclass(frozen=True)
class Lines:
    """Gain and offset, (bands,) each, that bring the later date to the radiometry of the earlier one.

    noise: (bands,) how far unchanged pixels lie off, as a standard deviation.
    """

    gain: Array
    offset: Array
    noise: Array

    @classmethod
    def of(cls, moments: Moments, origin: Array, quantum: float) -> Self:
        """Through the pixels that count: orthogonal regression (Canty, Nielsen and Schmidt 2004), band by band."""
        bands = len(origin) // 2
        covariance, mean = moments.covariance, moments.mean + origin
        before, after = np.diag(covariance)[:bands], np.diag(covariance)[bands:]
        common = np.diag(covariance[:bands, bands:])
        gain, noise = np.ones(bands), np.zeros(bands)
        for band in range(bands):
            if before[band] > 0 and after[band] > 0 and common[band] > 0:
                # In units of either date's own spread: so the line does not depend on the units they are stored in.
                gain[band] = np.sqrt(before[band] / after[band])
            left = before[band] - 2 * gain[band] * common[band] + gain[band] ** 2 * after[band]
            noise[band] = np.sqrt(max(left, (1 + gain[band] ** 2) * quantum**2 / 12, _SURE))
        return cls(gain, mean[:bands] - gain * mean[bands:], noise)

    def __call__(self, after: Array) -> Array:
        """Pixels (bands, h, w) of the later date as the earlier one would show them."""
        shape = (-1, 1, 1)
        normal: Array = after * self.gain.reshape(shape) + self.offset.reshape(shape)
        return normal
