"""What goes wrong in the middle of a run: damaged windows, changed scenes, changed options."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from scenes import ROLES, Notes, smash, smooth_pixels, write_scene

import geoseg.workflow.tasks
from geoseg.config import Settings
from geoseg.errors import SceneError
from geoseg.workflow import segment_scene, verify_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from geoseg.workflow import RunResult

Array = np.ndarray[Any, Any]
LAYOUT = {"descriptions": ROLES, "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
SHAPE = (400, 450)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene.tif", smooth_pixels(SHAPE, 3), **LAYOUT)


def rasters(result: RunResult) -> list[Array]:
    """Classes, confidence and probabilities."""
    found = []
    for name in ("classes.tif", "confidence.tif", "probabilities.tif"):
        with rasterio.open(result.folder / name) as raster:
            found.append(raster.read())
    return found


def windows(result: RunResult) -> Array:
    """Where tiles failed, as run.json lists them."""
    there = np.zeros(SHAPE, bool)
    for tile in result.failed:
        at = tile["window"]
        there[at["row"] : at["row"] + at["height"], at["col"] : at["col"] + at["width"]] = True
    return there


@pytest.mark.slow
def test_a_damaged_block_costs_the_tiles_that_touch_it_and_nothing_else(
    scene: Path, tmp_path: Path, model: str
) -> None:
    settings = Settings(model=model, probabilities=True, min_area=0, min_hole=0)
    whole = rasters(segment_scene(scene, tmp_path / "whole", settings))
    smash(scene, 3, 4)
    smash(scene, 0, 6)
    results = []
    for block in (64, 150, 1000):
        out = tmp_path / f"block_{block}"
        results.append(segment_scene(scene, out, Settings(**{**vars_of(settings), "block": block})))
        assert verify_run(out) == []
    first = results[0]
    assert first.manifest["status"] == "partial"
    assert [result.failed for result in results[1:]] == [first.failed] * 2
    failed = windows(first)
    assert failed[192:256, 256:320].all()
    assert failed[:64, 384:448].all()
    for result in results:
        for before, now in zip(whole, rasters(result), strict=True):
            assert (now[:, failed] == 255).all()
            np.testing.assert_array_equal(now[:, ~failed], before[:, ~failed])
        tiles = result.manifest["tiles"]
        assert tiles["forwarded"] + tiles["skipped_nodata"] == tiles["planned"]
        assert tiles["retried"] >= len(tiles["failed"]) > 0
        assert all("scene.tif, rows" in tile["cause"] for tile in tiles["failed"])
    page = (first.folder / "report.html").read_text()
    assert f"{len(first.failed)} of" in page


def vars_of(settings: Settings) -> dict[str, Any]:
    """Settings as keyword arguments."""
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


@pytest.mark.slow
def test_the_command_line_names_what_failed_and_leaves_with_4(scene: Path, tmp_path: Path, model: str) -> None:
    smash(scene, 3, 4)
    command = [sys.executable, "-m", "geoseg", "segment", scene, "--out", tmp_path / "run", "--model", model]
    for again in (False, True):
        done = subprocess.run([*map(str, command), "--quiet"], capture_output=True, text=True, check=False)
        assert done.returncode == 4, f"{again}: {done.stderr}"
        failed = json.loads((tmp_path / "run" / "run.json").read_text())["tiles"]["failed"]
        lines = done.stderr.splitlines()
        assert len(lines) == len(failed)
        assert all("are nodata: " in line and "scene.tif, rows" in line for line in lines)
        assert "classes.tif" in done.stdout


@pytest.mark.slow
def test_a_scene_of_which_nothing_can_be_read_is_no_result(tmp_path: Path, model: str) -> None:
    scene = write_scene(tmp_path / "scene.tif", smooth_pixels(SHAPE), nodata=0, **LAYOUT)
    for row in range(7):
        for col in range(8):
            if (row + col) % 2:
                smash(scene, row, col)
    # Half of the blocks can be read, but no tile lies in them alone.
    with pytest.raises(SceneError, match="no tile of the scene could be read"):
        segment_scene(scene, tmp_path / "run", Settings(model=model, tile=96))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def killed(scene: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A run that ended, as a killed one does, after some blocks; its folder."""

    def run(**options: Any) -> Path:
        settled = []

        def settle(*arguments: Any) -> Any:
            if len(settled) == 3:
                raise KeyboardInterrupt
            settled.append(arguments)
            return original(*arguments)

        original = geoseg.workflow.tasks.settle_block
        monkeypatch.setattr(geoseg.workflow.tasks, "settle_block", settle)
        with pytest.raises(KeyboardInterrupt):
            segment_scene(scene, tmp_path / "run", Settings(model=model, block=100, vectors=False, **options))
        monkeypatch.undo()
        return tmp_path / "run"

    return run


