"""Laws of vectors: what blocks give is what one pass gives; nothing overlaps; areas are counts of pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pointwise import UTM, frame_of
from pyproj import CRS, Geod
from rasterio.features import shapes
from scipy import ndimage

from geoseg.config import Settings
from geoseg.errors import InputError, UsageError
from geoseg.frame import Box, Frame
from geoseg.legend import LAND_COVER
from geoseg.scene import inspect_scene
from geoseg.vector import Components, Drawing, TidyRule, measure, polygonize
from geoseg.vector.arcs import Arcs
from geoseg.vector.measure import pixel_area_m2
from geoseg.vector.near import is_near
from geoseg.vector.square import SquareRule
from geoseg.workflow import segment_scenes, vectorize
from geoseg.workflow.vectors import RAW, summary, tidy_rule
from geoseg.write.raster import LEGEND_TAG

if TYPE_CHECKING:
    from pathlib import Path

CODES = st.sampled_from([0, 1, 2, 3, 4, 255])


def reader_of(classes: np.ndarray):
    confidence = (classes.astype(int) * 7 + np.arange(classes.size).reshape(classes.shape) % 50).astype(np.uint8)
    confidence = np.minimum(confidence, 100).astype(np.uint8)
    frame = Box(0, 0, *classes.shape)
    return lambda box: (classes[box.slices(frame)], confidence[box.slices(frame)])


def drawing_of(
    shape: tuple[int, int], rule: TidyRule = RAW, *, shown: tuple[int, ...] = (0, 1, 2, 3, 4, 255)
) -> Drawing:
    """Pixels of a square metre; the codes of `shown` become polygons."""
    return replace(Drawing.of(rule, LAND_COVER, frame_of(shape)), shown=np.isin(np.arange(256), shown))


def raw_polygons(classes: np.ndarray, block: int) -> Components:
    return polygonize(reader_of(classes), classes.shape, drawing_of(classes.shape), block)


def tidied(classes: np.ndarray, rule: TidyRule, block: int = 2048, *, background: bool = False) -> Components:
    """All polygons of the foreground, or those of the background too."""
    shown = (0, 1, 2, 3, 4) if background else (1, 2, 3, 4)
    return polygonize(reader_of(classes), classes.shape, drawing_of(classes.shape, rule, shown=shown), block)


def land(rng: np.random.Generator, shape: tuple[int, int], *, noise: float = 0.03, nodata: bool = False) -> np.ndarray:
    """Blobs of all classes, with rectangular buildings, specks, and patches of nodata."""
    height, width = shape
    scale = rng.choice([2, 5, 9])
    classes = (ndimage.gaussian_filter(rng.random(shape), scale) * 30 * scale % 5).astype(np.uint8)
    for _ in range(height * width // 1500):
        row, col, tall, wide = rng.integers(0, height), rng.integers(0, width), *rng.integers(3, 25, 2)
        classes[row : row + tall, col : col + wide] = 1
    specks = rng.random(shape) < noise
    classes[specks] = rng.integers(0, 5, specks.sum())
    if nodata:
        classes[ndimage.gaussian_filter(rng.random(shape), 5) > 0.53] = 255
    return classes


def one_pass(classes: np.ndarray) -> set[tuple[int, bytes]]:
    """An independent polygonizer over the whole raster: GDAL's, through rasterio and GeoJSON."""
    found = shapes(classes, connectivity=4)
    return {(int(code), shapely.geometry.shape(geometry).normalize().wkb) for geometry, code in found}


def as_set(components: Components) -> set[tuple[int, bytes]]:
    return {(int(c), p.normalize().wkb) for c, p in zip(components.codes, components.polygons, strict=True)}


