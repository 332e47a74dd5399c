"""A bundle as a STAC item with the Machine Learning Model extension, for catalogs of models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoseg.model.bundle import ModelBundle

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
_SHA256_MULTIHASH = "1220"
_TASK = "semantic-segmentation"
_KINDS = {
    "weights.safetensors": ("application/octet-stream; framework=pytorch", "safetensors.torch.save_file"),
    "network.onnx": ("application/octet-stream; framework=onnx", "onnx"),
    "int8.xml": ("application/xml; framework=openvino", "openvino"),
    "int8.bin": ("application/octet-stream; framework=openvino", "openvino"),
}
"""By file name: media type, and what wrote it."""


def mlm_item(bundle: ModelBundle, created: datetime | None = None) -> dict[str, Any]:
    """The STAC 1.1 item of a bundle, to lie beside its `model.json`; `created` is now unless it is said.

    It has no geometry: a model is of no place. Inputs are normalised tiles, (batch, bands, tile, tile) float32, outputs
    logits of the classes.
    """
    classes = bundle.legend.classes
    sizes = {"bands": len(bundle.bands), "classes": len(classes)}
    bands = [{"name": band.role} for band in bundle.bands]
    entries = [
        {"value": entry.code, "name": entry.name, "color_hint": entry.color.removeprefix("#").upper()}
        for entry in classes
    ]
    model_input = {
        "name": "tile",
        "bands": bands,
        "input": _structure(sizes["bands"], bundle.tile, "bands"),
        "description": (
            f"Values scaled to 0..1, then normalised; {bundle.gsd_m[0]:g} to {bundle.gsd_m[1]:g} m a pixel; "
            "bands that are optional and missing are 0"
        ),
        "value_scaling": [{"type": "z-score", "mean": band.mean, "stddev": band.std} for band in bundle.bands],
        "resize_type": None,
        "pre_processing_function": None,
    }
    model_output = {
        "name": "classes",
        "tasks": [_TASK],
        "result": _structure(sizes["classes"], bundle.tile, "classes"),
        "classification:classes": entries,
        "post_processing_function": None,
    }
    properties = {
        "datetime": (created or datetime.now(UTC)).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "description": bundle.description or bundle.name,
        "license": bundle.licence,
        "mlm:name": bundle.name,
        "mlm:architecture": bundle.architecture,
        "mlm:framework": "ONNX" if bundle.is_graph else "PyTorch",
        "mlm:tasks": [_TASK],
        "mlm:input": [model_input],
        "mlm:output": [model_output],
        "mlm:hyperparameters": {"encoder": bundle.encoder, "decoder": bundle.decoder},
    }
    files = {bundle.weights_file: bundle.sha256, **bundle.files}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM, _FILE, _CLASSIFICATION],
        "id": bundle.name,
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": {name: _asset(name, sha256, main=name == bundle.weights_file) for name, sha256 in files.items()}
        | {"model.json": {"href": "./model.json", "type": "application/json", "roles": ["metadata"]}},
    }


def _structure(channels: int, tile: int, axis: str) -> dict[str, Any]:
    return {
        "shape": [-1, channels, tile, tile],
        "dim_order": ["batch", axis, "height", "width"],
        "data_type": "float32",
    }


def _asset(name: str, sha256: str, *, main: bool) -> dict[str, Any]:
    media, artifact = _KINDS[name]
    return {
        "href": f"./{name}",
        "type": media,
        "title": "The network" if main else "The network in int8",
        "roles": ["mlm:model", "mlm:weights"] if main else ["mlm:weights"],
        "mlm:artifact_type": artifact,
        "file:checksum": f"{_SHA256_MULTIHASH}{sha256}",
    }
