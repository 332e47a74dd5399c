"""The model bundle: what a network takes, what it gives, where it comes from, how good it is."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import BundleError, EnvironmentFault, UsageError
from geoseg.legend import Legend
from geoseg.model.stac import mlm_item
from geoseg.scene.roles import BandNeeds
from geoseg.scene.scaling import ScalingRule

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "geoseg-bundle/1"
WEIGHTS = "weights.safetensors"
GRAPH = "network.onnx"
"""Takes the place of the weights where the architecture is `ONNX`: a network that is a file of its own."""
MANIFEST = "model.json"
ITEM = "item.json"
"""The bundle as a STAC item; nothing reads it here."""
INT8 = ("int8.xml", "int8.bin")
"""The files of a bundle that hold its network in int8: an OpenVINO model for tiles of the bundle's size."""
OUTPUTS = ("logits", "probabilities")
ENSEMBLE = "Ensemble"
"""The architecture of several networks whose mean counts; `decoder` lists them as `members`."""
_ENCODER = re.compile(r"[\w.\-]+", re.ASCII)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class ModelBand:
    """One input channel: its role, the mean and standard deviation of its scaled values, whether it may be missing."""

    role: str
    mean: float
    std: float
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """One network of an ensemble, as the bundle of it alone would describe it."""

    architecture: str
    encoder: str
    decoder: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As stored in `model.json`."""
        return {"architecture": self.architecture, "encoder": self.encoder, "decoder": self.decoder}


@dataclass(frozen=True)
class ModelBundle:
    """All of a model but its weights."""

    name: str
    architecture: str
    encoder: str
    bands: tuple[ModelBand, ...]
    scaling: ScalingRule
    gsd_m: tuple[float, float]
    """The finest and the coarsest GSD the model was trained for."""
    tile: int
    """Side in pixels of the square that the network sees."""
    legend: Legend
    licence: str
    decoder: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the architecture in segmentation-models-pytorch. For `ONNX` that is `output`: `logits`, or
    `probabilities`, with classes in the second dimension; for `Ensemble` its `members`."""
    description: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    """The data card: training data, labels, known weaknesses."""
    scores: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    """By precision (bf16, int8) the share of pixels of real scenes that have the class of fp32."""
    files: dict[str, str] = field(default_factory=dict)
    """Further files of the bundle, each with its SHA-256: `int8.xml` and `int8.bin`, the network in whole numbers."""
    sha256: str = ""
    """Of the weights file."""
    path: Path | None = None

    @property
    def is_graph(self) -> bool:
        """Whether the network is an ONNX file, and not weights of a known architecture."""
        return self.architecture == "ONNX"

    @property
    def weights_file(self) -> str:
        """The name of the file that holds the network's weights."""
        return GRAPH if self.is_graph else WEIGHTS

    @property
    def of_two_dates(self) -> bool:
        """Whether the network takes two dates, and so is one for `geoseg change`."""
        return any(member.architecture.startswith("Siamese") for member in self.members)

    @property
    def members(self) -> tuple[Member, ...]:
        """The networks that the bundle holds; mostly one. Raises BundleError where an ensemble lists none."""
        if self.architecture == ENSEMBLE:
            return members_of(self.decoder)
        return (Member(self.architecture, self.encoder, self.decoder),)

    @property
    def needs(self) -> BandNeeds:
        """The band roles in channel order."""
        return BandNeeds(
            tuple(band.role for band in self.bands), tuple(band.role for band in self.bands if band.optional)
        )

    def normalise(self, scaled: Array, valid: Array, roles: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """What the network is fed: (channels, height, width) float32.

        `scaled` (bands, height, width) in 0..1 holds the bands of `roles`. Channels that the scene lacks are 0, the
        mean. Invalid pixels take the values of the nearest valid one: an edge of nodata is nothing to be seen.
        """
        channels = np.zeros((len(self.bands), *scaled.shape[1:]), np.float32)
        for channel, band in enumerate(self.bands):
            if band.role in roles:
                np.subtract(scaled[roles.index(band.role)], band.mean, out=channels[channel])
                channels[channel] /= band.std
        fill_from_nearest(channels, valid)
        return channels

    def to_json(self) -> dict[str, Any]:
        """As stored in `model.json`."""
        return {
            "format": FORMAT,
            "name": self.name,
            "description": self.description,
            "architecture": self.architecture,
            "encoder": self.encoder,
            "decoder": self.decoder,
            "bands": [{"role": b.role, "mean": b.mean, "std": b.std, "optional": b.optional} for b in self.bands],
            "scaling": self.scaling.to_json(),
            "gsd_m": list(self.gsd_m),
            "tile": self.tile,
            "legend": self.legend.to_json(),
            "licence": self.licence,
            "card": self.card,
            "scores": self.scores,
            "agreement": self.agreement,
            "files": self.files,
            "weights": {"file": self.weights_file, "sha256": self.sha256},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], path: Path) -> ModelBundle:
        """The inverse of `to_json`; raises BundleError naming file and key."""
        where = path / MANIFEST
        if data.get("format") != FORMAT:
            raise BundleError(f"{where}: format is {data.get('format')!r}; this geoseg reads {FORMAT!r}")
        try:
            bands = tuple(
                ModelBand(str(b["role"]), float(b["mean"]), float(b["std"]), bool(b.get("optional", False)))
                for b in data["bands"]
            )
            low, high = map(float, data["gsd_m"])
            bundle = cls(
                name=str(data["name"]),
                description=str(data.get("description", "")),
                architecture=str(data["architecture"]),
                encoder=str(data["encoder"]),
                decoder=dict(data.get("decoder", {})),
                bands=bands,
                scaling=ScalingRule.from_json(data["scaling"]),
                gsd_m=(low, high),
                tile=int(data["tile"]),
                legend=Legend.from_json(data["legend"]),
                licence=str(data["licence"]),
                card=dict(data.get("card", {})),
                scores=dict(data.get("scores", {})),
                agreement={str(name): float(share) for name, share in data.get("agreement", {}).items()},
                files={str(name): str(sha256) for name, sha256 in data.get("files", {}).items()},
                sha256=str(data["weights"]["sha256"]),
                path=path,
            )
        except BundleError as error:
            raise BundleError(f"{where}: {error}") from error
        except KeyError as error:
            raise BundleError(f"{where}: the key {error} is missing") from error
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise BundleError(f"{where} is not a model bundle: {error}") from error
        _check(bundle, where)
        return bundle