def go_on(scene: Path, out: Path, **options: Any) -> tuple[RunResult, list[str], float]:
    """Run again; the result, what was said, and the seconds of forwarding."""
    notes = Notes()
    resume = options.pop("resume", True)
    result = segment_scene(scene, out, Settings(block=100, vectors=False, **options), resume=resume, progress=notes)
    return result, notes.said, result.manifest["seconds"]["forward"]


@pytest.mark.slow
def test_the_same_command_goes_on_and_ends_in_the_same_bytes(
    scene: Path, tmp_path: Path, model: str, killed: Callable[..., Path]
) -> None:
    out = killed()
    receipts = {path.name: path.read_bytes() for path in out.glob(".geoseg-work/*/forward_*.json")}
    assert receipts
    kept: dict[str, bytes] = {}

    class Look(Notes):
        def advance(self, *_arguments: Any, **_options: Any) -> None:
            kept.update({path.name: path.read_bytes() for path in out.glob(".geoseg-work/*/forward_*.json")})

    look = Look()
    result = segment_scene(scene, out, Settings(model=model, block=100, vectors=False), progress=look)
    assert any("going on with the unfinished run" in note for note in look.said), look.said
    assert {name: kept[name] for name in receipts} == receipts, "blocks that were done are not computed again"
    whole = segment_scene(scene, tmp_path / "whole", Settings(model=model, vectors=False))
    for name in ("classes.tif", "confidence.tif"):
        assert (result.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert result.manifest["tiles"] == whole.manifest["tiles"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "why"),
    [({"overlap": 32}, "overlap"), ({"blend": "crop"}, "blend .hann, now crop"), ({"resume": False}, "--no-resume")],
)
def test_a_changed_option_starts_anew_and_says_why(
    scene: Path, model: str, killed: Callable[..., Path], options: dict[str, Any], why: str
) -> None:
    _, said, _ = go_on(scene, killed(), model=model, **options)
    (note,) = [note for note in said if "starting anew" in note]
    assert re.search(why, note), note


@pytest.mark.slow
def test_options_of_the_polygons_do_not_start_anew(scene: Path, model: str, killed: Callable[..., Path]) -> None:
    _, said, _ = go_on(scene, killed(), model=model, min_area=99.0, workers=0, threads=1)
    assert any("going on" in note for note in said)


@pytest.mark.slow
def test_a_touched_scene_goes_on_and_a_changed_one_starts_anew(
    scene: Path, tmp_path: Path, model: str, killed: Callable[..., Path]
) -> None:
    out = killed()
    os.utime(scene, (1, 1))
    assert any("going on" in note for note in go_on(scene, out, model=model)[1])
    for path in out.iterdir():
        path.unlink()
    out = killed()
    pixels = smooth_pixels(SHAPE, 3)
    pixels[:, :3, :3] //= 2
    write_scene(scene, pixels, **LAYOUT)
    result, said, _ = go_on(scene, out, model=model)
    assert any("have changed" in note or "starting anew" in note for note in said), said
    fresh = segment_scene(scene, tmp_path / "fresh", Settings(model=model, vectors=False))
    assert (out / "classes.tif").read_bytes() == (fresh.folder / "classes.tif").read_bytes()
    assert result.manifest["status"] == "done"