def spiral(size: int) -> np.ndarray:
    """A one-pixel band that winds inwards and crosses every seam."""
    classes = np.zeros((size, size), np.uint8)
    for ring in range(0, size // 2, 2):
        last = size - 1 - ring
        classes[ring, max(ring - 2, 0) : last + 1] = 1
        classes[ring : last + 1, last] = 1
        classes[last, ring : last + 1] = 1
        classes[ring + 2 : last + 1, ring] = 1
    return classes


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=CODES),
    st.integers(1, 26),
)
def test_blocks_give_the_polygons_of_one_pass(classes: np.ndarray, block: int) -> None:
    components = raw_polygons(classes, block)
    assert as_set(components) == one_pass(classes)
    assert len(components) == len(one_pass(classes))


@pytest.mark.parametrize("block", [7, 16, 33, 64])
@pytest.mark.parametrize("kind", ["noise", "blobs", "spiral", "one colour", "diagonals", "nodata frame"])
def test_hard_rasters_are_joined_exactly(kind: str, block: int) -> None:
    rng = np.random.default_rng(block)
    rows, cols = np.indices((64, 64))
    classes = {
        "noise": rng.choice(np.array([0, 1, 2, 3, 4, 255], np.uint8), (64, 64)),
        "blobs": np.kron(rng.integers(0, 5, (16, 16)), np.ones((4, 4), int)).astype(np.uint8),
        "spiral": spiral(64),
        "one colour": np.full((64, 64), 3, np.uint8),
        "diagonals": ((rows + cols) % 5).astype(np.uint8),
        "nodata frame": np.where((rows < 9) | (cols > 50), 255, 1 + (rows // 8 + cols // 8) % 4).astype(np.uint8),
    }[kind]
    components = raw_polygons(classes, block)
    assert as_set(components) == one_pass(classes)
    assert shapely.is_valid(components.polygons).all()
    np.testing.assert_array_equal(shapely.area(components.polygons), components.pixels)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, (17, 19), elements=CODES), st.integers(2, 20))
def test_numbers_do_not_depend_on_blocks(classes: np.ndarray, block: int) -> None:
    def rows(size: int) -> list[tuple]:
        found = raw_polygons(classes, size)
        names = ("codes", "pixels", "confidence_sum", "confidence_min", "touches_edge")
        columns = [getattr(found, name).tolist() for name in names]
        return sorted(zip([p.normalize().wkb for p in found.polygons], *columns, strict=True))

    assert rows(block) == rows(100)


def test_confidence_and_edges_are_those_of_the_pixels() -> None:
    classes = np.zeros((9, 9), np.uint8)
    classes[3:5, 3:6] = 1  # free
    classes[0, 7] = 4  # at the scene's edge
    classes[6, 1] = 3  # beside nodata
    classes[7, 1] = 255
    confidence = np.arange(81, dtype=np.uint8).reshape(9, 9)
    frame = Box(0, 0, 9, 9)
    found = polygonize(
        lambda box: (classes[box.slices(frame)], confidence[box.slices(frame)]), (9, 9), drawing_of((9, 9)), 4
    )
    by_code = {int(code): k for k, code in enumerate(found.codes)}
    assert found.confidence_sum[by_code[1]] == confidence[3:5, 3:6].sum()
    assert found.confidence_min[by_code[1]] == confidence[3, 3]
    assert [bool(found.touches_edge[by_code[code]]) for code in (1, 4, 3)] == [False, True, True]


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=CODES),
    st.integers(1, 20), st.integers(0, 9), st.integers(0, 9),
)  # fmt: skip
def test_filters_do_not_depend_on_blocks(classes: np.ndarray, block: int, least: int, hole: int) -> None:
    """What is too small goes to the same class, whatever part of it a block sees."""

    def rows(size: int) -> list[tuple]:
        found = tidied(classes, TidyRule(least, hole, 0, None), size, background=True)
        names = ("codes", "pixels", "confidence_sum", "confidence_min", "touches_edge")
        columns = [getattr(found, name).tolist() for name in names]
        return sorted(zip([p.normalize().wkb for p in found.polygons], *columns, strict=True))

    assert rows(block) == rows(100)


