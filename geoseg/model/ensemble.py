"""Several models as one whose probabilities are the mean of theirs. Imports torch: only for those who make one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save

from geoseg.errors import UsageError
from geoseg.legend import Legend
from geoseg.model.bundle import ENSEMBLE, Member, ModelBand, ModelBundle, save_bundle, weights_path
from geoseg.model.network import load_network

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from geoseg.legend import ClassEntry

_ALIKE = ("bands", "scaling", "legend")
"""What models must share: they see the same tile, and say the same classes of it."""


def average_models(bundles: Sequence[ModelBundle], name: str, out: Path) -> ModelBundle:
    """Write a model that takes the mean of the probabilities of others, at the cost of all of them together.

    It runs in fp32 unless another precision is asked for, since how far others agree is not known, and neither are its
    scores. It knows the GSD that all of them know, and takes tiles of the smallest. The members of a member that is an
    ensemble itself each count as one. Raises UsageError for less than two, or where they do not see the same bands
    alike, or not the same classes; BundleError where weights do not fit.
    """
    first = bundles[0]
    _check(bundles)
    members: list[Member] = []
    weights: dict[str, Any] = {}
    for bundle in bundles:
        load_network(bundle)  # raises where the weights are none, or not of this network
        given = load_file(weights_path(bundle))
        for place, member in enumerate(bundle.members):
            within = f"members.{place}." if bundle.architecture == ENSEMBLE else ""
            start = f"members.{len(members)}."
            weights |= {
                start + key.removeprefix(within): value for key, value in given.items() if key.startswith(within)
            }
            members.append(member)
    encoders = list(dict.fromkeys(member.encoder for member in members))
    bundle = replace(
        first,
        name=name,
        description=f"The mean of {_listed(bundle.name for bundle in bundles)}. {first.description}".strip(),
        architecture=ENSEMBLE,
        encoder=encoders[0] if len(encoders) == 1 else "several",
        decoder={"members": [member.to_json() for member in members]},
        gsd_m=_common_gsd(bundles),
        tile=min(bundle.tile for bundle in bundles),
        licence=" AND ".join(dict.fromkeys(bundle.licence for bundle in bundles)),
        card=_merged([bundle.card for bundle in bundles]),
        scores={},
        agreement={},
        files={},
    )
    return save_bundle(bundle, save(weights), out)


def _check(bundles: Sequence[ModelBundle]) -> None:
    if len(bundles) < 2:  # one is its own mean
        raise UsageError("a mean is one of two or more models")
    first = bundles[0]
    for other in bundles:
        if other.is_graph:
            raise UsageError(f"{other.name} is an ONNX file; a mean takes models that have weights")
        for key in _ALIKE:
            if (given := getattr(other, key)) != (wanted := getattr(first, key)):
                raise UsageError(
                    f"{other.name} has other {key} than {first.name}: {_short(given)}, not {_short(wanted)}; "
                    "a mean takes models that see and say the same"
                )
        if other.of_two_dates != first.of_two_dates:
            raise UsageError(f"of {first.name} and {other.name} one takes two dates, the other one")


def _common_gsd(bundles: Sequence[ModelBundle]) -> tuple[float, float]:
    low, high = max(bundle.gsd_m[0] for bundle in bundles), min(bundle.gsd_m[1] for bundle in bundles)
    if low > high:
        ranges = _listed(f"{bundle.name} {bundle.gsd_m[0]:g} to {bundle.gsd_m[1]:g} m" for bundle in bundles)
        raise UsageError(f"no GSD is known to all: {ranges}")
    return low, high


def _merged(cards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What any data card says, once: lists one after the other, sentences too."""
    merged: dict[str, Any] = {}
    for card in cards:
        for key, value in card.items():
            there = merged.setdefault(key, value)
            if isinstance(there, list) and isinstance(value, list):
                merged[key] = [*there, *(item for item in value if item not in there)]
            elif value not in (there, *str(there).split("; ")):
                merged[key] = f"{there}; {value}"
    return merged


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{_listed(_band(band) for band in value)}]"
    return _listed(map(_class, value.classes)) if isinstance(value, Legend) else str(value.to_json())


def _class(entry: ClassEntry) -> str:
    return f"{entry.code} {entry.name} ({entry.kind}, {entry.color})"


def _band(band: ModelBand) -> str:
    return f"{band.role} {band.mean:g} +- {band.std:g}{' (optional)' if band.optional else ''}"
