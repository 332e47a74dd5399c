"""The kernel: what a worker does to a block, in two steps.

`forward_block` runs the network over the tiles that a block owns and adds them up. Where no other block's tiles reach,
that settles the classes at once; along the block's border the sums are put aside, together with what the block's tiles
contribute to its neighbours' borders. `settle_block` then adds up the border from the block and its neighbours. So each
tile is forwarded once, no block waits for another to be forwarded, and, because the sums are whole numbers, the result
does not depend on how the scene was cut or who came first.
"""

from geoseg.segment.borders import border_boxes
from geoseg.segment.forward import forward_block
from geoseg.segment.job import (
    FailedTile,
    Receipt,
    SegmentJob,
    Stopwatch,
    peak_rss_mb,
    read_receipt,
    return_memory,
    this_worker,
    write_receipt,
)
from geoseg.segment.preview import read_preview
from geoseg.segment.settle import BlockLabels, settle_block
from geoseg.segment.strips import read_strips

__all__ = [
    "BlockLabels",
    "FailedTile",
    "Receipt",
    "SegmentJob",
    "Stopwatch",
    "border_boxes",
    "forward_block",
    "peak_rss_mb",
    "read_preview",
    "read_receipt",
    "read_strips",
    "return_memory",
    "settle_block",
    "this_worker",
    "write_receipt",
]
