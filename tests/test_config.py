"""Settings: command line over file over environment over default, and nothing is swallowed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from geoseg import config
from geoseg.cli.options import read_lists
from geoseg.config import ChangeSettings, Settings, resolve_settings
from geoseg.errors import UsageError
from geoseg.write import FORMATS

if TYPE_CHECKING:
    from pathlib import Path


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_the_nearer_word_wins(tmp_path: Path) -> None:
    file = written(tmp_path, "block: 512\ntile: 256\nformat: [gpkg, parquet]\nbands: {red: 3, nir: 4}\n")
    environment = {"GEOSEG_BLOCK": "1024", "GEOSEG_BLEND": "crop", "GEOSEG_TILE": "128", "GEOSEG_FORCE": "yes"}
    settings = resolve_settings({"block": 300, "blend": None}, file, environment)
    assert (settings.block, settings.tile, settings.blend, settings.force) == (300, 256, "crop", True)
    assert settings.format == ("gpkg", "parquet")
    assert settings.bands == "red=3,nir=4"
    assert resolve_settings({}) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("overlp: 3", "no setting 'overlp'; did you mean overlap"),
        ("block: many", "block is 'many'; it takes a whole number"),
        ("block: 1.5", "a whole number"),
        ("force: 3", "true or false"),
        ("blend: cosine", "blend is 'cosine'; it takes hann"),
        ("format: docx", "format is 'docx'"),
        ("block: .inf", "a whole number"),
        ("min_area: .nan", "min_area is nan; it takes 0 or more"),
        ("min_area: {building: -3}", "min_area is -3.0; it takes 0 or more"),
        ("min_area: much", "min_area is 'much'; it takes a number, or class=number pairs"),
        ("min_hole: [3]", "min_hole is [3]; it takes a number, or class=number pairs"),
        ("simplify: .inf", "simplify is inf; it takes 0 or more"),
        ("nodata: -.inf", "nodata is -inf"),
        ("device: tpu", "device is 'tpu'; it takes auto, cpu, cuda or cuda:N"),
        ("device: cuda:x", "device is 'cuda:x'"),
        ("block: -5", "block is -5; it takes 1 or more"),
        ("- a list", "holds a list"),
        ("a: [", "is not YAML"),
        ("model: !!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve_settings({}, written(tmp_path, text))
    assert message in str(error.value)


def test_limits_are_numbers_or_numbers_by_class(tmp_path: Path) -> None:
    limits = {"building": 30.0, "water": 200.0}
    assert resolve_settings({}, written(tmp_path, "min_area: {building: 30, water: 200}")).min_area == limits
    assert resolve_settings({}, None, {"GEOSEG_MIN_HOLE": "building=30,water=200"}).min_hole == limits
    assert resolve_settings(read_lists({"min_area": "building=30, water=200"})).min_area == limits
    assert resolve_settings(read_lists({"min_area": "30"})).min_area == 30.0
    with pytest.raises(UsageError, match=r"--min-area is 'building=x'; it takes a number, or class=number pairs"):
        read_lists({"min_area": "building=x"})


def test_numbers_of_the_command_line_are_finite_too() -> None:
    with pytest.raises(UsageError, match="min_hole is nan"):
        resolve_settings({"min_hole": float("nan")})
    nodata = resolve_settings({"nodata": float("nan")}).nodata
    assert nodata is not None
    assert math.isnan(nodata)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices_are_known_by_their_spelling(device: str) -> None:
    assert resolve_settings({"device": device}).device == device


def test_a_format_named_twice_is_written_once(tmp_path: Path) -> None:
    assert resolve_settings({}, written(tmp_path, "format: [fgb, gpkg, fgb]")).format == ("fgb", "gpkg")
    assert read_lists({"format": "gpkg, fgb,gpkg"}) == {"format": ("gpkg", "fgb")}


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(UsageError, match="GEOSEG_BLOCK is 'x'"):
        resolve_settings({}, None, {"GEOSEG_BLOCK": "x"})


def test_a_variable_that_sets_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"GEOSEG_BLOK sets nothing; did you mean block\?"):
        resolve_settings({}, None, {"GEOSEG_BLOK": "3", "GEOSEG_MODELS": "here", "HOME": "there"})


def test_every_format_that_may_be_named_can_be_written() -> None:
    assert config.FORMATS == FORMATS


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml cannot be read"):
        resolve_settings({}, tmp_path / "none.yaml")


def test_the_settings_file_of_change_loads(repository: Path) -> None:
    settings = resolve_settings({}, repository / "configs" / "change.yaml", None, ChangeSettings)
    assert (settings.method, settings.indices, settings.bands) == (
        "index",
        ("NDVI", "NDWI"),
        "red=1,green=2,blue=3,nir=4",
    )


@pytest.mark.parametrize("name", ["segment.yaml", "naip.yaml", "worldview2.yaml"])
def test_the_settings_files_load(repository: Path, name: str) -> None:
    assert resolve_settings({}, repository / "configs" / name) != Settings()


@pytest.mark.parametrize(
    ("environment", "file", "given", "found"),
    [
        ({"GEOSEG_SIMPLIFY_M": "1"}, "", {}, (1.25, 1.0)),
        ({"GEOSEG_SIMPLIFY_M": "1"}, "", {"simplify": 0.0}, (0.0, None)),
        ({"GEOSEG_SIMPLIFY_M": "1"}, "simplify: 2", {}, (2.0, None)),
        ({"GEOSEG_SIMPLIFY_M": "1"}, "simplify: 2", {"simplify_m": 3.0}, (2.0, 3.0)),
        ({}, "simplify_m: 1", {"simplify": 2.0}, (2.0, None)),
        ({}, "simplify: 2\nsimplify_m: 1", {}, (2.0, 1.0)),
    ],
)  # fmt: skip
def test_a_tolerance_in_pixels_wins_over_one_in_metres_that_was_said_before(tmp_path, environment, file, given, found):
    (tmp_path / "a.yaml").write_text(file)
    settings = resolve_settings(given, tmp_path / "a.yaml" if file else None, environment)
    assert (settings.simplify, settings.simplify_m) == found
