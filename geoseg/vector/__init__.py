"""From a class raster to polygons, as if the whole raster had been looked at in one pass.

Every boundary between two components is an arc that exists once: what is done to it is done for both sides, so that no
gap and no overlap can open.

    arcs, near, trace, chain
                            lines between components; found in pixels; linked where a node is none any more
    split                   objects that touch are taken apart
    absorb                  small components go to the class beside them
    simplify                outlines without stairs
    footprints, outlines, square
                            buildings with straight walls at right angles
    centreline, network     the middle lines of roads
    rings, features         polygons of components, and what their columns are made of
    tidy                    how polygons are to look
    block, join             one block, and what blocks could not finish alone
    polygonize              a whole raster
    measure                 polygons on the ground, with the columns that users see
"""

from geoseg.vector.block import BLOCK, LooseEnds, outline_block
from geoseg.vector.features import Components
from geoseg.vector.join import join_blocks
from geoseg.vector.measure import measure
from geoseg.vector.polygonize import blocks_of, polygonize
from geoseg.vector.tidy import Drawing, TidyRule

__all__ = [
    "BLOCK", "Components", "Drawing", "LooseEnds", "TidyRule", "blocks_of", "join_blocks", "measure", "outline_block",
    "polygonize",
]  # fmt: skip