def test_a_filtered_raster_is_the_polygons_of_its_filtered_pixels() -> None:
    """An independent filter: pixels of small components take the class with which they share most edges."""
    rng, compared = np.random.default_rng(5), 0
    for _ in range(20):
        classes = land(rng, (60, 70), noise=0.004)
        filtered = classes.copy()
        for code in range(5):
            labels, count = ndimage.label(classes == code)
            for k in range(1, count + 1):
                mine = labels == k
                if mine.sum() >= 6:
                    continue
                beside = [
                    classes[np.roll(mine, shift, axis) & ~mine & _inside(mine.shape, shift, axis)]
                    for axis in (0, 1) for shift in (1, -1)
                ]  # fmt: skip
                filtered[mine] = np.bincount(np.concatenate(beside)).argmax()
        if any((ndimage.label(filtered == c)[0] > 0).any() and _smallest(filtered == c) < 6 for c in range(5)):
            continue  # specks side by side, which wait for each other
        found = tidied(classes, TidyRule(6, 6, 0, None), 32, background=True)
        assert as_set(found) == one_pass(filtered)
        compared += 1
    assert compared > 4


def _inside(shape: tuple[int, int], shift: int, axis: int) -> np.ndarray:
    """Where `np.roll` brings pixels of the raster itself, not of its far side."""
    inside = np.ones(shape, bool)
    inside[(slice(None),) * axis + (0 if shift > 0 else -1,)] = False
    return inside


def _smallest(mask: np.ndarray) -> int:
    return int(np.bincount(ndimage.label(mask)[0].ravel())[1:].min(initial=10**6))


@pytest.mark.parametrize("square", [None, SquareRule()], ids=["simplified", "squared"])
@pytest.mark.parametrize("seed", range(6))
def test_no_gap_and_no_overlap_opens_between_neighbours(seed: int, square: SquareRule | None) -> None:
    rng = np.random.default_rng(seed)
    for nodata in (False, True):
        classes = land(rng, tuple(rng.integers(40, 200, 2)), nodata=nodata)
        rule = TidyRule(rng.integers(0, 12), rng.integers(0, 12), rng.choice([0.7, 1.25, 2.5]), square)
        block = int(rng.integers(20, 130))
        found = tidied(classes, rule, block, background=True)
        assert shapely.is_valid(found.polygons).all()
        areas = shapely.area(found.polygons).sum()
        assert areas == pytest.approx(found.pixels.sum(), rel=1e-9)
        assert shapely.union_all(found.polygons).area == pytest.approx(areas, rel=1e-9)
        if not nodata:
            assert found.pixels.sum() == classes.size
        drawn = shapely.get_num_coordinates(found.polygons).sum()
        assert drawn < 0.8 * shapely.get_num_coordinates(raw_polygons(classes, 2048).polygons).sum()


def test_roofs_near_seams_are_squared_as_others_are() -> None:
    rows, cols = np.indices((64, 64)) - 32
    angle = np.radians(25)
    along, across = cols * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - cols * np.sin(angle)
    classes = ((np.abs(along) < 18) & (np.abs(across) < 10)).astype(np.uint8)
    for block in (100, 32, 30, 13):
        [polygon] = tidied(classes, TidyRule(), block).polygons
        assert shapely.get_num_coordinates(polygon) == 5
        assert polygon.minimum_rotated_rectangle.area == pytest.approx(polygon.area, rel=0.01)


def test_filters_keep_what_lies_in_a_hole() -> None:
    classes = np.full((20, 20), 3, np.uint8)
    classes[4:6, 4:6] = 0  # a small hole: closes
    classes[10:13, 10:13] = 1  # a building: stays, and so does its hole
    classes[16, 16] = 1  # a speck: leaves, its hole closes
    kept = tidied(classes, TidyRule(5, 12, 0, None), 8)
    areas = dict(zip(kept.codes.tolist(), shapely.area(kept.polygons).tolist(), strict=True))
    assert areas == {3: 400 - 9, 1: 9}


