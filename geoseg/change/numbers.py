"""How much changed: areas of each change, from what to what, and how far they may be off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.change.kernel import Judged, states_of
from geoseg.change.moments import cells_of
from geoseg.legend import NODATA
from geoseg.vector.measure import pixel_area_m2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geoseg.change.transitions import Transitions
    from geoseg.frame import Box, Frame

Array = np.ndarray[Any, Any]

_TOGETHER = 32
"""Pixels of one square of so many a side are wrong together; of different squares, independently of each other."""
_NORMAL_95 = 1.959964
_CODE, _STATES = 0, 1


def count_block(judged: Judged, states: Array | None, box: Box, frame: Frame) -> Array:
    """(n, 8) float64: row and column of a cell, what is counted, two keys, pixels, m2, variance of the m2.

    Counted are codes (0, code, 0), and, where states are known, pairs of them (1, before, after).
    """
    rows = []
    for cell in cells_of(box):
        at = cell.slices(box)
        part = Judged(judged.codes[at], judged.confidence[at], judged.magnitude[at])
        area = pixel_area_m2(frame.crop(cell)) or np.nan
        deviation = area * np.sqrt(part.confidence / 100 * np.clip(1 - part.confidence / 100, 0, 1))
        keys = [(_CODE, part.codes.astype(np.int64) * 256)]
        if states is not None:
            before, after = (date.astype(np.int64) for date in states_of(part, states[(slice(None), *at)]))
            keys.append((_STATES, np.where(part.codes == NODATA, -1, before * 256 + after)))
        for what, key in keys:
            rows += [(cell.row, cell.col, what, *row) for row in _counted(key, deviation, area)]
    return np.array(rows, np.float64).reshape(-1, 8)


def _counted(key: Array, deviation: Array, area: float) -> Iterable[tuple[float, ...]]:
    height, width = key.shape
    square = (np.arange(height)[:, None] // _TOGETHER) * (-(-width // _TOGETHER)) + np.arange(width) // _TOGETHER
    for value in np.unique(key[(key >= 0) & (key != NODATA * 256)]).tolist():
        own = key == value
        off = np.bincount(square[own], weights=deviation[own])
        pixels = int(own.sum())
        yield value // 256, value % 256, pixels, pixels * area, float((off**2).sum())


@dataclass(frozen=True)
class Amount:
    """An area: pixels, m2 (None where that is not known), and within how many m2 it is so with 95 %."""

    pixels: int
    area_m2: float | None
    within_m2: float | None

    def to_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        rounded = [None if value is None else round(value, 1) for value in (self.area_m2, self.within_m2)]
        return {"pixels": self.pixels, "area_m2": rounded[0], "within_m2": rounded[1]}


@dataclass(frozen=True)
class ChangeNumbers:
    """All areas of a pair."""

    by_code: dict[int, Amount]
    """Of each code that occurs, unchanged (0) too."""
    by_states: dict[tuple[int, int], Amount]
    """Of each pair of classes (before, after) by their places, equal ones too; empty where classes are not known."""

    @classmethod
    def of(cls, rows: Array) -> ChangeNumbers:
        """Add up rows of `count_block` of all blocks, cell by cell, so that the sum does not depend on blocks."""
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        found: list[dict[Any, Amount]] = []
        for what in (_CODE, _STATES):
            own = rows[rows[:, 2] == what]
            keys, place = np.unique(own[:, 3:5], axis=0, return_inverse=True)
            totals = [np.bincount(place.ravel(), own[:, column], minlength=len(keys)) for column in (5, 6, 7)]
            amounts = [_amount(*values) for values in zip(*totals, strict=True)]
            found.append({(int(key[0]), int(key[1])): amount for key, amount in zip(keys, amounts, strict=True)})
        return cls({code: amount for (code, _), amount in found[0].items()}, found[1])

    @property
    def valid(self) -> Amount:
        """All that both dates cover."""
        return _sum(self.by_code.values())

    @property
    def changed(self) -> Amount:
        """All that changed."""
        return _sum(amount for code, amount in self.by_code.items() if code)

    def to_json(self, transitions: Transitions) -> dict[str, Any]:
        """As it stands in run.json: totals, each change, and the matrix and net change of classes."""
        entries = {entry.code: entry for entry in transitions.entries}
        valid = self.valid.pixels
        changes = [
            {"code": code, "name": entries[code].name, "from": entries[code].from_, "to": entries[code].to}
            | amount.to_json()
            | {"share": round(amount.pixels / valid, 6)}
            for code, amount in sorted(self.by_code.items())
            if code
        ]
        record: dict[str, Any] = {
            "valid": self.valid.to_json(),
            "changed": {**self.changed.to_json(), "share": round(self.changed.pixels / valid, 6) if valid else None},
            "changes": changes,
        }
        if self.by_states:
            names = transitions.states
            record["matrix"] = [
                {
                    "from": names[before],
                    "to": names[after],
                    **amount.to_json(),
                    "share": round(amount.pixels / valid, 6),
                }
                for (before, after), amount in sorted(self.by_states.items())
            ]
            record["net"] = [self._net(place, name) for place, name in enumerate(names)]
        return record

    def _net(self, place: int, name: str) -> dict[str, Any]:
        """What a class had, lost, gained and has."""
        lost = _sum(amount for (before, after), amount in self.by_states.items() if before == place != after)
        gained = _sum(amount for (before, after), amount in self.by_states.items() if after == place != before)
        stays = self.by_states.get((place, place), Amount(0, 0.0, 0.0))

        def both(one: float | None, other: float | None, sign: int = 1) -> float | None:
            return None if one is None or other is None else round(one + sign * other, 1)

        # Gains and losses are of different pixels, and so add up as if they were independent.
        off = (
            None
            if lost.within_m2 is None or gained.within_m2 is None
            else float(np.hypot(lost.within_m2, gained.within_m2))
        )
        return {
            "class": name,
            "before_m2": both(stays.area_m2, lost.area_m2),
            "after_m2": both(stays.area_m2, gained.area_m2),
            "gained_m2": both(gained.area_m2, 0.0),
            "lost_m2": both(lost.area_m2, 0.0),
            "net_m2": both(gained.area_m2, lost.area_m2, -1),
            "within_m2": both(off, 0.0),
        }


def _amount(pixels: float, area: float, variance: float) -> Amount:
    known = bool(np.isfinite(area))
    return Amount(int(pixels), float(area) if known else None, _NORMAL_95 * float(np.sqrt(variance)) if known else None)


def _sum(amounts: Iterable[Amount]) -> Amount:
    listed = list(amounts)
    if any(amount.area_m2 is None for amount in listed):
        return Amount(sum(amount.pixels for amount in listed), None, None)
    return Amount(
        sum(amount.pixels for amount in listed),
        sum(amount.area_m2 or 0.0 for amount in listed),
        float(np.sqrt(sum((amount.within_m2 or 0.0) ** 2 for amount in listed))),
    )
