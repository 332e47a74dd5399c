"""Centre lines of road networks whose lines are known.

    python tests/benchmarks/roads.py [--side 1500] [--seeds 6] [--picture OUT.png]

Networks of streets are made up (grids that wind, dead ends, ring roads, roads by themselves), drawn as pixels with the
width of each street, frayed along their sides, and found again from the pixels; within one block, and in blocks of 512
px. Printed are the error of the total length, the number of connected networks, and how many dead ends are shorter than
the road is wide. In the last rows gaps as long as a crown of a tree are cut into straight streets.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoseg.frame import Box
from geoseg.vector import blocks_of
from geoseg.vector.centreline import HALO, thin
from geoseg.vector.network import Network, RoadRule, connect

Array = np.ndarray[Any, Any]
_FINE = 4


@dataclass(frozen=True)
class Streets:
    """Lines that are known, and what pixels make of them."""

    lines: list[Array]
    widths: list[float]
    pixels: Array
    networks: int

    @property
    def length(self) -> float:
        """Of all lines, in pixels; where streets cross it counts once for each."""
        return sum(shapely.LineString(line).length for line in self.lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    print("| streets | block | length px | error % | networks | found | short dead ends |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for gaps in (False, True):
        for seed in range(given.seeds if not gaps else 2):
            streets = made_up(seed, given.side, gaps=gaps)
            for block in (given.side, 512):
                network = found(streets.pixels, block)
                error = 100 * (length_of(network) / streets.length - 1)
                row = [f"{'with gaps ' if gaps else ''}{seed}", block, round(streets.length), f"{error:+.2f}"]
                print("|", *(f"{cell} |" for cell in [*row, streets.networks, networks_of(network), stubs_of(network)]))
            if given.picture and seed == 0:
                draw(streets.pixels, network, given.picture.with_stem(f"{given.picture.stem}_{int(gaps)}"))


def found(road: Array, block: int) -> Network:
    """The network of road pixels, thinned in blocks."""
    scene = Box(0, 0, *road.shape)
    pieces = []
    for inside in blocks_of(road.shape, block):
        box = Box(inside.row - HALO, inside.col - HALO, inside.height + 2 * HALO, inside.width + 2 * HALO) & scene
        pieces.append(thin(road[box.slices(scene)], box, inside))
    return connect(pieces, RoadRule(), 1.0, road.shape)


def made_up(seed: int, side: int, *, gaps: bool = False) -> Streets:
    """Streets that wind and cross, dead ends from them, and roads and ring roads that touch nothing else."""
    rng = np.random.default_rng(seed)
    lines: list[Array] = []
    widths: list[float] = []
    margin = side // 10
    along = np.linspace(margin, side - margin, 400)
    places = np.arange(margin * 1.5, side - margin, side / 6)
    for axis in (0, 1):
        for place in places:
            wave = rng.uniform(0, 12) * np.sin(along / side * rng.uniform(2, 9) * np.pi + rng.uniform(0, 6))
            line = np.stack([along, place + wave], axis=1)
            lines.append(line if axis else line[:, ::-1])
            widths.append(rng.uniform(4, 20))
    for place in places[:-1]:  # dead ends between two streets
        for _ in range(2):
            across = rng.choice(places[:-1]) + rng.uniform(50, 70)
            base = lines[list(places).index(place) + len(places)]
            start = base[np.abs(base[:, 0] - across).argmin()]
            lines.append(np.stack([start, start + np.array([rng.uniform(-8, 8), rng.uniform(60, 90)])]))
            widths.append(rng.uniform(5, 9))
    networks = 1
    for corner in ((margin // 2, side // 2), (side - margin // 2, side // 2)):  # rings by themselves
        turn = np.linspace(0, 2 * np.pi, 200)
        radius = margin / 3.2
        lines.append(np.stack([corner[0] + radius * np.cos(turn), corner[1] + radius * np.sin(turn)], axis=1))
        widths.append(rng.uniform(5, 12))
        networks += 1
    for row in (margin // 2, side - margin // 2):
        lines.append(np.array([[2 * margin, row], [side / 2, row + 11.0]]))
        widths.append(rng.uniform(5, 15))
        networks += 1
    return Streets(lines, widths, drawn(lines, widths, side, rng, gaps=gaps), networks)


def drawn(lines: list[Array], widths: list[float], side: int, rng: np.random.Generator, *, gaps: bool) -> Array:
    """The pixels whose middle lies in a street, frayed along the sides."""
    image = Image.new("1", (side * _FINE, side * _FINE))
    pen = ImageDraw.Draw(image)
    for line, width in zip(lines, widths, strict=True):
        area = shapely.LineString(line).buffer(width / 2, cap_style="flat")
        for part in shapely.get_parts(area):
            pen.polygon([tuple(p) for p in np.asarray(part.exterior.coords) * _FINE], fill=1)
            for hole in part.interiors:
                pen.polygon([tuple(p) for p in np.asarray(hole.coords) * _FINE], fill=0)
    # A ring is drawn anew where its hole has cut into others.
    share = np.asarray(image, np.float32).reshape(side, _FINE, side, _FINE).mean(axis=(1, 3))
    frayed = ndimage.gaussian_filter(rng.normal(size=share.shape), 1.0) * 0.5
    road: Array = (
        ndimage.gaussian_filter(share, 0.7) + frayed * ((share > 0) | (ndimage.maximum_filter(share, 3) > 0)) > 0.5
    )
    if gaps:
        cols, rows = np.meshgrid(np.arange(side), np.arange(side))
        for line in lines[:12:2]:
            middle = line[(len(line) * 17) // 100]
            heading = np.abs(line[-1] - line[0])
            wide = (np.abs(cols - middle[0]) < 5) if heading[0] > heading[1] else (np.abs(rows - middle[1]) < 5)
            near = (np.abs(cols - middle[0]) < 20) & (np.abs(rows - middle[1]) < 20)
            road &= ~(wide & near)
    return road


def length_of(network: Network) -> float:
    """In pixels."""
    index = np.repeat(np.arange(len(network)), np.diff(network.ends))
    return float(shapely.length(shapely.linestrings(network.xy, indices=index)).sum())


def networks_of(network: Network) -> int:
    """How many parts do not hang together."""
    count = len(network.node_xy)
    graph = coo_array((np.ones(len(network)), (network.start, network.end)), shape=(count, count))
    return int(connected_components(graph, directed=False)[0])


def stubs_of(network: Network) -> int:
    """How many edges with one dead end are shorter than they are wide."""
    degree = np.bincount(np.concatenate([network.start, network.end]), minlength=len(network.node_xy))
    dead = (degree[network.start] == 1) ^ (degree[network.end] == 1)
    index = np.repeat(np.arange(len(network)), np.diff(network.ends))
    lengths = shapely.length(shapely.linestrings(network.xy, indices=index))
    return int((dead & (lengths < network.width_px)).sum())


def draw(road: Array, network: Network, path: Path) -> None:
    """Roads in grey, edges in red, nodes in blue, four times as large."""
    image = Image.fromarray(np.where(road, 170, 255).astype(np.uint8)).convert("RGB").resize(
        (road.shape[1] * 2, road.shape[0] * 2), 0
    )  # fmt: skip
    pen = ImageDraw.Draw(image)
    for k in range(len(network)):
        line = network.xy[network.ends[k] : network.ends[k + 1]] * 2
        pen.line([tuple(p) for p in line], fill=(230, 120, 0) if network.bridged[k] else (210, 30, 30), width=2)
    for x, y in network.node_xy * 2:
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(30, 60, 220))
    image.save(path)


if __name__ == "__main__":
    main()
