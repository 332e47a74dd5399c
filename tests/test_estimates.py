"""What scores say of more than was looked at; folders of places, samples of points, and the page of an evaluation."""

from __future__ import annotations

import json
import re

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from shapely.geometry import Point

from geoseg.errors import InputError, UsageError
from geoseg.legend import LAND_COVER
from geoseg.report import ScoreReport, WorstWindow, render_scores
from geoseg.training.estimates import intervals, stratified_areas
from geoseg.training.scores import calibration, object_scores, tally_arrays
from geoseg.workflow.scoring import places_of, score_places, scores_text
from geoseg.workflow.scoring_page import write_page

NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")


def write(path, codes, nodata=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = codes.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype="uint8", nodata=nodata, crs="EPSG:32631",
        transform=Affine(2, 0, 500_000, 0, -2, 5_700_000),
    ) as dataset:  # fmt: skip
        dataset.write(codes.astype(np.uint8), 1)
    return path


def test_areas_of_the_worked_example_of_olofsson_and_others_2014():
    sample = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
    mapped = np.array([200_000, 150_000, 3_200_000, 6_450_000])
    found = stratified_areas(sample, mapped, NAMES, 900.0)
    first = found["classes"]["deforestation"]
    assert first["area"] / 1e4 == pytest.approx(21_158, abs=1)
    assert first["area_95"] / 1e4 == pytest.approx(6_158, abs=1)
    users = [row["users_accuracy"] for row in found["classes"].values()]
    assert users == pytest.approx([0.88, 0.73, 0.93, 0.96], abs=0.005)
    producers = [row["producers_accuracy"] for row in found["classes"].values()]
    assert producers == pytest.approx([0.75, 0.85, 0.93, 0.96], abs=0.005)
    assert found["accuracy"] == pytest.approx(0.95, abs=0.005)
    assert found["accuracy_95"] == pytest.approx(0.02, abs=0.005)
    assert sum(row["area"] for row in found["classes"].values()) == pytest.approx(mapped.sum() * 900)


def test_a_mapped_class_without_points_says_so():
    with pytest.raises(ValueError, match="forest gain: on the map, but with less than 2 points"):
        stratified_areas(np.diag([5, 1, 5, 5]), np.array([9, 9, 9, 9]), NAMES, None)


def test_intervals_hold_the_truth_as_often_as_they_should():
    """Places whose accuracy scatters around 0.8: the interval of 95 % holds it in most repetitions."""
    random = np.random.default_rng(3)
    held = 0
    for _ in range(60):
        right = random.binomial(1000, np.clip(random.normal(0.8, 0.05, 12), 0, 1))
        places = [np.array([[k, 1000 - k, 0], [0, 0, 0]]) for k in right]
        low, high = intervals(places, ("a", "b"))["iou_95"]["a"]
        assert low < high
        held += low <= 0.8 <= high
    assert held >= 50
    assert intervals(places[:1], ("a", "b")) is None
    assert intervals(places, ("a", "b"))["iou_95"]["b"] == [0.0, 0.0]


def test_calibration_of_confidences_that_are_right_and_of_those_that_are_not():
    counts = np.zeros((101, 2), np.int64)
    counts[90], counts[60] = (1000, 900), (500, 300)
    assert calibration(counts)["expected_error"] == pytest.approx(0)
    counts[60, 1] = 150
    assert calibration(counts)["expected_error"] == pytest.approx(500 / 1500 * 0.3)
    assert [row["pixels"] for row in calibration(counts)["bins"]] == [500, 1000]
    assert calibration(np.zeros((101, 2), np.int64))["expected_error"] is None


def test_objects_are_told_by_their_size():
    truth = np.zeros((60, 60), np.uint8)
    predicted = np.zeros((60, 60), np.uint8)
    truth[0:5, 0:5] = predicted[0:5, 0:5] = 1  # 25 px of 4 m2
    truth[10:15, 0:5] = 1  # missed
    truth[20:40, 20:40] = predicted[20:40, 20:38] = 1  # 400 px, found as 360
    predicted[50:53, 50:53] = 1  # made up, 9 px
    scores = object_scores(predicted, truth, 1, pixel_area_m2=4.0)
    sizes = {row["from_m2"]: row for row in scores["sizes"]}
    assert (sizes[100]["objects"], sizes[100]["recall"], sizes[100]["precision"]) == (2, 0.5, 1.0)
    assert (sizes[500]["objects"], sizes[500]["recall"], sizes[500]["to_m2"]) == (1, 1.0, None)
    assert (sizes[0]["objects"], sizes[0]["predicted"], sizes[0]["precision"]) == (0, 1, 0.0)
    assert (scores["objects"], scores["matched"], scores["predicted"]) == (3, 2, 3)


def test_tallies_of_places_add_up_to_that_of_both():
    random = np.random.default_rng(0)
    truth, predicted = (np.kron(random.integers(0, 5, (2, 6, 6)), np.ones((1, 8, 8))).astype(np.uint8) for _ in "ab")
    confidence = random.integers(0, 101, truth.shape).astype(np.uint8)
    parts = [
        tally_arrays(predicted[k], truth[k], LAND_COVER, confidence=confidence[k], pixel_area_m2=1.0) for k in (0, 1)
    ]
    gap = np.full((48, 8), 255, np.uint8)
    whole = tally_arrays(
        *(np.concatenate([pair[0], gap, pair[1]], axis=1) for pair in (predicted, truth)), LAND_COVER,
        confidence=np.concatenate([confidence[0], gap, confidence[1]], axis=1), pixel_area_m2=1.0,
    )  # fmt: skip
    assert (parts[0] + parts[1]).scores() == whole.scores()


