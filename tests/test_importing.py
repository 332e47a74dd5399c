"""Networks from elsewhere become models, or are refused with what does not fit; nothing runs code unasked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from safetensors.torch import save_file
from scenes import save_small_bundle, smooth_pixels, write_scene

from geoseg.config import Settings
from geoseg.errors import BundleError, UsageError
from geoseg.model import EngineChoice, open_engine
from geoseg.model.importing import import_model
from geoseg.model.network import load_network
from geoseg.workflow import segment_scene

KEYS = ("name", "architecture", "encoder", "decoder", "bands", "scaling", "gsd_m", "tile", "legend", "licence")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return save_small_bundle(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def network(small):
    return load_network(small)


@pytest.fixture
def description(small):
    return {key: small.to_json()[key] for key in KEYS}


def graph_of(description):
    return description | {"architecture": "ONNX", "encoder": "none", "decoder": {"output": "logits"}}


def levels_of(bundle, **choice):
    tile = np.random.default_rng(0).standard_normal((4, 64, 64)).astype(np.float32)
    return open_engine(bundle, EngineChoice(device="cpu", precision="fp32", **choice), 64)(tile).astype(int)


def write_weights(folder, network, form):
    weights = network.state_dict()
    path = folder / f"weights.{'safetensors' if form == 'safetensors' else 'pth'}"
    if form == "safetensors":
        save_file(weights, path)
    elif form == "lightning":
        torch.save({"epoch": 3, "state_dict": {f"model.{key}": value for key, value in weights.items()}}, path)
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("form", ["plain", "lightning", "safetensors"])
def test_weights_become_the_model_that_they_are_of(small, network, description, tmp_path, form):
    made = import_model(write_weights(tmp_path, network, form), description, tmp_path / "made")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "item.json",
        "model.json",
        "weights.safetensors",
    ]
    np.testing.assert_array_equal(levels_of(made), levels_of(small))


def export(network, path, *, output="logits", channels=4):
    if output == "probabilities":
        network = torch.nn.Sequential(network, torch.nn.Softmax(dim=1)).eval()
    torch.onnx.export(network, (torch.zeros(1, channels, 64, 64),), str(path), dynamo=False)
    return path


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_an_onnx_network_gives_what_its_weights_give(small, network, description, tmp_path, output):
    given = graph_of(description) | {"decoder": {"output": output}}
    made = import_model(export(network, tmp_path / "given.onnx", output=output), given, tmp_path / "made")
    for engine in ("openvino", "onnx"):
        assert np.abs(levels_of(made, engine=engine) - levels_of(small)).max() <= 2
    with pytest.raises(UsageError, match="is an ONNX network; use --engine openvino or onnx"):
        levels_of(made, engine="torch")


def test_an_onnx_model_segments_a_scene_as_its_weights_do(small, network, description, tmp_path):
    made = import_model(export(network, tmp_path / "given.onnx"), graph_of(description), tmp_path / "made")
    scene = write_scene(tmp_path / "a.tif", smooth_pixels((100, 90)))
    rasters = []
    for bundle in (small, made):
        segment_scene(scene, tmp_path / bundle.architecture, Settings(model=str(bundle.path), vectors=False))
        with rasterio.open(tmp_path / bundle.architecture / "classes.tif") as raster:
            rasters.append(raster.read(1))
    assert (rasters[0] == rasters[1]).mean() > 0.999


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
def test_programs_run_once_and_only_where_they_are_trusted(small, network, description, tmp_path, kind):
    example = torch.zeros(1, 4, 64, 64)
    if kind == "torchscript":
        path = tmp_path / "program.pt"
        torch.jit.trace(network, example).save(path)
    else:
        path = tmp_path / "program.pt2"
        torch.export.save(torch.export.export(network, (example,)), path)
    with pytest.raises(UsageError, match="--trust-model-code runs it, once"):
        import_model(path, graph_of(description), tmp_path / "made")
    with pytest.raises(UsageError, match="is a program"):
        import_model(path, description, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    made = import_model(path, graph_of(description), tmp_path / "made", trust_code=True)
    assert sorted(file.name for file in (tmp_path / "made").iterdir()) == ["item.json", "model.json", "network.onnx"]
    assert np.abs(levels_of(made) - levels_of(small)).max() <= 2


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil-ran"),))


def test_a_checkpoint_runs_no_code(network, description, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": network.state_dict(), "hook": Evil()}, "evil.pth")
    with pytest.raises(BundleError, match="holds more than weights"):
        import_model(Path("evil.pth"), description, tmp_path / "made")
    assert not (tmp_path / "evil-ran").exists()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"encoder": "resnet34"}, BundleError, "does not fit Unet on resnet34: .* differences, first: encoder"),
        (
            {"bands": [{"role": "red", "mean": 0, "std": 1}]},
            BundleError,
            r"is \(64, 4, 7, 7\), the network has \(64, 1",
        ),
        ({"architecture": "Nothing"}, BundleError, "no architecture 'Nothing'"),
        ({"colour": "red"}, UsageError, "there is no key 'colour'"),
        ({"legend": None}, UsageError, "the key 'legend' is missing"),
        ({"tile": 100}, BundleError, "multiple of 32"),
    ],
)
def test_what_does_not_fit_is_told(network, description, tmp_path, changes, error, message):
    path = write_weights(tmp_path, network, "plain")
    given = {key: value for key, value in (description | changes).items() if value is not None}
    with pytest.raises(error, match=message):
        import_model(path, given, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_graphs_that_do_not_fit_are_refused(network, description, tmp_path):
    path = export(network, tmp_path / "given.onnx")
    fewer = graph_of(description) | {"legend": description["legend"][:3]}
    with pytest.raises(BundleError, match=r"gives \(1, 5, 64, 64\) for a tile; by its legend small should give \(1, 3"):
        import_model(path, fewer, tmp_path / "made")
    with pytest.raises(BundleError, match="OpenVINO cannot run it"):
        import_model(path, graph_of(description) | {"bands": description["bands"][:3]}, tmp_path / "made")
    with pytest.raises(BundleError, match="output: logits or probabilities"):
        import_model(path, graph_of(description) | {"decoder": {}}, tmp_path / "made")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(BundleError, match="OpenVINO cannot run it"):
        import_model(tmp_path / "text.onnx", graph_of(description), tmp_path / "made")
    with pytest.raises(UsageError, match="cannot be read"):
        import_model(tmp_path / "missing.onnx", graph_of(description), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_the_command_puts_a_model_where_its_name_finds_it(network, description, tmp_path, monkeypatch, capsys):
    from geoseg.cli import main  # noqa: PLC0415

    monkeypatch.setenv("GEOSEG_MODELS", str(tmp_path / "models"))
    path = write_weights(tmp_path, network, "plain")
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(description | {"name": "mine"}))))
    monkeypatch.setattr("sys.argv", ["geoseg", "models", "import", str(path), str(tmp_path / "model.yaml")])
    main()
    with pytest.raises(SystemExit) as leave:
        main()
    assert leave.value.code == 2
    told = capsys.readouterr()
    assert told.out.strip() == str(tmp_path / "models" / "mine")
    assert "holds a model already" in told.err
