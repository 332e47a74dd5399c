"""Arcs that go on where a node has lost its meaning are one."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoseg.vector.arcs import Arcs, bends, follow, gather, place_keys

Array = np.ndarray[Any, Any]

_PASSING = 2
"""Ends of arcs that meet where a line merely goes on."""


def chain(arcs: Arcs, stays: Array) -> Arcs:
    """The lines that still lie between two components, as long as they are.

    stays: (m, 2) bool, at which tips an arc must end although only one other meets it there. Arcs with the same
    component to both sides go; those that meet where no third does become one, and lines bend at every vertex. Each has
    the lower number to its left.
    """
    between = arcs.left != arcs.right
    arcs, stays = arcs.select(between), stays[between]
    flip = arcs.left > arcs.right
    first, last = arcs.tips[:, 0], arcs.tips[:, 1]
    tails, heads = np.where(flip[:, None], last, first), np.where(flip[:, None], first, last)
    stays = np.where(flip[:, None], stays[:, ::-1], stays)
    places, number = np.unique(place_keys(np.concatenate([tails, heads])), return_inverse=True)
    tail, head = number[: len(arcs)], number[len(arcs) :]
    passing = np.bincount(number, minlength=len(places)) == _PASSING
    passing[np.concatenate([tail[stays[:, 0]], head[stays[:, 1]]])] = False
    leaving = np.full(len(places), -1, np.int64)
    leaving[tail] = np.arange(len(arcs))
    after = np.where(passing[head], leaving[head], -1)
    order, ends = follow(after)
    xy, part_ends = gather(arcs.xy, arcs.ends, order, flip[order])
    keep = np.ones(len(xy), bool)
    inner = np.ones(len(order), bool)
    inner[ends[:-1]] = False
    keep[part_ends[:-1][inner]] = False  # the vertex before it is the same
    new_ends = np.concatenate([[0], np.cumsum(keep)])[part_ends[ends]]
    sides = np.sort(arcs.sides[order[ends[:-1]]], axis=1)
    xy = xy[keep]
    closed = passing[tail[order[ends[:-1]]]] & (xy[new_ends[:-1]] == xy[new_ends[1:] - 1]).all(axis=1)
    return Arcs(*bends(xy, new_ends, closed), sides[:, 0], sides[:, 1])
