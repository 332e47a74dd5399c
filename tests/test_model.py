"""Bundles say what they are, damaged ones are refused, and tiles fit the ground."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import save_small_bundle, smooth_pixels, write_scene

from geoseg.errors import BundleError, EnvironmentFault, GsdError, UsageError
from geoseg.legend import LAND_COVER, Legend
from geoseg.model import (
    LEVELS,
    BundleEngine,
    EngineChoice,
    engine_of,
    find_bundle,
    fit_to_gsd,
    known_bundles,
    lanes_of,
    load_bundle,
    open_engine,
)
from geoseg.model.network import ARCHITECTURES, build_network
from geoseg.workflow.info import describe_scene, models_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    save_small_bundle(folder)
    return folder


def edited(folder: Path, tmp_path: Path, **changes: object) -> Path:
    """A copy of a bundle with other keys in model.json; a key given as None is taken out."""
    copy = tmp_path / "edited"
    copy.mkdir()
    (copy / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    data = json.loads((folder / "model.json").read_text()) | changes
    (copy / "model.json").write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return copy


def test_a_bundle_survives_being_saved(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.needs.required == ("red", "green", "blue")
    assert bundle.legend == LAND_COVER
    assert type(bundle).from_json(bundle.to_json(), folder) == bundle
    assert find_bundle(folder) == bundle


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"legend": None}, "'legend' is missing"),
        ({"tile": 100}, "multiple of 32"),
        ({"gsd_m": [2, 1]}, "gsd_m"),
        ({"bands": []}, "bands"),
        ({"format": "other/1"}, "format"),
        ({"scaling": {}}, "scaling"),
        ({"encoder": "tu-hf-hub:some/model"}, "no plain name"),
        ({"encoder": "tu-local-dir:/tmp"}, "no plain name"),
        ({"bands": [{"role": "red", "mean": 0, "std": float("nan")}]}, "std above 0"),
        ({"bands": 5}, "is not a model bundle"),
        ({"decoder": 5}, "is not a model bundle"),
        ({"tile": float("inf")}, "is not a model bundle"),
        ({"legend": [{"code": 300, "name": "x", "color": "#000000", "kind": "area"}]}, "0..254"),
    ],
)
def test_a_bundle_that_contradicts_itself_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(BundleError, match=message) as error:
        load_bundle(edited(folder, tmp_path, **changes))
    assert "model.json" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "resnet34"}, "differences"),
        ({"architecture": "DeepLabV3Plus", "decoder": {}}, "differences"),
        ({"architecture": "Nonsense"}, "no architecture"),
        ({"encoder": "no_such_encoder"}, "cannot build"),
        ({"decoder": {"no_such_option": 1}}, "cannot build"),
        ({"weights": {"sha256": "0" * 64}}, "damaged or was changed"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        open_engine(load_bundle(edited(folder, tmp_path, **changes)), EngineChoice(device="cpu"), 64)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"SiameseUnet"}))
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (4, 5), (13, 9)])
def test_networks_take_any_number_of_bands_and_classes(architecture: str, channels: int, classes: int) -> None:
    encoder = "tu-vit_tiny_patch16_224" if architecture == "DPT" else "resnet18"
    network = build_network(architecture, encoder, channels, classes, {}).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, channels, 128, 160)).shape == (1, classes, 128, 160)


def test_models_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="no model 'nothing'"):
        find_bundle("nothing")


@pytest.fixture
def own_models(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    models = tmp_path / "models"
    shutil.copytree(folder, models / "mine")
    shutil.copytree(folder, models / "broken")
    (models / "broken" / "model.json").write_text("{")
    monkeypatch.setenv("GEOSEG_MODELS", str(models))
    return models


def test_one_broken_bundle_hides_no_other(own_models: Path, tmp_path: Path) -> None:
    assert known_bundles()["mine"] == own_models / "mine"
    rows = {row.split()[0]: row for row in models_text().splitlines()}
    assert "red+green+blue+nir" in rows["mine"]
    assert "damaged: " in rows["broken"]
    assert "model.json is not JSON" in rows["broken"]
    described = describe_scene(write_scene(tmp_path / "a.tif", smooth_pixels((8, 8))))
    fits = {fit["model"]: fit for fit in described["models"]}
    assert fits["mine"]["fits"]
    assert fits["broken"]["why"].startswith("damaged: ")
    assert (described["scales"], described["offsets"]) == ([1.0] * 4, [0.0] * 4)


def test_a_known_name_wins_over_a_folder_in_the_way(
    own_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    shutil.copytree(own_models / "mine", here / "mine")
    monkeypatch.chdir(here)
    assert find_bundle("mine").path == own_models / "mine"
    assert find_bundle("./mine").path == here / "mine"
    assert find_bundle(Path("./mine").absolute()).path == here / "mine"


def test_a_bundle_is_a_stac_item_too(folder: Path) -> None:
    """As the extension's schema has it: required fields, patterns, and a model among the assets."""
    bundle, item = load_bundle(folder), json.loads((folder / "item.json").read_text())
    assert (item["type"], item["stac_version"], item["geometry"]) == ("Feature", "1.1.0", None)
    assert any(extension.endswith("/mlm/v1.4.0/schema.json") for extension in item["stac_extensions"])
    told = item["properties"]
    for key in ("name", "architecture", "framework", "tasks", "input", "output"):
        assert told[f"mlm:{key}"]
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.-]+[a-zA-Z0-9]", told["mlm:name"])
    assert told["mlm:input"][0]["input"]["shape"] == [-1, 4, 64, 64]
    assert [band["name"] for band in told["mlm:input"][0]["bands"]] == ["red", "green", "blue", "nir"]
    assert told["mlm:output"][0]["result"]["shape"] == [-1, 5, 64, 64]
    classes = told["mlm:output"][0]["classification:classes"]
    assert [entry["value"] for entry in classes] == list(bundle.legend.codes)
    assert all(re.fullmatch(r"[0-9A-F]{6}", entry["color_hint"]) for entry in classes)
    models = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    assert [asset["href"] for asset in models] == ["./weights.safetensors"]
    assert models[0]["file:checksum"] == "1220" + bundle.sha256
    assert "mlm:artifact_type" in models[0]


