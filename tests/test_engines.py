"""Engines: each gives what torch gives, whatever runs beside it; which is taken, and what an int8 network may lose."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import save
from scenes import ROLES, save_small_bundle, smooth_pixels, write_scene

from geoseg.config import Settings
from geoseg.errors import BundleError, EnvironmentFault, UsageError
from geoseg.model import LEVELS, BundleEngine, EngineChoice, choose_engine, engine_of, hardware, lanes_of, load_bundle
from geoseg.model import open_engine as opened
from geoseg.model import save_bundle as saved
from geoseg.model.exported import ExportError, cache_folder, exported_network
from geoseg.model.network import build_network
from geoseg.workflow import segment_scene
from geoseg.workflow.exporting import Evidence, export_graph, export_int8
from geoseg.workflow.info import describe_model, model_text

GRAPHS = ("openvino", "onnx")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_small_bundle(tmp_path_factory.mktemp("models") / "small")


def on(engine="auto", precision="fp32", **choice):
    return EngineChoice(engine=engine, device="cpu", precision=precision, **choice)


def tiles_of(count, side=64):
    return np.random.default_rng(0).standard_normal((count, 4, side, side)).astype(np.float32)


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("engine", GRAPHS)
def test_every_engine_gives_the_levels_of_torch(bundle, engine, side):
    exact, other = opened(bundle, on("torch"), 64), opened(bundle, on(engine), 64)
    for tile in tiles_of(3, side):
        levels = other(tile)
        assert levels.dtype == np.int16
        assert levels.shape == (5, side, side)
        assert np.abs(levels.astype(int) - exact(tile)).max() <= 2


@pytest.mark.parametrize("engine", GRAPHS)
def test_bits_do_not_depend_on_what_runs_beside_them(bundle, engine):
    alone = opened(bundle, on(engine, threads=1), 64)
    source = BundleEngine(bundle.path, bundle.sha256, on(engine, threads=3), 64)
    tiles = tiles_of(12)
    together = [lanes_of(source).submit(0, engine_of(source), tile) for tile in tiles]
    for tile, levels in zip(tiles, together, strict=True):
        np.testing.assert_array_equal(alone(tile), levels.result())


@pytest.mark.parametrize(
    ("architecture", "encoder", "decoder"),
    [
        *((name, "resnet18", {}) for name in ("DeepLabV3Plus", "FCN", "FPN", "MAnet", "Segformer")),
        ("Unet", "tu-tf_efficientnet_lite0", {"decoder_channels": [32, 16, 16, 8, 8]}),
        ("SiameseUnet", "resnet18", {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}),
    ],
)
def test_every_architecture_becomes_a_graph(tmp_path, bundle, architecture, encoder, decoder):
    torch.manual_seed(3)
    network = build_network(architecture, encoder, 4, 5, decoder)
    changed = replace(bundle, architecture=architecture, encoder=encoder, decoder=decoder)
    other = saved(changed, save(network.state_dict()), tmp_path)
    tile = tiles_of(1)[0]
    difference = opened(other, on("torch"), 64)(tile).astype(int) - opened(other, on("openvino"), 64)(tile)
    assert np.abs(difference).max() <= 2


def test_a_network_that_onnx_cannot_say_runs_in_torch_unless_it_must_not(tmp_path, bundle):
    network = build_network("UPerNet", "resnet18", 4, 5, {})
    other = saved(replace(bundle, architecture="UPerNet", decoder={}), save(network.state_dict()), tmp_path)
    assert opened(other, on("auto"), 64).name == "torch cpu float32"
    with pytest.raises(ExportError, match=r"UPerNet on resnet18 cannot be exported as ONNX .* use --engine torch"):
        opened(other, on("openvino"), 64)


@pytest.mark.parametrize(
    ("wanted", "gpu", "bf16", "agreement", "engine", "precision"),
    [
        ({}, False, False, 1.0, "openvino", "fp32"),
        ({}, False, True, 1.0, "openvino", "bf16"),
        ({}, False, True, 0.99, "openvino", "fp32"),
        ({}, False, True, None, "openvino", "fp32"),
        ({"engine": "torch"}, False, True, 1.0, "torch", "bf16"),
        ({"engine": "onnx"}, True, True, 1.0, "onnx", "fp32"),
        ({"precision": "bf16"}, False, False, None, "openvino", "bf16"),
        ({"engine": "openvino", "device": "auto"}, True, False, None, "openvino", "fp32"),
    ],
)
def test_what_is_chosen_follows_machine_and_record(
    bundle, monkeypatch, wanted, gpu, bf16, agreement, engine, precision
):
    monkeypatch.setattr("geoseg.model.engine.may_have_gpu", lambda: gpu)
    monkeypatch.setattr("geoseg.model.engine.bf16_pays", lambda: bf16)
    known = replace(bundle, agreement={} if agreement is None else {"bf16": agreement})
    chosen = choose_engine(known, EngineChoice(**wanted))
    assert (chosen.engine, chosen.device, chosen.precision) == (engine, "cpu", precision)


def test_a_model_says_how_far_other_precisions_can_be_trusted():
    assert re.search(r"as fp32  bf16 99\.\d%, int8 98\.\d% of pixels", model_text(describe_model("aerial")))


def test_without_openvino_torch_runs_the_network(bundle, monkeypatch):
    monkeypatch.setattr("geoseg.model.engine.find_spec", lambda _: None)
    assert choose_engine(bundle, on()).engine == "torch"
    monkeypatch.setitem(sys.modules, "openvino", None)  # which makes an import of it fail
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for engine in GRAPHS:
        with pytest.raises(EnvironmentFault, match="is not installed; pip install"):
            opened(bundle, on(engine), 64)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"engine": "onnx", "precision": "bf16"}, "none of what --engine onnx takes: auto, fp32"),
        ({"engine": "torch", "precision": "int8"}, "none of what --engine torch takes"),
        ({"engine": "openvino", "device": "cuda"}, "runs on the CPU alone"),
        ({"precision": "fp16", "device": "cpu", "engine": "torch"}, "fp16 runs on a GPU alone"),
        ({"precision": "int8"}, "has no int8 weights; make them with geoseg export --int8"),
    ],
)
def test_choices_that_cannot_be_are_refused(bundle, wanted, message):
    with pytest.raises(UsageError, match=message):
        choose_engine(bundle, EngineChoice(**wanted))


def test_hardware_is_read_from_what_the_system_says(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "_DRIVERS", (str(tmp_path / "none"), str(tmp_path)))
    assert hardware.may_have_gpu()
    monkeypatch.setattr(hardware, "_DRIVERS", (str(tmp_path / "none"),))
    assert hardware.may_have_gpu() == (sys.platform != "linux")


def test_a_second_start_loads_no_torch(bundle, tmp_path):
    exported_network(bundle, 64)
    scene = write_scene(tmp_path / "a.tif", smooth_pixels((96, 80)))
    code = (
        "import sys\nfrom geoseg.cli import main\n"
        f"sys.argv = ['geoseg', 'segment', {str(scene)!r}, '--out', {str(tmp_path / 'run')!r}, '--model', "
        f"{str(bundle.path)!r}, '--quiet', '--device', 'cpu']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('torch' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["workers"]


def test_the_cache_keeps_one_file_a_network_and_forgets_the_oldest(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("geoseg.model.exported._KEPT", 2)
    first = exported_network(bundle, 64)
    assert first.parent == cache_folder() == tmp_path / "cache"
    content = first.read_bytes()
    assert exported_network(bundle, 64) == first
    assert exported_network(bundle, 96) != first
    assert exported_network(bundle, 64).read_bytes() == content
    exported_network(bundle, 128)
    assert first.is_file()
    assert len(list(first.parent.iterdir())) == 2


def test_without_a_place_for_a_cache_the_network_still_runs(bundle, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("GEOSEG_CACHE", str(blocked / "cache"))
    path = exported_network(bundle, 64)
    assert path.is_file()
    assert blocked not in path.parents


def test_damaged_weights_are_refused_though_the_cache_has_good_ones(bundle, tmp_path):
    copy = saved(bundle, (bundle.path / "weights.safetensors").read_bytes(), tmp_path)
    exported_network(copy, 64)
    (tmp_path / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(BundleError, match="damaged or was changed"):
        opened(copy, on("openvino"), 64)


@pytest.mark.parametrize(("views", "count"), [("flip", 2), ("d4", 8)])
def test_views_are_averaged_and_turn_with_the_tile(bundle, views, count):
    engine = opened(bundle, on(tta=views), 64)
    assert engine.name.endswith(f"fp32 {views}")
    plain = opened(bundle, on(), 64)
    tile = tiles_of(1)[0]
    moves = [lambda x, k=k, m=m: np.rot90(x[:, :, ::-1] if m else x, k, (1, 2)) for m in (0, 1) for k in range(4)]
    moves = moves[::4] if views == "flip" else moves
    assert len(moves) == count

    def undone(levels, k, m):
        back = np.rot90(levels, -k, (1, 2))
        return back[:, :, ::-1] if m else back

    turns = [(0, 0), (0, 1)] if views == "flip" else [(k, m) for m in (0, 1) for k in range(4)]
    mean = np.mean(
        [
            undone(plain(np.ascontiguousarray(move(tile))), *turn).astype(float)
            for move, turn in zip(moves, turns, strict=True)
        ],
        axis=0,
    )
    assert np.abs(engine(tile) - mean).max() <= 0.5
    # What is averaged over all views turns exactly as the tile does.
    for move in moves:
        np.testing.assert_array_equal(engine(np.ascontiguousarray(move(tile))), move(engine(tile)))
    assert engine(tiles_of(1, 96)[0][:, :64]).shape == (5, 64, 96)


def test_a_scene_that_is_looked_at_from_all_sides_turns_with_its_classes(bundle, tmp_path):
    """One tile, mirrored: with `flip` its classes are the mirror image, without they are not quite."""
    pixels = smooth_pixels((64, 64))
    found = {}
    for views in ("none", "flip"):
        for name, shown in (("plain", pixels), ("mirrored", pixels[:, :, ::-1])):
            out = tmp_path / f"{views}_{name}"
            scene = write_scene(tmp_path / f"{out.name}.tif", shown)
            result = segment_scene(scene, out, Settings(model=str(bundle.path), tta=views, device="cpu", vectors=False))
            with rasterio.open(out / "confidence.tif") as raster:
                found[views, name] = raster.read(1)
        assert (" flip" in json.dumps(result.manifest)) == (views == "flip")
    np.testing.assert_array_equal(found["flip", "mirrored"], found["flip", "plain"][:, ::-1])
    assert (found["none", "mirrored"] != found["none", "plain"][:, ::-1]).any()


@pytest.mark.parametrize("engine", GRAPHS)
def test_a_scene_gets_the_classes_that_torch_gives(bundle, tmp_path, engine):
    scene = write_scene(tmp_path / "a.tif", smooth_pixels((150, 130)))
    rasters = {}
    for name in ("torch", engine):
        settings = Settings(model=str(bundle.path), engine=name, precision="fp32", device="cpu", vectors=False)
        segment_scene(scene, tmp_path / name, settings)
        with rasterio.open(tmp_path / name / "classes.tif") as raster:
            rasters[name] = raster.read(1)
    assert (rasters["torch"] == rasters[engine]).mean() > 0.999


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that tells bright from dark, and scenes with their classes."""
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    decoder = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    network = build_network("Unet", "resnet18", 4, 5, decoder)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    rng = np.random.default_rng(0)
    for _ in range(60):
        bright = np.kron(rng.random((4, 1, 8, 8)) > 0.5, np.ones((1, 1, 8, 8)))
        images = bright * 2 - 1 + 0.2 * rng.standard_normal((4, 4, 64, 64))
        loss = torch.nn.functional.cross_entropy(
            network(torch.from_numpy(images.astype(np.float32))), torch.from_numpy(bright[:, 0].astype(np.int64))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    bundle = save_small_bundle(folder / "model")
    bundle = saved(bundle, save(network.eval().state_dict()), folder / "model")
    for name in ("scenes", "labels"):
        (folder / name).mkdir()
    for k in range(3):
        bright = np.kron(rng.random((16, 16)) > 0.5, np.ones((8, 8))).astype(np.uint8)
        pixels = np.clip(70 + 130 * bright + rng.normal(0, 8, (4, 128, 128)), 1, 255).astype(np.uint8)
        write_scene(folder / "scenes" / f"{k}.tif", pixels, descriptions=ROLES)
        write_scene(folder / "labels" / f"{k}.tif", bright[None])
    return bundle, folder


def evidence_of(folder):
    scenes = str(folder / "scenes")
    return Evidence((f"{scenes}/[01].tif",), ((f"{scenes}/2.tif", str(folder / "labels")),))


@pytest.mark.slow
def test_an_int8_network_is_judged_kept_and_run(trained, tmp_path):
    bundle, folder = trained
    said = []
    made = export_int8(str(bundle.path), tmp_path / "int8", evidence_of(folder), said.append)
    assert load_bundle(tmp_path / "int8") == made
    assert sorted(made.files) == ["int8.bin", "int8.xml"]
    assert made.agreement["int8"] > 0.95
    judged = made.scores["int8"]
    assert judged["fp32_mean_iou"] > 0.8
    assert judged["fp32_mean_iou"] - judged["mean_iou"] <= 0.005
    assert "16 tiles to calibrate on" in said[0]  # two scenes of four tiles, each with and without near infrared

    settings = Settings(model=str(made.path), precision="int8", device="cpu", vectors=False)
    result = segment_scene(folder / "scenes" / "2.tif", tmp_path / "run", settings)
    record = json.loads((result.folder / "run.json").read_text())
    assert "openvino cpu int8" in json.dumps(record)
    with rasterio.open(tmp_path / "run" / "classes.tif") as found, rasterio.open(folder / "labels" / "2.tif") as truth:
        assert (found.read(1) == truth.read(1)).mean() > 0.9

    with pytest.raises(UsageError, match="for tiles of 64, not 96"):
        opened(made, on("openvino", "int8"), 96)
    (tmp_path / "int8" / "int8.bin").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"int8\.bin is damaged or was changed"):
        opened(made, on("openvino", "int8"), 64)


