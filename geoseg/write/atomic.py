"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.errors import EnvironmentFault, GeosegError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PARTIAL = ".partial"

_ADVICE = {
    errno.ENOSPC: "the disk is full; free space there or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free space there or choose another folder",
    errno.EFBIG: "files of this size are not allowed there; raise the limit (ulimit -f) or choose another folder",
    errno.EACCES: "no permission to write there; change it or choose another folder",
    errno.EPERM: "no permission to write there; change it or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EEXIST: "a file of that name is in the way; choose another folder",
    errno.ENOTDIR: "a file stands where a folder should be; choose another folder",
    errno.EISDIR: "a folder of that name is in the way; remove it or choose another one",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
    errno.EIO: "the disk or the file system refuses it; check its space and health, or choose another folder",
}
_PHRASES = {os.strerror(code): code for code in _ADVICE} | {
    "disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "I/O failure": errno.EIO,
    "Write failed": errno.EIO,
    "Cannot write": errno.EIO,
}
_FULL_BYTES = 1 << 20
"""With less than this left, a failed write has failed for want of space, whatever the library says."""

_BESIDE = (".aux.xml", ".ovr", ".msk", "-wal", "-shm", "-journal")
_BESIDE_SHAPES = (".qix", ".sbn", ".sbx", ".cpg", ".prj")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file, and what its writer puts beside it, that appears at `path` only when the block ends without error.

    Yields a path of the same name in a hidden folder beside it (`.NAME.*.partial`), so that suffix and stem are those
    the driver, or a reader of sidecars, expects. All files in that folder are flushed to disk and moved, `path` last;
    sidecars of a former file that the new one does not bring are deleted. On error nothing changes. Several processes
    may write the same path at a time: each has its own folder, and the last to end wins.

    Raises EnvironmentFault where the disk is full, or writing is not permitted.
    """
    folder: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_PARTIAL, dir=path.parent))
        yield folder / path.name
        _publish(folder, path)
    except GeosegError:
        raise
    except Exception as error:  # any library may be the one that meets the full disk
        fault = environment_fault(error, path)
        if fault is None:
            raise
        raise fault from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file at once; returns its path. Raises EnvironmentFault as `replacing` does."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return path


def sweep_partials(folder: Path) -> None:
    """Delete what killed writers left in a folder; only for its one owner, before others write into it."""
    for left in folder.glob(f".*{_PARTIAL}"):
        shutil.rmtree(left, ignore_errors=True)


def environment_fault(error: BaseException, path: Path) -> EnvironmentFault | None:
    """The EnvironmentFault behind an error met while writing `path`; None where it is something else.

    Looks along the chain of causes for an error number or its text, since GDAL, SQLite and Arrow each wrap it in
    exceptions of their own; and where a library only says that a write failed, at the space that is left.
    """
    links = [error]
    while (link := links[-1].__cause__ or links[-1].__context__) is not None:
        links.append(link)
    for link in links:
        found = link.errno if isinstance(link, OSError) else None
        if found not in _ADVICE:
            found = next((code for text, code in _PHRASES.items() if text in str(link)), None)
        if found is not None:
            named = getattr(link, "filename", None)
            where = named if isinstance(named, str) and _PARTIAL not in named else path
            return EnvironmentFault(f"{where} cannot be written: {_ADVICE[found]}")
    if _is_full(path.parent):
        return EnvironmentFault(f"{path} cannot be written: {_ADVICE[errno.ENOSPC]}")
    # What GDAL reports while it copies, or when it reads what it has just written; there are many such sentences.
    gdal = next((str(link).rstrip(".") for link in links if type(link).__name__.startswith("CPLE_")), None)
    if gdal is None:
        return None
    return EnvironmentFault(f"{path} cannot be written: {gdal}; check the disk and what lies there")


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _FULL_BYTES
    except OSError:
        return False


def _publish(folder: Path, path: Path) -> None:
    written = sorted(folder.iterdir(), key=lambda file: file.name == path.name)  # path itself last
    for file in written:
        _sync(file)
    names = {file.name for file in written}
    for old in _sidecars(path):
        if old.name not in names:
            old.unlink(missing_ok=True)
    for file in written:
        file.replace(path.parent / file.name)
    _sync(path.parent)


def _sidecars(path: Path) -> list[Path]:
    """Files that readers of `path` would open with it, and that would lie about a new file of its name."""
    beside = [path.with_name(path.name + end) for end in _BESIDE]
    return beside + ([path.with_suffix(end) for end in _BESIDE_SHAPES] if path.suffix == ".shp" else [])


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
