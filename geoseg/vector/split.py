"""Objects that touch, taken apart where the confidence dips between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Array = np.ndarray[Any, Any]

HALO = 256
"""How far around a block objects are looked at, so that all blocks see the same of each that is taken apart."""

PARTS = 11
"""So many codes tell the parts of an object from each other, beside the code of the class: only those near each other
need to differ."""

_SIGMA_PX, _RADIUS_PX = 2.0, 6
"""The confidence is smoothed by this; what varies over less is not a gap between buildings."""
_LARGEST_PX = HALO - _RADIUS_PX - 2
"""Objects that are longer stay whole: a block might not see all of one."""
_SMALLEST_PX = 16
_NEAR_PX = 8
"""Parts that are no further apart have different codes."""
_FINE = 10
"""Steps to a percent."""


def split_objects(
    codes: Array, percent: Array, parts: Mapping[int, Sequence[int]], dip: float, least_px: Array
) -> Array:
    """Codes (h, w) uint8 in which the parts of objects have codes of their own, neighbours different ones.

    Two summits of the smoothed confidence, `percent` (h, w), are two objects where any way from one to the other leads
    lower than either by more than `dip` (0..1): the summits of Vincent's h-maxima (1993), around which a watershed
    draws the parts. Parts are no smaller than `least_px` (256,) pixels, by code. `parts` has, for the code of each
    class of objects, the codes that the second part and those after it may take. Objects of up to `_LARGEST_PX` that
    reach into what lies `HALO` within the edge of a window are split alike in any window.
    """
    found = codes.copy()
    for code, spare in parts.items():
        mask = codes == code
        if mask.any():
            _split_class(found, mask, _smoothed(percent, mask), spare, (dip, max(_SMALLEST_PX, least_px[code])))
    return found


def _smoothed(percent: Array, mask: Array) -> Array:
    """The mean of the confidence around each pixel of a mask, over pixels of the mask; 0 elsewhere. Whole numbers."""
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415

    weight, total = (
        gaussian_filter(values, _SIGMA_PX, radius=_RADIUS_PX)
        for values in (mask.astype(np.float32), np.where(mask, percent, 0).astype(np.float32))
    )
    smoothed: Array = np.zeros(mask.shape, np.int16)
    smoothed[mask] = np.rint(_FINE * total[mask] / weight[mask])
    return smoothed


def _split_class(found: Array, mask: Array, surface: Array, spare: Sequence[int], rule: tuple[float, float]) -> None:
    """Give the parts of the objects of a mask their codes, in place; rule: the dip, and the fewest pixels of a part."""
    from scipy.ndimage import find_objects, label  # noqa: PLC0415

    numbers, _ = label(mask)
    for number, at in enumerate(find_objects(numbers), 1):
        rows, cols = at
        if max(rows.stop - rows.start, cols.stop - cols.start) > _LARGEST_PX:
            continue
        inside = numbers[at] == number
        own = np.where(inside, surface[at], 0)
        if own.max() - own[inside].min() <= rule[0] * 100 * _FINE:
            continue  # there is no room for a dip
        labels = _parts(own, inside, *rule)
        if labels.max() > 1:
            colours = _colours(labels)
            others = colours > 0
            found[at][others] = np.asarray(spare, np.uint8)[colours[others] - 1]


def _parts(surface: Array, inside: Array, dip: float, least_px: float) -> Array:
    """Numbers (h, w), from 1, of the parts of one object; 0 outside. Too small a part goes to those beside it."""
    from skimage.segmentation import watershed  # noqa: PLC0415

    markers = _summits(surface, round(dip * 100 * _FINE))
    while True:
        count = int(markers.max())
        if count <= 1:
            return inside.astype(np.int32)
        labels: Array = watershed(-surface, markers, mask=inside)  # type: ignore[no-untyped-call]
        size = np.bincount(labels.ravel(), minlength=count + 1)
        order = np.argsort(size[1:], kind="stable") + 1
        small = order[size[order] < least_px]
        if not small.size:
            return labels
        # The smaller half at a time: what they leave goes to the others, which may then be large enough.
        markers[np.isin(markers, small[: max(1, min(len(small), count) // 2)])] = 0
        kept = np.unique(markers)
        markers = np.searchsorted(kept, markers).astype(np.int32)


def _summits(surface: Array, dip: int) -> Array:
    """Numbers (h, w), from 1, of the summits that rise by more than a dip above the way to any higher one."""
    from scipy.ndimage import generate_binary_structure, label  # noqa: PLC0415
    from skimage.morphology import local_maxima, reconstruction  # noqa: PLC0415

    ground = np.pad(surface, 1)  # so that no summit lies at the edge
    seed, near = np.maximum(ground - dip, 0), generate_binary_structure(2, 1)
    flooded = reconstruction(seed, ground, footprint=near)  # type: ignore[no-untyped-call]
    tops = local_maxima(flooded, connectivity=1)  # type: ignore[no-untyped-call]
    markers: Array = label(tops[1:-1, 1:-1] & (surface > 0))[0]
    return markers


def _colours(labels: Array) -> Array:
    """Of each pixel the colour of its part, 0 and up, such that parts near each other differ; the largest may repeat.

    Near, not side by side alone: a patch between two parts that is too small to be shown goes to one of them, and
    would make one of both if they had the same code.
    """
    from scipy.ndimage import find_objects  # noqa: PLC0415

    beside: list[set[int]] = [set() for _ in range(labels.max() + 1)]
    for part, (rows, cols) in enumerate(find_objects(labels), 1):
        around = labels[max(0, rows.start - _NEAR_PX) : rows.stop + _NEAR_PX]
        around = around[:, max(0, cols.start - _NEAR_PX) : cols.stop + _NEAR_PX]
        for other in set(np.unique(around).tolist()) - {0, part}:
            beside[part].add(other)
            beside[other].add(part)
    colour = np.zeros(labels.max() + 1, np.int64)
    for part in range(2, len(colour)):
        taken = {colour[other] for other in beside[part] if 0 < other < part}
        colour[part] = next((free for free in range(PARTS) if free not in taken), PARTS)
    colours: Array = colour[labels]
    return colours
