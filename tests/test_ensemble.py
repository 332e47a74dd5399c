"""Several models as one: its probabilities are the mean of theirs, on every engine, and it says what it is made of."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from scenes import save_small_bundle, smooth_pixels, write_scene

from geoseg.cli.main import geoseg
from geoseg.config import Settings
from geoseg.errors import BundleError, EnvironmentFault, UsageError
from geoseg.legend import ClassEntry, Legend
from geoseg.model import LEVELS, EngineChoice, ModelBand, load_bundle, open_engine
from geoseg.model.ensemble import average_models
from geoseg.model.stac import mlm_item
from geoseg.training import TrainConfig
from geoseg.workflow import segment_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ensembles")


@pytest.fixture(scope="module")
def models(folder):
    shallow = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    return [
        save_small_bundle(folder / "one", card={"data": ["A", "B"], "labels": "by hand"}),
        save_small_bundle(folder / "two", seed=8, gsd_m=(0.5, 2.0), card={"data": ["B", "C"], "labels": "by hand"}),
        save_small_bundle(folder / "three", seed=9, encoder="resnet34", decoder=shallow, tile=96),
    ]


@pytest.fixture(scope="module")
def mean(models, folder):
    return load_bundle(average_models(models, "mean", folder / "mean").path)


def levels(bundle, tile, engine="torch"):
    return open_engine(bundle, EngineChoice(device="cpu", engine=engine, precision="fp32"), 64)(tile).astype(float)


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnx"])
def test_its_probabilities_are_the_mean_of_theirs(models, mean, engine):
    tile = np.random.default_rng(0).standard_normal((4, 64, 64)).astype(np.float32)
    wanted = sum(levels(bundle, tile) for bundle in models) / len(models)
    found = levels(mean, tile, engine)
    assert np.abs(found - wanted).max() <= 2  # of 8191: each was rounded
    assert np.abs(found.sum(axis=0) - LEVELS).max() <= len(found)
    assert np.abs(found - levels(models[0], tile)).max() > 100


def test_it_says_what_it_is_made_of(mean):
    assert [member.encoder for member in mean.members] == ["resnet18", "resnet18", "resnet34"]
    assert (mean.encoder, mean.gsd_m, mean.tile, mean.scores, mean.agreement) == ("several", (0.5, 1.5), 64, {}, {})
    assert mean.card == {"data": ["A", "B", "C"], "labels": "by hand"}
    assert mlm_item(mean)["properties"]["mlm:hyperparameters"]["decoder"] == mean.decoder


def test_members_of_an_ensemble_count_as_one_each(models, folder):
    pair = average_models(models[:2], "pair", folder / "pair")
    nested = average_models([pair, models[2]], "nested", folder / "nested")
    tile = np.random.default_rng(1).standard_normal((4, 64, 64)).astype(np.float32)
    flat = average_models(models, "flat", folder / "flat")
    assert nested.members == flat.members
    np.testing.assert_array_equal(levels(nested, tile), levels(flat, tile))


def test_a_scene_is_segmented_by_it_and_the_command_makes_it(models, tmp_path):
    out = tmp_path / "both"
    made = CliRunner().invoke(geoseg, ["models", "average", *(str(m.path) for m in models[:2]), "--out", str(out)])
    assert made.output.strip() == str(out), made.output
    assert load_bundle(out).name == "both"
    again = CliRunner().invoke(geoseg, ["models", "average", *(str(m.path) for m in models[:2]), "--out", str(out)])
    assert again.exit_code == 2
    scene = write_scene(tmp_path / "scene.tif", smooth_pixels((130, 150)))
    result = segment_scene(scene, tmp_path / "run", Settings(model=str(out), vectors=False))
    record = json.loads((result.folder / "run.json").read_text())["model"]
    assert (record["architecture"], len(record["members"])) == ("Ensemble", 2)


def test_models_that_do_not_see_and_say_the_same_are_refused(models, tmp_path):
    one = models[0]
    fewer = replace(one, name="fewer", bands=one.bands[:3])
    bands = tuple(ModelBand(band.role, 0.4, 0.25, band.optional) for band in one.bands)
    legend = Legend((ClassEntry(0, "other", "#000000", "background"), ClassEntry(1, "field", "#00ff00", "area")))
    refused = {
        "fewer has other bands": fewer,
        "bands": replace(one, bands=bands),
        r"0 other \(background, #000000\), 1 field .*, not 0 background": replace(one, legend=legend),
        "no GSD": replace(one, gsd_m=(2.0, 3.0)),
        "ONNX": replace(one, architecture="ONNX", decoder={"output": "logits"}),
        "two dates": replace(one, architecture="SiameseUnet"),
    }
    for words, other in refused.items():
        with pytest.raises(UsageError, match=words):
            average_models([one, other], "mean", tmp_path / "mean")
    with pytest.raises(UsageError, match="two or more"):
        average_models([one], "mean", tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_what_cannot_be_read_or_written_is_told(models, tmp_path):
    one, two = (str(model.path) for model in models[:2])
    (tmp_path / "file").write_text("here already")
    damaged = tmp_path / "damaged"
    shutil.copytree(one, damaged)
    described = json.loads((damaged / "model.json").read_text())
    described["weights"]["sha256"] = hashlib.sha256(b"no tensors").hexdigest()
    (damaged / "weights.safetensors").write_bytes(b"no tensors")
    (damaged / "model.json").write_text(json.dumps(described))
    for out in ("file", "file/within"):
        with pytest.raises(EnvironmentFault, match="no model can be written there"):
            average_models(models[:2], "mean", tmp_path / out)
    with pytest.raises(BundleError, match="is not a safetensors file"):
        average_models([models[0], load_bundle(damaged)], "mean", tmp_path / "mean")
    shown = CliRunner().invoke(geoseg, ["models", "average", one, two, "--out", str(tmp_path / "a" / ".." / "b")])
    assert load_bundle(tmp_path / "b").name == "b", shown.output


def test_its_members_are_shown(mean):
    shown = CliRunner().invoke(geoseg, ["models", "show", str(mean.path)]).output
    assert "the mean of Unet on resnet18, Unet on resnet18, Unet on resnet34, tiles of 64 px" in shown


@pytest.mark.parametrize(
    "decoder",
    [
        {},
        {"members": []},
        {"members": [{"architecture": "Unet"}]},
        {"members": ["Unet"]},
        {"members": [{"architecture": "Ensemble", "encoder": "none"}]},
        {"members": [{"architecture": "Unet", "encoder": "hub:someone/something"}]},
    ],
)
def test_a_bundle_with_members_that_are_none_is_refused(mean, tmp_path, decoder):
    described = mean.to_json() | {"decoder": decoder}
    (tmp_path / "model.json").write_text(json.dumps(described))
    with pytest.raises(BundleError, match=r"model\.json: .*(member|ensemble|plain name)"):
        load_bundle(tmp_path)


def test_an_ensemble_is_not_trained(mean, tmp_path):
    given = {
        "name": "more", "licence": "CC0-1.0", "gsd_m": [0.3, 1.0],
        "data": [{"name": "d", "scenes": "*.tif", "labels": "{stem}.tif"}],
        "network": {"init": {"bundle": str(mean.path)}},
    }  # fmt: skip
    with pytest.raises(UsageError, match="train its members"):
        TrainConfig.from_mapping(given, tmp_path)