def fill_from_nearest(channels: Array, valid: Array) -> None:
    """Give each invalid pixel of channels (channels, height, width) the values of a nearest valid one; 0 without any.

    What is invalid is looked at with a rim of one pixel: beyond it all is valid, so nothing nearer lies there.
    """
    missing = ~valid
    rows, cols = np.flatnonzero(missing.any(axis=1)), np.flatnonzero(missing.any(axis=0))
    if not rows.size:
        return
    if missing.all():
        channels[:] = 0
        return
    from scipy.ndimage import distance_transform_edt  # noqa: PLC0415  # half a second, and most scenes need it not

    at = np.s_[max(0, rows[0] - 1) : rows[-1] + 2, max(0, cols[0] - 1) : cols[-1] + 2]
    missing, around = missing[at], channels[:, *at]
    rows, cols = distance_transform_edt(missing, return_distances=False, return_indices=True)
    around[:, missing] = around[:, rows[missing], cols[missing]]


def members_of(decoder: Mapping[str, Any]) -> tuple[Member, ...]:
    """The networks of an ensemble, of its `decoder`; raises BundleError where they are not described."""
    listed = decoder.get("members")
    if not isinstance(listed, list) or not listed:
        raise BundleError("an ensemble needs decoder: members, a list of its networks")
    try:
        members = tuple(
            Member(str(one["architecture"]), str(one["encoder"]), dict(one.get("decoder", {}))) for one in listed
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError("each member of an ensemble needs architecture, encoder and decoder") from error
    for member in members:
        if member.architecture in {ENSEMBLE, "ONNX"}:
            raise BundleError(f"an ensemble holds networks by their weights; {member.architecture} has none of its own")
        check_encoder(member.encoder)
    return members


def check_encoder(encoder: str) -> None:
    """Refuse what is no plain name: some libraries of encoders take `hub:owner/name` and fetch it."""
    if not _ENCODER.fullmatch(encoder):
        raise BundleError(f"the encoder {encoder!r} is no plain name; name one of segmentation-models-pytorch")


def _check(bundle: ModelBundle, where: Path) -> None:
    try:
        check_encoder(bundle.encoder)
        _ = bundle.members
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error
    roles = [band.role for band in bundle.bands]
    if not roles or len(set(roles)) != len(roles):
        raise BundleError(f"{where}: bands must name each role once; found {roles}")
    if not all(isfinite(band.mean) and isfinite(band.std) and band.std > 0 for band in bundle.bands):
        raise BundleError(f"{where}: each band needs a mean, and a std above 0")
    if not 0 < bundle.gsd_m[0] <= bundle.gsd_m[1]:
        raise BundleError(f"{where}: gsd_m is {list(bundle.gsd_m)}; it needs the finest, then the coarsest, in metres")
    if bundle.is_graph and bundle.decoder.get("output") not in OUTPUTS:
        raise BundleError(f"{where}: decoder must say what an ONNX network gives, output: {' or '.join(OUTPUTS)}")
    if set(bundle.files) - set(INT8):
        raise BundleError(f"{where}: files names {sorted(set(bundle.files) - set(INT8))}; it takes {list(INT8)}")
    if bundle.tile < 32 or bundle.tile % 32:
        raise BundleError(f"{where}: tile is {bundle.tile}; it must be a multiple of 32")


def embedded_folder() -> Path:
    """Where the bundles that come with geoseg lie."""
    return Path(__file__).parent.parent / "bundles"


def user_folder() -> Path:
    """Where the user's own bundles lie: `GEOSEG_MODELS`, else the user's data folder."""
    if "GEOSEG_MODELS" in os.environ:
        return Path(os.environ["GEOSEG_MODELS"])
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "geoseg" / "models"


def known_bundles() -> dict[str, Path]:
    """Name to folder of all bundles that are found by name; the user's win over the embedded."""
    found: dict[str, Path] = {}
    for folder in (embedded_folder(), user_folder()):
        if folder.is_dir():
            found.update({path.parent.name: path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))})
    return found