@pytest.mark.parametrize("encoder", ["tu-hf-hub:some/model", "tu-local-dir:/tmp", "../resnet18", ""])
def test_encoders_that_would_be_fetched_are_refused(encoder: str) -> None:
    with pytest.raises(BundleError, match="no plain name"):
        build_network("Unet", encoder, 3, 2, {})


def test_probabilities_add_up_and_do_not_depend_on_company(folder: Path) -> None:
    bundle = load_bundle(folder)
    source = BundleEngine(folder, bundle.sha256, EngineChoice(device="cpu", precision="fp32", threads=3), 64)
    engine = engine_of(source)
    assert engine.lanes == 3
    rng = np.random.default_rng(0)
    tiles = rng.standard_normal((9, 4, 64, 64)).astype(np.float32)
    together = [future.result() for future in [lanes_of(source).submit(0, engine, tile) for tile in tiles]]
    for tile, levels in zip(tiles, together, strict=True):
        assert levels.shape == (5, 64, 64)
        assert levels.dtype == np.int16
        assert np.abs(levels.astype(int).sum(axis=0) - LEVELS).max() <= 3
        np.testing.assert_array_equal(engine(tile), levels)


def test_one_engine_a_process_however_many_ask_at_once(folder: Path) -> None:
    source = BundleEngine(folder, load_bundle(folder).sha256, EngineChoice(device="cpu", threads=2), 96)
    with ThreadPoolExecutor(8) as pool:
        assert len({id(engine) for engine in pool.map(engine_of, [source] * 8)}) == 1
        assert len({id(lanes) for lanes in pool.map(lanes_of, [source] * 8)}) == 1


def test_tiles_of_another_size_come_back_in_it(folder: Path) -> None:
    engine = open_engine(load_bundle(folder), EngineChoice(device="cpu", precision="fp32"), 64)
    assert engine(np.zeros((4, 150, 90), np.float32)).shape == (5, 150, 90)


@pytest.mark.parametrize("precision", ["bf16"])
def test_bf16_gives_nearly_the_same(folder: Path, precision: str) -> None:
    bundle = load_bundle(folder)
    tile = np.random.default_rng(1).standard_normal((4, 64, 64)).astype(np.float32)
    exact = open_engine(bundle, EngineChoice(device="cpu", precision="fp32"), 64)(tile)
    rounded = open_engine(bundle, EngineChoice(device="cpu", precision=precision), 64)(tile)
    assert np.abs(exact.astype(int) - rounded).mean() < LEVELS / 50


def test_what_the_machine_lacks_is_said(folder: Path) -> None:
    bundle = load_bundle(folder)
    with pytest.raises(EnvironmentFault, match="CUDA"):
        open_engine(bundle, EngineChoice(device="cuda:99"), 64)
    for choice in (EngineChoice(device="tpu"), EngineChoice(precision="int4"), EngineChoice(engine="magic")):
        with pytest.raises(UsageError):
            open_engine(bundle, choice, 64)


@pytest.mark.parametrize(
    ("gsd", "scene"),
    [
        ((1.0, 1.0), (512, 512)),
        ((0.28, 0.28), (512, 512)),
        ((0.1, 0.1), (1536, 1536)),
        ((3.0, 3.0), (256, 256)),
        ((1.0, 0.5), (362, 724)),
    ],
)
def test_tiles_cover_the_ground_the_model_knows(gsd: tuple[float, float], scene: tuple[int, int]) -> None:
    assert fit_to_gsd(gsd, (0.3, 1.5), 512, name="a.tif").scene == scene


@pytest.mark.parametrize("gsd", [10.0, 3.1, 0.02])
def test_what_no_resampling_helps_is_refused_unless_forced(gsd: float) -> None:
    with pytest.raises(GsdError, match=r"a\.tif has a GSD of .* 0\.3 to 1\.5 m.*--force"):
        fit_to_gsd((gsd, gsd), (0.3, 1.5), 512, name="a.tif")
    forced = fit_to_gsd((gsd, gsd), (0.3, 1.5), 512, name="a.tif", force=True)
    assert forced.scene == (512, 512)
    assert "forced" in forced.notice


def test_legends_that_no_raster_can_hold_are_refused() -> None:
    building = LAND_COVER.classes[1]
    for wrong in ((), (building, building), (replace(building, code=255),), (replace(building, color="red"),)):
        with pytest.raises(BundleError):
            Legend(tuple(wrong))
