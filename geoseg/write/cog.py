"""The layout of a cloud-optimised GeoTIFF: what GDAL has compressed and described, put into the order that makes one.

The COG driver of GDAL compresses overviews twice and takes four times the processor time. See TIFF 6.0, section 2; the
BigTIFF design; and, for what stands before the directories, "COG driver, file layout" in GDAL's documentation.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Array = np.ndarray[Any, Any]
Tags = dict[int, tuple[int, bytes]]
"""Of an image: type and value of each tag by its number."""

SPOOL = {"tiled": "yes", "interleave": "pixel", "endianness": "little", "bigtiff": "yes"}
"""Creation options of the GTiffs that `lay_out` takes."""

_SUBFILE, _WIDTH, _HEIGHT, _OFFSETS, _SIZES = 254, 256, 257, 324, 325
_OF_THE_WHOLE = {33550, 33922, 34264, 34735, 34736, 34737, 42112, 50844}
"""Tags that overviews do without: where the raster lies, and what GDAL knows of it by name."""

_LONG, _LONG8 = 4, 16
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Size of each type of value."""

_PROMISES = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_PROMISES) + _PROMISES
_AROUND = 4
"""Bytes before a tile that tell its size, and after it that repeat its last ones."""


@dataclass(frozen=True)
class _Format:
    """How numbers are stored: in classic TIFF, or in BigTIFF."""

    magic: bytes
    count: str
    entry: str
    slot: int
    """Bytes of an offset, and of a value that is stored in its entry."""
    offset_type: int


_CLASSIC = _Format(b"II*\0", "<H", "<HHI", 4, _LONG)
_BIG = _Format(b"II+\0\x08\0\0\0", "<Q", "<HHQ", 8, _LONG8)


@dataclass(frozen=True)
class _Image:
    """A level: its tags, and where its tiles lie in the file that GDAL wrote, row by row."""

    path: Path
    tags: Tags
    offsets: Array
    sizes: Array

    @property
    def length(self) -> int:
        """Bytes of its tiles and of what stands around them."""
        return int(self.sizes.sum()) + 2 * _AROUND * len(self.sizes)

    def placed(self, start: int, form: _Format) -> Tags:
        """Its tags where its tiles begin at byte `start`."""
        steps = self.sizes + 2 * _AROUND
        at = start + _AROUND + np.cumsum(steps) - steps
        return self.tags | {
            _OFFSETS: (form.offset_type, at.astype(f"<u{form.slot}").tobytes()),
            _SIZES: (_LONG, self.sizes.astype("<u4").tobytes()),
        }


def lay_out(out: Path, levels: Sequence[Path], *, classic_bytes: int = 1 << 32) -> None:
    """Replace a GTiff by a COG that has its tags, and the tiles of `levels`: the raster, then its overviews.

    All are written with the options in `SPOOL`, and with the same tiles, compression and predictor. The COG is a
    BigTIFF where it does not stay below `classic_bytes`. Raises OSError where a tile is missing or the file cannot be
    written.
    """
    base = _tags(out)
    small = {tag: value for tag, value in base.items() if tag not in _OF_THE_WHOLE}
    small[_SUBFILE] = (_LONG, struct.pack("<I", 1))
    images = [_image(path, small if index else base) for index, path in enumerate(levels)]
    length = sum(image.length for image in images)
    form = _CLASSIC if len(_head(images, _CLASSIC)) + length < classic_bytes else _BIG
    with out.open("wb") as file:
        file.write(_head(images, form))
        for image in reversed(images):  # the smallest first, as the layout has it
            for tile in _tiles(image):
                file.write(struct.pack("<I", len(tile)) + tile + tile[-_AROUND:])


def _image(path: Path, tags: Tags) -> _Image:
    own = _tags(path)
    kept = {tag: own[tag] for tag in (_WIDTH, _HEIGHT)}
    offsets, sizes = (np.frombuffer(value, f"<u{_BYTES[kind]}") for kind, value in (own[_OFFSETS], own[_SIZES]))
    return _Image(path, tags | kept, offsets, sizes.astype(np.int64))


def _tiles(image: _Image) -> Iterator[bytes]:
    """The compressed tiles of a level."""
    with image.path.open("rb") as file:
        for offset, size in zip(image.offsets.tolist(), image.sizes.tolist(), strict=True):
            yield _read(file, offset, size)


def _head(images: Sequence[_Image], form: _Format) -> bytes:
    """All that stands before the tiles: header, promises, and a directory for each level."""
    start = len(form.magic) + form.slot + len(_GHOST)
    start += start % 2
    length = start + sum(len(_directory(image.placed(0, form), 0, form)) for image in images)
    tags, data = [], length
    for image in reversed(images):
        tags.append(image.placed(data, form))
        data += image.length
    head = (form.magic + start.to_bytes(form.slot, "little") + _GHOST).ljust(start, b"\0")
    for each in reversed(tags):
        head += _directory(each, len(head), form, last=each is tags[0])
    return head


def _directory(tags: Tags, start: int, form: _Format, *, last: bool = False) -> bytes:
    """A directory at byte `start`, behind it the values that are too long for their entries, then the next one."""
    behind = start + struct.calcsize(form.count) + len(tags) * (struct.calcsize(form.entry) + form.slot) + form.slot
    entries, values = struct.pack(form.count, len(tags)), b""
    for tag, (kind, value) in sorted(tags.items()):
        entries += struct.pack(form.entry, tag, kind, len(value) // _BYTES[kind])
        if len(value) > form.slot:
            entries += (behind + len(values)).to_bytes(form.slot, "little")
            values += value + b"\0" * (-len(value) % form.slot)
        else:
            entries += value.ljust(form.slot, b"\0")
    return entries + (0 if last else behind + len(values)).to_bytes(form.slot, "little") + values


def _tags(path: Path) -> Tags:
    """The tags of the first image of a BigTIFF."""
    with path.open("rb") as file:
        (start,) = _unpack(file, 8, "<Q")
        (count,) = _unpack(file, start, "<Q")
        tags = {}
        for at in range(start + 8, start + 8 + 20 * count, 20):
            tag, kind, length = _unpack(file, at, "<HHQ")
            size = length * _BYTES[kind]
            tags[tag] = (kind, _read(file, at + 12 if size <= _BIG.slot else _unpack(file, at + 12, "<Q")[0], size))
    return tags


def _unpack(file: BinaryIO, at: int, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, _read(file, at, struct.calcsize(form)))


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    """Bytes of a file that GDAL wrote, which does not always say that the disk is full."""
    file.seek(at)
    content = file.read(size)
    if not size or len(content) < size:
        raise OSError(errno.EIO, os.strerror(errno.EIO), file.name)
    return content
