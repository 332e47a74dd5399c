"""Lines of roads as a network: nodes, and edges with length and width."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geoseg.vector.arcs import first_of_group, follow, gather, spread
from geoseg.vector.measure import lengths_m, to_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd

    from geoseg.frame import Frame
    from geoseg.legend import ClassEntry
    from geoseg.vector.centreline import Pieces

Array = np.ndarray[Any, Any]

_DEAD_END, _PASSING = 1, 2
"""Edges that end at a node."""
_PASSES = 60
_TAUBIN = (0.5, -0.51)
"""Smoothing without shrinking: a step towards the neighbours' middle and one away (Taubin 1995); bends longer than 30
pixels stay."""
_SIMPLIFY_PX = 0.6
_SPECK = 1.5
"""Networks shorter than this many widths are no roads."""


@dataclass(frozen=True, slots=True)
class RoadRule:
    """What makes a network of lines."""

    bridge_m: float = 12.0
    """Gaps between two dead ends are bridged up to here, such as below crowns of trees."""
    bridge_deg: float = 30.0
    """By how much both roads may turn at a bridge."""
    least_m2: float = 0.0
    """Networks of roads that cover less are left out, as their polygons are."""


@dataclass(frozen=True)
class Network:
    """Nodes, and edges between them; in pixel coordinates (column, row) of the scene."""

    node_xy: Array
    """(k, 2) float64."""
    xy: Array
    """(n, 2) float64: the vertices of all edges, from node to node."""
    ends: Array
    """(e + 1,) int64: edge i has the vertices `xy[ends[i]:ends[i + 1]]`."""
    start: Array
    """(e,) int64: the node at which each edge begins; rings without a crossing begin and end at a node of their own."""
    end: Array
    """(e,) int64: the node at which it ends."""
    width_px: Array
    """(e,) float64: the mean width along it."""
    bridged: Array
    """(e,) bool: whether it bridges a gap."""

    def __len__(self) -> int:
        """Number of edges."""
        return len(self.start)


def connect(pieces: Sequence[Pieces], rule: RoadRule, pixel_m: float, shape: tuple[int, int]) -> Network:
    """The network of the lines of all blocks of a scene of `shape`, whatever the blocks.

    Dead ends shorter than the road is wide where they begin are spurs and go; crossings that fell apart are put
    together; lines end where the road ends; gaps between dead ends that point at each other are bridged; edges are
    smooth. Networks hardly longer than the road is wide, or smaller than the rule allows, are left out. pixel_m: the
    side of a pixel on the ground.
    """
    lines = _Lines.of(pieces)
    while True:
        edges = lines.edges()
        spurs = edges.spurs()
        if not spurs.any():
            break
        lines = lines.without(edges.links_of(spurs))
    edges = edges.select(~edges.specks(rule.least_m2 / pixel_m**2)).extended(shape).crossed().smoothed()
    network = _bridged(edges, rule, pixel_m)
    return _ordered(network)


@dataclass(frozen=True)
class _Lines:
    """Pixels and links of all blocks."""

    xy: Array
    half_width: Array
    links: Array

    @classmethod
    def of(cls, pieces: Sequence[Pieces]) -> _Lines:
        keys = np.concatenate(
            [np.empty(0, np.int64), *(piece.pixels.astype(np.int64) @ [1 << 32, 1] for piece in pieces)]
        )
        widths = np.concatenate([np.empty(0, np.float32), *(piece.half_widths for piece in pieces)])
        firsts = np.cumsum([0, *(len(piece.pixels) for piece in pieces)])
        links = [piece.links + first for piece, first in zip(pieces, firsts, strict=False)]
        keys, where, number = np.unique(keys, return_index=True, return_inverse=True)
        linked = number.astype(np.int32)[np.concatenate([np.empty((0, 2), np.int64), *links])]
        linked = linked[np.unique(np.sort(linked, axis=1).astype(np.int64) @ [1 << 32, 1], return_index=True)[1]]
        return cls(np.stack([keys & 0xFFFFFFFF, keys >> 32], axis=1) + 0.5, widths[where], linked)

    def without(self, links: Array) -> _Lines:
        kept = np.ones(len(self.links), bool)
        kept[links] = False
        return replace(self, links=self.links[kept])

    def edges(self) -> _Edges:
        """Lines from node to node: each link is walked both ways, and of the two walks along a line one is kept."""
        tail, head = self.links.ravel(), self.links[:, ::-1].ravel()  # walk 2k and 2k + 1 are opposite
        degree = np.bincount(tail, minlength=len(self.xy))
        leaving = np.bincount(tail, np.arange(len(tail)), len(self.xy)).astype(np.int64)
        back = np.arange(len(tail)) ^ 1
        after = np.where(degree[head] == _PASSING, leaving[head] - back, -1)
        order, ends = follow(after)
        chain = np.empty(len(order), np.int64)
        chain[order] = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        kept = np.flatnonzero(np.arange(len(ends) - 1) < chain[order[ends[:-1]] ^ 1])
        walks, ends = gather(order, ends, kept)
        vertices = np.insert(tail[walks], ends[1:], head[walks[ends[1:] - 1]])
        ends += np.arange(len(ends))
        return _Edges(
            xy=self.xy[vertices], half_width=self.half_width[vertices], ends=ends, links=walks // 2,
            start=vertices[ends[:-1]], end=vertices[ends[1:] - 1], nodes=len(self.xy),
        )  # fmt: skip


@dataclass(frozen=True)
class _Edges:
    """Edges as pixels drew them, or on the way to what they become."""

    xy: Array
    half_width: Array
    """Of each vertex."""
    ends: Array
    links: Array
    """The links of all edges, one fewer than vertices each."""
    start: Array
    end: Array
    nodes: int

    @property
    def tips(self) -> Array:
        """(e, 2) nodes."""
        return np.stack([self.start, self.end], axis=1)

    @property
    def degree(self) -> Array:
        """(k,): how many edges end at each node."""
        degree: Array = np.bincount(self.tips.ravel(), minlength=self.nodes)
        return degree

    @property
    def tip_widths(self) -> Array:
        """(e, 2): half the width of the road at both ends."""
        widths: Array = self.half_width[np.stack([self.ends[:-1], self.ends[1:] - 1], axis=1)]
        return widths

    @property
    def widths(self) -> Array:
        """(e,): the mean width of the road along each edge."""
        sizes = np.diff(self.ends)
        return 2 * np.add.reduceat(self.half_width, self.ends[:-1]) / sizes if len(sizes) else np.empty(0)

    def lengths(self) -> Array:
        step = np.hypot(*np.diff(self.xy, axis=0, append=self.xy[-1:]).T)
        step[self.ends[1:] - 1] = 0
        return np.add.reduceat(step, self.ends[:-1]) if len(self.start) else np.empty(0)

    def links_of(self, some: Array) -> Array:
        links: Array = self.links[np.repeat(some, np.diff(self.ends) - 1)]
        return links

    def select(self, some: Array) -> _Edges:
        at = np.flatnonzero(some)
        xy, ends = gather(self.xy, self.ends, at)
        half_width, _ = gather(self.half_width, self.ends, at)
        return replace(
            self, xy=xy, half_width=half_width, ends=ends, links=self.links_of(some), start=self.start[at],
            end=self.end[at],
        )  # fmt: skip

    def spurs(self) -> Array:
        """(e,) bool: dead ends shorter than the road is wide where they begin, but for the longest of a star."""
        dead = self.degree[self.tips] == _DEAD_END
        one = dead[:, 0] ^ dead[:, 1]
        tip = np.where(dead[:, 0], 0, 1)
        row = np.arange(len(tip))
        junction, width = self.tips[row, 1 - tip], self.tip_widths
        length = self.lengths()
        short: Array = one & (length + width[row, tip] < 2 * width[row, 1 - tip])
        left = self.degree - np.bincount(junction[short], minlength=self.nodes)
        order = np.lexsort([-length[short], junction[short]])
        candidates = np.flatnonzero(short)[order]
        longest = candidates[np.unique(junction[candidates], return_index=True)[1]]
        short[longest[left[junction[longest]] == 0]] = False
        return short

    def specks(self, least_px2: float) -> Array:
        """(e,) bool: edges of networks that are hardly longer than the road is wide, or cover less."""
        group = first_of_group(self.tips, self.nodes)[self.start]
        # Dead ends were thinned by half a width.
        cut = np.where(self.degree[self.tips] == _DEAD_END, self.tip_widths, 0).sum(axis=1)
        total = np.bincount(group, self.lengths() + cut, self.nodes)
        widest = np.zeros(self.nodes)
        np.maximum.at(widest, np.repeat(group, np.diff(self.ends)), self.half_width)
        area_px2 = np.bincount(group, (self.lengths() + cut) * self.widths, self.nodes)
        speck: Array = ((total < _SPECK * 2 * widest) | (area_px2 < least_px2))[group]
        return speck

    def extended(self, shape: tuple[int, int]) -> _Edges:
        """Dead ends drawn straight on to where the road ends, since thinning runs into one of its corners."""
        xy = self.xy.copy()
        degree, sizes = self.degree, np.diff(self.ends)
        for node, place, inwards in ((self.start, self.ends[:-1], 1), (self.end, self.ends[1:] - 1, -1)):
            at = np.flatnonzero((degree[node] == _DEAD_END) & (sizes > _PASSING))
            tip, room = place[at], sizes[at] - 1
            width = self.half_width[
                tip + inwards * np.minimum(np.round(2 * self.half_width[tip]).astype(int) + 2, room)
            ]
            base = np.minimum(np.ceil(1.5 * width).astype(int), np.maximum(room // 2, 1))
            far = np.minimum(base + np.ceil(3 * width).astype(int), room)
            from_xy = self.xy[tip + inwards * base]
            heading = from_xy - self.xy[tip + inwards * far]
            heading /= np.maximum(np.hypot(*heading.T), 1e-9)[:, None]
            onwards = ((self.xy[tip] - from_xy) * heading).sum(axis=1) + self.half_width[tip]
            edge, step = spread(base)
            share = 1 - step / base[edge]
            xy[tip[edge] + inwards * step] = from_xy[edge] + heading[edge] * (onwards[edge] * share)[:, None]
        return replace(self, xy=np.clip(xy, 0, (shape[1], shape[0])))

    def crossed(self) -> _Edges:
        """Crossings of more than three roads, which thinning takes apart, put together."""
        inner = (self.degree[self.tips] > _PASSING).all(axis=1)
        width = self.tip_widths.max(axis=1, initial=0)
        length = self.lengths()
        merged = first_of_group(self.tips[inner & (length < width)], self.nodes)
        start, end = merged[self.start], merged[self.end]
        stays = ~(inner & (start == end) & (length < 2 * np.pi * width))
        # The middle of all nodes that become one, however many edges end at each.
        nodes, where = np.unique(self.tips, return_index=True)
        place = self.xy[np.stack([self.ends[:-1], self.ends[1:] - 1], axis=1)].reshape(-1, 2)[where]
        count = np.bincount(merged[nodes], minlength=self.nodes)
        middle: Array = np.stack([np.bincount(merged[nodes], part, self.nodes) for part in place.T], axis=1)
        middle = middle / np.maximum(count, 1)[:, None]
        xy = self.xy.copy()
        moved = count > 1
        for node, at in ((start, self.ends[:-1]), (end, self.ends[1:] - 1)):
            xy[at[moved[node]]] = middle[node[moved[node]]]
        return replace(self, xy=xy, start=start, end=end).select(stays)

    def smoothed(self) -> _Edges:
        """Lines without the stairs of pixels; their ends stay, and those that meet at a node stay together."""
        xy = self.xy.copy()
        fixed = np.zeros(len(xy), bool)
        fixed[self.ends[:-1]] = fixed[self.ends[1:] - 1] = True
        inner = np.flatnonzero(~fixed)
        for _ in range(_PASSES):
            for share in _TAUBIN:
                xy[inner] += share * ((xy[inner - 1] + xy[inner + 1]) / 2 - xy[inner])
        return replace(self, xy=xy)


def _bridged(edges: _Edges, rule: RoadRule, pixel_m: float) -> Network:
    """The network with gaps bridged, nearest dead ends first, and its lines with no more vertices than they need."""
    sizes = np.diff(edges.ends)
    lines = shapely.linestrings(edges.xy, indices=np.repeat(np.arange(len(sizes)), sizes))
    simple = shapely.simplify(lines, _SIMPLIFY_PX)
    xy, index = shapely.get_coordinates(simple, return_index=True)
    width = edges.widths
    ends = np.concatenate([[0], np.cumsum(np.bincount(index, minlength=len(sizes)))])
    used, number = np.unique(edges.tips, return_inverse=True)
    start, end = number.reshape(-1, 2).T
    node_xy = np.empty((len(used), 2))
    node_xy[start], node_xy[end] = xy[ends[:-1]], xy[ends[1:] - 1]
    network = Network(node_xy, xy, ends, start, end, width, np.zeros(len(sizes), bool))
    pairs = _gaps(network, rule, pixel_m)
    width_at = np.zeros(len(used))
    width_at[start] = width_at[end] = width
    return Network(
        node_xy=node_xy,
        xy=np.concatenate([xy, node_xy[pairs.ravel()]]),
        ends=np.concatenate([ends, ends[-1] + 2 * np.arange(1, len(pairs) + 1)]),
        start=np.concatenate([start, pairs[:, 0]]),
        end=np.concatenate([end, pairs[:, 1]]),
        width_px=np.concatenate([width, width_at[pairs].mean(axis=1)]),
        bridged=np.arange(len(sizes) + len(pairs)) >= len(sizes),
    )


def _gaps(network: Network, rule: RoadRule, pixel_m: float) -> Array:
    """(b, 2): pairs of dead ends that point at each other and are near; each is taken once."""
    from scipy.spatial import KDTree  # noqa: PLC0415

    degree = np.bincount(np.concatenate([network.start, network.end]), minlength=len(network.node_xy))
    first, last = network.ends[:-1], network.ends[1:] - 1
    heading = np.zeros((len(network.node_xy), 2))
    heading[network.start] = network.xy[first] - network.xy[first + 1]
    heading[network.end] = network.xy[last] - network.xy[last - 1]
    dead = np.flatnonzero(degree == _DEAD_END)
    if len(dead) < 2 or not rule.bridge_m:
        return np.empty((0, 2), np.int64)
    heading /= np.maximum(np.hypot(*heading.T), 1e-9)[:, None]
    near = dead[KDTree(network.node_xy[dead]).query_pairs(rule.bridge_m / pixel_m, output_type="ndarray")]
    across = network.node_xy[near[:, 1]] - network.node_xy[near[:, 0]]
    length = np.hypot(*across.T)
    across = np.where(length[:, None] > 1, across, heading[near[:, 0]])  # so near that it has no direction
    across /= np.maximum(np.hypot(*across.T), 1e-9)[:, None]
    least = np.cos(np.radians(rule.bridge_deg))
    aligned = (heading[near[:, 0]] * across).sum(axis=1) >= least
    aligned &= (heading[near[:, 1]] * -across).sum(axis=1) >= least
    near, length = near[aligned], length[aligned]
    taken: set[int] = set()
    chosen = []
    for one, other in near[np.lexsort([near[:, 1], near[:, 0], length])].tolist():
        if one not in taken and other not in taken:
            taken |= {one, other}
            chosen.append((one, other))
    return np.asarray(chosen, np.int64).reshape(-1, 2)


def _ordered(network: Network) -> Network:
    """Nodes from north to south, then west to east; edges by the nodes and the place at which they begin."""
    by_place = np.lexsort(network.node_xy.T)
    number = np.empty(len(by_place), np.int64)
    number[by_place] = np.arange(len(by_place))
    start, end = number[network.start], number[network.end]
    back = start > end
    start, end = np.minimum(start, end), np.maximum(start, end)
    order = np.lexsort([network.ends[:-1], end, start])
    xy, ends = gather(network.xy, network.ends, order, back[order])
    return Network(
        network.node_xy[by_place], xy, ends, start[order], end[order], network.width_px[order], network.bridged[order]
    )


def centreline_layer(network: Network, frame: Frame, entry: ClassEntry) -> gpd.GeoDataFrame:
    """Edges as lines in the frame's CRS with class, code, length_m, width_m, start_node, end_node (from 1), bridged.

    Lengths and widths are in m, geodesic as those of polygons; NaN without a CRS.
    """
    import geopandas as gpd  # noqa: PLC0415  # 1.5 s

    index = np.repeat(np.arange(len(network)), np.diff(network.ends))
    lines = to_map(shapely.linestrings(network.xy, indices=index) if len(network) else np.empty(0, object), frame)
    gsd_m = frame.gsd_m
    width_m = network.width_px * (np.sqrt(gsd_m[0] * gsd_m[1]) if gsd_m and frame.crs else np.nan)
    rows = {
        "class": np.full(len(network), entry.name, object),
        "code": np.full(len(network), entry.code, np.int32),
        "length_m": np.round(lengths_m(lines, frame), 2),
        "width_m": np.round(width_m, 2),
        "start_node": network.start + 1,
        "end_node": network.end + 1,
        "bridged": network.bridged,
    }
    return gpd.GeoDataFrame(rows, geometry=gpd.GeoSeries(list(lines), crs=frame.crs), crs=frame.crs)
