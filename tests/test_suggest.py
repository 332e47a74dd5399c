"""What to label next: where the model was unsure, each window unlike the others."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from pyogrio import list_layers
from scenes import ROLES, smooth_pixels, write_scene

from geoseg.cli import main
from geoseg.config import Settings
from geoseg.errors import RunFolderError, UsageError
from geoseg.frame import Box
from geoseg.training import TrainConfig
from geoseg.training.samples import IGNORE, gather
from geoseg.workflow import segment_scene
from geoseg.workflow.suggesting import rank, suggest_windows


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A finished run whose confidence is made up: low in the upper right, lower below it, nothing in the lower left."""
    folder = tmp_path_factory.mktemp("suggest")
    scene = write_scene(folder / "scene.tif", smooth_pixels((128, 160)), descriptions=ROLES)
    segment_scene(scene, folder / "run", Settings(model=model, vectors=False))
    with rasterio.open(folder / "run" / "confidence.tif") as raster:
        profile = raster.profile
    confidence = np.full((128, 160), 95, np.uint8)
    confidence[:64, 128:], confidence[64:, 128:], confidence[64:, :32] = 40, 30, 255
    profile |= {"driver": "GTiff", "compress": "deflate"}
    with rasterio.open(folder / "run" / "confidence.tif", "w", **profile) as raster:
        raster.write(confidence, 1)
    return folder / "run"


def test_unsure_windows_come_first_and_blank_ones_not_at_all(run, tmp_path):
    path = suggest_windows(run, tmp_path / "next.gpkg", count=50, side=32)
    windows = gpd.read_file(path, layer="windows")
    assert list(windows["rank"]) == list(range(1, 19))  # 4 x 5 windows, 2 of which have nothing to see
    assert (windows["col"][0], windows["row"][0] // 64) == (128, 1)
    assert windows["uncertainty"][0] == pytest.approx(0.7)
    assert set(windows.iloc[:3]["col"]) == {128}
    assert windows["unsure"].isin([0.0, 1.0]).all()
    assert not ((windows["col"] == 0) & (windows["row"] >= 64)).any()
    first = windows.geometry.iloc[0]
    assert first.area == pytest.approx(32 * 32)
    assert first.bounds[0] == pytest.approx(593_000 + 128)
    few = gpd.read_file(suggest_windows(run, tmp_path / "few.gpkg", count=3, side=32), layer="windows")
    assert list(few["row"]) == list(windows["row"][:3])


def test_windows_that_are_alike_wait():
    uncertainty = np.array([0.9, 0.89, 0.88, 0.5])
    features = np.array([[0.0, 1.0], [0.0, 1.0], [0.01, 1.0], [4.0, -1.0]])
    assert rank(uncertainty, features, 3)[:2] == [0, 3]
    assert sorted(rank(uncertainty, features, 9)) == [0, 1, 2, 3]
    assert rank(uncertainty[:1], features[:1], 5) == [0]


def test_what_is_drawn_into_the_labels_trains(run, tmp_path):
    path = suggest_windows(run, tmp_path / "next.gpkg", count=4, side=32)
    assert {name for name, _ in list_layers(path)} == {"windows", "labels", "layer_styles"}
    labels = gpd.read_file(path, layer="labels")
    assert list(labels.columns) == ["class", "geometry"]
    first = gpd.read_file(path, layer="windows").geometry.iloc[0]
    drawn = gpd.GeoDataFrame({"class": ["road", "water"]}, geometry=[first, first.buffer(-10)], crs=labels.crs)
    drawn.to_file(tmp_path / "scene_label.gpkg")
    write_scene(tmp_path / "scene.tif", smooth_pixels((128, 160)), descriptions=ROLES)
    elsewhere = Affine(1, 0, 594_000, 0, -1, 5_747_000)
    write_scene(tmp_path / "other.tif", smooth_pixels((128, 160), 1), descriptions=ROLES, transform=elsewhere)
    drawn.set_geometry(drawn.translate(1000)).to_file(tmp_path / "other_label.gpkg")
    data = {"name": "n", "scenes": "[so]*.tif", "labels": "{stem}_label.gpkg", "outside": 255, "hold_out": ["other"]}
    config = TrainConfig.from_mapping(
        {"name": "n", "licence": "CC0-1.0", "gsd_m": [0.5, 2.0], "data": [data]}, tmp_path
    )  # fmt: skip
    truth = gather(config)[0][0].truth(Box(0, 0, 128, 160))
    assert [(truth == code).sum() for code in (2, 4)] == [32 * 32 - 12 * 12, 12 * 12]
    assert (truth == IGNORE).sum() == 128 * 160 - 32 * 32


def test_folders_without_a_run_and_windows_without_anything_are_told(run, tmp_path, capsys, monkeypatch):
    with pytest.raises(RunFolderError, match=r"is no finished run: it has no run\.json"):
        suggest_windows(tmp_path, tmp_path / "x.gpkg", count=1, side=32)
    with pytest.raises(UsageError, match=r"name it \.gpkg"):
        suggest_windows(run, tmp_path / "x.shp", count=1, side=32)
    monkeypatch.setattr("sys.argv", ["geoseg", "suggest", str(run), "--out", str(tmp_path / "a.gpkg"), "--size", "64"])
    main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "a.gpkg")
