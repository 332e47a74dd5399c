"""What a user of QGIS sees: a run's layers and its project open, named, styled, without a warning."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from PIL import Image
from test_write_vector import UTM, frame_of

from geoseg.legend import LAND_COVER
from geoseg.model import find_bundle
from geoseg.write.columns import COLUMNS
from geoseg.write.vector import Layer, write_layers

pytestmark = [pytest.mark.qgis, pytest.mark.slow]

HERE = Path(__file__).parent
GEOSEG = Path(sys.executable).parent / "geoseg"
LEGEND = find_bundle("aerial").legend
FOREGROUND = {entry.name: entry for entry in LEGEND.foreground}
CENTERLINE = "_centerline"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, demo_folder: Path) -> Path:
    """A copy of an embedded scene: QGIS leaves statistics beside what it opens."""
    return Path(shutil.copy(demo_folder / "rotterdam_1.tif", tmp_path_factory.mktemp("scene")))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, scene: Path) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("qgis") / "run"
    segment = [GEOSEG, "segment", scene, "--out", out, "--quiet"]
    subprocess.run(segment, check=True, stdout=subprocess.DEVNULL)
    return out


@pytest.fixture(scope="module")
def seen(run_folder: Path, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What QGIS tells of the run, and the folder of its pictures."""
    pictures = tmp_path_factory.mktemp("pictures")
    return ask([HERE / "qgis_render.py", run_folder, scene, pictures], pictures) | {"pictures": pictures}


def ask(command: list[str | Path], runtime: Path) -> dict[str, Any]:
    """What a program that runs in the Python of QGIS prints last, as JSON."""
    # Nothing of our environment: QGIS has its own Python, GDAL and PROJ.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(runtime),
        "XDG_RUNTIME_DIR": str(runtime),
        "QT_QPA_PLATFORM": "offscreen",
    }
    command = ["/usr/bin/python3", *command]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout.splitlines()[-1])


