"""The second step of the kernel: the border of a block, from its own sums and those of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.blend import total_weights
from geoseg.frame import Box
from geoseg.labels import label, probabilities
from geoseg.legend import NODATA
from geoseg.scene.aoi import inside_area
from geoseg.segment.borders import border_boxes

if TYPE_CHECKING:
    from geoseg.grid import Block
    from geoseg.segment.job import SegmentJob

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class BlockLabels:
    """A settled block: classes and confidence (H, W) uint8, probabilities (C, H, W) uint8 or None.

    beyond: (2, H, W) uint8 or None, classes and confidence where the scene reaches beyond the area of interest, too.
    """

    box: Box
    classes: Array
    confidence: Array
    probabilities: Array | None
    beyond: Array | None = None

    @property
    def bands(self) -> Array:
        """All of it as one stack (bands, H, W): classes, confidence, probabilities, and both beyond the area."""
        extra = [] if self.probabilities is None else list(self.probabilities)
        beyond = [] if self.beyond is None else list(self.beyond)
        return np.stack([self.classes, self.confidence, *extra, *beyond])


def settle_block(job: SegmentJob, block: Block) -> BlockLabels:
    """Classes of a block, once it and all blocks that reach into it have been forwarded.

    Where a tile could not be read, nothing is known, however much of it its neighbours saw: so what lies outside of
    the windows that are named as failed is what it would be had nothing failed.
    """
    with np.load(job.sums_path(block)) as own:
        classes, confidence = own["classes"], own["confidence"]
        shares = own["probabilities"] if job.with_probabilities else None
        borders = {box: own[f"border_{k}"] for k, box in enumerate(border_boxes(job.grid, block))}
        failed = [own["failed"]]
    for source in job.grid.contributors[block.index]:
        if source.index == block.index:
            continue
        with np.load(job.sums_path(source)) as foreign:
            arrived = foreign[f"to_{block.name}"]
            failed.append(foreign["failed"])
        lies_over = source.reach & block.box
        for box, sums in borders.items():
            common = box & lies_over
            rows, cols = common.slices(box)
            sums[:, rows, cols] += arrived[(slice(None), *common.slices(lies_over))]
    for box, sums in borders.items():
        at = box.slices(block.box)
        totals, valid = total_weights(job.grid, box, job.blend), classes[at] != NODATA
        classes[at], confidence[at] = label(sums, totals, valid, job.bundle.legend)
        if shares is not None:
            shares[(slice(None), *at)] = probabilities(sums, totals, valid)
    for row, col, height, width in np.concatenate(failed).tolist():
        at = (Box(row, col, height, width) & block.box).slices(block.box)
        for layer in (classes, confidence) if shares is None else (classes, confidence, *shares):
            layer[at] = NODATA
    if job.area is None:
        return BlockLabels(block.box, classes, confidence, shares)
    beyond = np.stack([classes, confidence])
    outside = ~inside_area(job.area, job.scene.frame.crop(block.box))
    for layer in (classes, confidence) if shares is None else (classes, confidence, *shares):
        layer[outside] = NODATA
    return BlockLabels(block.box, classes, confidence, shares, beyond)
