"""Laws of centre lines: as long as the roads, as connected, without spurs; the same whatever the blocks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from pointwise import UTM, frame_of
from pyproj import Geod

from geoseg.frame import Box, Frame
from geoseg.legend import LAND_COVER
from geoseg.vector.centreline import thin
from geoseg.vector.network import Network, RoadRule, centreline_layer, connect

sys.path.append(str(Path(__file__).parent / "benchmarks"))
import roads

ROAD = next(entry for entry in LAND_COVER.foreground if entry.kind == "line")


def network_of(road: np.ndarray, block: int = 2048, rule: RoadRule | None = None) -> Network:
    return roads.found(road, block) if rule is None else connect(
        [thin(road, Box(0, 0, *road.shape), Box(0, 0, *road.shape))], rule, 1.0, road.shape
    )  # fmt: skip


def lines_of(network: Network) -> np.ndarray:
    return shapely.linestrings(network.xy, indices=np.repeat(np.arange(len(network)), np.diff(network.ends)))


def streets(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Road pixels: boxes as (row, col, height, width)."""
    road = np.zeros(shape, bool)
    for row, col, height, width in boxes:
        road[row : row + height, col : col + width] = True
    return road


@pytest.mark.parametrize("seed", range(3))
def test_networks_are_found_as_they_were_drawn(seed: int) -> None:
    made = roads.made_up(seed, 1000)
    network = roads.found(made.pixels, 2048)
    assert roads.length_of(network) == pytest.approx(made.length, rel=0.03)
    assert roads.networks_of(network) == made.networks
    assert roads.stubs_of(network) == 0
    drawn = shapely.union_all([shapely.LineString(line) for line in made.lines])
    away = shapely.distance(shapely.points(network.xy), drawn)
    assert np.quantile(away, 0.9) < 1
    assert away.max() < max(made.widths) / 2


@pytest.mark.parametrize("block", [200, 333])
def test_lines_do_not_depend_on_blocks(block: int) -> None:
    made = roads.made_up(1, 700)
    whole, parts = roads.found(made.pixels, 2048), roads.found(made.pixels, block)
    for name in Network.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_edges_meet_in_their_nodes() -> None:
    network = roads.found(roads.made_up(2, 700).pixels, 256)
    np.testing.assert_array_equal(network.xy[network.ends[:-1]], network.node_xy[network.start])
    np.testing.assert_array_equal(network.xy[network.ends[1:] - 1], network.node_xy[network.end])
    assert (np.diff(network.node_xy[:, 1]) >= 0).all()


def test_a_straight_road_is_one_line_from_end_to_end() -> None:
    network = network_of(streets((50, 20, 9, 100)))
    [line] = lines_of(network)
    assert line.length == pytest.approx(100, abs=1.5)
    assert line.hausdorff_distance(shapely.LineString([(20, 54.5), (120, 54.5)])) < 1
    assert network.width_px.tolist() == pytest.approx([9], abs=0.6)
    assert shapely.get_num_coordinates(line) == 2


def test_four_roads_meet_in_one_node() -> None:
    network = network_of(streets((50, 20, 9, 100), (5, 65, 110, 12)))
    degree = np.bincount(np.concatenate([network.start, network.end]))
    assert sorted(degree.tolist()) == [1, 1, 1, 1, 4]
    [crossing] = network.node_xy[degree == 4]
    np.testing.assert_allclose(crossing, (71, 54.5), atol=1.5)


def test_rings_stay_rings() -> None:
    rows, cols = np.indices((100, 100)) - 50
    ring = np.abs(np.hypot(rows, cols) - 30) < 4
    network = network_of(ring)
    [line] = lines_of(network)
    assert line.is_ring
    assert line.length == pytest.approx(2 * np.pi * 30, rel=0.02)


@pytest.mark.parametrize(("gap", "shift", "bridges"), [(8, 0, 1), (8, 2, 1), (30, 0, 0), (8, 12, 0)])
def test_gaps_are_bridged_where_roads_go_on(gap: int, shift: int, bridges: int) -> None:
    road = streets((50, 10, 7, 50), (50 + shift, 60 + gap, 7, 50))
    network = network_of(road)
    assert network.bridged.sum() == bridges
    assert roads.networks_of(network) == 2 - bridges
    assert not network_of(road, rule=RoadRule(bridge_m=0)).bridged.any()


def test_side_roads_end_in_no_bridge_across_the_road() -> None:
    road = streets((50, 10, 7, 100), (20, 40, 20, 6))  # ends ten pixels before the road, and at a right angle
    assert not network_of(road).bridged.any()


def test_cars_make_no_ring_and_specks_no_road() -> None:
    road = streets((50, 20, 12, 100), (5, 5, 6, 7))
    road[54:57, 60:64] = False
    network = network_of(road)
    assert len(network) == 1


@pytest.mark.parametrize("road", [np.zeros((9, 9), bool), np.eye(9) > 1, np.ones((1, 1), bool), np.ones((7, 7), bool)])
def test_next_to_nothing_is_no_network(road: np.ndarray) -> None:
    network = network_of(road)
    assert len(network) == 0
    layer = centreline_layer(network, frame_of(road.shape), ROAD)
    assert layer.empty
    assert layer.crs == UTM


def test_holes_that_polygons_close_make_no_ring_either() -> None:
    road = streets((50, 20, 20, 100))
    road[56:63, 60:67] = False  # 49 pixels
    box = Box(0, 0, *road.shape)
    for hole_px, edges in ((0, 4), (50, 1)):
        network = connect([thin(road, box, box, hole_px)], RoadRule(), 1.0, road.shape)
        assert len(network) == edges


def test_roads_too_small_for_a_polygon_have_no_line() -> None:
    road = streets((50, 20, 5, 20), (80, 20, 5, 60))
    assert len(network_of(road, rule=RoadRule(least_m2=50))) == 2
    assert len(network_of(road, rule=RoadRule(least_m2=150))) == 1
    assert len(network_of(road, rule=RoadRule(least_m2=400))) == 0


def test_roads_that_leave_the_scene_reach_its_edge() -> None:
    [line] = lines_of(network_of(streets((50, 0, 9, 160))))
    assert line.bounds[0] == pytest.approx(0, abs=0.6)
    assert line.bounds[2] == pytest.approx(160, abs=0.6)


def test_lengths_are_metres_on_the_ground() -> None:
    network = network_of(streets((50, 20, 9, 100)))
    planar = centreline_layer(network, frame_of((120, 160), 2.0), ROAD)
    assert planar.length_m.iloc[0] == pytest.approx(200, abs=3)
    assert planar.width_m.iloc[0] == pytest.approx(18, abs=1.2)
    assert planar["class"].tolist() == ["road"]
    assert planar[["start_node", "end_node"]].to_numpy().tolist() == [[1, 2]]
    degrees = Frame((120, 160), Affine(1e-5, 0, 4.4, 0, -1e-5, 60.0), "EPSG:4326")
    geodesic = centreline_layer(network, degrees, ROAD)
    lon, lat = np.asarray(geodesic.geometry.iloc[0].coords).T
    assert geodesic.length_m.iloc[0] == pytest.approx(Geod(ellps="WGS84").line_length(lon, lat), abs=0.01)
    nowhere = centreline_layer(network, Frame((120, 160), Affine.identity(), None), ROAD)
    assert np.isnan(nowhere.length_m).all()
    assert np.isnan(nowhere.width_m).all()