def test_limits_by_class_hold_for_that_class() -> None:
    classes = np.zeros((20, 20), np.uint8)
    classes[2:5, 2:5] = 1
    classes[2:5, 12:15] = 3
    assert tidied(classes, TidyRule({"vegetation": 10, "building": 9}, 0, 0, None)).codes.tolist() == [1]
    assert tidied(classes, TidyRule({"vegetation": 9, "building": 10}, 0, 0, None)).codes.tolist() == [3]
    classes[1:19, 1:19] = np.where(classes[1:19, 1:19] == 0, 4, classes[1:19, 1:19])
    classes[2:5, 2:5] = classes[10:13, 10:13] = 0  # two holes of nine pixels
    for limits, left in (({"water": 10, "vegetation": 0}, 324 - 9), ({"water": 9, "vegetation": 100}, 324 - 27)):
        assert tidied(classes, TidyRule(0, limits, 0, None), 7).of([4]).pixels.tolist() == [left]


def test_a_sliver_goes_to_the_class_with_the_longest_shared_edge() -> None:
    classes = np.full((20, 20), 3, np.uint8)
    classes[:, 10:] = 4
    classes[5:9, 9] = 2  # beside water along four edges, beside vegetation along six
    classes[12:16, 10:12] = 2  # beside water along eight, beside vegetation along four
    kept = tidied(classes, TidyRule(10, 10, 0, None), 7)
    assert dict(zip(kept.codes.tolist(), kept.pixels.tolist(), strict=True)) == {3: 200, 4: 200}


def test_a_hole_over_nodata_stays_however_small() -> None:
    classes = np.full((40, 40), 3, np.uint8)
    classes[10:13, 10:13] = 255
    classes[20:23, 20:23] = 0  # background as small closes
    components = raw_polygons(classes, 16)
    assert shapely.area(components.polygons).sum() == 1600
    assert len(components.of([3])) == 1
    for tolerance in (0, 1.25, 3):
        kept = tidied(classes, TidyRule(15, 15, tolerance), 16)
        assert kept.codes.tolist() == [3]
        assert shapely.area(kept.polygons).tolist() == [1591]
        assert not shapely.contains_xy(kept.polygons, 11.5, 11.5).any()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.floats(0.6, 3.0), st.sampled_from([0.0, 4.0, 15.0]))
def test_outlines_leave_nodata_and_the_outside_alone(seed: int, tolerance: float, least: float) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = np.indices((60, 70))
    classes = land(rng, (60, 70), noise=0.05)
    classes[rows + 2 * cols < 50] = 255  # a slanting edge
    classes[(rows - 40) ** 2 + (cols - 40) ** 2 < 60] = 255  # a pond of it
    classes[rng.random(classes.shape) < 0.01] = 255
    nodata = shapely.union_all(raw_polygons(classes, 32).of([255]).polygons)
    kept = tidied(classes, TidyRule(least, least, tolerance), 32).polygons
    assert shapely.is_valid(kept).all()
    assert shapely.area(shapely.intersection(kept, nodata)).sum() == 0
    centres = np.argwhere(classes == 255)[:, ::-1] + 0.5
    assert not len(shapely.STRtree(kept).query(shapely.points(centres), predicate="intersects")[0])
    left, top, right, bottom = shapely.total_bounds(kept)
    assert left >= 0
    assert top >= 0
    assert right <= 70
    assert bottom <= 60


