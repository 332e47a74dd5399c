"""What a raster file says of itself, before anyone decides what to read from it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import ensure_env
from rasterio.windows import Window

from geoseg.errors import DamagedSceneError, SceneError
from geoseg.frame import Box, Frame
from geoseg.scene.references import refuse_reference, refuse_sidecars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rasterio.io import DatasetReader

T = TypeVar("T")

DRIVERS = ["GTiff", "JP2OpenJPEG", "HFA", "ENVI", "NITF", "PNG", "JPEG", "EHdr", "KEA"]
"""Formats that hold their own pixels. VRT, WMS, ERS and the like are left out: they point at other files or hosts."""

GDAL_CACHE_MB = 64
"""Left alone, GDAL's cache of blocks takes a twentieth of the machine's memory in every process."""
# Read by GDAL when it first needs it, so it must stand in the environment before it opens a file.
os.environ.setdefault("GDAL_CACHEMAX", str(GDAL_CACHE_MB))

_OPEN_DATASETS = 16
_ALPHA_GRADES = 0.05
"""An alpha band in which more than this share of the pixels that are not empty is not full is no mask but a band."""
_ENOUGH = 1024
"""So many pixels of an alpha band that are not empty tell what it is."""
_STRIP = 128
_FINEST = 128
"""A damaged box of a sample is taken apart until its sides are at most this long."""


@dataclass(frozen=True, slots=True)
class SceneInfo:
    """What a raster file says of itself; band numbers count from 1."""

    path: str
    driver: str
    frame: Frame
    dtype: str
    descriptions: tuple[str, ...]
    interpretations: tuple[str, ...]
    nodata: float | None
    mask: str
    """`none`, `file` (internal or external mask), `alpha` or `file+alpha`."""
    alpha_band: int | None
    """The band that is tagged alpha and looks like a mask."""
    blocks: tuple[int, int]
    overviews: tuple[int, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.descriptions)


def inspect_scene(path: str | Path) -> SceneInfo:
    """Read what `path` says of itself, without reading its pixels (but for a sample of an alpha band).

    Raises SceneError where the file is missing, not a raster, or of a kind that geoseg does not open.
    """
    path = str(path)
    dataset = open_dataset(path)
    if dataset.count == 0:
        raise SceneError(f"{path} holds no band of its own; name one of its subdatasets: {dataset.subdatasets[:4]}")
    if len(set(dataset.dtypes)) > 1:
        raise SceneError(f"{path} mixes data types {sorted(set(dataset.dtypes))}; store all bands in one type")
    if np.dtype(dataset.dtypes[0]).kind == "c":
        raise SceneError(f"{path} holds complex numbers ({dataset.dtypes[0]}); geoseg reads integers and floats")
    alpha_band = _alpha_band(dataset)
    flags = dataset.mask_flag_enums[0]
    file_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    kinds = [kind for kind, there in (("file", file_mask), ("alpha", alpha_band is not None)) if there]
    placed = dataset.crs and not dataset.transform.is_identity  # a CRS without a transform says of no pixel where it is
    return SceneInfo(
        path=path,
        driver=dataset.driver,
        frame=Frame(dataset.shape, dataset.transform, dataset.crs.to_wkt() if placed else None),
        dtype=dataset.dtypes[0],
        descriptions=tuple(text or "" for text in dataset.descriptions),
        interpretations=tuple(interp.name for interp in dataset.colorinterp),
        nodata=dataset.nodata,
        mask="+".join(kinds) or "none",
        alpha_band=alpha_band,
        blocks=dataset.block_shapes[0],
        overviews=tuple(dataset.overviews(1)),
        scales=tuple(dataset.scales),
        offsets=tuple(dataset.offsets),
    )


def open_dataset(path: str) -> DatasetReader:
    """The open dataset of `path`, kept open in each thread (GDAL datasets belong to one thread).

    A file that was replaced or changed in the meantime is opened again.
    """
    if "://" in path or path.startswith("/vsi"):
        raise SceneError(f"{path} is not a file on this machine; geoseg reads local files, copy it here first")
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise SceneError(f"{path} cannot be read: {error.strerror}") from error
    if not Path(path).is_file():
        raise SceneError(f"{path} is a folder; name one raster file")
    key = (path, stat.st_size, stat.st_mtime_ns)
    cache: OrderedDict[tuple[str, int, int], DatasetReader] = _local.__dict__.setdefault("datasets", OrderedDict())
    if key not in cache:
        cache[key] = _open(path)
        if len(cache) > _OPEN_DATASETS:
            cache.popitem(last=False)[1].close()
    cache.move_to_end(key)
    return cache[key]


def forget_dataset(path: str) -> None:
    """Close what this thread holds open of `path`, so that the next read opens it afresh."""
    cache: OrderedDict[tuple[str, int, int], DatasetReader] = _local.__dict__.setdefault("datasets", OrderedDict())
    for key in [key for key in cache if key[0] == path]:
        cache.pop(key).close()


def open_without_overviews(path: str) -> Any:
    """A dataset of its own for `path` (close it after use) of which reduced reads see the raster itself alone."""
    return _open(path, OVERVIEW_LEVEL="NONE")


def read_window(path: str, bands: list[int], box: Box) -> np.ndarray[Any, Any]:
    """Bands (from 1) of a box that lies inside the raster: (bands, height, width) in the file's dtype.

    Raises DamagedSceneError where the file opens, but cannot be read here; SceneError where it does not open.
    """
    dataset = open_dataset(path)
    try:
        pixels: np.ndarray[Any, Any] = dataset.read(bands, window=_window(box))
    except rasterio.errors.RasterioError as error:
        raise _damage(path, box, "the file", error) from error
    return pixels


def read_file_mask(path: str, box: Box) -> np.ndarray[Any, Any]:
    """The dataset mask (internal or external) of a box inside the raster: (height, width) bool.

    Raises as `read_window`.
    """
    dataset = open_dataset(path)
    try:
        mask: np.ndarray[Any, Any] = dataset.read_masks(1, window=_window(box)) > 0
    except rasterio.errors.RasterioError as error:
        raise _damage(path, box, "its mask", error) from error
    return mask


def _window(box: Box) -> Window:
    return Window(box.col, box.row, box.width, box.height)


def forget_error() -> None:
    """Call this after a read that failed: else rasterio raises the error again, at some later call that went well.

    GDAL remembers a thread's last error until it opens something, be it in vain.
    """
    with suppress(rasterio.errors.RasterioError):
        rasterio.DatasetReader("", driver=DRIVERS[:1])


def _damage(path: str, box: Box, what: str, error: Exception) -> DamagedSceneError:
    forget_error()
    return DamagedSceneError(
        f"{path}, rows {box.row}..{box.bottom - 1}, columns {box.col}..{box.right - 1}: {what} is damaged here "
        f"({_cause(error).removeprefix(Path(path).name + ', ')}); copy the file again",
        path,
    )


_local = threading.local()


@ensure_env  # type: ignore[untyped-decorator]  # rasterio.open would do that, but takes one driver alone
def _open(path: str, **options: str) -> Any:
    refuse_sidecars(path)
    try:
        dataset = rasterio.DatasetReader(path, driver=DRIVERS, **options)
    except rasterio.errors.RasterioError as error:
        with Path(path).open("rb") as file:
            if b"<VRTDataset" in file.read(1024):
                raise SceneError(
                    f"{path} is a VRT, which points at other files; make it one file: gdal_translate {path} scene.tif"
                ) from error
        raise SceneError(
            f"{path} is not a raster that geoseg opens ({_cause(error)}); it reads {', '.join(DRIVERS)}"
        ) from error
    refuse_reference(dataset, path)
    return dataset


def _cause(error: Exception) -> str:
    cause = error.__cause__ or error
    return str(cause).splitlines()[0].rstrip(".") if str(cause) else type(cause).__name__


def _alpha_band(dataset: DatasetReader) -> int | None:
    """The band tagged alpha, if it looks like a mask: near infrared is often tagged so, as in NAIP files."""
    tagged = [band for band, interp in enumerate(dataset.colorinterp, 1) if interp == ColorInterp.alpha]
    if not tagged:
        return None
    values = _seen_values(dataset, tagged[0])
    graded = np.count_nonzero(values != values.max(initial=0)) / max(values.size, 1)
    return None if graded > _ALPHA_GRADES else tagged[0]


def _seen_values(dataset: DatasetReader, band: int) -> np.ndarray[Any, Any]:
    """Values of a band that are not 0: of a sample, or, where that shows hardly any, of the rows that have some."""

    def read(box: Box) -> np.ndarray[Any, Any]:
        values: np.ndarray[Any, Any] = read_window(dataset.name, [band], box).ravel()
        seen: np.ndarray[Any, Any] = values[values != 0]
        return seen

    seen = np.concatenate(list(undamaged(sample_boxes(dataset.shape, 512), read)))
    tops = range(0, dataset.height if seen.size < _ENOUGH else 0, _STRIP)
    strips = (Box(top, 0, min(_STRIP, dataset.height - top), dataset.width) for top in tops)
    for more in undamaged(strips, read):
        seen = np.concatenate([seen, more])
        if seen.size >= _ENOUGH:
            break
    return seen


def share_of_zeros(path: str, bands: tuple[int, ...]) -> float:
    """The share of pixels, of a sample spread over a raster, that are 0 in all of `bands`."""
    zeros = total = 0
    boxes = sample_boxes(open_dataset(path).shape, 512)
    for pixels in undamaged(boxes, lambda box: read_window(path, list(bands), box)):
        zero = ~pixels.any(axis=0)
        zeros, total = zeros + int(zero.sum()), total + zero.size
    return zeros / total


def undamaged(boxes: Iterable[Box], read: Callable[[Box], T]) -> Iterator[T]:
    """What `read` returns for each box, or, where one is damaged, for those of its parts that are not.

    A sample must not fail because of a block; it leaves that out, the same way each time. Raises DamagedSceneError
    where all of it is damaged.
    """
    damage: DamagedSceneError | None = None
    nothing = True
    for box in boxes:
        pending = [box]
        while pending:
            part = pending.pop()
            try:
                found = read(part)
            except DamagedSceneError as error:
                damage = damage or error
                pending += _quarters(part)
            else:
                nothing = False
                yield found
    if nothing and damage is not None:
        raise damage


def _quarters(box: Box) -> list[Box]:
    """A box cut into halves along each side that is longer than `_FINEST`; nothing where none is."""
    if max(box.shape) <= _FINEST:
        return []
    height, width = (-(-side // 2) if side > _FINEST else side for side in box.shape)
    tops, lefts = range(box.row, box.bottom, height), range(box.col, box.right, width)
    return [Box(top, left, height, width) & box for top in tops for left in lefts]


def sample_boxes(shape: tuple[int, int], budget: int) -> list[Box]:
    """Boxes spread over a frame, together about `budget` x `budget` pixels; the whole frame where it is that small.

    A sample of windows, rather than a decimated read: without overviews that would read the whole file.

    >>> sample_boxes((100, 200), 512)
    [Box(row=0, col=0, height=100, width=200)]
    """
    height, width = shape
    if height * width <= budget * budget:
        return [Box(0, 0, height, width)]
    count = 12
    rows, cols = (min(size, count) for size in shape)
    box_height = max(1, min(budget // count, height // rows))
    box_width = max(1, min(budget // count, width // cols))
    tops = np.linspace(0, height - box_height, rows).astype(int)
    lefts = np.linspace(0, width - box_width, cols).astype(int)
    return [Box(int(top), int(left), box_height, box_width) for top in tops for left in lefts]
