"""Footprints of buildings rasterized, recovered and compared with what they were.

    python tests/benchmarks/buildings.py [--most N] [--regulariser FOLDER]

Three sets, each building turned and shifted at random on its own: footprints of the labels in ../shared/data; drawn
rectangles and L, T and U shapes; rows of drawn houses that touch. Four ways to draw a building: the pixels' outline;
simplified after Visvalingam by 1.25 square pixels; squared; and PyPI's buildingregulariser given the pixels' outline,
at two tolerances, where it is installed (or in --regulariser: `pip install --target FOLDER buildingregulariser`).
Vertices (median), IoU with the truth, right angles among all angles (within 1 degree) and in the median building, pairs
that overlap, and seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import shapely
from rasterio.features import rasterize, shapes
from scipy import ndimage
from shapely import affinity

sys.path.append(str(Path(__file__).resolve().parents[1]))
from test_square import simplified, traced

from geoseg.vector.square import SquareRule, square

if TYPE_CHECKING:
    from geoseg.vector.arcs import Arcs

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LEAST_PX = 40
ROOM = 4
HEADS = {"vertices": 37, "mean IoU": 9, "median": 8, "right": 7, "median ": 8, "overlaps": 9, "bias %": 8, "s": 7}


def main() -> None:
    """Print one table a set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=1000, help="buildings a set")
    parser.add_argument("--regulariser", type=Path, help="folder that buildingregulariser was installed to")
    options = parser.parse_args()
    if options.regulariser:
        sys.path.append(str(options.regulariser))
    random = np.random.default_rng(4)
    for name, make in {"labels": labelled, "drawn": drawn, "rows": rows}.items():
        groups = make(options.most, random)
        if groups:
            compare(name, groups, random)
        else:
            print(f"{name}: no data folder {DATA}")


def labelled(most: int, random: np.random.Generator) -> list[list[shapely.Polygon]]:
    """Footprints of the labels, simplified by a pixel, as stairs leave it by 0.7; none is cut by a label's edge."""
    found = []
    for path in sorted([*DATA.glob("naip_ca/labels/*.tif"), *DATA.glob("dubai/*_label.tif")]):
        with rasterio.open(path) as source:
            buildings = source.read(1) == 1
        height, width = buildings.shape
        polygons = [shapely.geometry.shape(s) for s, _ in shapes(buildings.astype(np.uint8), buildings, connectivity=4)]
        inside = shapely.box(0.5, 0.5, width - 0.5, height - 0.5)
        polygons = [p for p in polygons if LEAST_PX <= p.area < 20000 and inside.contains(p)]
        found += polygons
    chosen = random.permutation(len(found))[:most]
    return [[p] for p in shapely.simplify([found[k] for k in chosen], 1.0) if p.geom_type == "Polygon"]


def drawn(most: int, random: np.random.Generator) -> list[list[shapely.Polygon]]:
    """Rectangles, L, T and U shapes of 8 to 40 pixels."""
    return [[drawn_shape(k % 4, random)] for k in range(most)]


def drawn_shape(kind: int, random: np.random.Generator) -> shapely.Polygon:
    """A rectangle (0), or an L (1), T (2) or U (3) no limb of which is thinner than 4 pixels."""
    width, height = np.sort(random.uniform(8 if kind == 0 else 14, 40, 2))[::-1]
    whole = shapely.box(0, 0, width, height)
    left, right = width * random.uniform(0.3, 0.4), width * random.uniform(0.6, 0.7)
    low = height * random.uniform(0.35, 0.65)
    if kind == 1:
        return whole - shapely.box(left, low, width, height)
    if kind == 2:
        return whole - shapely.box(0, low, left, height) - shapely.box(right, low, width, height)
    return whole - shapely.box(left, low, right, height) if kind == 3 else whole


def rows(most: int, random: np.random.Generator) -> list[list[shapely.Polygon]]:
    """Two to five houses in a row, wall to wall, every other one set back."""
    found = []
    while sum(map(len, found)) < most:
        at, row = 0.0, []
        for k in range(int(random.integers(2, 6))):
            width, depth = random.uniform(8, 16), random.uniform(12, 20)
            back = random.choice([0.0, random.uniform(2, 4)]) * (k % 2)
            row.append(shapely.box(at, back, at + width, back + depth))
            at += width
        found.append(row)
    return found


def compare(name: str, groups: list[list[shapely.Polygon]], random: np.random.Generator) -> None:
    """Print what each way makes of these buildings."""
    truth, numbers = rasterized(groups, random)
    raw = traced(numbers)
    start = time.perf_counter()
    simple = simplified(raw)
    before = time.perf_counter() - start
    count = int(numbers.max()) + 1
    buildings = (np.arange(count) > 0) & (np.arange(count) <= len(truth))
    outside = (raw.left < 0) | (raw.right < 0)
    start = time.perf_counter()
    squared = square(simple, raw, buildings, outside, SquareRule(), (1, 1))
    spent = time.perf_counter() - start
    pixels = areas(raw, len(truth))
    print(f"\n{name}: {len(truth)} buildings of {np.median(shapely.area(truth)):.0f} px (median)")
    print("".join(f"{head:>{width}}" for head, width in HEADS.items()))
    line("truth", truth, truth, 0)
    line("pixels", pixels, truth, 0)
    line("simplified", areas(simple, len(truth)), truth, before)
    line("geoseg", areas(squared, len(truth)), truth, spent)
    for tolerance in (1.0, 2.0):
        start = time.perf_counter()
        other = regularised(pixels, tolerance)
        if other is None:
            print("buildingregulariser is not installed")
            break
        line(f"buildingregulariser {tolerance:g} px", other, truth, time.perf_counter() - start)


