"""The folder of a run: claimed before it is written to, described by run.json when it is complete."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from geoseg.errors import EnvironmentFault, RunFolderError, UsageError
from geoseg.write import sweep_partials, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = "run.json"
_WORK = ".geoseg-work"
_CHUNK = 1 << 20


@contextmanager
def claimed(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder for work inside `out`, which is made if need be; gone at the end, whatever happened.

    Raises UsageError where `out` holds a run and may not be overwritten; a run that is overwritten loses its manifest
    first, so that it never describes files of another run.
    """
    if (out / MANIFEST).exists() and not overwrite:
        raise UsageError(f"{out} holds a finished run; choose another --out, or say --overwrite")
    work = out.absolute() / _WORK
    try:
        out.mkdir(parents=True, exist_ok=True)
        sweep_partials(out)
        _remove_run(out)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
    except OSError as error:
        raise EnvironmentFault(f"{out} cannot be written to: {error.strerror}; choose another --out") from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_manifest(out: Path, record: dict[str, Any]) -> None:
    """Write run.json, last of all."""
    write_text(out / MANIFEST, json.dumps(record, indent=2) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run; raises RunFolderError where there is none."""
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder} has no {MANIFEST}: it is no run, or one that did not finish") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("outputs"), dict):
        raise RunFolderError(f"{path} is not the manifest of a run: it lists no outputs")
    return record


def describe_outputs(out: Path, paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Path relative to the run folder -> sha256 and bytes."""
    return {
        path.relative_to(out).as_posix(): {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for path in sorted(paths)
    }


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _remove_run(out: Path) -> None:
    """Delete a former run's manifest, then the files that it lists; nothing else in the folder is touched."""
    if not (out / MANIFEST).exists():
        return
    listed = read_manifest(out)["outputs"]
    (out / MANIFEST).unlink()
    for name in listed:
        path = (out / name).resolve()
        if path.is_relative_to(out.resolve()):
            path.unlink(missing_ok=True)
