"""Networks as ONNX files, which engines run without torch: written once a machine and network, and kept in a cache."""

from __future__ import annotations

import atexit
import hashlib
import importlib
import json
import os
import shutil
import tempfile
import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.errors import BundleError, EnvironmentFault
from geoseg.model.bundle import weights_path
from geoseg.model.engine import LEVELS

if TYPE_CHECKING:
    from geoseg.model.bundle import ModelBundle

INPUT, OUTPUT = "tile", "levels"
"""Names of what goes in, (1, channels, tile, tile) float32, and comes out, (1, classes, tile, tile) int16."""
_OPSET = 17
_KEPT = 12
"""So many files stay in the cache, those used last."""
_MADE_BY = ("torch", "segmentation-models-pytorch", "timm")


class ExportError(BundleError):
    """A network is made of what ONNX has no words for."""


def cache_folder() -> Path:
    """Where exported networks are kept: `GEOSEG_CACHE`, else the user's cache folder."""
    if "GEOSEG_CACHE" in os.environ:
        return Path(os.environ["GEOSEG_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "geoseg"


def exported_network(bundle: ModelBundle, tile: int) -> Path:
    """The ONNX file of a bundle's network for tiles of a side, from normalised tiles to levels, or as it came.

    Raises BundleError where the weights are damaged, do not fit, or make a network that
    ONNX cannot say (ExportError).
    """
    if bundle.is_graph:
        return weights_path(bundle)
    weights_path(bundle)  # damaged weights are told of, even where the cache has those that were not
    name = f"{_key(bundle, tile)}.onnx"
    found = cache_folder() / name
    if found.is_file():
        _touch(found)
        return found
    # Whatever else happens, the run goes on: without a folder to keep it in, the network is exported for this process.
    folder = cache_folder() if _writable(cache_folder()) else _own_folder()
    path = folder / name
    if not path.is_file():
        partial = folder / f".{name}.{os.getpid()}.partial"
        try:
            export_onnx(bundle, tile, partial)
            partial.replace(path)
        except OSError as error:
            raise EnvironmentFault(f"{path} cannot be written: {error.strerror}; set GEOSEG_CACHE elsewhere") from error
        finally:
            partial.unlink(missing_ok=True)
        _forget_old(folder)
    return path


def export_onnx(bundle: ModelBundle, tile: int, path: Path) -> None:
    """Write the network of a bundle as ONNX, for one tile of a side at a time; raises as `exported_network`."""
    import torch  # noqa: PLC0415  # seconds, spent once a machine and network

    from geoseg.model.network import load_network  # noqa: PLC0415

    class Levels(torch.nn.Module):
        """From normalised tiles to levels, as engines give them."""

        def __init__(self) -> None:
            super().__init__()
            self.network = load_network(bundle)

        def forward(self, tiles: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.network(tiles), dim=1).mul(LEVELS).round().to(torch.int16)

    importlib.import_module("onnx")  # torch would say the same in many more words
    example = torch.zeros(1, len(bundle.bands), tile, tile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and of torch's other exporter, which knows fewer networks
        try:
            torch.onnx.export(
                Levels().eval(), (example,), str(path), input_names=[INPUT], output_names=[OUTPUT],
                opset_version=_OPSET, dynamo=False,
            )  # fmt: skip
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise ExportError(
                f"{bundle.name}: {bundle.architecture} on {bundle.encoder} cannot be exported as ONNX ({reason}); "
                "use --engine torch"
            ) from error


def _key(bundle: ModelBundle, tile: int) -> str:
    """What tells a file in the cache apart: all that decides its content."""
    content = [
        bundle.sha256, bundle.architecture, bundle.encoder, bundle.decoder, len(bundle.bands),
        len(bundle.legend.classes), tile, [version(library) for library in _MADE_BY], _code_sha256(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


@cache
def _code_sha256() -> str:
    here = Path(__file__)
    return hashlib.sha256(here.read_bytes() + here.with_name("network.py").read_bytes()).hexdigest()


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="geoseg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError:  # somebody else's cache, which we may read
        return


def _forget_old(folder: Path) -> None:
    """Keep the files that were used last."""

    def used(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:  # another process forgets too
            return 0.0

    for path in sorted(folder.glob("*.onnx"), key=used, reverse=True)[_KEPT:]:
        path.unlink(missing_ok=True)