def test_folders_are_matched_by_name_and_scored_together(tmp_path):
    random = np.random.default_rng(1)
    for name in ("north", "south"):
        codes = np.kron(random.integers(0, 5, (5, 5)), np.ones((8, 8)))
        noisy = np.where(random.random(codes.shape) < 0.2, 0, codes)
        write(tmp_path / "runs" / name / "classes.tif", noisy)
        write(tmp_path / "runs" / name / "confidence.tif", np.full(codes.shape, 80))
        write(tmp_path / "truth" / f"{name}.tif", np.where(codes == 4, 9, codes))
    write(tmp_path / "truth" / "elsewhere.tif", codes)
    places = places_of(tmp_path / "runs", tmp_path / "truth")
    assert [place.name for place in places] == ["north", "south"]
    scores = score_places(places, {9: 4})
    assert json.loads(json.dumps(scores)) == scores
    assert set(scores["places"]) == {"north", "south"}
    low, high = scores["intervals"]["iou_95"]["mean"]
    assert 0 < low <= scores["pixels"]["mean_iou"] <= high < 1
    assert scores["calibration"]["expected_error"] == pytest.approx(abs(0.8 - scores["pixels"]["accuracy"]), abs=1e-6)
    text = scores_text(scores)
    assert "95 % of places" in text
    assert "expected calibration error" in text
    alone = score_places(places_of(tmp_path / "runs" / "north", tmp_path / "truth" / "north.tif"), {9: 4})
    assert alone["pixels"]["accuracy"] == scores["places"]["north"]["accuracy"]

    with pytest.raises(UsageError, match="must be a folder with a truth for each"):
        places_of(tmp_path / "runs", tmp_path / "truth" / "north.tif")
    with pytest.raises(UsageError, match="hold nothing of the same name"):
        places_of(tmp_path / "runs", tmp_path / "runs" / "north")

    page = tmp_path / "page.html"
    write_page(page, places, scores, {9: 4})
    told = page.read_text()
    assert told.count("data:image/png") == 2 * 3  # truth, predicted, errors; no run tells of imagery
    assert "Worst windows" in told
    assert not re.search(r'(src|href)="(?!data:|#)', told)


def points_of(codes, count, seed=0):
    random = np.random.default_rng(seed)
    rows, cols = random.integers(0, codes.shape[0], count), random.integers(0, codes.shape[1], count)
    places = [Point(500_000 + 2 * col + 1, 5_700_000 - 2 * row - 1) for row, col in zip(rows, cols, strict=True)]
    names = [LAND_COVER.names[code] for code in codes[rows, cols]]
    return gpd.GeoDataFrame({"class": names}, geometry=places, crs=32631)


def test_points_tell_areas_that_the_map_gets_wrong(tmp_path):
    """The map misses a third of the water; the estimate, from a few hundred points, holds what there is."""
    truth = np.zeros((200, 200), np.uint8)
    truth[:, :60], truth[:, 100:140] = 4, 1
    mapped = truth.copy()
    mapped[:, 40:60] = 0
    predicted = write(tmp_path / "classes.tif", mapped)
    points_of(truth, 600).to_crs(4326).to_file(tmp_path / "points.gpkg")
    scores = score_places(places_of(predicted, tmp_path / "points.gpkg"))
    water = scores["areas"]["classes"]["water"]
    assert water["mapped"] == 40 * 200 * 4
    assert abs(water["area"] - 60 * 200 * 4) < water["area_95"]
    assert water["producers_accuracy"] == pytest.approx(2 / 3, abs=0.08)
    assert scores["areas"]["points"] == 600
    assert scores["areas"]["classes"]["road"]["users_accuracy"] is None
    text = scores_text(scores)
    assert re.search(r"water +3\.2 +4\.\d", text)
    write_page(tmp_path / "page.html", places_of(predicted, tmp_path / "points.gpkg"), scores, {})
    assert "Olofsson" in (tmp_path / "page.html").read_text()


def test_points_that_say_too_little_are_refused(tmp_path):
    codes = np.zeros((50, 50), np.uint8)
    codes[:, :5] = 4
    predicted = write(tmp_path / "classes.tif", codes)
    far = points_of(codes, 9)
    far.geometry = far.geometry.translate(10_000)
    far.to_file(tmp_path / "far.gpkg")
    with pytest.raises(InputError, match="has no point where"):
        score_places(places_of(predicted, tmp_path / "far.gpkg"))
    dry = points_of(np.zeros_like(codes), 60)
    dry = dry[dry.geometry.x > 500_010]
    dry.to_file(tmp_path / "dry.gpkg")
    with pytest.raises(InputError, match="water: on the map, but with less than 2 points; draw more points there"):
        score_places(places_of(predicted, tmp_path / "dry.gpkg"))


def test_the_page_shows_imagery_and_escapes_names():
    scores = tally_arrays(np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8), LAND_COVER).scores()
    window = WorstWindow("<b>", "rows 0–8", 0.5, {"Imagery": Image.new("RGB", (8, 8))})
    page = render_scores(ScoreReport("a & b", LAND_COVER, scores, [window], [("<b>", "x", "y")]))
    assert "a &amp; b" in page
    assert "<b>," not in page
    assert "50 % right" in page.replace("\u202f", " ")
