"""Which band plays which role (red, green, blue, nir, ...)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from geoseg.errors import BandRoleError, UsageError

if TYPE_CHECKING:
    from geoseg.scene.info import SceneInfo

ROLES = (
    "coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir2", "watervapor", "cirrus",
    "swir1", "swir2", "thermal", "pan",
)  # fmt: skip
"""The roles that geoseg knows from band names; a bundle may use other names, which then are given by `--bands`."""

_SYNONYMS = {
    "coastalblue": "coastal", "coastalaerosol": "coastal", "aerosol": "coastal", "b": "blue", "g": "green", "r": "red",
    "nearinfrared": "nir", "infrared": "nir", "nearir": "nir", "nir1": "nir", "n": "nir", "rededge1": "rededge",
    "nearinfrared1": "nir", "nearinfrared2": "nir2",
    "swir16": "swir1", "swir22": "swir2", "panchromatic": "pan", "shortwaveinfrared1": "swir1",
    "shortwaveinfrared2": "swir2",
}  # fmt: skip
_ALONE = {"b", "g", "r", "n", "infrared"}
"""These name a role only where nothing else is said: there is short wave, middle and thermal infrared too."""

_SENTINEL2 = {
    "b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "rededge", "b8": "nir", "b9": "watervapor",
    "b10": "cirrus", "b11": "swir1", "b12": "swir2",
}  # fmt: skip
_SENTINEL2_FOUR = {"b2", "b3", "b4", "b8"}
_SENTINEL2_TEN_AND_TWENTY = _SENTINEL2_FOUR | {"b11", "b12"}
_LANDSAT_OLI = {
    "srb1": "coastal", "srb2": "blue", "srb3": "green", "srb4": "red", "srb5": "nir", "srb6": "swir1", "srb7": "swir2",
}  # fmt: skip
_LANDSAT_TM = {
    "srb1": "blue", "srb2": "green", "srb3": "red", "srb4": "nir", "srb5": "swir1", "srb7": "swir2",
}  # fmt: skip
"""Landsat 4 to 7; they have no SR_B6, their sixth band is thermal."""


@dataclass(frozen=True, slots=True)
class BandNeeds:
    """The roles a model takes, in the order of the network's input channels; `optional` ones may be missing."""

    roles: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        """The roles without which the model does not run."""
        return tuple(role for role in self.roles if role not in self.optional)


def parse_bands(text: str) -> dict[str, int]:
    """Read `--bands`: role to band number, from 1.

    >>> parse_bands("red=3, green=2")
    {'red': 3, 'green': 2}
    """
    bands: dict[str, int] = {}
    for part in text.split(","):
        role, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals or not role or not number.isdigit() or int(number) < 1:
            raise UsageError(f"--bands: {part.strip()!r} is not ROLE=NUMBER; write for example red=3,green=2,blue=1")
        if role.lower() in bands:
            raise UsageError(f"--bands names {role!r} twice")
        bands[role.lower()] = int(number)
    return bands


def role_of_description(text: str) -> str | None:
    """The role that a band's description names, if it names one.

    >>> [role_of_description(text) for text in ("Red", "B8 (NIR)", "red edge 1", "Near Infrared", "elevation")]
    ['red', 'nir', 'rededge', 'nir', None]
    """
    squeezed = _squeeze(text)
    if squeezed in ROLES or squeezed in _SYNONYMS:
        return _SYNONYMS.get(squeezed, squeezed)
    words = re.findall(r"[a-z]+[0-9]*", re.sub(r"infra[^a-z0-9]+red", "infrared", text.lower()))
    joined = [first + second for first, second in pairwise(words)]
    for word in [*joined, *words]:
        role: str = _SYNONYMS.get(word, word)
        if role in ROLES and word not in _ALONE:
            return role
    return None