def test_simplification_smooths_class_edges_and_keeps_the_others() -> None:
    rows, cols = np.indices((80, 80))
    classes = np.where(rows > cols, 3, np.where(rows > 30, 4, 0)).astype(np.uint8)
    classes[rows + cols > 130] = 255
    components = raw_polygons(classes, 64)
    foreground = components.of([3, 4])
    kept = tidied(classes, TidyRule(15, 15, 1.25), 64)
    before = dict(zip(foreground.codes.tolist(), foreground.pixels.tolist(), strict=True))
    for code, polygon in zip(kept.codes.tolist(), kept.polygons, strict=True):
        assert polygon.area == pytest.approx(before[code], rel=0.03)
    raw, smooth = shapely.union_all(foreground.polygons), shapely.union_all(kept.polygons)
    nodata = components.of([255]).polygons[0]
    # What faces nodata or the outside is the raster's own edge, stairs and all.
    for outer in (nodata, shapely.box(0, 0, 80, 80).exterior):
        assert raw.boundary.intersection(outer).length == smooth.boundary.intersection(outer).length > 0
    # What two classes share has lost its stairs, and they share it still.
    shared = shapely.intersection(*kept.polygons).length
    assert shared < 0.8 * shapely.intersection(*foreground.polygons).length
    assert shapely.coverage_is_valid(kept.polygons)
    assert shapely.get_num_coordinates(kept.polygons).sum() < 140


def test_areas_in_the_plane_and_on_the_ellipsoid_agree() -> None:
    classes = np.zeros((40, 40), np.uint8)
    classes[10:30, 12:32] = 1
    components = raw_polygons(classes, 40)
    planar = measure(components, frame_of((40, 40), 2.0), LAND_COVER)["building"]
    assert planar.area_m2.iloc[0] == 20 * 20 * 4
    assert planar.perimeter_m.iloc[0] == 160
    assert planar.orientation_deg.iloc[0] in {0.0, 90.0}
    degrees = Frame((40, 40), Affine(1e-5, 0, 4.4, 0, -1e-5, 60.0), "EPSG:4326")
    geodesic = measure(components, degrees, LAND_COVER)["building"]
    box = shapely.box(4.4 + 12e-5, 60 - 30e-5, 4.4 + 32e-5, 60 - 10e-5)
    assert geodesic.area_m2.iloc[0] == pytest.approx(abs(Geod(ellps="WGS84").geometry_area_perimeter(box)[0]), rel=1e-4)
    mercator = Frame((40, 40), Affine(2, 0, 489_000, 0, -2, 8_399_000), "EPSG:3857")
    quarter = measure(components, mercator, LAND_COVER)["building"]
    assert quarter.area_m2.iloc[0] == pytest.approx(1600 / 4, rel=0.03)
    assert pixel_area_m2(mercator) == pytest.approx(1, rel=0.03)


def test_without_crs_nothing_is_claimed_in_metres() -> None:
    classes = np.ones((4, 4), np.uint8)
    components = raw_polygons(classes, 4)
    layer = measure(components, Frame((4, 4), Affine.identity(), None), LAND_COVER)["building"]
    assert np.isnan(layer.area_m2.iloc[0])
    assert layer.crs is None


def test_columns_are_the_contracts() -> None:
    classes = np.array([[1, 2], [3, 4]], np.uint8)
    layers = measure(raw_polygons(classes, 2), frame_of((2, 2)), LAND_COVER)
    common = ["class", "code", "confidence", "confidence_min", "area_m2", "perimeter_m", "touches_edge"]
    assert list(layers) == ["building", "road", "vegetation", "water"]
    assert list(layers["water"].columns) == [*common, "geometry"]
    assert list(layers["building"].columns) == [*common, "orientation_deg", "geometry"]
    assert list(layers["road"].columns) == [*common, "length_m", "width_m", "geometry"]
    assert layers["road"].crs == UTM


def written(path: Path, pixels: np.ndarray, **profile: Any) -> Path:
    """A class raster with the legend of land cover, or any other raster on the same grid."""
    mask = profile.pop("mask", None)
    options = {"driver": "GTiff", "crs": UTM, "transform": frame_of(pixels.shape).transform, "dtype": pixels.dtype}
    height, width = pixels.shape
    with rasterio.open(path, "w", count=1, height=height, width=width, **(options | profile)) as raster:
        raster.write(pixels, 1)
        raster.update_tags(**{LEGEND_TAG: json.dumps(LAND_COVER.to_json())})
        if mask is not None:
            raster.write_mask(mask)
    return path


