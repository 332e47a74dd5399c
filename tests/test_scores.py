"""Scores against cases worked out by hand."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from geoseg.errors import FrameMismatchError, InputError
from geoseg.legend import LAND_COVER
from geoseg.training.evaluate import evaluate_rasters
from geoseg.training.scores import boundary_scores, confusion_matrix, object_scores, pixel_scores, score_arrays


def write(path, codes, *, west=500_000.0, epsg=32631, nodata=None, dtype="uint8"):
    height, width = codes.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=dtype, nodata=nodata,
        crs=f"EPSG:{epsg}", transform=Affine(1, 0, west, 0, -1, 5_700_000),
    ) as dataset:  # fmt: skip
        dataset.write(codes.astype(dtype), 1)
    return path


def test_pixel_scores_of_a_case_worked_out_by_hand():
    truth = np.array([[0, 0, 1, 1], [1, 1, 255, 255]])
    predicted = np.array([[0, 1, 1, 1], [1, 255, 0, 1]])
    confusion = confusion_matrix(predicted, truth, (0, 1))
    assert confusion.tolist() == [[1, 1, 0], [0, 3, 1]]  # the last column: a pixel with a truth was left open
    scores = pixel_scores(confusion, ("ground", "roof"))
    assert scores["classes"]["ground"] == {"iou": 0.5, "f1": 2 / 3, "precision": 1.0, "recall": 0.5, "pixels": 2}
    assert scores["classes"]["roof"] == {"iou": 0.6, "f1": 0.75, "precision": 0.75, "recall": 0.75, "pixels": 4}
    assert scores["mean_iou"] == pytest.approx(0.55)
    assert scores["accuracy"] == pytest.approx(4 / 6)


def test_a_class_that_does_not_occur_has_no_score_and_no_part_in_the_mean():
    truth = np.zeros((3, 3), np.uint8)
    scores = pixel_scores(confusion_matrix(truth, truth, (0, 1)), ("ground", "roof"))
    assert scores["classes"]["roof"]["iou"] is None
    assert scores["mean_iou"] == 1.0


def test_codes_need_not_be_channel_numbers():
    truth = np.array([7, 40, 40])
    assert confusion_matrix(np.array([7, 7, 40]), truth, (7, 40)).tolist() == [[1, 0, 0], [1, 1, 0]]


def test_objects_match_one_to_one_at_half_of_their_union():
    truth = np.zeros((12, 12), np.uint8)
    predicted = np.zeros((12, 12), np.uint8)
    truth[0:4, 0:4] = 1
    predicted[0:4, 0:3] = 1  # IoU 12/16: a match
    truth[6:10, 0:4] = 1
    predicted[9:12, 0:4] = 1  # IoU 4/24: none
    truth[0:2, 8:10] = 1
    truth[2:4, 10:12] = 1  # touches at a corner alone, so it is another object
    scores = object_scores(predicted, truth, 1)
    assert (scores["objects"], scores["predicted"], scores["matched"]) == (4, 2, 1)
    assert (scores["precision"], scores["recall"], scores["f1"]) == (0.5, 0.25, 2 / 6)


def test_one_prediction_over_two_equal_objects_finds_one_of_them():
    truth = np.array([[1, 1, 0, 1, 1]], np.uint8)
    predicted = np.array([[1, 1, 255, 1, 1]], np.uint8)
    assert object_scores(predicted, truth, 1)["matched"] == 2
    truth = np.array([[1, 1], [0, 0], [1, 1]], np.uint8)
    predicted = np.array([[1, 1], [255, 1], [255, 255]], np.uint8)
    assert object_scores(predicted, truth, 1)["matched"] == 1


def test_boundary_scores_count_outlines_within_the_tolerance():
    truth = np.zeros((20, 20), np.uint8)
    truth[:, :10] = 1  # its outline is column 9; the raster's edge draws none
    predicted = np.zeros((20, 20), np.uint8)
    predicted[:, :12] = 1  # column 11, two pixels off
    assert boundary_scores(predicted, truth, 1, 1)["f1"] == 0.0
    assert boundary_scores(predicted, truth, 1, 3)["f1"] == 1.0
    predicted[10:, :12] = 0
    predicted[10:, :10] = 1  # the lower half is right
    # Found: 9 rows of column 11 too far off, and the step at row 9, which lies next to the true outline.
    half = boundary_scores(predicted, truth, 1, 1)
    assert half["recall"] == pytest.approx(11 / 20)
    assert half["precision"] == pytest.approx(11 / 21)


def test_unknown_truth_draws_no_outline_and_no_object():
    truth = np.full((9, 9), 255, np.uint8)
    truth[:, :4] = 1
    predicted = np.ones((9, 9), np.uint8)
    scores = score_arrays(predicted, truth, LAND_COVER)
    assert scores["pixels"]["pixels"] == 36
    assert scores["pixels"]["classes"]["building"]["iou"] == 1.0
    assert scores["objects"]["building"]["f1"] == 1.0
    assert scores["boundaries"]["building"][0]["precision"] is None


def test_evaluate_rasters_gives_json_and_perfect_scores_for_the_truth_itself(tmp_path):
    codes = np.random.default_rng(0).integers(0, 5, (40, 50))
    truth = write(tmp_path / "truth.tif", codes)
    scores = evaluate_rasters(truth, truth)
    assert scores["pixels"]["mean_iou"] == 1.0
    assert set(scores["objects"]) == {"building"}
    assert [row["tolerance_px"] for row in scores["boundaries"]["water"]] == [1, 3]
    assert json.loads(json.dumps(scores)) == scores


def test_evaluate_rasters_by_strips_equals_the_whole(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    truth = write(tmp_path / "truth.tif", rng.integers(0, 5, (37, 21)))
    predicted = write(tmp_path / "predicted.tif", rng.integers(0, 5, (37, 21)), nodata=3)
    whole = evaluate_rasters(predicted, truth)
    monkeypatch.setattr("geoseg.training.evaluate._STRIP_PIXELS", 60)
    monkeypatch.setattr("geoseg.training.evaluate._WHOLE_PIXELS", 60)
    pixels = evaluate_rasters(predicted, truth)
    assert pixels["pixels"] == whole["pixels"]
    assert pixels["objects"] == {}


def test_truth_may_be_polygons_of_several_layers(tmp_path):
    codes = np.zeros((40, 60), np.uint8)
    codes[5:15, 5:25], codes[20:30, 10:50] = 1, 4
    predicted = write(tmp_path / "predicted.tif", codes)
    for name, window in (("building", (5, 5, 15, 25)), ("water", (20, 10, 30, 50))):
        top, left, bottom, right = window
        box = shapely.box(500_000 + left, 5_700_000 - bottom, 500_000 + right, 5_700_000 - top)
        layer = gpd.GeoDataFrame({"class": [name]}, geometry=[box], crs=32631)
        layer.to_file(tmp_path / "truth.gpkg", layer=name)
    scores = evaluate_rasters(predicted, tmp_path / "truth.gpkg")
    assert scores["pixels"]["accuracy"] == 1.0
    assert scores["pixels"]["classes"]["water"]["pixels"] == 400
    assert scores == evaluate_rasters(predicted, predicted)


def test_evaluate_rasters_refuses_other_grids_and_codes(tmp_path):
    codes = np.ones((6, 8))
    truth = write(tmp_path / "truth.tif", codes)
    for name, other in {
        "moved": {"west": 500_001.0},
        "zone": {"epsg": 32632},
    }.items():
        with pytest.raises(FrameMismatchError, match="do not lie on one grid"):
            evaluate_rasters(write(tmp_path / f"{name}.tif", codes, **other), truth)
    with pytest.raises(FrameMismatchError, match="6 x 7"):
        evaluate_rasters(write(tmp_path / "narrow.tif", codes[:, :7]), truth)
    with pytest.raises(InputError, match="int16"):
        evaluate_rasters(write(tmp_path / "int16.tif", codes, dtype="int16"), truth)
    strange = write(tmp_path / "strange.tif", codes * 5)
    with pytest.raises(InputError, match="code 5"):
        evaluate_rasters(truth, strange)
    assert evaluate_rasters(truth, strange, remap={5: 1})["pixels"]["accuracy"] == 1.0
    assert evaluate_rasters(truth, strange, remap={5: 255})["pixels"]["accuracy"] is None
