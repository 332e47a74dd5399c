"""Networks that were trained elsewhere, as bundles. Imports torch: only for those who import one."""

from __future__ import annotations

import pickle
import tempfile
import warnings
import zipfile
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from geoseg.errors import BundleError, UsageError
from geoseg.model.bundle import FORMAT, GRAPH, ModelBundle, save_bundle
from geoseg.model.engine import EngineChoice, open_engine
from geoseg.model.network import fit_weights, network_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Weights = dict[str, torch.Tensor]

_NESTED = ("state_dict", "model_state_dict", "model", "net", "network")
"""Where checkpoints of common training programs keep their weights."""
_REQUIRED = ("name", "architecture", "bands", "scaling", "gsd_m", "tile", "legend", "licence")
_OPTIONAL = ("encoder", "decoder", "description", "card", "scores")
_OPSET = 17


def import_model(file: Path, description: Mapping[str, Any], out: Path, *, trust_code: bool = False) -> ModelBundle:
    """Make a bundle in the folder `out` of a file with a network and a description of it; returns it.

    The description has the keys of `model.json`. The file holds weights (safetensors, or a PyTorch checkpoint without
    code) of an architecture that geoseg builds itself, or, where `architecture` is `ONNX`, an ONNX graph. With
    `trust_code` it may also be a TorchScript or exported PyTorch program: that is run once, here, and kept as ONNX. The
    network is tried on an empty tile before anything is written.

    Raises UsageError for a description that is wrong or a program that is not trusted, BundleError where file and
    description do not fit each other.
    """
    bundle = _described(description)
    try:
        content = _graph(file, bundle, trust_code=trust_code) if bundle.is_graph else _weights(file, bundle)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
    with tempfile.TemporaryDirectory() as folder:
        tried = save_bundle(bundle, content, Path(folder))
        engine = open_engine(tried, EngineChoice(device="cpu", precision="fp32", threads=1), bundle.tile)
        engine(np.zeros((len(bundle.bands), bundle.tile, bundle.tile), np.float32))
    return save_bundle(bundle, content, out)


def _described(description: Mapping[str, Any]) -> ModelBundle:
    missing = [key for key in _REQUIRED if key not in description]
    unknown = sorted(set(description) - {*_REQUIRED, *_OPTIONAL})
    if missing or unknown:
        found = f"the key {missing[0]!r} is missing" if missing else f"there is no key {unknown[0]!r}"
        raise UsageError(f"description of the model: {found}; it takes {', '.join((*_REQUIRED, *_OPTIONAL))}")
    given = {"encoder": "none", **description, "format": FORMAT, "weights": {"sha256": ""}}
    return replace(ModelBundle.from_json(given, Path("description")), path=None)


def _weights(file: Path, bundle: ModelBundle) -> bytes:
    """The weights in a file, under the names that the network has, as safetensors."""
    network = network_of(bundle)
    given = _load(file)
    expected: Weights = network.state_dict()
    for prefix in ("", *dict.fromkeys(f"{key.split('.')[0]}." for key in given)):
        stripped = {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}
        if set(stripped) & set(expected):
            given = stripped
            break
    fit_weights(network, given, f"{file}", f"{bundle.architecture} on {bundle.encoder}")
    return save({key: value.contiguous().clone() for key, value in network.state_dict().items()})


def _load(file: Path) -> Weights:
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise BundleError(f"{file} is not a safetensors file: {error}") from error
    if _is_program(file):
        raise UsageError(f"{file} is a program; say architecture: ONNX, and --trust-model-code to run it once")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise BundleError(
            f"{file} holds more than weights, or is damaged; save the state_dict of the network alone"
        ) from error
    while isinstance(found, dict) and (inner := next((key for key in _NESTED if isinstance(found.get(key), dict)), "")):
        found = found[inner]
    if not (isinstance(found, dict) and found and all(isinstance(value, torch.Tensor) for value in found.values())):
        raise BundleError(f"{file} holds no weights by name; save the state_dict of the network")
    return found


def _is_program(file: Path) -> bool:
    """Whether a file is TorchScript or an exported program: archives with code in them."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    return file.suffix == ".pt2" or any("/code/" in f"/{name}" or name.endswith("constants.pkl") for name in names)


class _Exported(torch.nn.Module):
    """Calls an exported program, which is no part of the module: parts are switched to evaluation, and it cannot."""

    def __init__(self, program: torch.nn.Module) -> None:
        super().__init__()
        self._program = (program.requires_grad_(requires_grad=False),)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._program[0](tiles)
        return found


def _graph(file: Path, bundle: ModelBundle, *, trust_code: bool) -> bytes:
    """An ONNX graph, as it is or of a program."""
    if not _is_program(file):
        return file.read_bytes()
    if not trust_code:
        raise UsageError(f"{file} is a program, which could do anything; --trust-model-code runs it, once")
    example = torch.zeros(1, len(bundle.bands), bundle.tile, bundle.tile)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        path = Path(folder) / GRAPH
        try:
            if file.suffix == ".pt2":
                network: torch.nn.Module = _Exported(torch.export.load(file).module())
            else:
                network = torch.jit.load(file, map_location="cpu").eval()  # type: ignore[no-untyped-call]
            torch.onnx.export(network, (example,), str(path), opset_version=_OPSET, dynamo=False)
        except (RuntimeError, TypeError, ValueError, AttributeError, torch.onnx.errors.OnnxExporterError) as error:
            raise BundleError(
                f"{file} cannot be turned into ONNX: {str(error).strip().splitlines()[0][:200]}"
            ) from error
        return path.read_bytes()
