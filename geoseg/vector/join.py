"""What blocks could not finish alone, finished together: as if there were no seam."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.vector.absorb import Borders, absorb, too_small, unite
from geoseg.vector.arcs import Arcs, at_tips, first_of_group, meets, sides_in
from geoseg.vector.block import LooseEnds, straying, touching_edge
from geoseg.vector.chain import chain
from geoseg.vector.features import Census, Components

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.vector.tidy import Drawing

Array = np.ndarray[Any, Any]


def join_blocks(parts: Sequence[LooseEnds], drawing: Drawing) -> Components:
    """The polygons that cross seams, or that hang on what does, of all blocks of a scene."""
    pieces = _Pieces(parts)
    seams = pieces.seams()
    same = pieces.census.codes[seams.left] == pieces.census.codes[seams.right]
    across = first_of_group(seams.sides[same], len(pieces.census))
    loose = Arcs.concatenate([pieces.loose, seams.select(~same)]).relabelled(across)
    census = pieces.census.merged(across)
    unsure = _any(pieces.unsure, across)
    borders = Borders.of(loose)
    small = too_small(census.codes, census.pixels, borders, drawing.limits) & unsure
    census = replace(census, codes=absorb(census.codes, small, borders, drawing.limits.stands_for))
    within = unite(census.codes, borders)
    owner = within[across]
    census = census.merged(within)
    shown = _any(pieces.shown | pieces.unsure, owner) & drawing.shown[census.codes]
    shown &= ~(_any(pieces.unsure, owner) & (census.pixels < drawing.limits.area[census.codes]))
    lines = loose.relabelled(within)
    # Of these places all arcs are loose.
    passable = pieces.on_seam(loose.tips) | at_tips(loose, pieces.loose.select(sides_in(pieces.loose, pieces.unsure)))
    raw = chain(lines, ~passable)
    kept, kept_raw = (arcs.relabelled(owner) for arcs in (pieces.kept, pieces.kept_raw))
    drawn = _drawn(raw, kept, census.codes, pieces.obstacles, drawing)
    both = Arcs.concatenate([drawn, kept])
    both_raw = Arcs.concatenate([raw, kept_raw])
    objects = shown & drawing.objects[census.codes]
    both = _squared(both, both_raw, census.codes, objects, drawing)
    wanted = np.flatnonzero(shown)
    at_edge = _any(pieces.at_edge, owner) | touching_edge(raw, census.codes, drawing)
    return Components.of_census(census.select(wanted), drawing.polygons(both, wanted), at_edge[wanted])


class _Pieces:
    """What all blocks left, with components numbered throughout."""

    def __init__(self, parts: Sequence[LooseEnds]) -> None:
        self.parts = parts
        counts = [len(part.census) for part in parts]
        self.first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.census = Census.concatenate([part.census for part in parts])
        self.unsure, self.shown, self.at_edge = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("unsure", "shown", "at_edge")
        )
        self.loose, self.kept, self.kept_raw = (
            Arcs.concatenate([self._numbered(getattr(part, name), k) for k, part in enumerate(parts)])
            for name in ("loose", "kept", "kept_raw")
        )
        self.obstacles = np.concatenate([part.obstacles for part in parts])

    def _numbered(self, arcs: Arcs, part: int) -> Arcs:
        return arcs.relabelled(np.arange(self.first[part], self.first[part + 1]))

    def seams(self) -> Arcs:
        """Arcs along all seams, one for each stretch with one pair of components to its sides."""
        at = {(part.box.row, part.box.col): k for k, part in enumerate(self.parts)}
        found = [Arcs.none()]
        for k, part in enumerate(self.parts):
            box = part.box
            for name, place in (("right", (box.row, box.right)), ("bottom", (box.bottom, box.col))):
                if name in part.seams:
                    other = at[place]
                    facing = self.parts[other].seams["left" if name == "right" else "top"] + self.first[other]
                    found.append(_along_seam(part.seams[name] + self.first[k], facing, place, flat=name == "bottom"))
        return Arcs.concatenate(found)

    def on_seam(self, tips: Array) -> Array:
        """(m, 2) bool: which tips lie on a seam."""
        columns = {part.box.col for part in self.parts} - {0}
        rows = {part.box.row for part in self.parts} - {0}
        on: Array = np.isin(tips[..., 0], [2 * c for c in columns]) | np.isin(tips[..., 1], [2 * r for r in rows])
        return on


def _along_seam(before: Array, after: Array, place: tuple[int, int], *, flat: bool) -> Arcs:
    """Arcs along a seam that begins at `place` (row, col), one for each stretch with one pair to its sides."""
    begins = np.flatnonzero(np.append(True, (before[1:] != before[:-1]) | (after[1:] != after[:-1])))
    stops = np.append(begins[1:], len(before))
    row, col = place
    along = np.stack([begins, stops], axis=1).ravel()
    still = np.zeros_like(along)
    xy = np.stack([along, still] if flat else [still, along], axis=1)
    # Eastwards, what is above lies to the left; southwards, what lies in the east.
    left, right = (before, after) if flat else (after, before)
    ends = 2 * np.arange(len(begins) + 1)
    return Arcs((2 * (xy + np.array([col, row]))).astype(np.int32), ends, left[begins], right[begins])


def _drawn(raw: Arcs, kept: Arcs, codes: Array, obstacles: Array, drawing: Drawing) -> Arcs:
    """Loose arcs drawn as those of blocks were; what was drawn already stands in their way."""
    # Finished arcs that end where loose ones do make that place a node. None of them was squared.
    nodes = kept.select(meets(kept, raw))
    nodes = replace(nodes, xy=nodes.xy.astype(np.int32))
    together = Arcs.concatenate([raw, nodes])
    held = np.arange(len(together)) >= len(raw)
    points = np.concatenate([obstacles, kept.xy])
    return drawing.outlined(together, codes, held, points).select(~held)


def _squared(arcs: Arcs, raw: Arcs, codes: Array, objects: Array, drawing: Drawing) -> Arcs:
    """Arcs with the outlines of objects squared."""
    while drawing.square is not None and objects.any():
        free = meets(raw, raw.select(sides_in(raw, objects)))
        changed = drawing.squared(arcs, raw, codes, objects, ~free)
        strays = straying(changed, raw, objects)
        if not strays.any():
            return changed
        objects = objects & ~strays
    return arcs


def _any(of_each: Array, owner: Array) -> Array:
    """(n,) bool: whether it holds for any that has this owner."""
    result = np.zeros(len(of_each), bool)
    result[owner[of_each]] = True
    return result
