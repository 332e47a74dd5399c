"""A raster is read from its own files alone: what points at other files or hosts is refused.

GDAL opens overviews and masks with any driver, whatever kind of file they are, so a raster from a stranger could make
it fetch from the network, or show what lies elsewhere on the machine.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio

from geoseg.errors import SceneError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_KEY = "OVERVIEW_FILE"


def refuse_sidecars(path: str) -> None:
    """Look at the files beside a raster that GDAL reads with it, before it is opened.

    Raises SceneError where overviews (`.ovr`) or a mask (`.msk`) are no TIFF, or metadata name overviews elsewhere.
    """
    raster = Path(path)
    start = raster.name.lower() + "."
    try:
        beside = [file for file in raster.parent.iterdir() if file.name.lower().startswith(start) and file.is_file()]
        tiffs = [file for file in beside if file.suffix.lower() in {".ovr", ".msk"}]
        for file in beside:
            if file in tiffs:
                with file.open("rb") as opened:
                    if opened.read(4) not in _TIFF:
                        raise SceneError(f"{file} is no TIFF, so it could point elsewhere; delete it or build it again")
            elif file.name.lower().endswith(".aux.xml") and _KEY.encode() in file.read_bytes().upper():
                raise SceneError(f"{file} names overviews that lie elsewhere ({_KEY}); delete it")
    except OSError as error:
        raise SceneError(f"{error.filename or raster.parent} cannot be read: {error.strerror}") from error
    for file in tiffs:  # once all of them are TIFFs: each is opened together with those of its own
        try:
            with warnings.catch_warnings():  # overviews and masks lie where their raster lies, and do not say so again
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                dataset = rasterio.DatasetReader(file, driver=["GTiff"])
            with dataset:
                refuse_reference(dataset, str(file))
        except rasterio.errors.RasterioError as error:
            raise SceneError(f"{file} is damaged; delete it or build it again") from error


def refuse_reference(dataset: DatasetReader, path: str) -> None:
    """Raise SceneError where an open raster names overviews that lie elsewhere."""
    if any(key.upper() == _KEY for key in dataset.tags(ns="OVERVIEWS")):
        dataset.close()
        raise SceneError(f"{path} names overviews that lie elsewhere ({_KEY}); copy its pixels into a new GeoTIFF")
