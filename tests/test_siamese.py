"""Networks that see two dates: how they are fed, that they learn, and what `geoseg change` makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from safetensors.torch import save
from scenes import ROLES, write_scene
from test_change import land

from geoseg.config import ChangeSettings, Settings
from geoseg.errors import BundleError, FrameMismatchError, UsageError
from geoseg.frame import Box
from geoseg.legend import ClassEntry, Legend
from geoseg.model import ModelBand, ModelBundle, save_bundle
from geoseg.model.network import build_network
from geoseg.scene import BandNeeds, ScalingRule, StackedScene, of_dates, open_scene
from geoseg.training import TrainConfig, train
from geoseg.training.augment import batch_of
from geoseg.training.samples import SampleIndex, gather
from geoseg.workflow import detect_change, segment_scene, verify_run

if TYPE_CHECKING:
    from pathlib import Path

DECODER = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
LEGEND = Legend(
    (ClassEntry(0, "unchanged", "#d9d4c7", "background"), ClassEntry(1, "soil to roof", "#d1442f", "object"))
)

Array = np.ndarray[Any, Any]


def write_pair(folder: Path, name: str, seed: int, size: int = 160) -> Array:
    """Two dates of a place under different light; the later has bright squares, which the labels (2) tell."""
    rng = np.random.default_rng(seed)
    before = land((size, size), 4, seed)
    after = before.copy()
    labels = np.ones((size, size), np.uint8)
    for _ in range(8):
        row, col, side = (int(rng.integers(*limits)) for limits in ((4, size - 24), (4, size - 24), (12, 20)))
        after[:, row : row + side, col : col + side] = 235 + rng.normal(0, 4, (4, 1, 1))
        labels[row : row + side, col : col + side] = 2
    after = after * rng.uniform(0.8, 1.0) + rng.uniform(0, 20) + rng.normal(0, 3, after.shape)
    labels[:4] = 0
    place: dict[str, Any] = {"transform": Affine(1, 0, 593_000 + 1000 * seed, 0, -1, 5_747_000)}
    for date, pixels in (("before", before), ("after", after)):
        seen = np.clip(pixels, 1, 255).astype("uint8")
        write_scene(folder / f"{name}_{date}.tif", seen, descriptions=ROLES, **place)
    write_scene(folder / f"{name}_label.tif", labels[None], **place)
    return labels


def mapping(**fit: Any) -> dict[str, Any]:
    return {
        "name": "twodates",
        "licence": "CC0-1.0",
        "gsd_m": [0.5, 2.0],
        "network": {"architecture": "SiameseUnet", "encoder": "resnet18", "decoder": DECODER},
        "legend": LEGEND.to_json(),
        "tile": 64,
        "data": [
            {
                "name": "pairs",
                "scenes": "*_before.tif",
                "after": "{place}_{number}_after.tif",
                "labels": "{place}_{number}_label.tif",
                "pattern": r"^(?P<place>[a-z]+)_(?P<number>\d)_before$",
                "hold_out": ["west"],
                "remap": {0: 255, 1: 0, 2: 1},
            }
        ],
        "augment": {"blur": 0, "noise": 0.1, "rotate": 0.3, "darken": 0, "radiometry": 0.5},
        "fit": {
            "steps": 4, "batch": 4, "window": 64, "validation_window": 64, "warmup": 2, "validate_every": 100,
            "checkpoint_every": 100, "threads": 1, "learning_rate": 0.004, "encoder_factor": 1.0, "ema": 0.9,
        } | fit,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for seed, name in enumerate(("east_1", "east_2", "north_1", "west_1")):
        write_pair(folder, name, seed)
    return folder


def config(folder: Path, **fit: Any) -> TrainConfig:
    return TrainConfig.from_mapping(mapping(**fit), folder)


def test_both_dates_are_one_scene(folder: Path) -> None:
    needs = BandNeeds(("red", "nir"))
    before, after = (open_scene(folder / f"east_1_{date}.tif", needs) for date in ("before", "after"))
    stacked = StackedScene.of(before, after)
    assert stacked.roles == ("before red", "before nir", "after red", "after nir")
    assert stacked.roles == of_dates(("red", "nir"))
    box = Box(3, 5, 20, 30)
    pixels, valid = stacked.read(box)
    assert np.array_equal(pixels[:2], before.read(box)[0])
    assert np.array_equal(pixels[2:], after.read(box)[0])
    assert valid.all()
    assert stacked.dtype == "uint8"


def test_the_network_sees_nothing_but_what_differs() -> None:
    torch.manual_seed(0)
    network = build_network("SiameseUnet", "resnet18", 8, 2, DECODER).eval()
    one, other = torch.rand(1, 4, 64, 64), torch.rand(1, 4, 64, 64)
    with torch.inference_mode():
        same = [network(torch.cat([date, date], dim=1)) for date in (one, other)]
        apart = network(torch.cat([one, other], dim=1))
        back = network(torch.cat([other, one], dim=1))
    assert torch.equal(*same)
    assert not torch.allclose(apart, same[0])
    assert not torch.allclose(apart, back)  # from what to what matters
    with pytest.raises(BundleError, match="even number of bands"):
        build_network("SiameseUnet", "resnet18", 3, 2, DECODER)


def test_batches_hold_both_dates_and_lose_bands_of_both(folder: Path) -> None:
    given = config(folder)
    training, held_out = gather(given)
    assert [scene.place for scene in held_out] == ["west"]
    given = replace(given, augment=replace(given.augment, missing=1.0))
    images, truth, *_ = batch_of(SampleIndex(given, training), given, 0)
    assert images.shape == (4, 8, 64, 64)
    assert [bool(images[:, band].any()) for band in range(8)] == [True, True, True, False] * 2
    assert set(truth.unique().tolist()) <= {0, 1, 255}


def test_pairs_must_lie_on_one_grid_and_belong_to_a_network_of_two_dates(folder: Path, tmp_path: Path) -> None:
    for name in ("east_1", "west_1"):
        for part in ("before", "after", "label"):
            (tmp_path / f"{name}_{part}.tif").write_bytes((folder / f"{name}_{part}.tif").read_bytes())
    write_scene(tmp_path / "east_1_after.tif", np.ones((4, 90, 90), np.uint8), descriptions=ROLES)
    with pytest.raises(FrameMismatchError, match=r"east_1_after\.tif"):
        gather(config(tmp_path))
    data = mapping()
    del data["data"][0]["after"]
    with pytest.raises(UsageError, match="data pairs needs the later scene as after"):
        TrainConfig.from_mapping(data, folder)
    data = mapping()
    data["network"]["architecture"] = "Unet"
    with pytest.raises(UsageError, match="data pairs needs no after"):
        TrainConfig.from_mapping(data, folder)


@pytest.mark.slow
def test_it_learns_what_changed_and_finds_it_elsewhere(folder: Path, tmp_path: Path) -> None:
    bundle = train(config(folder, steps=70), tmp_path / "training")
    assert bundle.of_two_dates
    assert [band.role for band in bundle.bands] == list(of_dates(ROLES))
    assert bundle.scores["validation"]["pairs"]["all_bands"]["classes"]["soil to roof"]["iou"] > 0.6
    truth = write_pair(tmp_path, "south_1", 9, size=600)
    dates = [tmp_path / f"south_1_{date}.tif" for date in ("before", "after")]
    settings = ChangeSettings(method="siamese", model=str(tmp_path / "training" / "bundle"))
    result = detect_change(*dates, tmp_path / "run", settings)
    assert verify_run(tmp_path / "run") == []
    with rasterio.open(tmp_path / "run" / "change.tif") as raster:
        codes = raster.read(1)
    found, real = codes == 1, truth == 2
    assert np.count_nonzero(found & real) / np.count_nonzero(found | real) > 0.6
    assert result.manifest["changes"][0]["from"] == "soil"
    assert result.manifest["changes"][0]["to"] == "roof"
    assert result.manifest["method"]["model"] == "twodates"
    other = detect_change(*dates, tmp_path / "other", replace(settings, block=512, workers=2))
    for name in ("change.tif", "magnitude.tif"):
        assert (other.folder / name).read_bytes() == (result.folder / name).read_bytes(), name
    none = detect_change(dates[0], dates[0], tmp_path / "none", settings)
    assert none.manifest["changed"]["pixels"] == 0
    with pytest.raises(UsageError, match="twodates compares two dates"):
        segment_scene(dates[0], tmp_path / "refused", Settings(model=settings.model))


def test_a_model_of_one_date_is_refused(folder: Path, tmp_path: Path, model: str) -> None:
    dates = [folder / f"east_1_{date}.tif" for date in ("before", "after")]
    with pytest.raises(UsageError, match="needs a model that sees two dates"):
        detect_change(*dates, tmp_path / "run", ChangeSettings(method="siamese", model=model))


def test_what_cannot_be_read_is_nodata(folder: Path, tmp_path: Path) -> None:
    from scenes import smash  # noqa: PLC0415

    torch.manual_seed(3)
    network = build_network("SiameseUnet", "resnet18", 8, 2, DECODER)
    bands = tuple(ModelBand(role, 0.5, 0.25) for role in of_dates(ROLES))
    save_bundle(
        ModelBundle(
            name="untrained", architecture="SiameseUnet", encoder="resnet18", decoder=DECODER, bands=bands,
            scaling=ScalingRule({"uint8": (0, 255)}), gsd_m=(0.5, 2.0), tile=64, legend=LEGEND, licence="CC0-1.0",
        ),
        save(network.state_dict()), tmp_path / "model",
    )  # fmt: skip
    with rasterio.open(folder / "east_1_after.tif") as raster:
        pixels = raster.read()
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    after = write_scene(tmp_path / "after.tif", pixels, descriptions=ROLES, **layout)
    smash(after, 0, 0)
    settings = ChangeSettings(method="siamese", model=str(tmp_path / "model"), register="off", vectors=False)
    result = detect_change(folder / "east_1_before.tif", after, tmp_path / "run", settings)
    assert result.manifest["status"] == "partial"
    assert result.failed
    with rasterio.open(tmp_path / "run" / "change.tif") as raster:
        codes = raster.read(1)
    assert (codes[:56, :56] == 255).all()
    assert (codes[120:, 120:] != 255).all()  # out of the reach of tiles that share a pixel with the damaged block
