"""Laws of filters: to which class small components go depends on nothing but what lies beside them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.frame import Box
from geoseg.legend import NODATA
from geoseg.vector.absorb import Borders, Limits, absorb, too_small, undecided, unite
from geoseg.vector.trace import components_of, trace


def graph_of(seed: int) -> tuple[np.ndarray, np.ndarray, Borders]:
    """Codes, pixels and borders of the components of a random raster with nodata."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(3, 20, 2).tolist())
    classes = rng.choice(np.array([0, 1, 2, 3, NODATA], np.uint8), shape, p=[0.35, 0.25, 0.2, 0.15, 0.05])
    numbers, census = components_of(classes, classes)
    return census.codes, census.pixels, Borders.of(trace(numbers, Box(0, 0, *shape), shape))


def limits_of(area: int, hole: int) -> Limits:
    codes = np.arange(256)
    foreground = (codes > 0) & (codes < NODATA)
    return Limits(np.where(foreground, area, 0.0), np.where(foreground, hole, 0.0), codes == 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_the_order_of_components_and_borders_changes_nothing(seed: int, area: int, hole: int) -> None:
    codes, pixels, borders = graph_of(seed)
    limits = limits_of(area, hole)
    found = absorb(codes, too_small(codes, pixels, borders, limits), borders)
    rng = np.random.default_rng(seed)
    place = rng.permutation(len(codes))  # the new number of each
    order = rng.permutation(len(borders.lengths))
    pairs = place[borders.pairs[order]]
    swapped = np.where(rng.random(len(pairs))[:, None] < 0.5, pairs, pairs[:, ::-1])
    others = Borders(swapped, borders.lengths[order])
    back = np.argsort(place)
    codes_there, pixels_there = codes[back], pixels[back]
    again = absorb(codes_there, too_small(codes_there, pixels_there, others, limits), others)
    np.testing.assert_array_equal(again[place], found)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_small_components_find_a_class_or_touch_nothing_that_has_one(seed: int, area: int, hole: int) -> None:
    codes, pixels, borders = graph_of(seed)
    small = too_small(codes, pixels, borders, limits_of(area, hole))
    found = absorb(codes, small, borders)
    np.testing.assert_array_equal(found[~small], codes[~small])
    size = np.bincount(unite(found, borders), pixels, len(codes))[unite(found, borders)]
    kept = small & (size == pixels) & (codes != 0)
    beside = np.concatenate([borders.pairs, borders.pairs[:, ::-1]])
    meets = kept[beside[:, 0]] & (codes[beside[:, 1]] != NODATA) & ~small[beside[:, 1]]
    assert not meets.any()


def test_slivers_pass_a_class_on() -> None:
    """A row of small components between a large one and nodata: one after the other takes its class."""
    codes = np.array([4, 1, 2, 3, 1, NODATA], np.uint8)
    pairs = np.stack([np.arange(5), np.arange(1, 6)], axis=1)
    small = np.array([False, True, True, True, True, False])
    assert absorb(codes, small, Borders(pairs, np.ones(5, int))).tolist() == [4, 4, 4, 4, 4, NODATA]
    assert absorb(codes, small | (codes == 4), Borders(pairs, np.ones(5, int))).tolist() == codes.tolist()


def test_of_equal_edges_the_lower_code_wins_and_sums_count_by_class() -> None:
    codes = np.array([3, 2, 1, 2, 0], np.uint8)
    pairs = np.array([[2, 0], [1, 2], [2, 3], [4, 2]])
    small = codes == 1
    assert absorb(codes, small, Borders(pairs, np.array([3, 2, 1, 3])))[2] == 0
    assert absorb(codes, small, Borders(pairs, np.array([3, 2, 2, 3])))[2] == 2


def test_what_hangs_on_an_open_component_is_undecided() -> None:
    pairs = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    small = np.array([True, True, True, False, True])
    open_ = np.array([True, False, False, True, False])
    assert undecided(small, open_, Borders(pairs, np.ones(4, int))).tolist() == [True, True, True, False, False]
