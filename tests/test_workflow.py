"""Runs from a file to a folder: the promises of the contract, on small scenes with a small untrained network."""

from __future__ import annotations

import json
import os
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
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from rio_cogeo.cogeo import cog_validate
from scenes import Notes, smooth_pixels, write_scene

from geoseg.cli.main import geoseg as geoseg_command
from geoseg.config import Settings
from geoseg.errors import EnvironmentFault, InputError, UsageError
from geoseg.frame import Frame
from geoseg.model import find_bundle
from geoseg.vector import TidyRule
from geoseg.workflow import open_run, segment_scene, segment_scenes, vectorize, verify_run
from geoseg.workflow.folder import claimed
from geoseg.workflow.vectors import RAW, VectorJob
from geoseg.write import RasterSpec, write_block, write_cog, write_layers

NAMES = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """230 x 310 pixels of which a corner and some specks are nodata."""
    pixels = smooth_pixels((230, 310), 1, dtype="uint16")
    pixels[:, :60, :90] = 0
    pixels[:, 100:220:7, 200] = 0
    return write_scene(tmp_path_factory.mktemp("scenes") / "scene.tif", pixels, nodata=0, descriptions=NAMES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scene: Path, model: str) -> Path:
    """A finished run in blocks, with everything."""
    out = tmp_path_factory.mktemp("run") / "out"
    settings = Settings(model=model, block=100, probabilities=True, format=("gpkg", "parquet"), min_area=4, min_hole=4)
    segment_scene(scene, out, settings)
    return out


def read(path: Path) -> np.ndarray[Any, Any]:
    with rasterio.open(path) as raster:
        return raster.read()


def test_a_run_leaves_what_the_contract_says(run: Path, scene: Path) -> None:
    found = {path.name for path in run.iterdir()}
    expected = {
        "classes.tif", "confidence.tif", "probabilities.tif", "features.gpkg", "project.qgs",
        "report.html", "classes.qml", "confidence.qml", "run.json", "item.json",
    }  # fmt: skip
    assert expected <= found
    parquet = {f"features_{name}.parquet" for name in ("building", "road", "vegetation", "water", "road_centerline")}
    assert parquet <= found
    assert all(name.endswith(".aux.xml") for name in found - expected - parquet)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "done"
    assert set(record["outputs"]) == found - {"run.json"}
    tiles = record["tiles"]
    assert tiles["forwarded"] + tiles["skipped_nodata"] == tiles["planned"]
    assert tiles["failed"] == []
    assert {"total", "read", "forward", "blend", "write", "vectorize"} <= set(record["seconds"])
    assert record["scene"]["path"] == str(scene)
    assert record["model"]["sha256"]
    assert verify_run(run) == []


def test_rasters_are_valid_cogs_on_the_scenes_grid_and_nodata_stays(run: Path, scene: Path) -> None:
    with rasterio.open(scene) as source:
        mask = source.dataset_mask() > 0
        grid = (source.crs, source.transform, source.shape)
    for name in ("classes.tif", "confidence.tif", "probabilities.tif"):
        valid, errors, warnings = cog_validate(run / name, strict=True)
        assert valid, (name, errors, warnings)
        with rasterio.open(run / name) as raster:
            assert (raster.crs, raster.transform, raster.shape) == grid
            assert raster.nodata == 255
            np.testing.assert_array_equal(raster.read(1) != 255, mask)
    with rasterio.open(run / "classes.tif") as raster:
        assert raster.colormap(1)[1][:3] == (0xD1, 0x44, 0x2F)
        assert set(np.unique(raster.read())) <= {0, 1, 2, 3, 4, 255}


def test_probabilities_agree_with_classes_and_confidence(run: Path) -> None:
    shares = read(run / "probabilities.tif").astype(int)
    classes, confidence = read(run / "classes.tif")[0], read(run / "confidence.tif")[0]
    valid = classes != 255
    best = np.take_along_axis(shares, np.where(valid, classes, 0)[None].astype(int), axis=0)[0]
    assert (best[valid] == shares.max(axis=0)[valid]).all()
    assert np.abs(best[valid] / 250 - confidence[valid] / 100).max() <= 0.0071