def layer_area(path: Path, layer: str) -> float:
    return float(gpd.read_file(path, layer=layer).area_m2.sum())


def test_vectorize_takes_what_is_masked_for_nodata(tmp_path: Path) -> None:
    classes = np.full((20, 20), 3, np.uint8)
    classes[5:7, 5:7] = 9
    out = tmp_path / "a.gpkg"
    vectorize(written(tmp_path / "nodata.tif", classes, nodata=9), out, rule=TidyRule(15, 15, 1.25))
    assert layer_area(out, "vegetation") == 396
    mask = np.where(classes == 9, 0, 255).astype(np.uint8)
    masked = written(tmp_path / "masked.tif", classes, mask=mask)
    vectorize(masked, out, rule=TidyRule(15, 15, 1.25), overwrite=True)
    assert layer_area(out, "vegetation") == 396


@pytest.mark.parametrize("kind", ["gpkg", "geojson"])
def test_vectorize_replaces_files_only_if_told(tmp_path: Path, kind: str) -> None:
    classes = written(tmp_path / "classes.tif", np.full((9, 9), 3, np.uint8))
    files = vectorize(classes, tmp_path / f"a.{kind}", rule=TidyRule())
    before = [path.stat().st_mtime_ns for path in files]
    with pytest.raises(UsageError, match="--overwrite"):
        vectorize(classes, tmp_path / f"a.{kind}", rule=TidyRule())
    assert [path.stat().st_mtime_ns for path in files] == before
    assert vectorize(classes, tmp_path / f"a.{kind}", rule=TidyRule(), overwrite=True) == files


def test_vectorize_refuses_what_contradicts_itself(tmp_path: Path) -> None:
    codes = np.full((9, 9), 3, np.uint8)
    classes = written(tmp_path / "classes.tif", codes)

    with pytest.raises(UsageError, match="min_area names the class 'roof'; there are building, road"):
        vectorize(classes, tmp_path / "a.gpkg", rule=TidyRule({"roof": 3}))

    def refused(message: str, classes: Path = classes, confidence: Path | None = None) -> None:
        with pytest.raises(InputError, match=message):
            vectorize(classes, tmp_path / "a.gpkg", confidence=confidence, rule=TidyRule())

    refused(r"holds the codes \[7, 9\]", written(tmp_path / "b.tif", np.where(np.eye(9), 7, 9).astype(np.uint8)))
    refused("float32", confidence=written(tmp_path / "c.tif", codes.astype(np.float32)))
    refused("percent", confidence=written(tmp_path / "d.tif", np.full((9, 9), 200, np.uint8)))
    refused("another CRS", confidence=written(tmp_path / "e.tif", codes, crs="EPSG:32632"))
    refused("grid", confidence=written(tmp_path / "f.tif", np.full((9, 8), 50, np.uint8)))


def test_features_of_unknown_size_are_counted_without_it() -> None:
    assert summary(np.array([np.nan])) == {"count": 1, "area_m2": None, "median_area_m2": None}
    assert summary(np.array([16.0, 4.0, 7.0])) == {"count": 3, "area_m2": 27.0, "median_area_m2": 7.0}
    assert summary(np.empty(0)) == {"count": 0, "area_m2": 0.0, "median_area_m2": None}