CHECK = """
import json, sys
sys.path.append("/usr/share/qgis/python/plugins")
from qgis.core import QgsApplication, QgsVectorLayer
application = QgsApplication([], False)
application.initQgis()
import processing
from processing.core.Processing import Processing
Processing.initialize()
found = {}
for uri in sys.argv[1:]:
    layer = QgsVectorLayer(uri, "layer", "ogr")
    assert layer.isValid(), uri
    features = list(layer.getFeatures())
    checks = [
        processing.run("qgis:checkvalidity", {"INPUT_LAYER": layer, "METHOD": method, "VALID_OUTPUT": "memory:",
                       "INVALID_OUTPUT": "memory:", "ERROR_OUTPUT": "memory:"})
        for method in (1, 2)
    ]
    symbol = layer.renderer().symbol()
    found[uri] = {
        "count": layer.featureCount(),
        "area": sum(feature.geometry().area() for feature in features),
        "length": sum(feature.geometry().length() for feature in features),
        "valid": [check["VALID_COUNT"] for check in checks],
        "errors": [check["ERROR_COUNT"] for check in checks],
        "crs": layer.crs().authid(),
        "columns": [field.name() for field in layer.fields()],
        "titles": [field.alias() for field in layer.fields()],
        "rows": [feature.attributes() for feature in features[:3]],
        "symbols": [symbol.symbolLayer(k).layerType() for k in range(symbol.symbolLayerCount())],
    }
print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", ["gpkg", "shp"])
def test_qgis_finds_every_feature_and_no_error(tmp_path: Path, kind: str) -> None:
    frames = {name: frame_of(name, 500) for name in ("building", "road", "vegetation", f"road{CENTERLINE}")}
    frames["building"].geometry = frames["building"].geometry.rotate(17, origin=(400_000, 4_999_900))
    bow = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    frames["water"] = gpd.GeoDataFrame({"code": [4, 4]}, geometry=[bow, shapely.box(5, 5, 6, 6)], crs=UTM)
    write_layers([Layer.of(name, frame, LAND_COVER) for name, frame in frames.items()], tmp_path, "x", kind)
    uris = {
        name: f"{tmp_path / 'x.gpkg'}|layername={name}" if kind == "gpkg" else str(tmp_path / f"x_{name}.shp")
        for name in frames
    }
    found = ask(["-c", CHECK, *uris.values()], tmp_path)
    short = {column.name: column.short if kind == "shp" else column.name for column in COLUMNS}
    titles = {column.name: column.title for column in COLUMNS}
    for name, frame in frames.items():
        seen = found[uris[name]]
        assert seen["count"] == len(frame)
        assert seen["crs"] == "EPSG:32631"
        assert seen["area"] == pytest.approx(frame.area.sum(), rel=1e-9)
        assert seen["length"] == pytest.approx(frame.length.sum(), rel=1e-9)
        assert seen["valid"] == [len(frame) - (name == "water")] * 2
        assert seen["errors"][1] == (name == "water")  # the bow, so that we know errors are found
        names = list(frame.columns.drop("geometry"))
        assert seen["columns"] == ["fid", *(short[column] for column in names)]
        for number, values in enumerate(seen["rows"]):
            told = frame.iloc[number][names].tolist()
            assert values[0] == number + 1
            # GDAL 3.6, of QGIS 3.22, reads the logical fields of a .dbf as text.
            known = [{"T": True, "F": False}.get(value, value) for value in values[1:]]
            assert all(a == b or a == pytest.approx(b) for a, b in zip(known, told, strict=True)), (known, told)
        if kind == "gpkg":
            assert seen["titles"] == ["", *(titles[column] for column in names)]
            assert seen["symbols"] == (["SimpleLine"] * 2 if name.endswith(CENTERLINE) else ["SimpleFill"])


def test_qgis_warns_of_nothing(seen: dict[str, Any]) -> None:
    assert seen["warnings"] == []


def test_every_class_is_a_layer_in_its_colour(seen: dict[str, Any]) -> None:
    layers = {layer["name"]: layer for layer in seen["features"]}
    assert set(FOREGROUND) <= set(layers)
    for name, entry in FOREGROUND.items():
        assert layers[name]["symbol"] == "SimpleFill"
        assert layers[name]["color"] == entry.color
    for name in set(layers) - set(FOREGROUND):
        assert name.removesuffix(CENTERLINE) in FOREGROUND
        assert layers[name]["symbol"] == "SimpleLine"
    for layer in layers.values():
        assert layer["valid"]
        assert layer["crs"] == "EPSG:32631"
        assert layer["invalid"] == []
        of_kind = {"length_m", "bridged"} if layer["name"].endswith(CENTERLINE) else {"confidence", "touches_edge"}
        assert {"fid", "class", "code"} | of_kind <= set(layer["columns"])
    assert sum(layer["features"] for layer in layers.values()) > 20


def test_the_project_opens_with_scene_rasters_and_layers(seen: dict[str, Any], run_folder: Path) -> None:
    project = seen["project"]
    assert project["opened"]
    assert project["crs"] == "EPSG:32631"
    assert all(layer["valid"] for layer in project["layers"])
    names = [layer["name"] for layer in project["layers"]]
    offered = [layer["name"] for layer in seen["features"]]
    assert sorted(names) == sorted([*offered, "classes", "confidence", "rotterdam_1"])
    assert names[-1] == "rotterdam_1"  # below all else
    colors = {layer["name"]: layer.get("color") for layer in project["layers"]}
    assert all(colors[name] == entry.color for name, entry in FOREGROUND.items())
    legend = {layer["name"]: layer["legend"] for layer in project["layers"]}["classes"]
    assert [word for word in legend if word in LEGEND.names] == list(LEGEND.names)
    text = (run_folder / "project.qgs").read_text(encoding="utf-8")
    assert f'"{run_folder}' not in text
    assert f">{run_folder}" not in text


def test_each_class_covers_its_area_on_the_map_in_its_colour(seen: dict[str, Any]) -> None:
    scene, drawn = (read_picture(seen["pictures"] / name) for name in ("scene.png", "features.png"))
    layers = [layer for layer in seen["features"] if layer["name"] in FOREGROUND and layer["area"] > 0]
    assert layers
    for layer in layers:
        rgb = np.array(FOREGROUND[layer["name"]].rgb)
        tinted = scene + layer["alpha"] * (rgb - scene)
        covered = (np.abs(drawn - tinted).max(axis=2) <= 3).mean()
        # Outlines, centre lines and the grey of a street that is as grey as its colour make it no exact law.
        assert covered >= 0.5 * layer["area"] / 300**2, layer["name"]
    covered = (np.abs(drawn - scene).max(axis=2) > 3).mean()
    assert covered == pytest.approx(sum(layer["area"] for layer in layers) / 300**2, abs=0.1)


def test_the_project_shows_scene_and_layers(seen: dict[str, Any]) -> None:
    project = read_picture(seen["pictures"] / "project.png")
    assert len(np.unique(project.reshape(-1, 3), axis=0)) > 1000  # a picture, not a plain area


def read_picture(path: Path) -> np.ndarray[Any, Any]:
    """(height, width, 3) float."""
    return np.asarray(Image.open(path).convert("RGB")).astype(float)
