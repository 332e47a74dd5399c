"""Training on small synthetic scenes: the same again, whatever happens; and nothing in the data goes unseen."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from PIL import Image
from pyproj import Transformer
from rasterio.features import shapes
from safetensors.torch import load_file
from shapely.geometry import shape
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geoseg.errors import BundleError, EnvironmentFault, FrameMismatchError, InputError, UsageError
from geoseg.frame import Box
from geoseg.legend import LAND_COVER
from geoseg.model import find_bundle
from geoseg.model.network import build_network, load_network
from geoseg.training import TrainConfig, load_config, train
from geoseg.training.augment import batch_of, network_input, repaint, vary_light
from geoseg.training.config import FitConfig, TeacherConfig
from geoseg.training.initial import initialise, initialise_encoder, spread_over_bands
from geoseg.training.loop import _parameter_groups, schedule, stored_weights, update_average, with_temperature
from geoseg.training.losses import SegmentationLoss
from geoseg.training.prune import is_narrower, prune_decoder
from geoseg.training.samples import IGNORE, SampleIndex, channel_table, gather
from geoseg.training.teacher import Teacher, divergence
from geoseg.training.validate import best_bias, headline, load_window, temperature, validate, windows_of

COLOURS = np.array([[180, 160, 120, 150], [200, 80, 60, 120], [90, 90, 100, 80], [60, 110, 50, 220], [30, 60, 110, 10]])
"""Red, green, blue, NIR of each class."""


def write_raster(path, pixels, *, epsg=32611, west=400_000.0):
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype="uint8", crs=epsg and f"EPSG:{epsg}",
        transform=Affine(0.6, 0, west, 0, -0.6, 3_700_000),
    ) as dataset:  # fmt: skip
        dataset.write(pixels.astype(np.uint8))
        if count == 4:
            dataset.descriptions = ("red", "green", "blue", "nir")


def write_place(folder, name, seed, *, size=96, bands=4, epsg=32611, without=None):
    """A scene of random rectangles with its labels, a few of them unknown or of a code of its own."""
    rng = np.random.default_rng(seed)
    codes = np.zeros((size, size), np.uint8)
    for number in range(24):
        row, col = rng.integers(0, size - 12, 2)
        codes[row : row + rng.integers(6, 24), col : col + rng.integers(6, 24)] = number % 5
    codes[codes == without] = 0
    codes[:4, :4], codes[-4:, -4:] = 5, 255
    seen = np.where(codes < 5, codes, 0)
    pixels = COLOURS[seen].transpose(2, 0, 1)[:bands] + rng.integers(-15, 16, (bands, size, size))
    west = 400_000.0 + 1000 * seed
    write_raster(folder / f"{name}.tif", np.clip(pixels, 0, 255), epsg=epsg, west=west)
    write_raster(folder / f"{name}_label.tif", codes[None], epsg=epsg, west=west)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    for seed, name in enumerate(("north_1", "north_2", "south_1", "rgb_1")):
        write_place(folder, name, seed, bands=3 if name.startswith("rgb") else 4)
    return folder


def mapping(**fit):
    return {
        "name": "tiny",
        "licence": "CC0-1.0",
        "gsd_m": [0.3, 1.5],
        "network": {"encoder": "tu-mobilenetv3_small_050", "decoder": {"decoder_channels": [16, 16, 8, 8, 8]}},
        "data": [
            {
                "name": "synthetic",
                "scenes": "*_[12].tif",
                "labels": "{stem}_label.tif",
                "pattern": r"^(?P<place>[a-z]+)_\d$",
                "hold_out": ["south"],
                "remap": {5: 255},
            }
        ],
        "augment": {"gsd_m": [0.4, 1.0], "cutout": 0.5},
        "fit": {
            "steps": 4, "batch": 2, "window": 64, "validation_window": 64, "warmup": 1, "validate_every": 2,
            "checkpoint_every": 1, "threads": 1,
        } | fit,
        "seed": 3,
    }  # fmt: skip


@pytest.fixture
def config(folder):
    return TrainConfig.from_mapping(mapping(), folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "teacher"),
    [("fp32", None), ("bf16", None), ("fp32", TeacherConfig("self", confidence=0.3, ramp=2))],
    ids=["fp32", "bf16", "taught by itself"],
)
def test_an_interrupted_training_ends_as_an_undisturbed_one_bit_for_bit(config, precision, teacher, tmp_path):
    config = replace(config, fit=replace(config.fit, precision=precision), teacher=teacher)
    undisturbed = train(config, tmp_path / "whole")

    def interrupt(line):
        if "step 2: mean IoU" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", progress=interrupt)
    assert torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=True)["step"] == 1
    lines: list[str] = []
    resumed = train(config, tmp_path / "broken", progress=lines.append)
    assert "goes on from step 1" in lines
    assert resumed.sha256 == undisturbed.sha256
    for name in ("history.json", "config.yaml", "bundle/model.json", "curves.png"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert [row["step"] for row in json.loads((tmp_path / "whole" / "history.json").read_text())] == [1, 2, 3, 4]

    with pytest.raises(UsageError, match=r"another configuration \(seed differ\)"):
        train(replace(config, seed=4), tmp_path / "whole")
    anew = replace(config, seed=4, fit=replace(config.fit, steps=1))
    assert train(anew, tmp_path / "whole", resume=False).sha256 != undisturbed.sha256


def test_the_bundle_runs_and_its_scores_are_those_of_its_stored_weights(config, tmp_path):
    bundle = train(config, tmp_path)
    weights = load_file(tmp_path / "bundle" / "weights.safetensors")
    assert {tensor.dtype for tensor in weights.values() if tensor.ndim > 1} == {torch.float16}
    assert {tensor.dtype for key, tensor in weights.items() if "running_" in key} == {torch.float32}

    _, held_out = gather(config)
    scores = validate(load_network(bundle).to(memory_format=torch.channels_last), config, held_out)
    assert bundle.scores["validation"] == scores
    source = bundle.scores["validation"]["synthetic"]
    assert source["places"] == ["south"]
    assert set(source) == {"places", "all_bands", "without_nir"}
    assert source["all_bands"]["pixels"] == 96 * 96 - 32  # without the unknown and the unmapped corner


def test_a_bias_is_added_once_to_what_was_trained_and_judged(config, tmp_path):
    config = replace(config, fit=replace(config.fit, calibrate=False))
    plain = train(config, tmp_path)
    head = "segmentation_head.0.bias"
    before = load_file(tmp_path / "bundle" / "weights.safetensors")
    biased = replace(config, fit=replace(config.fit, bias=(0.0, 50.0, 0.0, 0.0, 0.0)))
    lines: list[str] = []
    for _ in range(2):
        bundle = train(biased, tmp_path, progress=lines.append)
        after = load_file(tmp_path / "bundle" / "weights.safetensors")
        assert torch.allclose(after[head] - before[head], torch.tensor([0.0, 50.0, 0.0, 0.0, 0.0]), atol=1e-5)
        assert all(torch.equal(after[key], before[key]) for key in before if key != head)
    everywhere = bundle.scores["validation"]["synthetic"]["all_bands"]["classes"]["building"]
    assert everywhere["recall"] == 1
    again = load_file(train(config, tmp_path).path / "weights.safetensors")
    assert torch.allclose(again[head], before[head], atol=1e-5)
    assert plain.sha256 != bundle.sha256


def test_a_bias_that_is_looked_for_undoes_one_that_was_in_the_way(config, tmp_path):
    """A network that hardly ever says building, though it knows them, is given back what keeps it from it."""
    config = replace(config, fit=replace(config.fit, steps=60, validate_every=60, calibrate=False))
    plain = train(config, tmp_path / "plain")
    _, held_out = gather(config)
    network = load_network(plain)
    head = network.segmentation_head[0].bias.detach().clone()
    assert best_bias(network, config, ()) == [0.0] * 5
    with torch.no_grad():
        network.segmentation_head[0].bias[1] -= 1.5
    before = headline(validate(network, config, held_out))
    found = best_bias(network, config, held_out)
    assert found[0] == 0
    assert 0.5 < found[1] <= 2
    with torch.no_grad():
        network.segmentation_head[0].bias += torch.tensor(found)
    assert headline(validate(network, config, held_out)) > before

    tuned = replace(config, fit=replace(config.fit, tune_bias=True))
    lines: list[str] = []
    bundles = [train(tuned, tmp_path / "plain", progress=lines.append) for _ in range(2)]
    assert bundles[0].sha256 == bundles[1].sha256
    assert sum(line.startswith("bias") for line in lines) == 1  # what was found is kept
    after = load_network(bundles[0]).segmentation_head[0].bias
    assert torch.allclose(after, head + torch.tensor(bundles[0].scores["bias"]), atol=1e-5)
    assert headline(bundles[0].scores["validation"]) >= headline(plain.scores["validation"])


def test_a_class_that_is_not_there_keeps_its_bias(config, folder, tmp_path):
    """Never to name a class of which the truth has nothing would always pay."""
    for name in ("north_1", "north_2"):
        for kind in ("", "_label"):
            shutil.copy(folder / f"{name}{kind}.tif", tmp_path)
    write_place(tmp_path, "south_1", 7, without=4)
    config = replace(config, folder=tmp_path, fit=replace(config.fit, steps=30, validate_every=30))
    network = load_network(train(config, tmp_path / "run"))
    _, held_out = gather(config)
    assert best_bias(network, config, held_out)[4] == 0


def test_examples_show_truth_prediction_and_errors_of_places_held_out(config, tmp_path):
    train(config, tmp_path)
    with Image.open(tmp_path / "examples.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    _, held_out = gather(config)
    windows = windows_of(held_out, 64, 6)
    _, truth = load_window(config, *windows[0], keep_optional=True)
    top, left = 2 * 18, [8 + 72 * column for column in range(4)]
    assert pixels.shape[1] == left[-1] + 64 + 8
    shown = [pixels[top : top + 64, x : x + 64] for x in left]
    colours = np.array([entry.rgb for entry in LAND_COVER.classes])
    known = truth != IGNORE
    np.testing.assert_array_equal(shown[1][known], colours[truth[known]])
    right = (shown[1] == shown[2]).all(axis=-1) & known
    answers = [{tuple(colour) for colour in shown[3][where]} for where in (right, ~right & known, ~known)]
    assert [len(some) for some in answers] == [1, 1, 1]
    assert len(set.union(*answers)) == 3
    assert len(np.unique(shown[0].reshape(-1, 3), axis=0)) > 500


@pytest.mark.parametrize("checkpoint_every", [1, 50])
def test_tensorboard_shows_each_step_once_though_a_training_was_interrupted(config, tmp_path, checkpoint_every):
    """With a checkpoint at which it goes on, and without any, so that it starts anew."""
    config = replace(config, fit=replace(config.fit, tensorboard=True, checkpoint_every=checkpoint_every))

    def interrupt(line):
        if "step 2: mean IoU" in line:
            raise KeyboardInterrupt

    for _ in range(2 if checkpoint_every > 1 else 1):
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path, progress=interrupt)
    train(config, tmp_path)
    train(config, tmp_path, resume=False)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    history = json.loads((tmp_path / "history.json").read_text())
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == [1, 2, 3, 4]
    np.testing.assert_allclose([event.value for event in losses], [row["loss"] for row in history], rtol=1e-6)
    assert "synthetic, without_nir/building" in events.Tags()["scalars"]
    assert [event.step for event in events.Images("examples")] == [2, 4]


def test_confidences_are_made_right_and_classes_stay(config, tmp_path):
    """A network that is far too sure of what it says, of which nearly half is wrong, is made less sure."""
    config = replace(config, fit=replace(config.fit, steps=20, validate_every=20))
    _, held_out = gather(config)
    plain = train(replace(config, fit=replace(config.fit, calibrate=False)), tmp_path / "plain")
    sure = with_temperature(load_file(plain.path / "weights.safetensors"), 1 / 20)
    network = build_network(plain.architecture, plain.encoder, 4, 5, plain.decoder)
    network.load_state_dict(sure)
    found = temperature(network, config, held_out)
    assert found > 3
    image = batch_of(SampleIndex(config, held_out), config, 0)[0]
    before = network.eval()(image)
    network.load_state_dict(with_temperature(sure, found))
    assert torch.allclose(network(image), before / found, rtol=1e-2, atol=1e-2)
    assert (network(image).argmax(1) == before.argmax(1)).float().mean() > 0.99

    calibrated = train(config, tmp_path / "calibrated")
    assert calibrated.scores["temperature"] != 1.0
    assert train(config, tmp_path / "calibrated").sha256 == calibrated.sha256


def test_training_goes_on_from_a_bundle_and_keeps_the_last_step_if_told(config, tmp_path):
    first = train(replace(config, fit=replace(config.fit, steps=1, calibrate=False)), tmp_path / "first")
    start = replace(config.network, init_bundle=tmp_path / "first" / "bundle")
    still = replace(config.fit, steps=2, validate_every=1, learning_rate=0.0, keep="last", calibrate=False)
    second = train(replace(config, network=start, fit=still), tmp_path / "second")
    assert second.scores["step"] == 2
    old, new = (load_file(bundle.path / "weights.safetensors") for bundle in (first, second))
    kernels = [key for key, tensor in old.items() if tensor.ndim > 1]
    assert all(torch.equal(old[key], new[key]) for key in kernels)
    with pytest.raises(BundleError, match="name the same in network to go on from it"):
        train(replace(config, network=replace(start, encoder="resnet18")), tmp_path / "third")


def test_training_goes_on_with_other_bands_and_classes(config, folder, tmp_path):
    """What both have in common is kept, by role; the last layer starts anew; the network need not be named again."""
    first = train(replace(config, fit=replace(config.fit, steps=1)), tmp_path / "first")
    data = mapping(steps=1) | {
        "network": {"init": {"bundle": str(tmp_path / "first" / "bundle")}},
        "bands": ["nir", "green", "red edge"],
        "optional": [],
        "legend": [
            {"code": 0, "name": "ground", "color": "#d9d4c7", "kind": "background"},
            {"code": 1, "name": "roof", "color": "#d1442f", "kind": "object"},
        ],
    }
    other = TrainConfig.from_mapping(data, folder)
    assert (other.network.architecture, other.network.encoder) == (first.architecture, first.encoder)
    assert other.network.decoder == first.decoder
    network = build_network(first.architecture, first.encoder, 3, 2, first.decoder)
    fresh = {key: value.clone() for key, value in network.state_dict().items()}
    taken = initialise(network, other.network, other.bands, other.legend)
    old, new = load_network(first).state_dict(), network.state_dict()
    kernel = next(key for key, value in old.items() if value.ndim == 4)
    assert taken == len(old) - 2
    assert torch.equal(new[kernel][:, :2], old[kernel][:, [3, 1]])
    assert torch.allclose(new[kernel][:, 2], old[kernel].mean(dim=1))
    for key in new:
        if key.startswith("segmentation_head"):
            assert torch.equal(new[key], fresh[key])
        elif key != kernel:
            assert torch.equal(new[key], old[key])


def test_a_narrower_decoder_keeps_the_channels_that_count(config):
    """Cutting channels whose normalisation gives them 0 changes nothing of what the network says."""
    torch.manual_seed(0)
    channels = {"decoder_channels": [16, 16, 8, 8, 8]}
    whole = build_network("Unet", config.network.encoder, 4, 5, channels).eval()
    weights = whole.state_dict()
    generator = torch.Generator().manual_seed(0)
    fewer = [8, 6, 4, 3, 2]
    for block, few in enumerate(fewer):
        for conv in (1, 2):
            scale, shift = (weights[f"decoder.blocks.{block}.conv{conv}.1.{name}"] for name in ("weight", "bias"))
            dead = torch.randperm(len(scale), generator=generator)[few:]
            scale.uniform_(0.5, 2, generator=generator)
            shift.uniform_(-1, 1, generator=generator)
            scale[dead], shift[dead] = 0, 0
    narrow = build_network("Unet", config.network.encoder, 4, 5, {"decoder_channels": fewer}).eval()
    narrow.load_state_dict(prune_decoder(weights, fewer))
    image = torch.randn(1, 4, 64, 64, generator=generator)
    with torch.no_grad():
        assert torch.allclose(narrow(image), whole(image), rtol=1e-4, atol=1e-5)


def test_training_goes_on_from_the_strongest_channels_of_a_wider_decoder(config, tmp_path):
    first = train(replace(config, fit=replace(config.fit, steps=1, calibrate=False)), tmp_path / "first")
    narrow = {"decoder_channels": [8, 8, 4, 4, 4]}
    start = replace(config.network, init_bundle=tmp_path / "first" / "bundle", decoder=narrow)
    second = train(replace(config, network=start, fit=replace(config.fit, steps=1)), tmp_path / "second")
    assert second.decoder == narrow
    sizes = [(bundle.path / "weights.safetensors").stat().st_size for bundle in (first, second)]
    assert sizes[1] < sizes[0]
    wider = replace(start, decoder={"decoder_channels": [8, 8, 4, 4, 16]})
    with pytest.raises(BundleError, match="name the same in network"):
        train(replace(config, network=wider), tmp_path / "third")


def test_a_model_is_gone_on_from_by_its_name(folder):
    config = TrainConfig.from_mapping(mapping() | {"network": {"init": {"bundle": "aerial"}}}, folder)
    assert config.network.init_bundle == "aerial"
    assert config.network.encoder == find_bundle("aerial").encoder


@pytest.mark.slow
def test_training_learns_what_is_plain_to_see(config, tmp_path):
    """Five colours for five classes; a few steps of a small network must tell most of them apart."""
    plain = replace(config.augment, radiometry=0.2, darken=0.0, missing=0.0, stretch=0.0, cutout=0.0)
    fit = replace(config.fit, steps=25, batch=4, validate_every=25, checkpoint_every=25, learning_rate=5e-3)
    bundle = train(replace(config, augment=plain, fit=fit), tmp_path)
    assert bundle.scores["validation"]["synthetic"]["all_bands"]["mean_iou"] > 0.35  # one class for all gives 0.1


def test_a_batch_is_a_function_of_seed_and_step(config):
    training, _ = gather(config)
    index, again = SampleIndex(config, training), SampleIndex(config, training)
    first, truth, *_ = batch_of(index, config, 7)
    assert first.shape == (2, 4, 64, 64)
    assert first.dtype == torch.float32
    assert truth.shape == (2, 64, 64)
    batch_of(again, config, 3)
    assert all(torch.equal(a, b) for a, b in zip(batch_of(again, config, 7)[:2], (first, truth), strict=True))
    assert not torch.equal(batch_of(index, config, 8)[0], first)
    assert not torch.equal(batch_of(index, replace(config, seed=4), 7)[0], first)


def test_image_and_truth_stay_together_through_the_geometry(config):
    """Without changes of light, a pixel well inside a class still has the colour of its class."""
    still = replace(
        config.augment, radiometry=0.0, darken=0.0, blur=0.0, noise=0.0, missing=0.0, stretch=0.0, rotate=1.0
    )
    config = replace(config, augment=still, fit=replace(config.fit, batch=8))
    training, _ = gather(config)
    images, truth, *_ = batch_of(SampleIndex(config, training[:2]), config, 0)
    colours = torch.tensor(COLOURS / 255, dtype=torch.float32) * 2 - 1
    nearest = (images[:, None] - colours[None, :, :, None, None]).square().sum(2).argmin(1)
    known = truth != IGNORE
    assert (nearest[known] == truth[known]).float().mean() > 0.9
    assert 0.05 < (~known).float().mean() < 0.5  # what was cut out is not to be learnt


def test_dropping_nir_feeds_exactly_what_an_rgb_scene_feeds(config):
    training, _ = gather(config)
    rgb = next(scene for scene in training if scene.place == "rgb")
    full = training[0]
    assert rgb.scene.roles == ("red", "green", "blue")
    pixels, valid, _ = full.read(Box(0, 0, 32, 32))
    scaled = full.scaling(pixels)
    dropped = network_input(config.bundle, scaled, valid, ("red", "green", "blue", ""))
    as_rgb = config.bundle.normalise(scaled[:3], valid.astype(bool), ("red", "green", "blue"))
    assert (dropped == as_rgb).all()
    assert (dropped[3] == 0).all()
    always = replace(config, augment=replace(config.augment, missing=1.0))
    never = replace(config, augment=replace(config.augment, missing=0.0))
    index = SampleIndex(config, training[:2])
    assert (batch_of(index, always, 0)[0][:, 3] == 0).all()
    assert not (batch_of(index, never, 0)[0][:, 3] == 0).all()


def test_rare_classes_are_drawn_as_often_as_others(tmp_path):
    codes = np.zeros((1, 640, 640), np.uint8)
    codes[0, 320:325, 320:325] = 4
    write_raster(tmp_path / "a_1.tif", np.full((4, 640, 640), 90))
    write_raster(tmp_path / "a_1_label.tif", codes)
    write_place(tmp_path, "south_1", 1)
    config = TrainConfig.from_mapping(mapping(balance=0.6), tmp_path)
    training, _ = gather(config)
    index = SampleIndex(config, training)
    drawn = [index.draw(np.random.default_rng(k)) for k in range(400)]
    near = np.mean([320 <= w.centre[0] < 352 and 320 <= w.centre[1] < 352 for w in drawn])
    assert 0.2 < near < 0.4  # 0.6 / 2 classes; by area alone it would be 1 in 400


@pytest.mark.parametrize(
    ("metres", "epsg", "shared"),
    [(-57.6, 32611, False), (-57.1, 32611, False), (-56.0, 32611, True), (0, 32611, True), (0, 3857, True),
     (20, 4326, True), (-60, 3857, False), (5000, 4326, False), (0, None, False)],
)  # fmt: skip
def test_ground_to_train_on_is_not_held_out_too(tmp_path, metres, epsg, shared):
    """Both scenes are 57.6 m wide; one lies so many metres east of the other, in a CRS of its own."""
    write_place(tmp_path, "south_1", 0)
    x, y = 400_000.0 + metres, 3_700_000.0
    pixel = (0.6, 0.6)
    if epsg in {3857, 4326}:
        to = Transformer.from_crs("EPSG:32611", f"EPSG:{epsg}", always_xy=True)
        (x, far), (y, low) = to.transform([x, x + 57.6], [y, y - 57.6])
        pixel = ((far - x) / 96, (y - low) / 96)
    transform = Affine(pixel[0], 0, x, 0, -pixel[1], y)
    for name, count in (("north_1", 4), ("north_1_label", 1)):
        write_raster(tmp_path / f"{name}.tif", np.ones((count, 96, 96)), epsg=epsg)
        with rasterio.open(tmp_path / f"{name}.tif", "r+") as dataset:
            dataset.transform = transform
    data = mapping()
    data["data"][0]["gsd_m"] = 0.6
    config = TrainConfig.from_mapping(data, tmp_path)
    if shared:
        with pytest.raises(UsageError, match=r"south is held out, but .*south_1\.tif shows ground of .*north_1\.tif"):
            gather(config)
    else:
        assert len(gather(config)[0]) == 1


def test_ground_on_the_other_side_of_the_earth_is_not_shared(tmp_path):
    """Fiji lies on both sides of the antimeridian, at the latitude of Angola."""
    places = ("north_1", 32760, 816_000, 8_117_000, 100), ("south_1", 4326, 10, -17, 1e-3)
    for name, epsg, west, north, pixel in places:
        for kind, count in (("", 4), ("_label", 1)):
            write_raster(tmp_path / f"{name}{kind}.tif", np.ones((count, 96, 96)), epsg=epsg)
            with rasterio.open(tmp_path / f"{name}{kind}.tif", "r+") as dataset:
                dataset.transform = Affine(pixel, 0, west, 0, -pixel, north)
    data = mapping()
    data["gsd_m"] = [50, 200]
    assert len(gather(TrainConfig.from_mapping(data, tmp_path))[1]) == 1


def test_codes_are_mapped_ignored_or_refused(folder, tmp_path):
    table = channel_table(LAND_COVER, {5: 0, 4: 255})
    assert [table[code] for code in (0, 1, 4, 5, 255)] == [0, 1, IGNORE, 0, IGNORE]
    with pytest.raises(UsageError, match="6 would become 9"):
        channel_table(LAND_COVER, {6: 9})
    data = mapping()
    data["data"][0]["remap"] = {}
    config = TrainConfig.from_mapping(data, folder)
    training, _ = gather(config)
    with pytest.raises(InputError, match=r"north_1_label\.tif holds the code 5"):
        SampleIndex(config, training)
    write_place(tmp_path, "south_1", 0)
    write_place(tmp_path, "north_1", 1)
    write_raster(tmp_path / "north_1_label.tif", np.zeros((1, 96, 96)), west=400_001.0)
    with pytest.raises(FrameMismatchError, match=r"north_1\.tif and .*north_1_label\.tif"):
        gather(TrainConfig.from_mapping(mapping(), tmp_path))


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal", "lovasz"])
def test_ignored_pixels_move_neither_loss_nor_gradient(name):
    none = dict.fromkeys(("cross_entropy", "dice", "focal", "lovasz"), 0.0)
    loss = SegmentationLoss(FitConfig(**(none | {name: 1.0})))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 8, 8, generator=generator)
    truth = torch.randint(0, 5, (2, 8, 8), generator=generator)
    truth[:, :4] = IGNORE
    other = logits.clone()
    other[:, :, :4] = 100 * torch.randn(2, 5, 4, 8, generator=generator)
    assert loss(logits, truth).item() == pytest.approx(loss(other, truth).item(), rel=1e-6)
    other.requires_grad_()
    loss(other, truth).backward()
    assert (other.grad[:, :, :4] == 0).all()
    assert loss(logits, torch.full_like(truth, IGNORE)).item() == 0


def test_losses_add_up_by_their_weights():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 5, 8, 8, generator=generator)
    truth = torch.randint(0, 5, (1, 8, 8), generator=generator)
    names = ("cross_entropy", "dice", "focal", "lovasz")
    alone = [
        SegmentationLoss(FitConfig(**{other: float(other == name) for other in names}))(logits, truth).item()
        for name in names
    ]
    together = SegmentationLoss(FitConfig(cross_entropy=0.5, dice=1.0, focal=2.0, lovasz=3.0))(logits, truth)
    assert together.item() == pytest.approx(0.5 * alone[0] + alone[1] + 2 * alone[2] + 3 * alone[3], rel=1e-5)


def test_batches_that_are_gathered_make_one_step_from_the_mean_of_their_losses(config, tmp_path, monkeypatch):
    """The weights after it are those of a step worked out here, and no batch is seen twice or left out."""
    drawn = []
    monkeypatch.setattr("geoseg.training.loop.batch_of", lambda *given: drawn.append(given[2]) or batch_of(*given))
    config = replace(config, fit=replace(config.fit, steps=1, accumulate=2, validate_every=9))
    training, _ = gather(config)
    index = SampleIndex(config, training)
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    bundle = config.bundle
    network = build_network(bundle.architecture, bundle.encoder, 4, 5, bundle.decoder).train()
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(_parameter_groups(network, config.fit))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * schedule(0, config.fit)
    losses = []
    for number in range(2):
        images, truth, *_ = batch_of(index, config, number)
        losses.append(SegmentationLoss(config.fit)(network(images.to(memory_format=torch.channels_last)), truth))
        (losses[-1] / 2).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), config.fit.clip)
    optimizer.step()

    train(config, tmp_path)
    assert drawn == [0, 1]
    history = json.loads((tmp_path / "history.json").read_text())
    assert history[0]["loss"] == pytest.approx(sum(loss.item() for loss in losses) / 2, rel=1e-5)
    stepped = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
    for key, value in network.state_dict().items():
        assert torch.allclose(stepped[key].float(), value.float(), rtol=1e-3, atol=1e-5), key


def test_divergence_is_0_from_the_same_and_sees_what_counts_alone():
    generator = torch.Generator().manual_seed(0)
    told, said = (3 * torch.randn(2, 5, 8, 8, generator=generator) for _ in range(2))
    counted = torch.rand(2, 8, 8, generator=generator) > 0.5
    shifted = told + torch.randn(2, 1, 8, 8, generator=generator)  # the same probabilities
    assert divergence(shifted, told, counted, 2.0).item() == pytest.approx(0, abs=1e-5)
    p, q = (torch.softmax(logits, 1) for logits in (told, said))
    by_hand = (p * (p / q).log()).sum(1)[counted].mean().item()
    assert divergence(said, told, counted, 1.0).item() == pytest.approx(by_hand, rel=1e-4)
    said.requires_grad_()
    divergence(said, told, counted, 3.0).backward()
    assert (said.grad.movedim(1, -1)[~counted] == 0).all()
    assert divergence(said, told, torch.zeros_like(counted), 1.0).item() == 0


def test_a_teacher_looks_at_the_same_windows_in_their_own_light_with_all_bands(config):
    training, _ = gather(config)
    config = replace(config, augment=replace(config.augment, missing=1.0, cutout=1.0))
    index = SampleIndex(config, training[:2])
    alone = batch_of(index, config, 0)
    batch = batch_of(index, replace(config, teacher=TeacherConfig("self")), 0)
    assert alone.unvaried is None
    assert torch.equal(batch.images, alone.images)
    assert torch.equal(batch.truth, alone.truth)
    assert (batch.images[:, 3] == 0).all()
    assert not (batch.unvaried[:, 3] == 0).all()
    assert not batch.valid.all()
    assert (batch.truth[~batch.valid] == IGNORE).all()
    # The colours of the scene are those of its classes, so the truth can be told from them.
    colours = torch.tensor(COLOURS / 255, dtype=torch.float32)
    seen = (batch.unvaried * 0.5 + 0.5).movedim(1, -1)
    nearest = (seen[..., None, :] - colours).square().sum(-1).argmin(-1)
    known = batch.truth != IGNORE
    assert (nearest[known] == batch.truth[known]).float().mean() > 0.7


def test_a_teacher_counts_by_weight_ramp_and_confidence_and_follows_the_average(config):
    training, _ = gather(config)
    taught = replace(config, teacher=TeacherConfig("self"))
    batch = batch_of(SampleIndex(taught, training), taught, 0)
    logits = torch.randn(2, 5, 64, 64, generator=torch.Generator().manual_seed(0))
    bundle = config.bundle
    average = build_network(bundle.architecture, bundle.encoder, 4, 5, bundle.decoder).eval()
    with torch.no_grad():
        told = average(batch.unvaried)
    full = divergence(logits, told, batch.valid, 2.0).item()

    def loss(step, **given):
        teacher = Teacher(config, TeacherConfig("self", temperature=2.0, **given), torch.device("cpu"))
        teacher.follow(average.state_dict())
        return teacher.loss(logits, batch, step).item()

    assert loss(0) == pytest.approx(full, rel=1e-4)
    assert loss(0, weight=3.0) == pytest.approx(3 * full, rel=1e-4)
    assert [loss(step, ramp=4) for step in (0, 2, 9)] == pytest.approx([0, full / 2, full], rel=1e-4)
    sureness = torch.softmax(told, 1).amax(1)
    middle = sureness[batch.valid].median().item()
    counted = batch.valid & (sureness >= middle)
    wanted = divergence(logits, told, counted, 2.0).item()
    assert wanted != pytest.approx(full, rel=1e-4)
    assert loss(0, confidence=middle) == pytest.approx(wanted, rel=1e-2)


@pytest.mark.slow
def test_scenes_without_labels_are_learnt_from_a_teacher(config, folder, tmp_path):
    """No label is seen in the second training, and yet it tells classes apart: it has them from the first."""
    plain = replace(config.augment, radiometry=0.2, darken=0.0, missing=0.0, stretch=0.0, cutout=0.0)
    fit = replace(config.fit, steps=25, batch=4, validate_every=25, checkpoint_every=25, learning_rate=5e-3)
    train(replace(config, augment=plain, fit=fit), tmp_path / "teacher")
    data = mapping() | {"teacher": {"model": str(tmp_path / "teacher" / "bundle")}}
    (labelled,) = data["data"]
    data["data"] = [
        labelled | {"scenes": "south_*.tif", "hold_out": ["south"]},
        {"name": "unlabelled", "scenes": "north_[12].tif", "pattern": r"^(?P<place>[a-z]+)_\d$"},
    ]
    taught = replace(TrainConfig.from_mapping(data, folder), augment=plain, fit=fit)
    training, _ = gather(taught)
    assert all((scene.truth(Box(0, 0, 96, 96)) == IGNORE).all() for scene in training)
    bundle = train(taught, tmp_path / "pupil")
    assert bundle.scores["validation"]["synthetic"]["all_bands"]["mean_iou"] > 0.3  # one class for all gives 0.1


def test_a_teacher_of_other_classes_is_refused(config, folder, tmp_path):
    train(replace(config, fit=replace(config.fit, steps=1)), tmp_path / "teacher")
    few = [{"code": 0, "name": "ground", "color": "#d9d4c7", "kind": "background"}]
    few += [{"code": 1, "name": "roof", "color": "#d1442f", "kind": "object"}]
    data = mapping() | {"teacher": {"model": str(tmp_path / "teacher" / "bundle")}, "legend": few}
    data["data"][0]["remap"] = {2: 0, 3: 0, 4: 0, 5: 255}
    with pytest.raises(UsageError, match=r"its classes are .*road.*; those of the training are .*roof"):
        train(TrainConfig.from_mapping(data, folder), tmp_path / "pupil")


def test_a_gpu_that_is_not_there_is_told(config, folder, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EnvironmentFault, match=r"fit\.device cuda: this machine shows 0 CUDA devices"):
        train(replace(config, fit=replace(config.fit, device="cuda")), tmp_path)
    with pytest.raises(UsageError, match=r"fit\.device is 'tpu'; it takes auto, cpu, cuda or cuda:N"):
        TrainConfig.from_mapping(mapping(device="tpu"), folder)


def test_a_training_that_gets_no_better_is_given_up_and_stays_so(config, tmp_path, monkeypatch):
    scores = iter([0.5, 0.4, 0.6, 0.6, 0.5, 0.9])
    monkeypatch.setattr("geoseg.training.loop.headline", lambda _: next(scores))
    config = replace(config, fit=replace(config.fit, steps=9, validate_every=1, checkpoint_every=5, patience=2))
    lines = []
    bundle = train(config, tmp_path, progress=lines.append)
    history = json.loads((tmp_path / "history.json").read_text())
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5]
    assert bundle.scores["step"] == 3
    assert train(config, tmp_path).sha256 == bundle.sha256
    assert next(scores) == 0.9


@pytest.mark.parametrize("where", ["gpkg", "geojson"])
def test_polygons_are_labels_as_the_raster_that_they_were_drawn_from(folder, tmp_path, where):
    """And what is drawn as unlabelled, or lies outside of all polygons where those are examples, says nothing."""
    for name in ("north_1", "south_1"):
        shutil.copy(folder / f"{name}.tif", tmp_path)
    areas = {}
    for name in ("north_1", "south_1"):
        with rasterio.open(folder / f"{name}_label.tif") as raster:
            codes = np.where(raster.read(1) == 5, 0, raster.read(1))
            found = [(shape(part), int(code)) for part, code in shapes(codes, transform=raster.transform)]
            layer = gpd.GeoDataFrame(
                {"class": [{255: "unlabelled"}.get(code, LAND_COVER.names[code % 255]) for _, code in found]},
                geometry=[part for part, _ in found], crs=raster.crs,
            )  # fmt: skip
            areas[name] = codes
        layer = layer[layer["class"] != "background"].to_crs(32612 if where == "gpkg" else 4326)
        # The unlabelled lie above all others, wherever they stand.
        layer = layer.iloc[np.argsort(layer["class"] != "unlabelled", kind="stable")]
        layer.to_file(tmp_path / f"{name}_label.{where}")
    data = mapping()
    data["data"][0] |= {"scenes": "*_1.tif", "labels": f"{{stem}}_label.{where}"}
    training, held_out = gather(TrainConfig.from_mapping(data, tmp_path))
    for scene, name in ((training[0], "north_1"), (held_out[0], "south_1")):
        drawn = np.concatenate([scene.truth(Box(row, 0, 32, 96)) for row in (0, 32, 64)])
        assert (drawn == areas[name]).mean() > 0.995  # corners moved a little through the other CRS
    data["data"][0] |= {"outside": 255}
    training, _ = gather(TrainConfig.from_mapping(data, tmp_path))
    truth = training[0].truth(Box(0, 0, 96, 96))
    assert (truth == IGNORE).sum() == pytest.approx(
        ((areas["north_1"] == 255) | (areas["north_1"] == 0)).sum(), rel=0.01
    )
    assert train(replace(TrainConfig.from_mapping(data, tmp_path), seed=1), tmp_path / "run").scores["all_windows"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"kind": ["water"]}, "no column 'class' that names the class; there are kind"),
        ({"class": ["lava"]}, "class is 'lava' somewhere; it takes background, building"),
    ],
)
def test_polygons_that_mean_nothing_are_refused(folder, tmp_path, columns, message):
    shutil.copy(folder / "north_1.tif", tmp_path)
    layer = gpd.GeoDataFrame(columns, geometry=[shapely.box(400_000, 3_699_950, 400_010, 3_700_000)], crs=32611)
    layer.to_file(tmp_path / "north_1_label.gpkg")
    data = mapping()
    data["data"][0] |= {"scenes": "north_1.tif", "labels": "{stem}_label.gpkg"}
    with pytest.raises(InputError, match=message):
        gather(TrainConfig.from_mapping(data, tmp_path))


def test_class_weights_weigh_cross_entropy():
    logits, truth = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    alike = SegmentationLoss(FitConfig(dice=0.0))(logits, truth).item()
    assert SegmentationLoss(FitConfig(dice=0.0, class_weights=(1.0, 3.0)))(logits, truth).item() == pytest.approx(
        2 * alike
    )


def test_light_varies_within_0_and_1_and_not_at_all_at_strength_0(config):
    scaled = np.random.default_rng(0).random((4, 16, 16), np.float32)
    still = replace(config.augment, radiometry=0.0, darken=0.0, blur=0.0, noise=0.0)
    assert np.allclose(vary_light(scaled, still, np.random.default_rng(1)), scaled, atol=1e-6)
    varied = vary_light(scaled, config.augment, np.random.default_rng(1))
    assert varied.dtype == np.float32
    assert 0 <= varied.min() <= varied.max() <= 1
    assert np.abs(varied - scaled).mean() > 0.01


def test_repainting_gives_each_roof_a_brightness_of_its_own_and_leaves_the_rest_alone():
    scaled = np.full((4, 40, 40), 0.5, np.float32)
    truth = np.zeros((40, 40), np.uint8)
    truth[4:16, 4:16], truth[24:36, 4:16], truth[:, 30:] = 1, 1, 3
    painted = repaint(scaled, truth, LAND_COVER, np.random.default_rng(0))
    assert np.allclose(painted[:, :, 20:], 0.5)
    first, second = painted[:, 7:13, 7:13], painted[:, 27:33, 7:13]
    assert np.allclose(first, first[:, :1, :1], atol=1e-5)
    assert np.abs(first - 0.5).min() > 0.01
    assert np.abs(first - second).max() > 0.05


def test_rate_rises_then_falls_and_the_average_follows_the_weights(config):
    fit = replace(config.fit, steps=100, warmup=10)
    rates = [schedule(step, fit) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    average = {"w": torch.zeros(2), "n": torch.tensor(0)}
    update_average(average, {"w": torch.ones(2), "n": torch.tensor(5)}, 0.75)
    assert average["w"].tolist() == [0.25, 0.25]
    assert average["n"] == 5
    assert stored_weights({"k": torch.ones(2, 2), "b": torch.ones(2)})["b"].dtype == torch.float32


def test_rgb_kernels_go_to_their_bands_and_others_get_the_mean():
    kernel = torch.arange(3.0).reshape(1, 3, 1, 1)
    spread = spread_over_bands(kernel, ("nir", "blue", "red"))
    assert spread.flatten().tolist() == [1.0, 2.0, 0.0]


def test_encoders_start_from_a_file_of_weights_and_run_nothing(config, tmp_path):
    config = replace(config, network=replace(config.network, encoder="resnet18"))
    network = build_network("Unet", "resnet18", 4, 5, config.network.decoder)
    rgb = build_network("Unet", "resnet18", 3, 5, config.network.decoder)
    torch.save(rgb.encoder.state_dict(), tmp_path / "encoder.pth")
    taken = initialise_encoder(network, replace(config.network, init_file=tmp_path / "encoder.pth"), config.bands)
    assert taken == len(rgb.encoder.state_dict())
    assert torch.equal(network.encoder.conv1.weight[:, :3], rgb.encoder.conv1.weight)
    assert torch.equal(network.encoder.layer1[0].conv1.weight, rgb.encoder.layer1[0].conv1.weight)

    torch.save({"path": Path}, tmp_path / "code.pth")  # a pickle that names something other than tensors
    with pytest.raises(BundleError, match="more than weights"):
        initialise_encoder(network, replace(config.network, init_file=tmp_path / "code.pth"), config.bands)
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(BundleError, match="does not fit the encoder 'resnet18'"):
        initialise_encoder(network, replace(config.network, init_file=tmp_path / "other.pth"), config.bands)
    with pytest.raises(UsageError, match="'no_such_weights' is not installed; pip install no-such-weights"):
        initialise_encoder(network, replace(config.network, init_package="no_such_weights"), config.bands)


def change(path, value):
    data = mapping()
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("nmae",), "x", "there is no key 'nmae'; did you mean 'name'"),
        (("folder",), "x", "there is no key 'folder'"),
        (("fit", "learning_rat"), 1, "fit: there is no key 'learning_rat'; did you mean 'learning_rate'"),
        (("data", 0, "hold_outs"), ["x"], r"data\[0\]: there is no key 'hold_outs'; did you mean 'hold_out'"),
        (("fit", "steps"), "many", "fit: steps is 'many'; it takes a whole number"),
        (("fit", "steps"), 2.5, "steps is 2.5; it takes a whole number"),
        (("augment", "gsd_m"), [1, 2, 3], "gsd_m is .* two numbers"),
        (("fit", "keep"), "first", "fit.keep is 'first'; it takes best or last"),
        (("fit", "precision"), "int8", "fit.precision is 'int8'; it takes fp32 or bf16"),
        (("fit", "window"), 100, "fit.window is 100; it takes a multiple of 32"),
        (("fit", "class_weights"), [1, 2], "has 2 numbers; it takes one for each of background, building"),
        (("fit", "class_weights"), [1, "2"], "class_weights is .*; it takes a list of numbers"),
        (("name",), None, "the key 'name' is missing"),
        (("data",), [], "data must list at least one source"),
        (("optional",), ["red", "green", "blue", "nir"], "some, not all"),
        (("network", "init"), {"url": "x"}, "one of package, file and bundle"),
        (("network", "init_package"), "x", "write init"),
        (("data", 0, "groups"), [["south", "north"]], "overlap each other"),
        (("data", 0, "labels"), "", "data synthetic has no labels; a place held out needs labels"),
        (("data",), [{"name": "bare", "scenes": "*.tif"}], "data bare has no labels; give it labels, or a teacher"),
        (("teacher",), {"weight": 1.0}, "teacher: the key 'model' is missing"),
        (("teacher",), {"model": "self", "confidence": 1.5}, "confidence from 0 to below 1"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_sentence(path, value, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig.from_mapping(change(path, value), Path())


def test_places_that_are_not_there_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="hold_out names 'west'; there are north, rgb, south"):
        gather(TrainConfig.from_mapping(change(("data", 0, "hold_out"), ["west"]), folder))
    with pytest.raises(UsageError, match="held out"):
        gather(TrainConfig.from_mapping(change(("data", 0, "hold_out"), []), folder))
    with pytest.raises(UsageError, match=r"no scene .* has a label file"):
        gather(TrainConfig.from_mapping(mapping(), tmp_path))
    write_place(tmp_path, "nowhere_1", 0, epsg=None)
    with pytest.raises(UsageError, match=r"nowhere_1\.tif has no CRS; give gsd_m"):
        gather(TrainConfig.from_mapping(change(("data", 0, "hold_out"), ["nowhere"]), tmp_path))


def test_the_training_of_the_embedded_model_is_a_valid_configuration():
    config = load_config(Path(__file__).parent.parent / "configs" / "aerial.yaml")
    assert config.name == "aerial"
    embedded = find_bundle("aerial")
    assert embedded.needs == config.bundle.needs
    assert (embedded.architecture, embedded.encoder) == (config.network.architecture, config.network.encoder)
    assert (embedded.decoder, embedded.scaling, embedded.legend) == (
        config.network.decoder,
        config.scaling,
        config.legend,
    )


def test_the_smaller_network_is_cut_from_the_embedded_model_and_taught_by_it():
    config = load_config(Path(__file__).parent.parent / "configs" / "aerial_small.yaml")
    embedded = find_bundle("aerial")
    assert config.teacher.model == config.network.init_bundle == "aerial"
    assert is_narrower(config.network, embedded)
    assert config.bundle.needs == embedded.needs


def test_a_configuration_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"missing\.yaml cannot be read"):
        load_config(Path("missing.yaml"))
