"""Laws of what is written: whole or not there, equal bytes for equal content, readable to who knows the formats."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate
from test_write_vector import UTM, layers_of
from test_write_vector import frame_of as features_of

from geoseg.errors import EnvironmentFault
from geoseg.frame import Box, Frame
from geoseg.legend import LAND_COVER, ClassEntry, Legend
from geoseg.write import (
    FORMATS,
    Project,
    RasterSpec,
    RunRecord,
    read_legend,
    replacing,
    stac_catalog,
    stac_item,
    sweep_partials,
    write_block,
    write_cog,
    write_layers,
    write_project,
    write_text,
)
from geoseg.write.cog import SPOOL, lay_out
from geoseg.write.pyramid import halve, pyramid_of
from geoseg.write.qgis import scene_stretch
from geoseg.write.raster import same_crs
from geoseg.write.stac import footprint
from geoseg.write.vector import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def frame_of(shape: tuple[int, int], crs: str | None = UTM) -> Frame:
    return Frame(shape, Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000), crs)


def codes_of(shape: tuple[int, int]) -> np.ndarray:
    """Patches of classes with a nodata corner and some salt."""
    generator = np.random.default_rng(7)
    coarse = generator.integers(0, 5, (shape[0] // 40 + 1, shape[1] // 40 + 1), np.uint8)
    codes = np.kron(coarse, np.ones((40, 40), np.uint8))[: shape[0], : shape[1]]
    codes[generator.random(shape) < 0.02] = 4
    rows, cols = np.indices(shape)
    codes[rows + cols < min(shape) // 3] = 255
    return codes


def parts_of(folder: Path, pixels: np.ndarray, frame: Frame, boxes: list[Box]) -> list[tuple[Path, Box]]:
    parts = []
    for index, box in enumerate(boxes):
        rows, cols = box.slices(frame.box)
        path = folder / f"part_{len(boxes)}_{index}.tif"
        write_block(path, pixels[:, rows, cols], frame.crop(box), 255)
        parts.append((path, box))
    return parts


def classes_spec(frame: Frame, legend: Legend = LAND_COVER) -> RasterSpec:
    return RasterSpec(frame, "uint8", 255, ("class",), "mode", legend, tags={"SOURCE": "a & b"})


def write_codes(out: Path, codes: np.ndarray, frame: Frame, legend: Legend = LAND_COVER) -> Path:
    [(part, box)] = parts_of(out.parent, codes[None], frame, [frame.box])
    write_cog(out, [(part, box, 1)], classes_spec(frame, legend))
    part.unlink()
    return out


# -- whole or not there ------------------------------------------------------------------------------------------------


def test_a_file_appears_at_the_end_and_not_before(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "a.txt"
    with replacing(out) as partial:
        assert partial.suffix == out.suffix
        partial.write_text("new")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["a.txt"]
    assert out.read_text() == "new"


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    out = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), replacing(out) as partial:  # noqa: PT012  # both lines are the point
        partial.write_text("half")
        raise ZeroDivisionError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "old"}


def test_sidecars_come_with_their_file_and_old_ones_go(tmp_path: Path) -> None:
    for name in ("a.gpkg", "a.gpkg-wal", "a.gpkg.aux.xml", "a.gpkg.txt"):
        (tmp_path / name).write_text("old")
    with replacing(tmp_path / "a.gpkg") as partial:
        partial.write_text("new")
        partial.with_name("a.gpkg.aux.xml").write_text("new")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"a.gpkg": "new", "a.gpkg.aux.xml": "new", "a.gpkg.txt": "old"}


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "a.txt"
    with replacing(out) as first, replacing(out) as second:
        first.write_text("first")
        second.write_text("second")
    assert out.read_text() == "first"  # the last to end
    assert list(tmp_path.iterdir()) == [out]


def test_a_killed_writer_leaves_no_file_under_the_name(tmp_path: Path) -> None:
    out = tmp_path / "classes.tif"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom geoseg.write.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as partial:\n    partial.write_bytes(b'half')\n    os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, out], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    assert list(tmp_path.iterdir())
    sweep_partials(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """No file may grow beyond 30 kB: what a full disk does, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_is_a_fault_of_the_environment(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    frame = frame_of((400, 400))
    noise = np.random.default_rng(0).integers(0, 5, (1, 400, 400), np.uint8)
    parts = [(tmp_path / "part.tif", frame.box, 1)]
    write_block(tmp_path / "part.tif", noise, frame, 255)
    out = tmp_path / "out"
    out.mkdir()
    request.getfixturevalue("small_files_only")
    with pytest.raises(EnvironmentFault, match=r"block\.tif"):
        write_block(out / "block.tif", noise, frame, 255)
    with pytest.raises(EnvironmentFault, match=r"classes\.tif"):
        write_cog(out / "classes.tif", parts, classes_spec(frame))
    for kind in FORMATS:
        with pytest.raises(EnvironmentFault, match=rf"features.*\.{kind}"):
            write_layers([Layer.of("building", features_of("building", 1000), LAND_COVER)], out, "features", kind)
    with pytest.raises(EnvironmentFault, match=r"item\.json"):
        write_text(out / "item.json", "x" * 40_000)
    assert list(out.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_closed_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentFault, match=r"a\.txt cannot be written: no permission"):
        write_text(tmp_path / "a.txt", "x")


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    with pytest.raises(EnvironmentFault, match=r"file cannot be written: a file .* in the way"):
        write_text(tmp_path / "file" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(EnvironmentFault, match=r"folder cannot be written: a folder .* in the way"):
        write_text(tmp_path / "folder", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


# -- rasters -----------------------------------------------------------------------------------------------------------


def test_bytes_do_not_depend_on_the_parts(tmp_path: Path) -> None:
    frame = frame_of((1100, 1300))
    codes = codes_of(frame.shape)
    confidence = np.where(codes == 255, 255, (codes * 17 + np.arange(1300, dtype=np.uint8) // 9) % 101)
    pixels = np.stack([codes, confidence.astype(np.uint8)])
    uneven = [
        Box(0, 0, 333, 700), Box(0, 700, 333, 600), Box(333, 0, 1, 1300), Box(334, 0, 766, 511),
        Box(334, 511, 400, 513), Box(334, 1024, 766, 276), Box(734, 511, 366, 513),
    ]  # fmt: skip
    whole = parts_of(tmp_path, pixels, frame, [frame.box])
    pieces = parts_of(tmp_path, pixels, frame, uneven)[::-1]
    percent = RasterSpec(frame, "uint8", 255, ("confidence",), "average", units=("%",))
    for first, spec in ((1, classes_spec(frame)), (2, percent)):
        outs = []
        for name, parts in (("whole", whole), ("pieces", pieces)):
            outs.append(tmp_path / f"{name}_{first}" / "raster.tif")
            write_cog(outs[-1], [(path, box, first) for path, box in parts], spec)
        assert outs[0].read_bytes() == outs[1].read_bytes()
        beside = [sorted(path.name for path in out.parent.iterdir()) for out in outs]
        assert beside[0] == beside[1] == (["raster.tif", "raster.tif.aux.xml"] if first == 1 else ["raster.tif"])
        with rasterio.open(outs[0]) as raster:
            np.testing.assert_array_equal(raster.read(1), pixels[first - 1])


@pytest.mark.parametrize("crs", [UTM, pyproj.CRS.from_epsg(4326).to_wkt(), None], ids=["utm", "geographic", "none"])
def test_a_class_raster_says_what_its_codes_mean(tmp_path: Path, crs: str | None) -> None:
    frame = Frame((600, 700), Affine(0.1, 0, 2, 0, -0.1, 50), crs)
    codes = codes_of(frame.shape)
    out = write_codes(tmp_path / "classes.tif", codes, frame)
    with rasterio.open(out) as raster:
        assert (raster.shape, raster.transform, raster.nodata) == (frame.shape, frame.transform, 255)
        assert raster.crs == (None if crs is None else rasterio.CRS.from_wkt(crs))
        assert raster.descriptions == ("class",)
        assert raster.tags()["SOURCE"] == "a & b"
        assert raster.tags(1)["CLASS_3"] == "vegetation"
        colors = raster.colormap(1)
        np.testing.assert_array_equal(raster.read(1), codes)
    assert {code: colors[code][:3] for code in LAND_COVER.codes} == {c.code: c.rgb for c in LAND_COVER.classes}
    assert colors[255][3] == 0
    names = [element.text for element in ET.parse(f"{out}.aux.xml").iter("Category")]  # noqa: S314  # our own
    assert tuple(names) == LAND_COVER.names
    assert read_legend(out) == LAND_COVER


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="no gdalinfo on this machine")
def test_gdalinfo_shows_names_colours_and_nodata(tmp_path: Path) -> None:
    legend = Legend((ClassEntry(0, "soil", "#102030", "background"), ClassEntry(7, "rock & ice", "#a0b0c0", "area")))
    out = write_codes(tmp_path / "classes.tif", np.array([[0, 7, 255]], np.uint8), frame_of((1, 3)), legend)
    told = subprocess.run(["gdalinfo", out], capture_output=True, text=True, check=True).stdout  # noqa: S607
    for line in ("0: soil", "7: rock & ice", "7: 160,176,192,255", "255: 0,0,0,0", "NoData Value=255", "LAYOUT=COG"):
        assert line in told


@pytest.mark.parametrize("version", ["WKT1_ESRI", "WKT1_GDAL", "WKT2_2019"])
@pytest.mark.parametrize("crs", ["OGC:CRS84", "OGC:CRS83", "IGNF:RGF93G", "EPSG:26910+5703", "EPSG:7415", "EPSG:2180"])
def test_a_crs_may_come_back_spelled_otherwise(tmp_path: Path, crs: str, version: str) -> None:
    parsed = pyproj.CRS(crs)
    degrees = Affine(1e-5, 0, 4.4, 0, -1e-5, 48)
    metres = Affine(1, 0, 500_000, 0, -1, 5_000_000)
    frame = Frame((20, 30), degrees if parsed.is_geographic else metres, parsed.to_wkt(version))
    out = write_codes(tmp_path / "classes.tif", np.ones((20, 30), np.uint8), frame)
    with rasterio.open(out) as raster:
        assert same_crs(frame.crs, raster.crs.to_wkt(), frame)


def test_another_crs_is_not_the_same() -> None:
    frame = frame_of((20, 30))
    assert same_crs(None, None, frame)
    assert same_crs(UTM, "EPSG:32631", frame)
    for other in (None, "EPSG:32632", "EPSG:2154", "EPSG:23031", "EPSG:4326"):
        assert not same_crs(UTM, other, frame)
        assert not same_crs(other, UTM, frame)


def test_a_raster_of_another_kind_has_no_legend(tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "a.png", "w", driver="PNG", width=4, height=4, count=1, dtype="uint8") as raster:
        raster.write(np.ones((1, 4, 4), np.uint8))
    assert read_legend(tmp_path / "a.png") is None


def test_overviews_of_codes_hold_codes(tmp_path: Path) -> None:
    frame = frame_of((1200, 1200))
    codes = np.where(codes_of(frame.shape) == 255, 255, np.where(codes_of(frame.shape) > 2, 4, 0)).astype(np.uint8)
    out = write_codes(tmp_path / "classes.tif", codes, frame)
    with rasterio.open(out, overview_level=0) as overview:
        assert overview.shape == (600, 600)
        assert set(np.unique(overview.read(1))) == {0, 4, 255}


def vote(square: list[float], nodata: float, resampling: str) -> float:
    """What four pixels by rows make in an overview, told one pixel at a time."""
    valid = [value for value in square if value != nodata and not np.isnan(value)]
    if resampling == "nearest":
        return square[0]
    if not valid:
        return nodata
    if resampling == "mode":
        return max(valid, key=valid.count)  # of equals the first
    mean = sum(valid) / len(valid)
    return mean if nodata != nodata else int(np.floor(mean + 0.5))  # noqa: PLR0124  # only the floats have NaN here


@pytest.mark.parametrize("resampling", ["mode", "average", "nearest"])
@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 255), ("int16", -9), ("float32", np.nan), ("float64", np.nan)])
@pytest.mark.parametrize("shape", [(2, 40, 60), (1, 31, 17), (1, 1, 1), (1, 1, 8), (3, 5, 1)])
def test_an_overview_pixel_speaks_for_the_valid_of_its_four(
    shape: tuple[int, int, int], dtype: str, nodata: float, resampling: str
) -> None:
    low = 0 if dtype == "uint8" else -8
    pixels = np.random.default_rng(3).integers(low, low + 4, shape).astype(dtype)
    pixels[np.random.default_rng(4).random(shape) < 0.3] = nodata
    halved = halve(pixels, nodata, resampling)
    bands, height, width = shape
    assert (halved.dtype, halved.shape) == (pixels.dtype, (bands, -(-height // 2), -(-width // 2)))
    padded = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=nodata)
    for band, row, col in np.ndindex(halved.shape):
        square = padded[band, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel().tolist()
        np.testing.assert_equal(halved[band, row, col], pixels.dtype.type(vote(square, nodata, resampling)))


def test_a_mean_is_that_of_gdal_and_never_nodata(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 101, (1, 300, 500)).astype(np.uint8)
    pixels[np.random.default_rng(1).random(pixels.shape) < 0.2] = 255
    write_block(tmp_path / "a.tif", pixels, frame_of((300, 500)), 255)
    with rasterio.open(tmp_path / "a.tif", "r+") as raster:
        raster.build_overviews([2], rasterio.enums.Resampling.average)
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as overview:
        np.testing.assert_array_equal(halve(pixels, 255, "average"), overview.read())
    between = np.array([[[-1, 1], [1, -1]]], np.int16)
    assert halve(between, 0, "average") == -1


def test_each_level_is_half_of_the_one_before(tmp_path: Path) -> None:
    frame = frame_of((1301, 2100))
    pixels = np.random.default_rng(0).integers(0, 9, (5, *frame.shape)).astype(np.float32)
    pixels[:, 700:, :900] = np.nan
    assert pyramid_of(frame.shape, 20).window < 1301  # so that there are windows to put together
    parts = parts_of(tmp_path, pixels, frame, [Box(0, 0, 1301, 777), Box(0, 777, 1301, 1323)])
    spec = RasterSpec(frame, "float32", float("nan"), tuple("abcde"), "average")
    out = tmp_path / "out.tif"
    write_cog(out, [(path, box, 1) for path, box in parts], spec)
    assert cog_validate(str(out), strict=True, quiet=True) == (True, [], [])
    for level in range(-1, 3):
        if level >= 0:
            pixels = halve(pixels, np.nan, "average")
        with rasterio.open(out, **({"overview_level": level} if level >= 0 else {})) as raster:
            np.testing.assert_array_equal(raster.read(), pixels)
    assert max(pixels.shape) <= 512 < 2 * max(pixels.shape)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1), (1, 1500), (3, 1025), (512, 512), (513, 512), (1024, 512), (2100, 1025), (1100, 256), (1025, 2),
        (4000, 3), (9000, 9), (1025, 1025),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error::rasterio.errors.RasterioDeprecationWarning")
def test_rasters_of_any_shape_are_valid_cogs(tmp_path: Path, shape: tuple[int, int]) -> None:
    out = write_codes(tmp_path / "classes.tif", codes_of(shape), frame_of(shape))
    assert cog_validate(str(out), strict=True, quiet=True) == (True, [], [])


def spool_of(folder: Path, codes: np.ndarray) -> tuple[Path, list[Path]]:
    """What `lay_out` takes: a file of tags, and a file of tiles for each of two levels."""
    paths = [folder / name for name in ("out.tif", "0.tif", "1.tif")]
    for path, pixels in zip(paths, (codes[:1, :1], codes, codes[::2, ::2]), strict=True):
        with rasterio.open(
            path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=1, dtype="uint8",
            nodata=255, crs=UTM, transform=frame_of((1, 1)).transform, compress="deflate", blockxsize=256,
            blockysize=256, **SPOOL,
        ) as raster:  # fmt: skip
            raster.write(codes[None] if path.name == "0.tif" else pixels[None])
            raster.update_tags(NAME="value")
    return paths[0], paths[1:]


@pytest.mark.parametrize("classic_bytes", [1 << 32, 0], ids=["classic", "big"])
def test_the_layout_holds_what_it_promises(tmp_path: Path, classic_bytes: int) -> None:
    codes = codes_of((1000, 700))
    out, levels = spool_of(tmp_path, codes)
    lay_out(out, levels, classic_bytes=classic_bytes)
    content = out.read_bytes()
    assert content[2] == (42 if classic_bytes else 43)
    assert cog_validate(str(out), strict=True, quiet=True) == (True, [], [])
    last = 0
    for level in (0, -1):
        with rasterio.open(out, **({"overview_level": level} if level >= 0 else {})) as raster:
            np.testing.assert_array_equal(raster.read(1), codes[::2, ::2] if level >= 0 else codes)
            assert raster.crs == rasterio.CRS.from_wkt(UTM)
            assert raster.nodata == 255
            assert raster.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == (None if level >= 0 else "COG")
            assert raster.tags()["NAME"] == "value"
        with rasterio.open(levels[level + 1]) as spooled:
            stored = levels[level + 1].read_bytes()
            for (row, col), _ in spooled.block_windows(1):
                at, size = (
                    int(spooled.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1))
                    for what in ("OFFSET", "SIZE")
                )
                tile = stored[at : at + size]
                framed = size.to_bytes(4, "little") + tile + tile[-4:]
                found = content.index(framed, last)  # level by level, the smallest first, and by rows
                last = found + len(framed)
    assert last == len(content)


@pytest.mark.parametrize("cut", ["missing", "short"])
def test_a_tile_that_gdal_did_not_write_is_no_result(tmp_path: Path, cut: str) -> None:
    out, levels = spool_of(tmp_path, codes_of((1000, 700)))
    if cut == "short":
        os.truncate(levels[0], levels[0].stat().st_size - 300)
    else:
        with rasterio.open(
            levels[0], "w", driver="GTiff", height=1000, width=700, count=1, dtype="uint8", sparse_ok=True,
            blockxsize=256, blockysize=256, **SPOOL,
        ):  # fmt: skip
            pass
    with pytest.raises(OSError, match=r"error.*0\.tif"):
        lay_out(out, levels)


def test_pillow_reads_the_same_codes(tmp_path: Path) -> None:
    codes = codes_of((1300, 1100))
    with Image.open(write_codes(tmp_path / "classes.tif", codes, frame_of(codes.shape))) as image:
        assert image.n_frames == 3
        np.testing.assert_array_equal(np.asarray(image), codes)
        image.seek(1)
        np.testing.assert_array_equal(np.asarray(image), halve(codes[None], 255, "mode")[0])


def test_two_threads_write_what_one_does(tmp_path: Path) -> None:
    frame = Frame((1200, 900), Affine.identity(), None)  # of which rasterio would warn
    parts = [(path, box, 1) for path, box in parts_of(tmp_path, codes_of(frame.shape)[None], frame, [frame.box])]
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(4) as pool:
            outs = [tmp_path / f"{index}" / "classes.tif" for index in range(8)]
            list(pool.map(lambda out: write_cog(out, parts, classes_spec(frame)), outs))
    assert [warning for warning in heard if warning.category is NotGeoreferencedWarning] == []
    assert warnings.filters == filters
    assert len({out.read_bytes() for out in outs}) == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_the_raster(tmp_path: Path) -> None:
    codes = codes_of((2048, 2048))
    write_block(tmp_path / "part.tif", codes[None], frame_of(codes.shape), 255)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom affine import Affine\n"
        "from geoseg.frame import Box, Frame\nfrom geoseg.write import RasterSpec, write_cog\n"
        "folder, side = Path(sys.argv[1]), int(sys.argv[2])\n"
        "boxes = [Box(row, col, 2048, 2048) for row in range(0, side, 2048) for col in range(0, side, 2048)]\n"
        "spec = RasterSpec(Frame((side, side), Affine.scale(2), None), 'uint8', 255, ('class',), 'mode')\n"
        "write_cog(folder / 'out.tif', [(folder / 'part.tif', box, 1) for box in boxes], spec)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = [
        int(subprocess.run([sys.executable, "-c", code, tmp_path, str(side)], capture_output=True, check=True).stdout)
        for side in (2048, 20480)
    ]
    assert peaks[1] - peaks[0] < 100 << 10  # kB


def test_what_no_part_covers_is_nodata(tmp_path: Path) -> None:
    frame = frame_of((40, 50))
    parts = parts_of(tmp_path, np.ones((1, 40, 50), np.uint8), frame, [Box(3, 4, 10, 10)])
    write_cog(tmp_path / "classes.tif", [(path, box, 1) for path, box in parts], classes_spec(frame))
    with rasterio.open(tmp_path / "classes.tif") as raster:
        codes = raster.read(1)
    assert (codes[3:13, 4:14] == 1).all()
    assert np.count_nonzero(codes == 255) == 40 * 50 - 100


def test_parts_that_overlap_are_refused(tmp_path: Path) -> None:
    frame = frame_of((40, 50))
    parts = parts_of(tmp_path, np.ones((1, 40, 50), np.uint8), frame, [Box(0, 0, 10, 10), Box(9, 9, 5, 5)])
    with pytest.raises(ValueError, match="overlap"):
        write_cog(tmp_path / "classes.tif", [(path, box, 1) for path, box in parts], classes_spec(frame))


def test_a_part_that_is_missing_is_no_silent_nodata(tmp_path: Path) -> None:
    frame = frame_of((40, 50))
    [(path, box)] = parts_of(tmp_path, np.ones((1, 40, 50), np.uint8), frame, [frame.box])
    path.unlink()
    with pytest.raises(EnvironmentFault, match=r"classes\.tif cannot be written.*part_1_0\.tif"):
        write_cog(tmp_path / "classes.tif", [(path, box, 1)], classes_spec(frame))
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_size_than_its_box_is_refused(tmp_path: Path) -> None:
    frame = frame_of((40, 50))
    [(path, _)] = parts_of(tmp_path, np.ones((1, 40, 50), np.uint8), frame, [Box(0, 0, 40, 49)])
    with pytest.raises(ValueError, match=r"part_1_0\.tif has \(40, 49\) pixels"):
        write_cog(tmp_path / "classes.tif", [(path, frame.box, 1)], classes_spec(frame))


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", -1), ("uint8", 256), ("int16", 0.5), ("uint8", np.nan)])
def test_nodata_that_no_pixel_can_hold_is_refused(dtype: str, nodata: float) -> None:
    with pytest.raises(ValueError, match="nodata"):
        RasterSpec(frame_of((1, 1)), dtype, nodata, ("a",), "nearest")


def test_bands_keep_scale_unit_and_nan(tmp_path: Path) -> None:
    frame = frame_of((30, 40))
    values = np.random.default_rng(0).random((2, 30, 40)).astype(np.float32)
    values[:, :5] = np.nan
    write_block(tmp_path / "part.tif", values, frame, float("nan"))
    spec = RasterSpec(
        frame, "float32", float("nan"), ("near", "far"), "average", scales=(0.004, 0.5), units=("m", "km")
    )
    write_cog(tmp_path / "out.tif", [(tmp_path / "part.tif", frame.box, 1)], spec)
    with rasterio.open(tmp_path / "out.tif") as raster:
        assert (raster.scales, raster.units, raster.descriptions) == ((0.004, 0.5), ("m", "km"), ("near", "far"))
        assert np.isnan(raster.nodata)
        np.testing.assert_array_equal(raster.read(), values)


# -- QGIS --------------------------------------------------------------------------------------------------------------


def run_folder(folder: Path, crs: str | None) -> tuple[Path, Path]:
    """A folder as a run leaves it, with names that need care, and its scene beside it."""
    scene = folder / "Szene ä & <b>.tif"
    run = folder / "Lauf ü & c"
    frame = frame_of((200, 300), crs)
    run.mkdir()
    pixels = np.random.default_rng(0).integers(100, 2000, (4, 200, 300)).astype(np.uint16)
    with rasterio.open(
        scene, "w", driver="GTiff", count=4, height=200, width=300, dtype="uint16", crs=crs, transform=frame.transform
    ) as raster:
        raster.write(pixels)
    classes = write_codes(run / "classes.tif", codes_of(frame.shape), frame)
    [gpkg] = write_layers(layers_of(crs), run, "features", "gpkg")
    project = Project("A & <B>", frame, LAND_COVER, scene, (3, 2, 1), {"classes": classes}, gpkg)
    write_project(run / "project.qgs", project)
    return run, scene


def test_a_project_names_its_files_relative_to_itself(tmp_path: Path) -> None:
    run, scene = run_folder(tmp_path, UTM)
    text = (run / "project.qgs").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    root = ET.fromstring(text)  # noqa: S314  # our own
    assert root.findtext("title") == "A & <B>"
    assert root.findtext("projectCrs/spatialrefsys/authid") == "EPSG:32631"
    tree = {node.get("name"): node for node in root.iter("layer-tree-layer")}
    assert list(tree) == ["road_centerline", "building", "road", "vegetation", "water", "classes", scene.stem]
    for name, node in tree.items():
        assert (run / node.get("source").split("|")[0]).is_file(), name
    assert tree["classes"].get("checked") == "Qt::Unchecked"
    stored = {layer.findtext("id"): layer.findtext("datasource") for layer in root.iter("maplayer")}
    assert stored == {node.get("id"): node.get("source") for node in tree.values()}
    assert all(len(key) > 10 for key in stored)  # QGIS takes no notice of shorter ones
    red = root.find(".//rasterrenderer[@type='multibandcolor']")
    assert (red.get("redBand"), red.get("greenBand"), red.get("blueBand"), red.get("alphaBand")) == (
        "3",
        "2",
        "1",
        "-1",
    )
    low, high = (float(red.findtext(f"redContrastEnhancement/{name}")) for name in ("minValue", "maxValue"))
    assert 100 <= low < 200
    assert 1900 < high <= 2000


@pytest.mark.qgis
@pytest.mark.slow
@pytest.mark.parametrize("crs", [UTM, None], ids=["utm", "none"])
def test_qgis_opens_a_project_whatever_its_names_and_crs(tmp_path: Path, crs: str | None) -> None:
    run, scene = run_folder(tmp_path, crs)
    out = tmp_path / "pictures"
    out.mkdir()
    script = Path(__file__).parent / "qgis_render.py"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(out),
        "XDG_RUNTIME_DIR": str(out),
        "QT_QPA_PLATFORM": "offscreen",
    }
    command = ["/usr/bin/python3", script, run, scene, out]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert told.returncode == 0, told.stderr
    seen = json.loads(told.stdout.splitlines()[-1])
    assert seen["warnings"] == []
    assert (out / "project.png").stat().st_size > 10_000