def line(name: str, polygons: np.ndarray, truth: np.ndarray, seconds: float) -> None:
    """Print one line of a table."""
    iou = shapely.area(shapely.intersection(polygons, truth)) / shapely.area(shapely.union(polygons, truth))
    tree = shapely.STRtree(polygons)
    a, b = tree.query(polygons, predicate="intersects")
    a, b = a[a < b], b[a < b]
    overlaps = int((shapely.area(shapely.intersection(polygons[a], polygons[b])) > 1e-6).sum())
    angles = [turns(polygon) for polygon in polygons]
    every = np.concatenate(angles)
    right = np.mean(np.abs(np.abs(every) - 90) <= 1)
    median = np.median([np.mean(np.abs(np.abs(turn) - 90) <= 1) for turn in angles])
    bias = 100 * (shapely.area(polygons).sum() / shapely.area(truth).sum() - 1)
    print(
        f"{name:28}{np.median([len(turn) for turn in angles]):9.0f}{iou.mean():9.4f}{np.median(iou):8.4f}"
        f"{100 * right:6.1f}%{100 * median:7.0f}%{overlaps:9}{bias:8.2f}{seconds:7.2f}"
    )


def turns(polygon: shapely.Geometry) -> np.ndarray:
    """By how many degrees all rings turn at their vertices; those that turn by less than 1 are none."""
    found = []
    for part in shapely.get_parts(polygon):
        for ring in (part.exterior, *part.interiors):
            step = np.diff(np.asarray(ring.coords), axis=0)
            step = step[np.hypot(*step.T) > 1e-9]
            heading = np.degrees(np.arctan2(step[:, 1], step[:, 0]))
            found.append((np.roll(heading, -1) - heading + 180) % 360 - 180)
    every = np.concatenate(found)
    return every[np.abs(every) > 1]


def rasterized(groups: list[list[shapely.Polygon]], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Every group turned and put into a place of its own: polygons, and a raster of their numbers from 1, else 0."""
    placed = []
    for group in groups:
        angle = random.uniform(0, 90)
        placed.append([affinity.rotate(p, angle, origin=(0, 0)) for p in group])
    placed.sort(key=lambda group: -np.ptp(shapely.total_bounds(group)[1::2]))
    side = 1.1 * np.sqrt(sum(np.prod(np.ptp(shapely.total_bounds(g).reshape(2, 2), axis=0) + ROOM + 1) for g in placed))
    x = y = tall = ROOM
    truth = []
    for group in placed:
        west, north, east, south = shapely.total_bounds(group)
        if x + east - west > side:
            x, y, tall = ROOM, y + tall + ROOM, 0
        dx, dy = np.array([x - west, y - north]) + random.uniform(0, 1, 2)
        truth += [affinity.translate(p, dx, dy) for p in group]
        x, tall = int(x + east - west + ROOM + 1), max(tall, int(south - north) + 2)
    shape = (int(y + tall + ROOM), int(side + 2 * ROOM))
    numbers = rasterize([(p, k + 1) for k, p in enumerate(truth)], shape, dtype=np.int32)
    return keep_whole(np.asarray(truth, object), numbers)


def keep_whole(truth: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the buildings of which pixels make less or more than one component; background is one component."""
    whole = np.zeros(len(truth) + 1, bool)
    for k, box in enumerate(ndimage.find_objects(numbers)):
        if box is not None:
            whole[k + 1] = ndimage.label(numbers[box] == k + 1)[1] == 1
    background, _ = ndimage.label(~whole[numbers])
    renumber = np.where(whole, np.cumsum(whole), 0)
    numbers = renumber[numbers]
    yards = background > 1  # a yard in the middle of a building is a component too
    numbers[yards] = background[yards] - 1 + whole.sum()
    return truth[whole[1:]], numbers


def areas(arcs: Arcs, count: int) -> np.ndarray:
    """The buildings' polygons, in pixels."""
    lines = shapely.linestrings(arcs.xy / 2, indices=np.repeat(np.arange(len(arcs)), np.diff(arcs.ends)))
    side = np.concatenate([arcs.left, arcs.right])
    order = np.argsort(side, kind="stable")
    order = order[(side[order] > 0) & (side[order] <= count)]
    return shapely.build_area(shapely.multilinestrings(np.tile(lines, 2)[order], indices=side[order] - 1))


def regularised(polygons: np.ndarray, tolerance: float) -> np.ndarray | None:
    """What buildingregulariser makes of the polygons, in their order."""
    try:
        import geopandas as gpd  # noqa: PLC0415
        from buildingregulariser import regularize_geodataframe  # noqa: PLC0415
    except ImportError:
        return None
    frame = gpd.GeoDataFrame({"k": np.arange(len(polygons))}, geometry=polygons, crs="EPSG:32633")
    result = regularize_geodataframe(frame, simplify_tolerance=tolerance, num_cores=1)
    merged = result.dissolve("k").geometry.reindex(np.arange(len(polygons)), fill_value=shapely.Polygon())
    return shapely.make_valid(merged.to_numpy())


if __name__ == "__main__":
    main()