def test_layers_have_the_contracts_columns_and_add_up(run: Path) -> None:
    classes = read(run / "classes.tif")[0]
    for code, name in enumerate(("building", "road", "vegetation", "water"), 1):
        layer = gpd.read_file(run / "features.gpkg", layer=name)
        assert {"class", "code", "confidence", "confidence_min", "area_m2", "perimeter_m", "touches_edge"} <= set(layer)
        assert layer.crs == "EPSG:32631"
        assert shapely.is_valid(layer.geometry.array).all()
        assert len(layer) == len(gpd.read_parquet(run / f"features_{name}.parquet"))
        if len(layer):
            assert set(layer["class"]) == {name}
            assert layer.confidence.between(0, 1).all()
            assert (layer.confidence_min <= layer.confidence + 1e-9).all()
            assert layer.area_m2.sum() < 1.25 * (classes == code).sum() + 10


@pytest.mark.slow
@pytest.mark.parametrize(("block", "workers", "threads"), [(64, 0, 1), (170, 2, 1), (10_000, 0, 3)])
def test_blocks_workers_and_threads_change_no_byte(
    run: Path, scene: Path, model: str, tmp_path: Path, block: int, workers: int, threads: int
) -> None:
    settings = Settings(model=model, block=block, workers=workers, probabilities=True, threads=threads)
    segment_scene(scene, tmp_path / "out", settings)
    for name in ("classes.tif", "confidence.tif", "probabilities.tif"):
        assert (tmp_path / "out" / name).read_bytes() == (run / name).read_bytes(), name


def test_vectorize_alone_gives_the_same_polygons(run: Path, tmp_path: Path) -> None:
    from geoseg.vector import TidyRule  # noqa: PLC0415

    vectorize(run / "classes.tif", tmp_path / "again.gpkg", rule=TidyRule(4, 4, 1.25))
    for name in ("building", "vegetation"):
        first = gpd.read_file(run / "features.gpkg", layer=name)
        again = gpd.read_file(tmp_path / "again.gpkg", layer=name)
        assert first.equals(again)
    raw = vectorize(run / "classes.tif", tmp_path / "raw.gpkg", rule=RAW)[0]
    classes = read(run / "classes.tif")[0]
    water = gpd.read_file(raw, layer="water")
    assert water.area_m2.sum() == pytest.approx(int((classes == 4).sum()))


def test_vectorize_refuses_what_it_cannot_read(run: Path, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="suffix names the format"):
        vectorize(run / "classes.tif", tmp_path / "a.docx", rule=RAW)
    with pytest.raises(InputError, match="uint16"):
        vectorize(scene, tmp_path / "a.gpkg", rule=RAW)
    bare = write_scene(tmp_path / "bare.tif", np.ones((1, 8, 8), np.uint8))
    with pytest.raises(InputError, match="--model"):
        vectorize(bare, tmp_path / "a.gpkg", rule=RAW)


def test_a_run_opens_as_a_dataset(run: Path) -> None:
    dataset = open_run(run)
    classes = read(run / "classes.tif")[0]
    np.testing.assert_array_equal(dataset.classes.to_numpy(), classes)
    assert np.isnan(dataset.confidence.to_numpy()[classes == 255]).all()
    assert float(dataset.confidence.max()) <= 1
    assert dataset.probabilities.dims == ("class", "y", "x")
    assert dataset.rio.crs.to_epsg() == 32631


