"""The command line: results on stdout, the rest on stderr, and the exit codes of the contract."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scenes import smooth_pixels, write_scene

from geoseg.cli import main

NAMES = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("scenes")
    return str(write_scene(folder / "scene.tif", smooth_pixels((90, 120)), descriptions=NAMES))


class Told:
    """What a command printed, and the code it left with."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def geoseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `geoseg ARGUMENTS` in this process."""

    def call(*arguments: str | Path) -> Told:
        monkeypatch.setattr(sys, "argv", ["geoseg", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = int(leave.code or 0)
        return Told(code, *capsys.readouterr())

    return call


def test_segment_prints_paths_and_records_its_command(geoseg, scene: str, model: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = geoseg("segment", scene, "--out", out, "--model", model, "--format", "gpkg,geojson", "--log-json")
    assert told.code == 0
    paths = [Path(line) for line in told.out.splitlines()]
    assert out / "classes.tif" in paths
    assert out / "features_water.geojson" in paths
    assert all(path.exists() for path in paths)
    events = [json.loads(line) for line in told.err.splitlines()]
    last = [event for event in events if event["event"] == "progress" and event["stage"] == "tiles"][-1]
    assert last["done"] == last["total"]
    record = json.loads((out / "run.json").read_text())
    assert record["command"][1:3] == ["segment", scene]
    assert record["config"]["format"] == ["gpkg", "geojson"]
    assert geoseg("verify", out).code == 0
    (out / "classes.tif").write_bytes(b"no")
    told = geoseg("verify", out)
    assert told.code == 3
    assert "classes.tif is not what the run wrote" in told.err


def test_export_writes_onnx_and_says_what_int8_needs(geoseg, model: str, tmp_path: Path) -> None:
    told = geoseg("export", model, "--out", tmp_path / "network.onnx")
    assert (told.code, told.out.strip()) == (0, str(tmp_path / "network.onnx"))
    assert (tmp_path / "network.onnx").stat().st_size > 100_000
    assert geoseg("export", model, "--out", tmp_path / "folder").code == 2
    told = geoseg("export", model, "--out", tmp_path / "folder", "--int8", "--calibration", "*.tif")
    assert told.code == 2
    assert "needs --calibration SCENES and --validation SCENES LABELS" in told.err


def test_vectorize_and_evaluate_speak_of_a_run(geoseg, scene: str, model: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert geoseg("segment", scene, "--out", out, "--model", model, "--no-vectors", "--quiet").err == ""
    assert not (out / "features.gpkg").exists()
    told = geoseg("vectorize", out / "classes.tif", "--out", tmp_path / "new" / "polygons.gpkg", "--raw")
    assert (told.code, told.out.strip()) == (0, str(tmp_path / "new" / "polygons.gpkg"))
    told = geoseg("evaluate", out / "classes.tif", out / "classes.tif", "--json")
    assert told.code == 0
    assert json.loads(told.out)["pixels"]["mean_iou"] == pytest.approx(1)
    assert "mean IoU 1.000" in geoseg("evaluate", out / "classes.tif", out / "classes.tif").out
    assert geoseg("evaluate", out / "classes.tif", scene).code == 3
    truth = write_scene(tmp_path / "truth.tif", np.full((1, 90, 120), 9, np.uint8))
    told = geoseg("evaluate", out / "classes.tif", truth)
    assert told.code == 3
    assert "code 9" in told.err
    told = geoseg("evaluate", out / "classes.tif", truth, "--remap", "9=3", "--json")
    assert json.loads(told.out)["pixels"]["classes"]["vegetation"]["pixels"] == 90 * 120
    assert geoseg("evaluate", out / "classes.tif", truth, "--remap", "9").code == 2


def test_info_says_what_fits_and_why_not(geoseg, scene: str, demo_folder: Path) -> None:
    told = geoseg("info", scene, "--json")
    described = json.loads(told.out)
    assert (described["height"], described["width"], described["crs"]) == (90, 120, "EPSG:32631")
    assert [band["role"] for band in described["bands"]] == list(NAMES)
    assert {"model": "aerial", "fits": True}.items() <= described["models"][0].items()
    told = geoseg("info", demo_folder / "sentinel2_coast.tif")
    assert "aerial: does not fit" in told.out
    assert "10 m" in told.out


def test_plan_is_segment_dry_run(geoseg, scene: str, model: str, tmp_path: Path) -> None:
    told = geoseg("plan", scene, "--model", model, "--json")
    plan = json.loads(told.out)
    assert plan["tiles"] == 6
    assert plan["memory_mb"] > 100
    dry = geoseg("segment", scene, "--model", model, "--out", tmp_path / "no", "--dry-run")
    assert "6 of 64 x 64 px" in dry.out
    assert not (tmp_path / "no").exists()


def test_models_are_listed_and_shown(geoseg, model: str) -> None:
    assert geoseg("models").out.startswith("aerial")
    shown = json.loads(geoseg("models", "show", "aerial", "--json").out)
    weights = Path(shown["path"], "weights.safetensors")
    assert shown["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert "Apache-2.0" in geoseg("models", "show", model).out


def test_sentinel2_is_refused_by_its_gsd(geoseg, demo_folder: Path, tmp_path: Path) -> None:
    told = geoseg("segment", demo_folder / "sentinel2_coast.tif", "--out", tmp_path / "run")
    assert told.code == 3
    assert "GSD of 10 m" in told.err
    assert "0.3 to 1.5 m" in told.err
    assert "--force" in told.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{scene}", "--tile", "100"], 2, "multiples of 32"),
        (["{scene}", "--overlap", "64"], 2, "--overlap"),
        (["{scene}", "--block", "0"], 2, "block is 0"),
        (["{scene}", "--blend", "cosine"], 2, "hann"),
        (["{scene}", "--format", "docx"], 2, "docx"),
        (["{scene}", "--bands", "red"], 2, "--bands"),
        (["{scene}", "--bands", "ultraviolet=1"], 2, "ultraviolet"),
        (["{scene}", "--bands", "red=7"], 3, "4 bands"),
        (["{scene}", "--config", "none.yaml"], 2, "none.yaml"),
        (["{scene}", "--no-such-option"], 2, "--no-such-option"),
        (["{scene}", "--aoi", "none.geojson"], 3, "none.geojson"),
        (["none.tif"], 3, "none.tif"),
        ([], 2, "SCENE"),
        (["{scene}", "--device", "cuda:77"], 5, "CUDA"),
        (["{scene}", "--out", "/proc/none"], 5, "/proc/none"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    geoseg, scene: str, model: str, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    filled = [part.format(scene=scene) for part in arguments]
    out = [] if "--out" in filled else ["--out", str(tmp_path / "run")]
    told = geoseg("segment", *filled, *out, "--model", model)
    assert told.code == code
    assert message in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_a_model_that_is_not_there(geoseg, scene: str, tmp_path: Path) -> None:
    told = geoseg("segment", scene, "--model", "magic", "--out", tmp_path / "run")
    assert told.code == 2
    assert "no model 'magic'; there are aerial" in told.err


def test_an_ungeoreferenced_scene_goes_on_by_force(geoseg, model: str, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "bare.tif", smooth_pixels((70, 70)), crs=None, descriptions=NAMES)
    told = geoseg("segment", path, "--out", tmp_path / "run", "--model", model)
    assert told.code == 3
    assert "has no CRS" in told.err
    assert geoseg("segment", path, "--out", tmp_path / "run", "--model", model, "--force").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_interruption_leaves_130_and_nothing_half_written(model: str, tmp_path: Path, workers: str) -> None:
    path = write_scene(tmp_path / "big.tif", smooth_pixels((900, 900)), descriptions=NAMES)
    out = tmp_path / "run"
    options = ["--out", out, "--model", model, "--block", "128", "--workers", workers]
    command = [sys.executable, "-m", "geoseg", "segment", path, *options]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(out.glob(".geoseg-work/*/part_*.tif")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted" in err
    assert workers != "0" or "Traceback" not in err  # what Dask's threads say of a goodbye is not ours
    assert [file.name for file in out.iterdir()] == [".geoseg-work"]  # with which the same command goes on


@pytest.mark.slow
def test_the_folder_pipeline_skips_what_is_finished(repository: Path, model: str, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for k in range(2):
        write_scene(scenes / f"s{k}.tif", smooth_pixels((70, 70), k), descriptions=NAMES)
    (tmp_path / "run.yaml").write_text(f"model: {model}\n")
    script = [sys.executable, repository / "pipelines" / "segment_folder.py"]
    command = [*script, scenes, tmp_path / "out", "--config", tmp_path / "run.yaml"]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert first.stdout.count("building") == 2
    write_scene(scenes / "s2.tif", np.ones((2, 9, 9), np.uint8))
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 3
    assert second.stdout.count("finished before") == 2
    assert "s2.tif: left out" in second.stderr
    # Another folder's scene of the same name is not taken for the one that is finished.
    other = tmp_path / "other"
    other.mkdir()
    write_scene(other / "s0.tif", smooth_pixels((70, 70), 9), descriptions=NAMES)
    third = subprocess.run([*script, other, *command[3:]], capture_output=True, text=True, check=False)
    assert third.returncode == 3
    assert "holds the run of" in third.stderr
    write_scene(other / "s0.tiff", smooth_pixels((70, 70), 9), descriptions=NAMES)
    twins = subprocess.run(
        [*script, other, *command[3:], "--pattern", "*.tif*"], capture_output=True, text=True, check=False
    )
    assert twins.returncode == 2
    assert "several scenes are named s0" in twins.stderr