def test_an_empty_raster_gives_empty_layers() -> None:
    classes = np.full((5, 5), 255, np.uint8)
    layers = measure(tidied(classes, TidyRule(), 3), frame_of((5, 5)), LAND_COVER)
    assert all(len(layer) == 0 and layer.crs == UTM for layer in layers.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_raster_of_several_blocks_is_one_on_disk(tmp_path: Path, workers: int) -> None:
    """Through files and processes, as within one block: the same polygons as one pass, and the same bytes again."""
    rng = np.random.default_rng(11)
    classes = np.kron(land(rng, (210, 230), nodata=True), np.ones((10, 10), np.uint8))
    path = written(tmp_path / "classes.tif", classes, nodata=255)
    [out] = vectorize(path, tmp_path / "raw.gpkg", rule=RAW, workers=workers)
    frame = frame_of(classes.shape)
    for entry in LAND_COVER.foreground:
        found = gpd.read_file(out, layer=entry.name)
        polygons = [
            shapely.geometry.shape(geometry).normalize().wkb
            for geometry, code in shapes(classes, connectivity=4, transform=frame.transform) if code == entry.code
        ]  # fmt: skip
        assert sorted(p.normalize().wkb for p in found.geometry) == sorted(polygons)
        assert found.area_m2.sum() == pytest.approx((classes == entry.code).sum() * frame.transform.a**2)
    [tidy] = vectorize(path, tmp_path / "tidy.gpkg", rule=TidyRule(), workers=workers)
    content = tidy.read_bytes()
    vectorize(path, tidy, rule=TidyRule(), workers=0, overwrite=True)
    assert tidy.read_bytes() == content
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_a_large_partition_stays_one() -> None:
    """4096 x 4096 pixels in four blocks, background and all: no gap, no overlap, to a millionth."""
    tile = land(np.random.default_rng(2), (1024, 1024), noise=0.002)
    classes = np.block([[np.rot90(tile, row + col) for col in range(4)] for row in range(4)])
    polygons = tidied(classes, TidyRule(), background=True).polygons
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).sum() == pytest.approx(classes.size, rel=1e-6)
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    once = one < other
    shared = shapely.intersection(polygons[one[once]], polygons[other[once]])
    assert shapely.area(shared).sum() < 1e-6 * classes.size


@pytest.mark.slow
def test_no_class_of_the_demo_grows_or_shrinks(demo_folder: Path, tmp_path: Path) -> None:
    """Over all scenes by less than a hundredth; where nothing is left out, in each scene that has a good deal of it."""
    before, after = np.zeros(256), np.zeros(256)
    scenes = sorted(demo_folder.glob("rotterdam_*.tif"))
    for result in segment_scenes(scenes, tmp_path, Settings(vectors=False)):
        path = result.folder / "classes.tif"
        with rasterio.open(path) as raster:
            classes = raster.read(1)
        frame = inspect_scene(path).frame
        pixels = np.bincount(classes.ravel(), minlength=256)
        for rule in (TidyRule(), TidyRule(0, 0)):
            found = polygonize(reader_of(classes), classes.shape, Drawing.of(rule, LAND_COVER, frame))
            areas = np.bincount(found.codes, shapely.area(found.polygons), 256)
            if rule == TidyRule():
                before, after = before + pixels, after + areas
            else:
                much = (pixels > 3000) & np.isin(np.arange(256), [1, 2, 3, 4])
                np.testing.assert_allclose(areas[much], pixels[much], rtol=0.01)
    np.testing.assert_allclose(after[1:5], before[1:5], rtol=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 9.0))
def test_nothing_near_is_missed(seed: int, reach_px: float) -> None:
    rng = np.random.default_rng(seed)
    line = np.cumsum(rng.integers(-200, 200, (12, 2)), axis=0) + 2000
    arcs = Arcs(line, np.array([0, 12]), np.zeros(1, int), np.ones(1, int))
    # Points all along it, as far away as just counts, in the directions in which cells are widest.
    along = shapely.line_interpolate_point(shapely.LineString(line), rng.uniform(0, 1, 4000), normalized=True)
    angle = rng.choice(np.arange(4) * np.pi / 2, 4000) + rng.normal(0, 0.2, 4000)
    away = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 2 * reach_px * rng.uniform(0.95, 5, (4000, 1))
    xy = shapely.get_coordinates(along) + away
    distance_px = shapely.distance(shapely.points(xy), shapely.LineString(line)) / 2
    near = is_near(xy, arcs, reach_px)
    assert near[distance_px <= reach_px].all()
    assert not near[distance_px > 4 * reach_px].any()


