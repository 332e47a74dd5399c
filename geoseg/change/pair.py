"""Two dates of one place on one frame, read together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import BandRoleError
from geoseg.scene.roles import known_roles

if TYPE_CHECKING:
    from geoseg.frame import Box, Frame
    from geoseg.scene import Scene, SceneInfo

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pair:
    """Two scenes on one frame, with the same roles in the same order."""

    before: Scene
    after: Scene

    @property
    def frame(self) -> Frame:
        """The frame of both."""
        return self.before.frame

    @property
    def roles(self) -> tuple[str, ...]:
        """The role of each band."""
        return self.before.roles

    def read(self, box: Box) -> tuple[Array, Array, Array]:
        """Pixels (bands, h, w) of both dates in float64, 0 where not valid, and where both are valid, (h, w) bool.

        Outside of the frame nothing is valid.
        """
        inside = box & self.frame.box
        at = inside.slices(box)
        both = np.zeros((2, len(self.roles), *box.shape))
        valid = np.zeros(box.shape, bool)
        if inside:
            (before, seen_before), (after, seen_after) = self.before.read(inside), self.after.read(inside)
            valid[at] = seen_before & seen_after
            both[(0, slice(None), *at)] = before
            both[(1, slice(None), *at)] = after
        both[:, :, ~valid] = 0
        return both[0], both[1], valid


def common_bands(
    before: SceneInfo, after: SceneInfo, given: tuple[dict[str, int] | None, dict[str, int] | None]
) -> tuple[dict[str, int], dict[str, int]]:
    """Role to band number of either date, for the same roles in the same order.

    What the user named (`given`, for each date) wins. Else files of as many bands are taken band by band, unless their
    names say that they lie in another order; a band without a role is `band1`, `band2`, ... Files with other numbers of
    bands are matched by the roles that their names tell. Raises BandRoleError where no band is common to both.
    """
    named = [dict(bands) if bands else known_roles(info) for bands, info in zip(given, (before, after), strict=True)]
    for bands, info in zip(named, (before, after), strict=True):
        beyond = {role: band for role, band in bands.items() if band > info.count}
        if beyond:
            raise BandRoleError(f"{info.path} has {info.count} bands; --bands asks for {beyond}")
    one, other = named
    usable = [[band for band in range(1, info.count + 1) if band != info.alpha_band] for info in (before, after)]
    agree = all(other.get(role, band) == band for role, band in one.items())
    if not any(given) and usable[0] == usable[1] and agree:
        roles = {band: role for role, band in {**one, **other}.items()}
        numbered = {roles.get(band, f"band{band}"): band for band in usable[0]}
        return numbered, dict(numbered)
    shared = [role for role in one if role in other]
    if not shared:
        raise BandRoleError(
            f"{before.path} ({', '.join(one) or f'{before.count} bands without a name'}) and {after.path} "
            f"({', '.join(other) or f'{after.count} bands without a name'}) have no band in common; name them with "
            "--bands red=1,... (and --bands-after where the later date has another order)"
        )
    return {role: one[role] for role in shared}, {role: other[role] for role in shared}
