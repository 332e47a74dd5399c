"""The folder of a run: claimed before anything is computed, filled at once at the end, described by run.json.

All outputs are written into a hidden folder of the run's own and move to their place when the last one is complete. So
a run that fails leaves the folder as it was, also one that was to replace a finished run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoseg.errors import EnvironmentFault, RunFolderError, UsageError
from geoseg.write import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MANIFEST = "run.json"
OUTPUT_NAMES = (
    "classes.tif",
    "confidence.tif",
    "probabilities.tif",
    "features.gpkg",
    "project.qgs",
    "report.html",
    "item.json",
)
_WORK = ".geoseg-work"
_LOCK = ".geoseg-lock"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Claim:
    """A run folder that is ours: `work` for what is deleted at the end, `stage` for outputs until all are complete."""

    out: Path
    work: Path

    @property
    def stage(self) -> Path:
        """Where outputs are written."""
        return self.work / "outputs"

    def publish(self) -> list[Path]:
        """Move all staged files to their place, after the former run's manifest and files are gone; returns them."""
        staged = sorted(path for path in self.stage.rglob("*") if path.is_file())
        places = [self.out / path.relative_to(self.stage) for path in staged]
        _remove_run(self.out)
        for path, place in zip(staged, places, strict=True):
            path.replace(place)
        return places


@contextmanager
def claimed(out: Path, *, overwrite: bool) -> Iterator[Claim]:
    """Claim a folder, which is made if need be; what was made is gone again if the run fails.

    Raises UsageError where the folder holds files of the names that a run writes but no run of geoseg, unless
    `overwrite`; EnvironmentFault where another run is writing to it, or it cannot be written to.
    """
    out = out.absolute()
    existed, work = out.exists(), out / _WORK
    _refuse_foreign(out, overwrite=overwrite)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / _LOCK).open("w")
    except OSError as error:
        raise EnvironmentFault(f"{out} cannot be written to: {error.strerror}; choose another --out") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EnvironmentFault(
                f"another geoseg is writing to {out}; wait for it, or choose another --out"
            ) from error
        try:
            shutil.rmtree(work, ignore_errors=True)
            (work / "outputs").mkdir(parents=True)
            yield Claim(out, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            (out / _LOCK).unlink(missing_ok=True)
            if not existed and not any(out.iterdir()):
                out.rmdir()


def refuse_inputs(out: Path, inputs: Sequence[Path]) -> None:
    """Raise UsageError where a run that writes to `out` would write over one of its inputs."""
    for place in (out / name for name in OUTPUT_NAMES):
        for path in inputs:
            if place.exists() and path.exists() and place.samefile(path):
                raise UsageError(f"{place} is an input of this run and would be overwritten; choose another --out")


def write_manifest(out: Path, record: dict[str, Any]) -> None:
    """Write run.json, last of all."""
    write_text(out / MANIFEST, json_text(record))


def json_text(value: Any) -> str:
    """JSON as the standard has it: what is not a number becomes null, infinity too."""
    return json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run; raises RunFolderError where there is none."""
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
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


def _refuse_foreign(out: Path, *, overwrite: bool) -> None:
    """Raise UsageError where a folder holds what looks like outputs, but neither a run nor what a killed run left."""
    if overwrite or (out / MANIFEST).exists() or (out / _WORK).exists() or not out.is_dir():
        return
    foreign = sorted(path.name for name in (*OUTPUT_NAMES, "features_*") for path in out.glob(name))
    if foreign:
        names = ", ".join(foreign)
        raise UsageError(f"{out} holds {names}, which no run of geoseg left; choose another --out, or say --overwrite")


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