def test_buildings_are_squared_unless_told(tmp_path: Path) -> None:
    rows, cols = np.indices((60, 60)) - 30
    roof = (np.abs(cols + rows / 2) < 12) & (np.abs(rows - cols / 2) < 16)
    path = written(tmp_path / "classes.tif", roof.astype(np.uint8))
    corners = {}
    for square in (True, False):
        settings = Settings(square=square)
        [out] = vectorize(path, tmp_path / f"{square}.gpkg", rule=tidy_rule(settings))
        corners[square] = shapely.get_num_coordinates(gpd.read_file(out, layer="building").geometry[0])
    assert corners[True] == 5 < corners[False]


def test_centre_lines_come_with_polygons_but_for_raw_ones(tmp_path: Path) -> None:
    classes = np.zeros((40, 90), np.uint8)
    classes[15:22, 5:85] = 2
    path = written(tmp_path / "classes.tif", classes)
    everything = Settings(min_area=0, min_hole=0, simplify=0, square=False)
    [out] = vectorize(path, tmp_path / "a.gpkg", rule=tidy_rule(everything))
    assert len(gpd.read_file(out, layer="road_centerline")) == 1
    [raw] = vectorize(path, tmp_path / "raw.gpkg", rule=RAW)
    assert "road_centerline" not in gpd.list_layers(raw).name.tolist()


def test_centre_lines_are_of_the_roads_that_have_polygons(tmp_path: Path) -> None:
    classes = np.zeros((80, 120), np.uint8)
    classes[10:30, 5:115] = classes[60:65, 40:60] = 2  # a highway with an island, and 100 pixels of a track
    classes[16:23, 55:62] = 0
    path = written(tmp_path / "classes.tif", classes)
    pixel_m2 = pixel_area_m2(frame_of(classes.shape))
    for least, lines in ((0, 5), (120, 1)):  # the ring round the island has two sides and two ends
        rule = TidyRule(least * pixel_m2, least * pixel_m2)
        [out] = vectorize(path, tmp_path / f"{least}.gpkg", rule=rule)
        assert len(gpd.read_file(out, layer="road_centerline")) == lines


@pytest.mark.parametrize("latitude", [0.5, 60])
def test_a_tolerance_in_metres_is_one_of_the_ground(latitude: float) -> None:
    """Of half a pixel's area on the ground, whatever its shape: a degree of longitude is half as long at 60 north."""
    width_m = 111_320 * np.cos(np.radians(latitude)) * 1e-5
    height_m = 110_574 * 1e-5
    geographic = Frame((80, 80), Affine(1e-5, 0, 4.0, 0, -1e-5, latitude), CRS.from_epsg(4326).to_wkt())
    projected = Frame((80, 80), Affine(width_m, 0, 5e5, 0, -height_m, 1e6), CRS.from_epsg(32631).to_wkt())
    side = np.sqrt(width_m * height_m)
    drawings = [Drawing.of(TidyRule(tolerance_m=1.25 * side), LAND_COVER, frame) for frame in (geographic, projected)]
    assert drawings[0].tolerance_px == pytest.approx(1.25, rel=0.01)
    assert drawings[1].tolerance_px == pytest.approx(1.25, rel=0.01)
    assert Drawing.of(TidyRule(tolerance_m=0.0), LAND_COVER, geographic).tolerance_px == 0
    with pytest.raises(UsageError, match="how large pixels are on the ground is not known"):
        Drawing.of(TidyRule(tolerance_m=1.0), LAND_COVER, replace(geographic, crs=None))
    assert tidy_rule(Settings(simplify_m=0.5)).tolerance_m == 0.5