def test_a_finished_run_is_not_overwritten_unless_told(run: Path, scene: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(run, out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"other .*format, probabilities, min_area, min_hole.*--overwrite"):
        segment_scene(scene, out, Settings(model=model))
    segment_scene(scene, out, Settings(model=model, vectors=False), overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "features.gpkg").exists()
    assert not (out / "probabilities.tif").exists()
    assert verify_run(out) == []


def test_the_same_run_is_not_computed_twice_and_clears_what_it_left(run: Path, scene: Path, model: str) -> None:
    settings = Settings(model=model, block=200, probabilities=True, format=("gpkg", "parquet"), min_area=4, min_hole=4)
    before = (run / "run.json").stat().st_mtime_ns
    (run / ".geoseg-work").mkdir()  # as if it had been killed just after its run.json
    for name in (".geoseg-work/publish.json", ".geoseg-lock"):
        (run / name).write_text("[]")
    result = segment_scene(scene, run, settings)
    assert (run / "run.json").stat().st_mtime_ns == before
    assert not list(run.glob(".*"))
    assert run / "classes.tif" in result.outputs


def test_a_run_that_fails_leaves_the_former_one(run: Path, scene: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(run, out)
    with pytest.raises(EnvironmentFault):
        segment_scene(scene, out, Settings(model=model, device="cuda:77"), overwrite=True)
    assert verify_run(out) == []
    with pytest.raises(EnvironmentFault):
        segment_scene(scene, tmp_path / "new", Settings(model=model, device="cuda:77"))
    assert not (tmp_path / "new").exists()


def test_fill_that_nobody_declared_is_asked_about(model: str, tmp_path: Path) -> None:
    pixels = smooth_pixels((64, 64))
    pixels[:, :20] = 0
    path = write_scene(tmp_path / "fill.tif", pixels, descriptions=NAMES)
    asked = segment_scene(path, tmp_path / "a", Settings(model=model)).manifest["notices"]
    assert any("31% of a sample are 0 in all bands" in notice and "--nodata 0" in notice for notice in asked)
    assert segment_scene(path, tmp_path / "b", Settings(model=model, nodata=0)).manifest["notices"] == []


def test_files_that_are_not_ours_stay(scene: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "features.gpkg").write_text("precious")
    with pytest.raises(UsageError, match=r"features\.gpkg, which no run of geoseg left"):
        segment_scene(scene, out, Settings(model=model))
    assert (out / "features.gpkg").read_text() == "precious"


def test_an_input_is_never_written_over(scene: Path, model: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(scene, tmp_path / "classes.tif"))
    content = path.read_bytes()
    with pytest.raises(UsageError, match="input of this run"):
        segment_scene(path, tmp_path, Settings(model=model), overwrite=True)
    assert path.read_bytes() == content


def test_two_runs_do_not_share_a_folder(scene: Path, model: str, tmp_path: Path) -> None:
    with (
        claimed(tmp_path / "out", overwrite=False),
        pytest.raises(EnvironmentFault, match=f"another geoseg .process {os.getpid()} of .* is writing"),
    ):
        segment_scene(scene, tmp_path / "out", Settings(model=model))


def test_run_json_is_json_by_the_standard(model: str, tmp_path: Path) -> None:
    pixels = smooth_pixels((70, 70)).astype(np.float32)
    pixels[:, :10] = np.nan
    path = write_scene(tmp_path / "nan.tif", pixels, nodata=np.nan, crs=None, descriptions=NAMES)
    out = tmp_path / "out"
    segment_scene(path, out, Settings(model=model, force=True))
    for name in ("run.json", "item.json"):
        json.loads((out / name).read_text(), parse_constant=pytest.fail)
    assert json.loads((out / "run.json").read_text())["scene"]["nodata"] == "nan"


@pytest.mark.slow
def test_threads_change_no_byte_of_the_embedded_model(demo_folder: Path, tmp_path: Path) -> None:
    for threads in (1, 3):
        settings = Settings(threads=threads, tile=160, vectors=False, probabilities=True)
        segment_scene(demo_folder / "rotterdam_1.tif", tmp_path / str(threads), settings)
    first, second = tmp_path / "1", tmp_path / "3"
    assert (first / "probabilities.tif").read_bytes() == (second / "probabilities.tif").read_bytes()


def test_verify_tells_what_is_wrong(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(run, out)
    (out / "confidence.tif").unlink()
    with (out / "features.gpkg").open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    faults = verify_run(out)
    assert len(faults) == 2
    assert "confidence.tif is missing" in faults[0]
    assert "features.gpkg is not what the run wrote" in faults[1]
    with pytest.raises(InputError, match="did not finish"):
        verify_run(out / "nothing")


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (63, 64), (65, 2)])
def test_scenes_of_any_size_are_covered(model: str, tmp_path: Path, shape: tuple[int, int]) -> None:
    path = write_scene(tmp_path / "tiny.tif", smooth_pixels(shape), descriptions=NAMES)
    segment_scene(path, tmp_path / "out", Settings(model=model))
    assert (read(tmp_path / "out" / "classes.tif") != 255).all()


def test_a_scene_of_nothing_gives_nothing(model: str, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "empty.tif", np.zeros((4, 90, 80), np.uint16), nodata=0, descriptions=NAMES)
    result = segment_scene(path, tmp_path / "out", Settings(model=model, block=64))
    assert (read(tmp_path / "out" / "classes.tif") == 255).all()
    assert result.manifest["tiles"]["forwarded"] == 0
    assert result.manifest["features"]["building"]["count"] == 0


def test_what_is_finer_than_the_model_is_resampled_and_brought_back(model: str, tmp_path: Path) -> None:
    fine = np.repeat(np.repeat(smooth_pixels((80, 80)), 3, axis=1), 3, axis=2)
    transform = Affine(0.1, 0, 593_000, 0, -0.1, 5_747_000)
    path = write_scene(tmp_path / "fine.tif", fine, transform=transform, descriptions=NAMES)
    result = segment_scene(path, tmp_path / "out", Settings(model=model, tile=96))
    with rasterio.open(tmp_path / "out" / "classes.tif") as raster:
        assert raster.shape == (240, 240)
        assert raster.transform == transform
    assert "resampled to 0.3 m" in result.manifest["notices"][0]
    coarse = write_scene(
        tmp_path / "coarse.tif", smooth_pixels((80, 80)), transform=Affine(0.3, 0, 593_000, 0, -0.3, 5_747_000),
        descriptions=NAMES,
    )  # fmt: skip
    segment_scene(coarse, tmp_path / "coarse", Settings(model=model, tile=96))
    expected = read(tmp_path / "coarse" / "classes.tif")[0]
    agreement = (read(tmp_path / "out" / "classes.tif")[0, 1::3, 1::3] == expected).mean()
    assert agreement > 0.9


def test_outside_the_area_of_interest_all_is_nodata(model: str, scene: Path, tmp_path: Path) -> None:
    area = shapely.Point(593_200, 5_746_900).buffer(60)
    gpd.GeoDataFrame(geometry=[area], crs="EPSG:32631").to_crs(4326).to_file(tmp_path / "area.geojson")
    settings = Settings(model=model, aoi=str(tmp_path / "area.geojson"), block=100)
    result = segment_scene(scene, tmp_path / "out", settings)
    classes = read(tmp_path / "out" / "classes.tif")[0]
    rows, cols = np.indices(classes.shape)
    distance = np.hypot(cols + 0.5 - 200, rows + 0.5 - 100)
    assert (classes[distance > 61] == 255).all()
    with rasterio.open(scene) as source:
        valid = source.dataset_mask() > 0
    assert (classes[(distance < 59) & valid] != 255).all()
    assert result.manifest["tiles"]["skipped_nodata"] > 0
    far = gpd.GeoDataFrame(geometry=[shapely.Point(0, 0).buffer(1)], crs=4326)
    far.to_file(tmp_path / "far.geojson")
    with pytest.raises(InputError, match="outside of the scene"):
        segment_scene(scene, tmp_path / "no", Settings(model=model, aoi=str(tmp_path / "far.geojson")))


def test_objects_reach_out_of_the_area_of_interest_whole_and_all_else_is_cut(tmp_path: Path) -> None:
    codes = np.zeros((60, 80), np.uint8)
    codes[10:26, 10:30] = 1  # a house of which the area has the left half
    codes[30:40, 40:56] = 1  # one outside
    codes[40:60, :] = 3  # a meadow
    codes[28:36, 2:12] = 1  # one inside
    legend = find_bundle("aerial").legend
    frame = Frame((60, 80), Affine(2, 0, 593_000, 0, -2, 5_747_000), pyproj.CRS.from_epsg(32631).to_wkt())
    for name, raster, spec in (
        ("classes.tif", codes, RasterSpec(frame, "uint8", 255, ("class",), "mode", legend=legend)),
        ("confidence.tif", np.full_like(codes, 80), RasterSpec(frame, "uint8", 255, ("confidence",), "average")),
    ):
        write_block(tmp_path / "part.tif", raster[None], frame, 255)
        write_cog(tmp_path / name, [(tmp_path / "part.tif", frame.box, 1)], spec)
    area = shapely.box(593_000, 5_746_880, 593_040, 5_747_000)  # the left 20 columns
    rule = TidyRule(15, 15, 1.25)
    found = []
    for name, within in (("whole", None), ("cut", shapely.to_wkb(area))):
        folder = tmp_path / name
        folder.mkdir()
        job = VectorJob(tmp_path / "classes.tif", tmp_path / "confidence.tif", legend, rule, folder, within)
        for box in job.boxes:
            job.outline(box)
        write_layers(job.layers(), folder, "features", "gpkg")
        found.append({n: gpd.read_file(folder / "features.gpkg", layer=n) for n in ("building", "vegetation")})
    whole, cut = found
    assert list(cut["building"].crosses_aoi) == [True, False]
    assert list(cut["building"].touches_edge) == [False, False]
    assert "crosses_aoi" not in whole["building"]
    for polygon in cut["building"].geometry:
        assert any(polygon.equals(other) for other in whole["building"].geometry)
    [meadow] = cut["vegetation"].geometry
    assert meadow.area == pytest.approx(20 * 20 * 4, rel=0.01)
    assert meadow.within(area.buffer(0.01))
    assert list(cut["vegetation"].touches_edge) == [True]


@pytest.mark.slow
def test_an_area_of_interest_takes_buildings_as_they_are_without_it(model: str, scene: Path, tmp_path: Path) -> None:
    area = shapely.Point(593_150, 5_746_880).buffer(70)
    gpd.GeoDataFrame(geometry=[area], crs="EPSG:32631").to_file(tmp_path / "area.gpkg")
    plain = Settings(model=model, overlap=8, min_area=0, min_hole=0, simplify=0, square=False, block=100)
    within = replace(plain, aoi=str(tmp_path / "area.gpkg"))
    for name, settings in (("plain", plain), ("within", within), ("whole", replace(within, block=4096))):
        segment_scene(scene, tmp_path / name, settings)
    plain_classes, classes = (read(tmp_path / name / "classes.tif")[0] for name in ("plain", "within"))
    seen = classes != 255
    assert (classes[seen] == plain_classes[seen]).mean() > 0.9  # where tiles reach beyond what is looked at they differ
    for name in ("classes.tif", "confidence.tif", "features.gpkg"):
        assert (tmp_path / "within" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    buildings = gpd.read_file(tmp_path / "within" / "features.gpkg", layer="building")
    roads = gpd.read_file(tmp_path / "within" / "features.gpkg", layer="road")
    pixels = area.buffer(1)
    assert buildings.intersects(pixels).all()
    assert (buildings.crosses_aoi == ~buildings.within(pixels)).mean() > 0.95
    assert buildings.crosses_aoi.any()
    assert roads.within(pixels).all()
    assert verify_run(tmp_path / "within") == []


def test_a_batch_has_a_folder_a_scene_and_a_catalog(model: str, tmp_path: Path) -> None:
    paths = [
        write_scene(tmp_path / f"scene {k} & more.tif", smooth_pixels((70, 70), k), descriptions=NAMES)
        for k in range(2)
    ]
    segment_scenes(paths, tmp_path / "out", Settings(model=model))
    catalog = json.loads((tmp_path / "out" / "catalog.json").read_text())
    hrefs = [link["href"] for link in catalog["links"] if link["rel"] == "item"]
    assert len(hrefs) == 2
    assert verify_run(tmp_path / "out") == []
    (tmp_path / "other").mkdir()
    twin = shutil.copy(paths[0], tmp_path / "other" / paths[0].name)
    with pytest.raises(UsageError, match="rename them"):
        segment_scenes([paths[0], Path(twin)], tmp_path / "twins", Settings(model=model))


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_opens(model: str, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "big.tif", smooth_pixels((700, 700)), descriptions=NAMES)
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "geoseg",
        "segment",
        str(path),
        "--out",
        str(out),
        "--model",
        model,
        "--block",
        "128",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(out.glob(".geoseg-work/*/part_*.tif")):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [file for file in out.iterdir() if not file.name.startswith(".")] == []
    notes = Notes()
    resumed = segment_scene(path, out, Settings(model=model, block=128, vectors=False), progress=notes)
    assert any("going on with the unfinished run" in note for note in notes.said)
    assert verify_run(out) == []
    assert not list(out.glob(".*"))
    whole = segment_scene(path, tmp_path / "whole", Settings(model=model, vectors=False))
    assert (out / "classes.tif").read_bytes() == (whole.folder / "classes.tif").read_bytes()
    assert resumed.manifest["tiles"] == whole.manifest["tiles"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small disk needs root")
def test_a_full_disk_is_said_and_leaves_no_result(model: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["/usr/bin/env", "mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        path = write_scene(tmp_path / "scene.tif", smooth_pixels((400, 400)), descriptions=NAMES)
        with pytest.raises((EnvironmentFault, OSError)) as error:
            segment_scene(path, disk / "out", Settings(model=model, block=128, probabilities=True))
        assert isinstance(error.value, EnvironmentFault) or error.value.errno == 28
        assert not list((disk / "out").glob("[!.]*"))
    finally:
        subprocess.run(["/usr/bin/env", "umount", disk], check=True)


@pytest.mark.parametrize("command", ["segment", "plan", "change"])
def test_polygons_that_cannot_be_are_refused_before_all_work(model: str, tmp_path: Path, command: str) -> None:
    """Metres of a scene of which nothing tells how large they are."""
    scenes = [write_scene(tmp_path / f"{name}.tif", smooth_pixels((64, 64)), crs=None) for name in "ab"]
    out = ["--out", str(tmp_path / "run")] if command != "plan" else []
    named = [str(scene) for scene in scenes[: 2 if command == "change" else 1]]
    method = ["--method", "cva"] if command == "change" else []
    given = [command, *named, *out, *method, "--model", model, "--force", "--simplify-m", "0.5"]
    told = CliRunner().invoke(geoseg_command, given)
    assert isinstance(told.exception, UsageError), told.output
    assert "how large pixels" in str(told.exception)
    assert not (tmp_path / "run").exists()
