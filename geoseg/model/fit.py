"""How large a tile of a scene is in the scene's own pixels, so that the network sees a GSD it was trained for."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from geoseg.errors import GsdError

_NEAR = 0.1
"""Scales this close to 1 are left at 1: the network does not notice, and resampling blurs."""
_COARSEST = 2.0
"""Up to this many times the coarsest GSD a scene is resampled; beyond it, nothing brings back the missing detail."""
_FINEST = 10.0
"""Down to this fraction of the finest GSD a scene is resampled; beyond it, tiles of the scene grow out of hand."""


@dataclass(frozen=True, slots=True)
class TileFit:
    """The tile the network sees (a side in pixels) and the same tile in pixels of the scene, (height, width)."""

    network: int
    scene: tuple[int, int]
    notice: str = ""
    """What to tell the user, if the scene is resampled or forced."""

    @property
    def resampled(self) -> bool:
        """Whether tiles change size on their way to the network."""
        return self.scene != (self.network, self.network)


def fit_to_gsd(
    gsd_m: tuple[float, float] | None, trained_m: tuple[float, float], tile: int, *, name: str, force: bool = False
) -> TileFit:
    """Fit tiles to a GSD (along a column, along a row), in metres; None where it is unknown.

    Within `trained_m` (finest, coarsest) nothing is resampled. `name` names the scene in the message of GsdError,
    which is raised for what no resampling helps, unless `force`: then the scene is taken as it is.

    >>> fit_to_gsd((0.1, 0.1), (0.3, 1.5), 512, name="a.tif").scene
    (1536, 1536)
    """
    as_is = (tile, tile)
    if gsd_m is None:
        notice = (
            f"{name}: without a CRS the GSD is unknown and taken as one the model knows ({trained_m[0]:g} to "
            f"{trained_m[1]:g} m); areas stay empty, and --min-area and --min-hole count pixels"
        )
        return TileFit(tile, as_is, notice)
    mean = sqrt(gsd_m[0] * gsd_m[1])
    finest, coarsest = trained_m
    if not finest / _FINEST <= mean <= coarsest * _COARSEST:
        if not force:
            raise GsdError(
                f"{name} has a GSD of {mean:.3g} m; the model was trained for {finest:g} to {coarsest:g} m and would "
                "see nothing it knows; choose another model or scene, or go on all the same by --force"
            )
        notice = f"{name}: GSD {mean:.3g} m is far outside {finest:g} to {coarsest:g} m (forced)"
        return TileFit(tile, as_is, notice)
    target = min(max(mean, finest), coarsest)
    scales = [target / side for side in gsd_m]
    if all(abs(scale - 1) <= _NEAR for scale in scales):
        return TileFit(tile, as_is)
    height, width = (max(1, round(tile * scale)) for scale in scales)
    return TileFit(
        tile,
        (height, width),
        f"{name}: pixels of {gsd_m[0]:.3g} x {gsd_m[1]:.3g} m are resampled to {target:.3g} m for the model",
    )