@pytest.mark.slow
def test_an_int8_network_that_loses_too_much_is_refused(trained, tmp_path, monkeypatch):
    bundle, folder = trained
    monkeypatch.setattr("geoseg.workflow.exporting.MOST_LOST", -1.0)  # it would have to be much better than fp32
    monkeypatch.setattr("geoseg.workflow.exporting.SPARED", (0, 2))
    said = []
    with pytest.raises(UsageError, match="whatever layers are spared"):
        export_int8(str(bundle.path), tmp_path / "int8", evidence_of(folder), said.append)
    assert [line.split(":")[0] for line in said[1:]] == ["0 layers in floats", "2 layers in floats"]
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize(
    ("calibration", "validation", "message"),
    [
        ("nothing/*.tif", ("scenes/2.tif", "labels"), "names no raster"),
        ("scenes", ("scenes", "scenes/0.tif"), "names 3 scenes"),
        ("scenes", ("scenes", "empty"), "has no file with the name"),
    ],
)
def test_scenes_that_are_not_there_are_told(trained, tmp_path, calibration, validation, message):
    bundle, folder = trained
    (folder / "empty").mkdir(exist_ok=True)
    first, second = (str(folder / part) for part in validation)
    with pytest.raises(UsageError, match=message):
        export_int8(str(bundle.path), tmp_path / "x", Evidence((str(folder / calibration),), ((first, second),)))


def test_a_network_as_onnx_runs_elsewhere(bundle, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = export_graph(str(bundle.path), tmp_path / "new" / "network.onnx")
    assert [file.name for file in path.parent.iterdir()] == ["network.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    levels = session.run(["levels"], {"tile": tiles_of(1)})[0]
    assert levels.shape == (1, 5, 64, 64)
    assert np.abs(levels.sum(axis=1, dtype=int) - LEVELS).max() <= 3