@pytest.mark.parametrize("kind", ["mask", "alpha"])
def test_what_is_masked_does_not_stretch_the_scene(tmp_path: Path, kind: str) -> None:
    pixels = np.full((4, 60, 60), 100, np.uint8)
    pixels[:3, :, :20] = 250  # left out
    pixels[:3, :, 20:40] = 50
    mask = np.where(np.arange(60) < 20, 0, 255).astype(np.uint8)[None].repeat(60, 0)
    pixels[3] = mask
    bands = pixels if kind == "alpha" else pixels[:3]
    profile = {"driver": "GTiff", "width": 60, "height": 60, "count": len(bands), "dtype": "uint8"}
    with rasterio.open(tmp_path / "scene.tif", "w", **profile, photometric="rgb", alpha="yes") as raster:
        raster.write(bands)
        if kind == "mask":
            raster.write_mask(mask)
    assert scene_stretch(tmp_path / "scene.tif", (1, 2, 3)) == ((50.0, 100.0),) * 3


# -- STAC --------------------------------------------------------------------------------------------------------------


def test_an_item_describes_what_lies_in_the_folder(tmp_path: Path) -> None:
    run, _ = run_folder(tmp_path, UTM)
    (run / "report.html").write_text("<html></html>")
    frame = frame_of((200, 300))
    acquired = datetime(2020, 7, 8, 10, tzinfo=UTC)
    record = RunRecord(
        "scene", frame, LAND_COVER, "aerial", datetime(2024, 1, 2, tzinfo=UTC), acquired, "../catalog.json"
    )
    item = json.loads(json.dumps(stac_item(run, record)))
    assert (item["stac_version"], item["type"], item["id"]) == ("1.1.0", "Feature", "scene")
    properties = item["properties"]
    assert (properties["datetime"], properties["created"]) == ("2020-07-08T10:00:00Z", "2024-01-02T00:00:00Z")
    assert properties["proj:code"] == "EPSG:32631"
    assert properties["proj:shape"] == [200, 300]
    assert Affine(*properties["proj:transform"]) == frame.transform
    assert set(item["assets"]) == {"classes", "features", "project", "report", "run"}
    for key, asset in item["assets"].items():
        if key != "run":  # which is written last
            content = (run / asset["href"]).read_bytes()
            assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
            assert asset["file:size"] == len(content)
    classes = item["assets"]["classes"]["classification:classes"]
    assert [(entry["value"], entry["name"]) for entry in classes] == [(c.code, c.name) for c in LAND_COVER.classes]
    assert [link["rel"] for link in item["links"]] == ["root", "parent"]


