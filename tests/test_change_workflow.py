"""`geoseg change` from two files to a folder: what it finds, and the promises of the contract."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.enums import Resampling
from rio_cogeo.cogeo import cog_validate
from scenes import ROLES, Notes, save_small_bundle, smash, write_scene
from scipy.ndimage import binary_dilation
from scipy.ndimage import shift as moved_by
from test_change import land
from test_qgis import ask

import geoseg.workflow.change_tasks
from geoseg.config import ChangeSettings, resolve_settings
from geoseg.errors import FrameMismatchError, InputError, UsageError
from geoseg.scene import BandNeeds, open_scene
from geoseg.workflow import detect_change, segment_scene, verify_run
from geoseg.write import read_legend

Array = np.ndarray[Any, Any]

GEOSEG = Path(sys.executable).parent / "geoseg"
HERE = Path(__file__).parent
SHAPE = (700, 900)
CVA = ChangeSettings(method="cva")


def read(path: Path) -> Array:
    with rasterio.open(path) as raster:
        return raster.read()


@pytest.fixture(scope="module")
def dates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two dates in files of two bytes; in the later one, brighter overall, a field of 60 x 50 m has got bright."""
    folder = tmp_path_factory.mktemp("dates")
    before = land(SHAPE, 4, seed=2) * 8
    after = before * 1.1 + 90 + np.random.default_rng(9).normal(0, 12, before.shape)
    after[:, 490:550, 500:550] += 1500  # across the corner of four blocks of 512
    before[:, :40, :70] = 0
    profile = {"nodata": 0, "descriptions": ROLES, "tiled": True, "blockxsize": 128, "blockysize": 128}
    paths = [folder / "town_20190704.tif", folder / "town_20230711.tif"]
    for path, pixels in zip(paths, (before, after), strict=True):
        write_scene(path, np.clip(pixels, 0, 4000).astype("uint16"), **profile)
    return paths[0], paths[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, dates: tuple[Path, Path]) -> Path:
    """A finished comparison."""
    out = tmp_path_factory.mktemp("change") / "run"
    detect_change(*dates, out, replace(CVA, format=("gpkg", "parquet")))
    return out


def test_a_comparison_leaves_what_the_contract_says(run: Path, dates: tuple[Path, Path]) -> None:
    names = {path.name for path in run.iterdir()}
    assert {
        "change.tif",
        "magnitude.tif",
        "confidence.tif",
        "change.gpkg",
        "report.html",
        "run.json",
        "item.json",
    } < names
    assert not [name for name in names if name.startswith(".")]
    assert verify_run(run) == []
    for name in ("change.tif", "magnitude.tif", "confidence.tif"):
        assert cog_validate(run / name, quiet=True)[0], name
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "done"
    assert record["before"]["path"] == str(dates[0])
    assert record["before"]["date"] == "2019-07-04"
    assert record["frame"]["shape"] == list(SHAPE)
    legend = read_legend(run / "change.tif")
    assert legend is not None
    assert legend.names == ("unchanged", "brighter", "darker", "greener", "less green")
    item = json.loads((run / "item.json").read_text())
    assert item["properties"]["start_datetime"][:10] == "2019-07-04"
    assert {"change", "magnitude", "confidence"} < set(item["assets"])


def test_what_changed_is_found_and_nothing_else(run: Path) -> None:
    codes, magnitude, confidence = (read(run / f"{name}.tif")[0] for name in ("change", "magnitude", "confidence"))
    truth = np.zeros(SHAPE, bool)
    truth[490:550, 500:550] = True
    assert (codes[truth] == 1).mean() > 0.99
    assert (codes[~truth & (codes != 255)] != 0).mean() < 1e-4
    assert (codes[:40, :70] == 255).all()
    assert np.isnan(magnitude[:40, :70]).all()
    assert ((confidence == 255) == (codes == 255)).all()
    assert confidence[confidence != 255].min() >= 50
    changes = gpd.read_file(run / "change.gpkg", layer="change")
    assert list(changes.columns[:-1]) == [
        "class", "code", "from", "to", "magnitude", "confidence", "confidence_min", "area_m2", "perimeter_m",
        "touches_edge", "date_before", "date_after",
    ]  # fmt: skip
    largest = changes.loc[changes.area_m2.idxmax()]
    assert largest.area_m2 == pytest.approx(60 * 50, rel=0.02)
    assert (largest["from"], largest["to"], largest["class"]) == ("dark", "bright", "brighter")
    assert largest.magnitude == pytest.approx(magnitude[truth].mean(), rel=0.02)
    assert (largest.date_before, largest.date_after) == ("2019-07-04", "2023-07-11")
    assert changes.is_valid.all()
    record = json.loads((run / "run.json").read_text())
    assert record["changed"]["area_m2"] == pytest.approx(np.count_nonzero((codes != 0) & (codes != 255)))
    assert record["valid"]["pixels"] == np.count_nonzero(codes != 255)
    assert len(gpd.read_parquet(run / "change_change.parquet")) == len(changes)