def known_roles(info: SceneInfo) -> dict[str, int]:
    """Role to band number as far as descriptions, else colour interpretation, tell.

    Raises BandRoleError where two bands claim one role.
    """
    table = _mission(info.descriptions)
    if table is None:
        claims = [role_of_description(text) for text in info.descriptions]
    else:
        claims = [table.get(_squeeze(text).replace("b0", "b")) for text in info.descriptions]
    if not any(claims):
        claims = [interp if interp in {"red", "green", "blue"} else None for interp in info.interpretations]
    found: dict[str, int] = {}
    for band, role in enumerate(claims, 1):
        if role is None:
            continue
        if role in found:
            raise BandRoleError(
                f"{info.path}: bands {found[role]} and {band} both say they are {role}; "
                f"name the right one with --bands {role}={band}"
            )
        found[role] = band
    return found


def _mission(descriptions: tuple[str, ...]) -> dict[str, str] | None:
    """What the bands of a mission are, if their names tell it: WorldView and PlanetScope have B1 to B8 too."""
    as_given = {_squeeze(text) for text in descriptions} - {""}
    names = {name.replace("b0", "b") for name in as_given}
    if names >= _SENTINEL2_FOUR:
        padded = any(re.fullmatch("b0[1-9]", name) for name in as_given)
        if padded or "b8a" in names or names <= _SENTINEL2_TEN_AND_TWENTY:
            return _SENTINEL2
    if names >= {"srb2", "srb3", "srb4"}:
        if "srb6" in names:
            return _LANDSAT_OLI
        if "srb1" in names:  # without, it may also be a part of what OLI has
            return _LANDSAT_TM
    return None


def _squeeze(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def assign_roles(info: SceneInfo, needs: BandNeeds, given: dict[str, int] | None = None) -> dict[str, int]:
    """Role to band number for all roles of `needs` that the scene has.

    The user's word (`given`) wins over band descriptions, these over colour interpretation, that over the model's
    own order where the number of bands fits it. Where the user names all required roles, no other band is used. Raises
    BandRoleError where a required role stays open.
    """
    given = given or {}
    for role, band in given.items():
        if role not in needs.roles:
            raise UsageError(f"--bands: the model has no role {role!r}; it takes {', '.join(needs.roles)}")
        if band > info.count:
            raise BandRoleError(f"{info.path} has {info.count} bands, but --bands asks for {role}={band}")
    found = dict(given)
    if not set(needs.required) <= set(given):
        found = {**known_roles(info), **given}
        found = _by_order(info, needs, found)
    if not set(needs.required) <= set(found):
        raise BandRoleError(_explain(info, needs, found))
    chosen = {role: found[role] for role in needs.roles if role in found}
    if len(set(chosen.values())) < len(chosen):
        raise BandRoleError(f"{info.path}: one band would play two roles: {chosen}; say which with --bands")
    return chosen


def _by_order(info: SceneInfo, needs: BandNeeds, found: dict[str, int]) -> dict[str, int]:
    """Fill open roles by the model's order, if the count fits and nothing that is known speaks against it."""
    usable = [band for band in range(1, info.count + 1) if band != info.alpha_band]
    for roles in (needs.roles, needs.required):
        by_order = dict(zip(roles, usable, strict=False))
        if len(usable) == len(roles) and all(by_order.get(role, band) == band for role, band in found.items()):
            return {**by_order, **found}
    return found


def _explain(info: SceneInfo, needs: BandNeeds, found: dict[str, int]) -> str:
    missing = [role for role in needs.required if role not in found]
    bands = ", ".join(
        f"{band} {text or interp}"
        for band, (text, interp) in enumerate(zip(info.descriptions, info.interpretations, strict=True), 1)
    )
    example = ",".join(f"{role}={found.get(role, '?')}" for role in needs.required)
    return (
        f"{info.path}: cannot tell which band is {' and '.join(missing)}; it has {info.count} ({bands}); "
        f"say so with --bands {example}"
    )