def test_a_hash_that_is_known_is_not_computed_again(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("x")
    record = RunRecord("scene", frame_of((2, 3), None), LAND_COVER, "aerial", datetime(2024, 1, 2, tzinfo=UTC))
    item = stac_item(tmp_path, record, {"report.html": "ab" * 32})
    assert item["assets"]["report"]["file:checksum"] == "1220" + "ab" * 32
    assert set(item["assets"]) == {"report", "project", "run"}  # the latter two are written after the item
    assert set(item["assets"]["project"]) == {"href", "type", "title", "roles"}
    assert item["geometry"] is None
    assert "bbox" not in item
    assert "time of processing" in item["properties"]["description"]


def test_a_footprint_agrees_with_the_corners() -> None:
    frame = Frame((200, 300), Affine.translation(4e5, 5e6) * Affine.rotation(30) * Affine.scale(100, -100), UTM)
    geometry, bbox = footprint(frame)
    outline = shapely.geometry.shape(geometry)
    corners = [frame.transform * corner for corner in ((0, 0), (300, 0), (300, 200), (0, 200))]
    to_lonlat = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    quad = shapely.Polygon([to_lonlat.transform(*corner) for corner in corners])
    assert outline.exterior.is_ccw
    assert shapely.hausdorff_distance(outline, quad) < 1e-3
    np.testing.assert_allclose(bbox, outline.bounds, atol=1e-6)


def test_a_frame_that_lies_nowhere_has_no_footprint() -> None:
    far = Frame((10, 10), Affine(1, 0, 1e30, 0, -1, 1e30), UTM)
    assert footprint(far) == (None, None)
    turned = Frame((100, 100), Affine(2e5, 0, -1e7, 0, -2e5, 1e7), pyproj.CRS("ESRI:54009").to_wkt())  # past the globe
    assert footprint(turned) == (None, None)


def test_a_footprint_across_the_antimeridian_is_cut() -> None:
    frame = Frame((100, 200), Affine(0.01, 0, 179, 0, -0.01, 60), pyproj.CRS.from_epsg(4326).to_wkt())
    geometry, bbox = footprint(frame)
    assert bbox == [179.0, 59.0, -179.0, 60.0]
    outline = shapely.geometry.shape(geometry)
    assert (outline.geom_type, round(outline.area, 6)) == ("MultiPolygon", 2.0)
    assert outline.bounds == (-180.0, 59.0, 180.0, 60.0)


def test_a_catalog_links_its_items(tmp_path: Path) -> None:
    items = [write_text(tmp_path / name / "item.json", "{}") for name in ("a", "b c")]
    catalog = stac_catalog(tmp_path, items, name="batch", description="Two scenes")
    linked = [link["href"] for link in catalog["links"] if link["rel"] == "item"]
    assert [tmp_path / href for href in linked] == items