SAME = ("change.tif", "magnitude.tif", "confidence.tif", "change.gpkg", "change_change.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"block": 512}, {"block": 512, "workers": 2}, {"block": 4096}])
def test_the_same_bytes_from_any_blocks_and_workers(
    run: Path, dates: tuple[Path, Path], tmp_path: Path, how: Any
) -> None:
    detect_change(*dates, tmp_path / "run", replace(CVA, format=("gpkg", "parquet"), **how))
    for name in SAME:
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("step", ["reweigh", "measure", "judge", "polygons"])
def test_a_run_that_was_cut_short_goes_on_to_the_same_bytes(
    run: Path, dates: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    out, settings = tmp_path / "run", replace(CVA, format=("gpkg", "parquet"), block=512)
    done = getattr(geoseg.workflow.change_tasks, step)
    calls: list[Any] = []

    def fails(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3 or step == "polygons":
            raise RuntimeError
        return done(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(geoseg.workflow.changing, step, fails)
        with pytest.raises(RuntimeError):
            detect_change(*dates, out, settings)
    assert {path.name for path in out.iterdir() if path.is_file()} <= {".geoseg-lock"}
    notes = Notes()
    detect_change(*dates, out, settings, progress=notes)
    assert any("going on with the unfinished run" in note for note in notes.said)
    for name in SAME:
        assert (out / name).read_bytes() == (run / name).read_bytes(), name
    assert {path.name for path in out.iterdir()} == {path.name for path in run.iterdir()}


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_looks_like_a_result(
    run: Path, dates: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [GEOSEG, "change", *dates, "--out", out, "--method", "cva", "--block", "512", "--format", "gpkg,parquet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(out.glob(".geoseg-work/*/round*.npz")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not [path for path in out.iterdir() if not path.name.startswith(".")]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on with the unfinished run" in again.stderr
    for name in SAME:
        assert (out / name).read_bytes() == (run / name).read_bytes(), name


def test_a_finished_run_is_kept_and_another_is_refused(run: Path, dates: tuple[Path, Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(run, tmp_path / "run"))
    notes = Notes()
    settings = replace(CVA, format=("gpkg", "parquet"))
    detect_change(*dates, out, settings, progress=notes)
    assert any("was finished before" in note for note in notes.said)
    with pytest.raises(UsageError, match="finished run with other threshold"):
        detect_change(*dates, out, replace(settings, threshold="9"))
    with pytest.raises(UsageError, match="finished run with other before date, after date"):
        detect_change(*reversed(dates), out, settings)


# Synthetic truth: a real scene against itself, moved, brighter, in another grid, with objects put in


def moved_scene(path: Path, source: Path, length: float, *, objects: bool, seed: int = 0) -> tuple[Path, Array]:
    """The scene as another day sees it, and which pixels of the source have changed."""
    rng = np.random.default_rng(seed)
    scene = open_scene(source, BandNeeds(ROLES))
    pixels = scene.read(scene.frame.box)[0].astype(float)
    truth = np.zeros(scene.frame.shape, np.int32)
    spread = pixels.std(axis=(1, 2))
    for number in range(1, 31 if objects else 1):
        row, col = (int(rng.integers(9, size - 15)) for size in scene.frame.shape)
        if not truth[row - 4 : row + 9, col - 4 : col + 9].any():
            at = np.s_[row : row + 5, col : col + 5]
            truth[at] = number
            pixels[:, *at] = pixels[:, *at].mean(axis=(1, 2), keepdims=True)
            pixels[:, *at] += (rng.choice([-1, 1]) * 2 * spread)[:, None, None]
    gain, offset = rng.uniform(0.85, 1.2, (4, 1, 1)), rng.uniform(0, 30, (4, 1, 1))
    shifted = [
        moved_by(band, (0.8 * length, -0.6 * length), order=3, mode="nearest") for band in np.clip(pixels, 1, None)
    ]
    later = np.rint(np.clip(np.stack(shifted) * gain + offset, 1, 60000)).astype("uint16")
    profile = {"crs": scene.frame.crs, "transform": scene.frame.transform, "descriptions": ROLES}
    return write_scene(path, later, **profile), truth


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cva", "irmad"])
@pytest.mark.parametrize("length", [0.1, 0.24, 0.5, 1.3, 3.0])
@pytest.mark.parametrize("name", ["rotterdam_1.tif", "sentinel2_coast.tif"])
def test_nothing_is_called_changed_where_nothing_is_and_objects_are_found(
    demo_folder: Path, tmp_path: Path, name: str, length: float, method: str
) -> None:
    settings = ChangeSettings(method=method, vectors=False)
    same, _ = moved_scene(tmp_path / "same.tif", demo_folder / name, length, objects=False)
    result = detect_change(demo_folder / name, same, tmp_path / "none", settings)
    registration = result.manifest["registration"]
    assert registration["length_px"] == pytest.approx(length, abs=0.1)
    assert (registration["moved_px"] != [0, 0]) == (length > 0.25)
    assert result.manifest["changed"]["share"] <= 0.001
    other, truth = moved_scene(tmp_path / "other.tif", demo_folder / name, length, objects=True)
    result = detect_change(demo_folder / name, other, tmp_path / "some", settings)
    codes = read(result.folder / "change.tif")[0]
    changed = (codes != 0) & (codes != 255)
    numbers = [number for number in np.unique(truth) if number]
    found = [changed[truth == number].mean() >= 0.5 for number in numbers]
    assert np.mean(found) >= 0.95
    assert changed[~binary_dilation(truth > 0, iterations=3)].mean() <= 0.001


@pytest.mark.slow
@pytest.mark.parametrize("length", [0.0, 0.5, 1.3])
def test_no_class_changes_where_the_imagery_does_not(demo_folder: Path, tmp_path: Path, length: float) -> None:
    """With the embedded model: it does not see the same twice where a scene is moved by part of a pixel."""
    source = demo_folder / "rotterdam_1.tif"
    same, _ = moved_scene(tmp_path / "same.tif", source, length, objects=False)
    result = detect_change(source, same, tmp_path / "run", ChangeSettings(vectors=False))
    assert result.manifest["config"]["method"] == "classes"
    assert result.manifest["changed"]["share"] <= 0.001


@pytest.mark.slow
def test_dates_may_differ_in_crs_resolution_extent_order_of_bands_and_type(demo_folder: Path, tmp_path: Path) -> None:
    source = demo_folder / "rotterdam_1.tif"
    other, truth = moved_scene(tmp_path / "other.tif", source, 0.0, objects=True)
    with rasterio.open(other) as raster:
        pixels, crs, transform = raster.read(), raster.crs, raster.transform
    target = "EPSG:4326" if not crs.is_geographic else "EPSG:32631"
    bounds = rasterio.transform.array_bounds(*pixels.shape[1:], transform)
    grid, width, height = rasterio.warp.calculate_default_transform(crs, target, *pixels.shape[:0:-1], *bounds)
    finer = grid * Affine.translation(7.3, 4.6) * Affine.scale(0.83)
    out = np.zeros((4, int(height * 1.05), int(width * 1.05)), np.float32)
    for band in range(4):
        rasterio.warp.reproject(
            pixels[band], out[band], src_transform=transform, src_crs=crs, dst_transform=finer, dst_crs=target,
            resampling=Resampling.cubic, tolerance=0,
        )  # fmt: skip
    later = write_scene(
        tmp_path / "later.tif", out[[3, 0, 1, 2]] / 4000, crs=target, transform=finer, nodata=0,
        descriptions=("nir", "red", "green", "blue"),
    )  # fmt: skip
    result = detect_change(source, later, tmp_path / "run", replace(CVA, vectors=False))
    assert result.manifest["frame"]["crs"] == json.loads((tmp_path / "run/run.json").read_text())["before"]["crs"]
    assert result.manifest["registration"]["length_px"] < 0.15
    codes = read(tmp_path / "run/change.tif")[0]
    with rasterio.open(tmp_path / "run/change.tif") as raster, rasterio.open(source) as scene:
        col, row = ~scene.transform * (raster.transform.c, raster.transform.f)
    assert abs(row - round(row)) < 1e-6
    part = truth[round(row) : round(row) + codes.shape[0], round(col) : round(col) + codes.shape[1]]
    changed, valid = (codes != 0) & (codes != 255), codes != 255
    numbers = [k for k in np.unique(part) if k and valid[part == k].all() and (part == k).sum() == 25]
    assert len(numbers) > 15
    assert np.mean([changed[part == k].mean() >= 0.5 for k in numbers]) >= 0.95
    assert changed[valid & ~binary_dilation(part > 0, iterations=3)].mean() <= 0.001


# Zones


def test_areas_are_told_by_zone(dates: tuple[Path, Path], tmp_path: Path) -> None:
    import shapely  # noqa: PLC0415

    whole = shapely.box(593_000, 5_746_300, 593_900, 5_747_000)
    zones = [
        shapely.box(593_500, 5_746_450, 593_525, 5_746_510),
        whole,
        shapely.box(500_000, 5_000_000, 500_010, 5_000_010),
    ]
    names = ["half of the field", "all", "elsewhere"]
    layer = gpd.GeoDataFrame({"Name": names}, geometry=zones, crs="EPSG:32631")
    layer.to_crs("EPSG:4326").to_file(tmp_path / "zones.geojson")
    result = detect_change(*dates, tmp_path / "run", replace(CVA, zones=str(tmp_path / "zones.geojson"), vectors=False))
    half, every, none = result.manifest["zones"]
    assert [row["zone"] for row in (half, every, none)] == names
    assert half["changes"] == {"brighter": pytest.approx(60 * 25, rel=0.02)}
    assert every["changed_m2"] == pytest.approx(result.manifest["changed"]["area_m2"], rel=0.001)
    assert every["valid_m2"] == pytest.approx(result.manifest["valid"]["area_m2"], rel=0.001)
    assert none == {"zone": "elsewhere", "valid_m2": 0, "changed_m2": 0, "changes": {}}
    lines = (tmp_path / "run/zones.csv").read_text().splitlines()
    assert lines[0] == "zone,valid_m2,changed_m2,brighter m2"
    assert len(lines) == 4
    assert "half of the field" in (tmp_path / "run/report.html").read_text()
    assert verify_run(tmp_path / "run") == []
    with pytest.raises(InputError, match=r"--zones .*none.gpkg is not a file"):
        detect_change(*dates, tmp_path / "other", replace(CVA, zones=str(tmp_path / "none.gpkg")))


# Classes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "small"
    save_small_bundle(folder, gsd_m=(0.3, 5.0))
    return str(folder)


@pytest.mark.slow
def test_classes_are_compared_through_runs_of_both_dates(dates: tuple[Path, Path], model: str, tmp_path: Path) -> None:
    settings = ChangeSettings(model=model, block=512)
    result = detect_change(*dates, tmp_path / "run", settings)
    assert result.manifest["config"]["method"] == "classes"
    runs = [tmp_path / "run" / name for name in ("before", "after")]
    assert all(verify_run(run) == [] for run in runs)
    codes = read(tmp_path / "run/change.tif")[0]
    classes = [read(run / "classes.tif")[0] for run in runs]
    seen = (codes != 0) & (codes != 255)
    transitions = {entry["code"]: entry for entry in result.manifest["transitions"]}
    names = ("background", "building", "road", "vegetation", "water")
    for code in np.unique(codes[seen]):
        sure = (codes == code) & (read(tmp_path / "run/confidence.tif")[0] > 80)
        for date, key in zip(classes, ("from", "to"), strict=True):
            if sure.any():
                assert (date[sure] == names.index(transitions[int(code)][key])).mean() > 0.9
    matrix = sum(row["pixels"] for row in result.manifest["matrix"])
    assert matrix == result.manifest["valid"]["pixels"]
    for row in result.manifest["net"]:
        assert row["net_m2"] == pytest.approx(row["after_m2"] - row["before_m2"], abs=0.2)
    buildings = gpd.read_file(tmp_path / "run/change.gpkg", layer="building_change")
    counts = result.manifest["objects"]["building"]
    assert dict(buildings["status"].value_counts()) == {status: count for status, count in counts.items() if count}
    assert ((buildings.area_before_m2 > 0) == (buildings.status != "added")).all()
    assert ((buildings.area_after_m2 > 0) == (buildings.status != "removed")).all()
    assert buildings.id.is_unique
    # The same from the runs, and nothing from a run against itself.
    with pytest.raises(UsageError, match="is one of the runs that are compared"):
        detect_change(*runs, runs[1], settings, overwrite=True)
    again = detect_change(*runs, tmp_path / "again", settings)
    assert (again.folder / "change.tif").read_bytes() == (result.folder / "change.tif").read_bytes()
    none = detect_change(runs[0], runs[0], tmp_path / "none", settings)
    assert none.manifest["changed"]["pixels"] == 0
    assert {status for status, count in none.manifest["objects"]["building"].items() if count} <= {"unchanged"}
    _with_other_legend(runs[0], tmp_path / "other")
    with pytest.raises(InputError, match="different classes"):
        detect_change(tmp_path / "other", runs[1], tmp_path / "refused", settings)


def _with_other_legend(run: Path, out: Path) -> None:
    shutil.copytree(run, out)
    record = json.loads((out / "run.json").read_text())
    record["model"]["legend"][1]["name"] = "hut"
    (out / "run.json").write_text(json.dumps(record))


def test_runs_without_probabilities_are_compared_by_their_confidence(
    demo_folder: Path, model: str, tmp_path: Path
) -> None:
    scene = demo_folder / "rotterdam_1.tif"
    for name in ("one", "two"):
        segment_scene(scene, tmp_path / name, ChangeSettings(model=model, vectors=False))
    result = detect_change(tmp_path / "one", tmp_path / "two", tmp_path / "run", ChangeSettings(vectors=False))
    assert result.manifest["changed"]["pixels"] == 0
    assert result.manifest["valid"]["pixels"] > 0


# What is refused, and what fails in part


def test_what_cannot_be_compared_is_refused_in_one_sentence(dates: tuple[Path, Path], tmp_path: Path) -> None:
    pixels = land((60, 60)).astype("uint8")
    away = write_scene(tmp_path / "away.tif", pixels, transform=Affine(1, 0, 600_000, 0, -1, 5_000_000))
    with pytest.raises(FrameMismatchError, match="do not overlap"):
        detect_change(dates[0], away, tmp_path / "run", CVA)
    empty = write_scene(tmp_path / "empty.tif", np.zeros((4, 60, 60), "uint8"), nodata=0)
    full = write_scene(tmp_path / "full.tif", pixels, nodata=0)
    with pytest.raises(InputError, match="no valid pixel in common"):
        detect_change(full, empty, tmp_path / "run", CVA)
    nowhere = write_scene(tmp_path / "nowhere.tif", pixels, crs=None, transform=Affine.identity())
    with pytest.raises(InputError, match=r"nowhere.tif has no CRS"):
        detect_change(nowhere, nowhere, tmp_path / "run", CVA)
    far = np.roll(land((300, 300)), (31, 12), (1, 2))
    one, other = (write_scene(tmp_path / f"{k}.tif", p.astype("uint8")) for k, p in enumerate((land((300, 300)), far)))
    with pytest.raises(InputError, match=r"lie 33\.\d pixels apart, more than 25"):
        detect_change(one, other, tmp_path / "run", CVA)
    assert not (tmp_path / "run").exists()
    detect_change(one, other, tmp_path / "run", replace(CVA, register="off", vectors=False))


def test_without_a_crs_pixels_are_counted(tmp_path: Path) -> None:
    before = land((300, 300)).astype("uint8")
    after = before.copy()
    after[:, 100:130, 80:120] = 250
    nowhere = {"crs": None, "transform": Affine(1, 0, 0, 0, -1, 300)}
    paths = [write_scene(tmp_path / f"{k}.tif", p, **nowhere) for k, p in enumerate((before, after))]
    result = detect_change(*paths, tmp_path / "run", replace(CVA, force=True))
    assert result.manifest["changed"]["pixels"] == pytest.approx(1200, rel=0.02)
    assert result.manifest["changed"]["area_m2"] is None
    assert verify_run(tmp_path / "run") == []


@pytest.mark.slow
def test_an_interrupted_run_says_so_and_goes_on(dates: tuple[Path, Path], tmp_path: Path) -> None:
    command = [
        GEOSEG,
        "change",
        *dates,
        "--out",
        tmp_path / "run",
        "--method",
        "irmad",
        "--workers",
        "2",
        "--block",
        "512",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "run").glob(".geoseg-work/*/look*.npz")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not [path for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on with the unfinished run" in again.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--method", "siames"], "'siames' is not one of"),
        (["--threshold", "high"], "threshold is 'high'; it takes auto, otsu, em or a number above 0"),
        (["--mmu", "-1"], "mmu is -1.0; it takes 0 or more"),
        (["--mmu", "1e9"], "it takes up to 2048 of them"),
        (["--method", "index", "--indices", "NDXI"], "no index 'NDXI'"),
        (["--frame", "nowhere.tif"], "nowhere.tif cannot be read"),
    ],
)
def test_wrong_options_are_named(dates: tuple[Path, Path], tmp_path: Path, options: list[str], sentence: str) -> None:
    command = [GEOSEG, "change", *dates, "--out", tmp_path / "run", *options]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == (3 if "--frame" in options else 2)
    assert sentence in " ".join(told.stderr.split())
    assert not (tmp_path / "run").exists()


def test_settings_of_change_are_no_settings_of_segment(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("method: irmad\nindices: [NDVI]\nmmu: 40\n")
    settings = resolve_settings({}, file, {"GEOSEG_REGISTER": "off"}, ChangeSettings)
    assert (settings.method, settings.indices, settings.mmu, settings.register) == ("irmad", ("NDVI",), 40.0, "off")
    with pytest.raises(UsageError, match="no setting 'method'"):
        resolve_settings({}, file)
    assert resolve_settings({}, None, {"GEOSEG_REGISTER": "off"}).model == "aerial"


def test_a_damaged_part_is_nodata_and_said(dates: tuple[Path, Path], tmp_path: Path) -> None:
    broken = Path(shutil.copy(dates[1], tmp_path / "broken.tif"))
    smash(broken, 1, 1)
    with rasterio.open(broken) as raster:
        compression = raster.compression
    if compression is None:  # what is not compressed cannot be seen to be damaged
        with rasterio.open(dates[1]) as raster:
            write_scene(
                broken, raster.read(), nodata=0, descriptions=ROLES, tiled=True, blockxsize=128, blockysize=128,
                compress="deflate",
            )  # fmt: skip
        smash(broken, 1, 1)
    command = [GEOSEG, "change", dates[0], broken, "--out", tmp_path / "run", "--method", "cva", "--no-vectors"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 4, told.stderr
    assert "rows 0..511, columns 0..511 are nodata" in told.stderr
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["status"] == "partial"
    codes = read(tmp_path / "run/change.tif")[0]
    assert (codes[:512, :512] == 255).all()
    assert (codes[512:, 512:] != 255).all()


def test_within_an_area_of_interest_alone(dates: tuple[Path, Path], tmp_path: Path) -> None:
    import shapely  # noqa: PLC0415

    area = gpd.GeoSeries([shapely.box(593_400, 5_746_400, 593_600, 5_746_600)], crs="EPSG:32631")
    area.to_file(tmp_path / "area.gpkg")
    result = detect_change(*dates, tmp_path / "run", replace(CVA, aoi=str(tmp_path / "area.gpkg"), vectors=False))
    assert result.manifest["valid"]["area_m2"] == 200 * 200


@pytest.mark.slow
def test_the_pipeline_compares_folders_and_goes_on(dates: tuple[Path, Path], repository: Path, tmp_path: Path) -> None:
    for folder, path in zip(("before", "after"), dates, strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(path, tmp_path / folder / "town.tif")
    shutil.copy(dates[0], tmp_path / "before" / "village.tif")
    (tmp_path / "change.yaml").write_text("method: cva\nvectors: false\n")
    script = [sys.executable, repository / "pipelines" / "compare_folders.py"]
    command = [*script, *(tmp_path / name for name in ("before", "after", "out")), "--config", tmp_path / "change.yaml"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 3
    assert told.stdout.startswith("town: 0.4")
    assert "brighter" in told.stdout
    assert "village" in told.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.stdout == told.stdout


# As people see it


@pytest.mark.slow
def test_the_divider_moves_with_the_network_off(run: Path) -> None:
    sync = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium installed")
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(offline=True, viewport={"width": 1100, "height": 900}).new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto((run / "report.html").as_uri())
        later, box = page.locator(".dates .later"), page.locator(".dates").bounding_box()
        assert box is not None
        clip = "element => getComputedStyle(element).clipPath"
        assert later.evaluate(clip) == "inset(0px 0px 0px 50%)"
        half = page.locator(".dates").screenshot()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 30)
        page.mouse.up()
        assert later.evaluate(clip).startswith("inset(0px 0px 0px 9")
        assert page.locator(".dates").screenshot() != half
        page.locator("#divider").fill("0")
        assert later.evaluate(clip) == "inset(0px 0px 0px 0%)"
        page.locator("#changes-shown").fill("0")
        assert page.locator(".found").evaluate("element => element.style.opacity") == "0"
        assert said == []
        browser.close()


@pytest.mark.qgis
@pytest.mark.slow
def test_qgis_opens_changes_and_project_styled(dates: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    copied = [Path(shutil.copy(path, tmp_path)) for path in dates]  # QGIS leaves statistics beside what it opens
    out = tmp_path / "run"
    detect_change(*copied, out, CVA)
    told = ask([HERE / "qgis_render.py", out, copied[0], tmp_path], tmp_path)
    assert told["warnings"] == []
    [layer] = [found for found in told["features"] if found["name"] == "change"]
    assert layer["features"] == len(gpd.read_file(run / "change.gpkg", layer="change"))
    assert layer["categories"] == ["brighter", "darker", "greener", "less green"]
    names = [found["name"] for found in told["project"]["layers"]]
    assert names == [
        "change",
        "change (raster)",
        "magnitude",
        "confidence",
        "after: town_20230711",
        "before: town_20190704",
    ]
    assert all(found["valid"] for found in told["project"]["layers"])


# Real pairs


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("method", ["irmad", "cva"])
def test_taizhou(data_folder: Path, tmp_path: Path, method: str) -> None:
    folder = data_folder / "change"
    settings = ChangeSettings(method=method, vectors=False)
    detect_change(folder / "taizhou_20000317.tif", folder / "taizhou_20030206.tif", tmp_path / "run", settings)
    labels = read(folder / "taizhou_label.tif")[0]
    known, truth = labels > 0, labels[labels > 0] == 2
    found = read(tmp_path / "run/change.tif")[0][known] != 0
    both = np.count_nonzero(found & truth)
    assert 2 * both / (found.sum() + truth.sum()) >= 0.95
    ranks = read(tmp_path / "run/magnitude.tif")[0][known].argsort().argsort() + 1
    count = truth.sum()
    area = (ranks[truth].sum() - count * (count + 1) / 2) / count / (~truth).sum()
    assert area >= 0.99


@pytest.mark.data
@pytest.mark.slow
def test_water_rises_between_the_naip_dates(data_folder: Path, tmp_path: Path) -> None:
    folder = data_folder / "change"
    settings = ChangeSettings(method="index", bands="red=1,green=2,blue=3,nir=4", vectors=False)
    result = detect_change(folder / "naip_nd_20120731.tif", folder / "naip_nd_20200831.tif", tmp_path / "run", settings)
    area = {row["name"]: row["area_m2"] for row in result.manifest["changes"]}
    assert area["water gain"] > 5 * area["water loss"]


@pytest.mark.data
@pytest.mark.slow
def test_areas_in_degrees_are_those_of_an_equal_area_frame(data_folder: Path, tmp_path: Path) -> None:
    folder = data_folder / "change"
    settings = ChangeSettings(method="irmad")
    result = detect_change(folder / "pucallpa_1985.tif", folder / "pucallpa_2020.tif", tmp_path / "run", settings)
    changes = gpd.read_file(tmp_path / "run/change.gpkg", layer="change")
    raw = changes.to_crs("EPSG:6933").area
    assert changes.area_m2.sum() == pytest.approx(raw.sum(), rel=0.01)
    assert result.manifest["changed"]["area_m2"] == pytest.approx(raw.sum(), rel=0.03)  # polygons are smoothed
