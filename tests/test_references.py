"""Nothing that a scene or an area points at is fetched from a network or read from elsewhere on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.shutil import copy as copy_raster
from scenes import smooth_pixels, write_scene

from geoseg.errors import InputError, SceneError
from geoseg.frame import Box
from geoseg.scene import inspect_scene
from geoseg.scene.aoi import read_area
from geoseg.scene.info import open_dataset, read_file_mask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Host:
    """A server on this machine that notes what it is asked for."""

    def __init__(self) -> None:
        """Start it."""
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            do_HEAD = do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wms(self) -> str:
        """A description of a raster of 128 x 128 pixels that lies on the server."""
        return (
            f'<GDAL_WMS><Service name="TMS"><ServerUrl>{self.url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
            "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>0</UpperLeftY><LowerRightX>1</LowerRightX>"
            "<LowerRightY>-1</LowerRightY><SizeX>128</SizeX><SizeY>128</SizeY><TileLevel>0</TileLevel></DataWindow>"
            "<BandsCount>4</BandsCount><BlockSizeX>64</BlockSizeX><BlockSizeY>64</BlockSizeY></GDAL_WMS>"
        )


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    host = Host()
    yield host
    host.server.shutdown()
    host.server.server_close()


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", smooth_pixels((256, 256)))


def look(path: Path) -> None:
    """All that geoseg does with a scene: what it is, its mask, a small picture."""
    inspect_scene(path)
    read_file_mask(str(path), Box(0, 0, 64, 64))
    open_dataset(str(path)).read(out_shape=(4, 50, 50))


def pam(overviews: str) -> str:
    """Metadata beside a raster that name its overviews."""
    return (
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{overviews}</MDI></Metadata></PAMDataset>'
    )


def test_the_host_would_be_asked_without_a_check(scene: Path, host: Host) -> None:
    scene.with_name("s.tif.ovr").write_text(host.wms())
    with rasterio.open(scene) as dataset, pytest.raises(rasterio.errors.RasterioError):
        dataset.read(out_shape=(4, 50, 50))
    assert host.asked


@pytest.mark.parametrize("suffix", [".ovr", ".OVR", ".msk", ".msk.ovr"])
def test_sidecars_that_name_a_host_are_refused(scene: Path, host: Host, suffix: str) -> None:
    if suffix == ".msk.ovr":
        copy_raster(scene, scene.with_name("s.tif.msk"), driver="GTiff")
    scene.with_name(f"s.tif{suffix}").write_text(host.wms())
    with pytest.raises(SceneError, match=r"s\.tif\..*is no TIFF"):
        look(scene)
    assert host.asked == []


@pytest.mark.parametrize("key", ["OVERVIEW_FILE", "Overview_File", "OVERVIEW&#95;FILE"])
def test_metadata_that_name_a_host_are_refused(scene: Path, host: Host, key: str) -> None:
    scene.with_name("s.tif.aux.xml").write_text(pam(escape(host.wms())).replace("OVERVIEW_FILE", key))
    with pytest.raises(SceneError, match="overviews that lie elsewhere"):
        look(scene)
    assert host.asked == []


@pytest.mark.parametrize("tagged", ["s.tif", "s.tif.ovr", "s.tif.msk"])
def test_tags_that_name_a_host_are_refused(scene: Path, host: Host, tagged: str) -> None:
    path = scene.with_name(tagged)
    if path != scene:
        copy_raster(scene, path, driver="GTiff")
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=host.wms())
    with pytest.raises(SceneError, match=rf"{tagged} names overviews that lie elsewhere"):
        look(scene)
    assert host.asked == []


@pytest.mark.parametrize("suffix", [".ovr", ".msk"])
def test_other_files_are_not_read_through_sidecars(scene: Path, tmp_path: Path, suffix: str) -> None:
    secret = write_scene(tmp_path / "secret.tif", np.full((1, 128, 128), 77, np.uint8))
    source = f"<SimpleSource><SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    scene.with_name(f"s.tif{suffix}").write_text(
        '<VRTDataset rasterXSize="128" rasterYSize="128">'
        + "".join(f'<VRTRasterBand dataType="Byte" band="{band}">{source}</VRTRasterBand>' for band in range(1, 5))
        + "</VRTDataset>"
    )
    with pytest.raises(SceneError, match="is no TIFF"):
        look(scene)


def test_formats_that_refer_to_other_files_are_not_opened(tmp_path: Path) -> None:
    write_scene(tmp_path / "t.tif", smooth_pixels((64, 64)))
    path = tmp_path / "s.ers"
    path.write_text(
        'DatasetHeader Begin\n\tVersion = "6.0"\n\tDataSetType = Translated\n\tDataFile = "t.tif"\n'
        "\tDataType = Raster\n\tByteOrder = LSBFirst\n\tRasterInfo Begin\n\t\tCellType = Unsigned8BitInteger\n"
        "\t\tNrOfLines = 64\n\t\tNrOfCellsPerLine = 64\n\t\tNrOfBands = 4\n\tRasterInfo End\nDatasetHeader End\n"
    )
    with rasterio.open(path) as dataset:  # GDAL itself would
        assert dataset.shape == (64, 64)
    with pytest.raises(SceneError, match="not a raster that geoseg opens"):
        inspect_scene(path)


def test_overviews_masks_and_statistics_of_ones_own_are_read(scene: Path) -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[:100] = 255
    with rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(scene, "r+") as dataset:
        dataset.write_mask(mask)
        dataset.build_overviews([2, 4])
    scene.with_name("s.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    assert scene.with_name("s.tif.ovr").exists()
    assert scene.with_name("s.tif.msk").exists()
    info = inspect_scene(scene)
    assert (info.mask, info.overviews) == ("file", (2, 4))
    np.testing.assert_array_equal(read_file_mask(str(scene), Box(0, 0, 256, 256)), mask > 0)


def virtual(url: str) -> str:
    return (
        f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>{url}</SrcDataSource>'
        "<SrcLayer>a</SrcLayer></OGRVRTLayer></OGRVRTDataSource>"
    )


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet", ".GeoJSON"])
@pytest.mark.parametrize("kind", ["virtual", "wfs", "command"])
def test_areas_that_point_elsewhere_are_refused(scene: Path, host: Host, suffix: str, kind: str) -> None:
    path = scene.with_name(f"area{suffix}")
    command = f"gdal vector pipeline ! read {host.url}/a.geojson ! write --output-format=stream streamed_dataset"
    path.write_text(
        {
            "virtual": virtual(f"{host.url}/a.geojson"),
            "wfs": f"<OGRWFSDataSource><URL>{host.url}/wfs</URL></OGRWFSDataSource>",
            "command": json.dumps({"type": "gdal_streamed_alg", "command_line": command}),
        }[kind]
    )
    with pytest.raises(InputError, match=r"--aoi .*export it again"):
        read_area(path, inspect_scene(scene).frame)
    assert host.asked == []


def test_an_area_is_read_as_such_whatever_it_says_beside(scene: Path, host: Host) -> None:
    frame = inspect_scene(scene).frame
    square = shapely.box(593_010, 5_746_900, 593_060, 5_746_950)
    feature = {"type": "Feature", "properties": {"p": virtual(f"{host.url}/a")}, "geometry": square.__geo_interface__}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    path = scene.with_name("a.geojson")
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    assert read_area(path, frame).equals(square)
    assert host.asked == []


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb", "a.parquet", "a.geojson", "a.json"])
def test_every_kind_of_area_is_read(scene: Path, name: str) -> None:
    frame = inspect_scene(scene).frame
    square = shapely.box(593_010, 5_746_900, 593_060, 5_746_950)
    path = scene.with_name(name)
    layer = gpd.GeoDataFrame({"name": ["é"]}, geometry=[square], crs="EPSG:32631").to_crs("EPSG:4326")
    if path.suffix == ".parquet":
        layer.to_parquet(path)
    else:
        layer.to_file(path, driver="GeoJSON" if path.suffix == ".json" else None)
    assert read_area(path, frame).symmetric_difference(square).area < 0.01


@pytest.mark.parametrize("geometry", ["Feature", "Polygon"])
def test_geojson_of_one_geometry_is_in_degrees(scene: Path, geometry: str) -> None:
    shape = shapely.box(4.35, 51.85, 4.36, 51.86).__geo_interface__
    path = scene.with_name("one.geojson")
    path.write_text(json.dumps(shape if geometry == "Polygon" else {"type": "Feature", "geometry": shape}))
    assert read_area(path, inspect_scene(scene).frame).area == pytest.approx(690 * 1112, rel=0.02)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"type": "FeatureCollection", "features": 3}', '{"type": "Polygon"}']
)
def test_geojson_that_is_none_is_refused(scene: Path, text: str) -> None:
    path = scene.with_name("a.geojson")
    path.write_text(text)
    with pytest.raises(InputError, match=r"a\.geojson"):
        read_area(path, inspect_scene(scene).frame)


def test_importing_geoseg_leaves_the_callers_remote_reading_alone() -> None:
    code = "import os; before = dict(os.environ); import geoseg.scene; print(*set(os.environ) - set(before))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) <= {"GDAL_CACHEMAX"}