def find_bundle(name_or_folder: str | Path) -> ModelBundle:
    """The bundle of a name among the embedded and the user's, else in a folder; raises UsageError where there is none.

    A folder that has the name of a known bundle is meant where it is written as a path, as `./aerial`.
    """
    folder = Path(name_or_folder)
    named = known_bundles()
    if str(name_or_folder) in named:
        return load_bundle(named[str(name_or_folder)])
    if (folder / MANIFEST).is_file():
        return load_bundle(folder.absolute())
    if folder.is_dir():
        raise BundleError(f"{folder} is not a model bundle: it has no {MANIFEST}")
    there = ", ".join(sorted(named)) or "none"
    raise UsageError(f"no model {str(name_or_folder)!r}; there are {there}, or name a folder")


def load_bundle(folder: Path) -> ModelBundle:
    """Read `model.json`; the weights are read, and their hash compared, when an engine opens."""
    where = folder / MANIFEST
    try:
        data = json.loads(where.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{where} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{where} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise BundleError(f"{where} is not a model bundle: it holds a {type(data).__name__}")
    return ModelBundle.from_json(data, folder)


def save_bundle(
    bundle: ModelBundle, weights: bytes, folder: Path, files: Mapping[str, bytes] = MappingProxyType({})
) -> ModelBundle:
    """Write a bundle: weights (safetensors or ONNX bytes) and further files first, `model.json` last and at once.

    Returns it with all hashes; raises EnvironmentFault where the folder cannot be written.
    """
    saved = replace(
        bundle,
        sha256=hashlib.sha256(weights).hexdigest(),
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        path=folder,
    )
    item, manifest = (f"{json.dumps(part, indent=2)}\n".encode() for part in (mlm_item(saved), saved.to_json()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in {saved.weights_file: weights, **files, ITEM: item, MANIFEST: manifest}.items():
            partial = folder / f".{name}.partial"
            partial.write_bytes(content)
            partial.replace(folder / name)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: no model can be written there: {error.strerror}") from error
    return saved


def weights_path(bundle: ModelBundle) -> Path:
    """The weights file of a bundle, after its hash was compared; raises BundleError where it is not the stated one."""
    return _checked(bundle, bundle.weights_file, bundle.sha256)


def bundle_file(bundle: ModelBundle, name: str) -> Path:
    """One of the further files of a bundle, as `weights_path`."""
    if name not in bundle.files:
        raise BundleError(f"the model {bundle.name!r} has no file {name}")
    return _checked(bundle, name, bundle.files[name])


def _checked(bundle: ModelBundle, name: str, sha256: str) -> Path:
    if bundle.path is None:
        raise BundleError(f"the model {bundle.name!r} has no folder, so it has no {name}")
    path = bundle.path / name
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if found != sha256:
        raise BundleError(f"{path} is damaged or was changed: sha256 {found[:12]}..., model.json says {sha256[:12]}...")
    return path
