"""The folder of a run: claimed before anything is computed, filled at once at the end, described by run.json.

All outputs are written into a hidden folder of the run's own and move to their place when the last one is complete. So
a run that fails leaves the folder as it was, also one that was to replace a finished run. The hidden folder outlives a
run that is cut short: `.geoseg-work/ID/` holds what was computed for the key of that ID, which lies there too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from geoseg.errors import EnvironmentFault, InputError, RunFolderError, UsageError
from geoseg.workflow.key import canonical, differences_in_words, key_id
from geoseg.workflow.lock import LOCK, Owner, locked, writing_to
from geoseg.write import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    "change.tif",
    "magnitude.tif",
    "change.gpkg",
)
_WRITTEN_IN_PLACE = "project.qgs"
"""It names files relative to itself, so it is written when all others lie where they belong."""
_WORK = ".geoseg-work"
_KEY = "key.json"
_MOVING = "publish.json"
"""Lists the files that are being removed and moved; while it is there and run.json is not, they are a mix."""
_RECEIPTS = ("forward_*.json", "look_*.npz")
"""What the first pass leaves of a block: of a segmentation, of a comparison."""
_STAGED = "outputs"
_ID = re.compile(r"[0-9a-f]{16}")
_LITTER = re.compile(rf"{_STAGED}|gone-.*|.*\.partial")
_CHUNK = 1 << 20


@dataclass
class Claim:
    """A run folder that is ours: after `begin`, `work` for what a later run may go on with, `stage` for outputs."""

    out: Path
    former: Owner | None = None
    """Whose run did not end, so that its lock was found here."""
    resumed: bool = field(default=False, init=False)
    """Whether `work` holds what an unfinished run with the same key computed."""
    _work: Path | None = field(default=None, init=False)
    _stage_id: str = field(default_factory=lambda: uuid4().hex[:8], init=False)
    """Ours alone: a task left over from a killed run may still be writing outputs of other settings."""

    @property
    def work(self) -> Path:
        """Where blocks and their receipts lie."""
        if self._work is None:
            raise RuntimeError(f"the work in {self.out} has not begun, or is finished")
        return self._work

    @property
    def stage(self) -> Path:
        """Where outputs are written until all are complete."""
        return self.work / _STAGED / self._stage_id

    def begin(self, key: Mapping[str, Any], *, resume: bool) -> str | None:
        """Go on with the work of an unfinished run of this very key, if `resume`, else start anew; none is staged.

        key: name -> JSON value of all that determines the blocks. Returns why an unfinished run is not gone on with;
        None where it is, or there is none. Raises EnvironmentFault.
        """
        root = self.out / _WORK
        work = root / key_id(key)
        with writing_to(self.out):
            self.resumed = resume and _same(_read_key(work), key)
            note = None if self.resumed else _why_anew(self.out, key, resume=resume)
            _sweep(root, keep=work if self.resumed else None)
            self._work = work
            if self.resumed:
                _delete(path for path in work.iterdir() if _LITTER.fullmatch(path.name))
            self.stage.mkdir(parents=True)
            if not self.resumed:
                write_text(work / _KEY, json.dumps(dict(key), indent=2) + "\n")
        return note

    def publish(self) -> list[Path]:
        """Move all staged files to their place, after the former run's manifest and files are gone; returns them.

        From its first change on until run.json is written, the folder is that of a run which did not finish.
        """
        staged = sorted(path for path in self.stage.rglob("*") if path.is_file())
        names = [path.relative_to(self.stage).as_posix() for path in staged]
        former = _listed(self.out)
        with writing_to(self.out):
            moving = sorted({*names, *former, _WRITTEN_IN_PLACE})
            write_text(self.out / _WORK / _MOVING, json.dumps(moving) + "\n")
            (self.out / MANIFEST).unlink(missing_ok=True)
            _sync(self.out)  # else a machine that fails now might find the old manifest beside new files
            _remove(self.out, former)
            for path, name in zip(staged, names, strict=True):
                path.replace(self.out / name)
        return [self.out / name for name in names]

    def finish(self) -> None:
        """Delete the work of a run whose run.json is written."""
        self._work = None
        with writing_to(self.out):
            _drop(self.out / _WORK)

    def end(self, error: BaseException | None) -> None:
        """Leave the folder: without half of a run, and with the work if the same command could go on with it."""
        _undo_publish(self.out)
        if self._work is None:
            return
        if isinstance(error, (InputError, UsageError)) or not any(any(self._work.glob(names)) for names in _RECEIPTS):
            _drop(self.out / _WORK)


@contextmanager
def claimed(out: Path, *, overwrite: bool, command: tuple[str, ...] = ()) -> Iterator[Claim]:
    """Claim a folder, which is made if need be, and is gone again where a run fails that cannot be gone on with.

    Work stays when a run with at least one receipt is cut short, by whatever but an error in its input or options.

    Raises UsageError where the folder holds files of the names that a run writes but no run of geoseg, unless
    `overwrite`; EnvironmentFault where another run is writing to it, or it cannot be written to.
    """
    out, owner = out.absolute(), Owner.this_process(command)
    with writing_to(out):
        _refuse_foreign(out, overwrite=overwrite)
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        with locked(out, owner) as former:
            with writing_to(out):
                _undo_publish(out)
            yield from _left_in_order(Claim(out, former), owner)
    finally:
        with suppress(OSError):  # what holds something stays
            for folder in made:
                folder.rmdir()


def _left_in_order(claim: Claim, owner: Owner) -> Iterator[Claim]:
    """Yield the claim; whatever happens then, leave the folder as `Claim.end` says."""
    error: BaseException | None = None
    try:
        yield claim
    except BaseException as caught:
        error = caught
        raise
    finally:
        # A process forked meanwhile comes by here too. What cannot be deleted now, the next run meets, and says so.
        if os.getpid() == owner.pid:
            with suppress(OSError):
                claim.end(error)


def clear_finished(out: Path) -> None:
    """Delete the work that a finished run left when it was killed after its run.json; not that of a run at work there.

    Work with which an unfinished run could go on stays.
    """
    work = out / _WORK
    over = (work / _MOVING).exists() or not _works(out)
    if over and (out / MANIFEST).exists() and (out / LOCK).exists():
        # Who holds the lock clears up itself; and the run is finished also where nothing can be deleted.
        with suppress(EnvironmentFault, RunFolderError), locked(out, Owner.this_process()), writing_to(out):
            _undo_publish(out)
            _drop(work)


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
    if overwrite:
        return
    try:
        there = {path.name for path in out.iterdir()}
    except (FileNotFoundError, NotADirectoryError):  # no folder, or one that a run which failed has just deleted
        return
    if MANIFEST in there or _WORK in there:
        return
    foreign = sorted(name for name in there if name in OUTPUT_NAMES or name.startswith("features_"))
    if foreign:
        names = ", ".join(foreign)
        raise UsageError(f"{out} holds {names}, which no run of geoseg left; choose another --out, or say --overwrite")


def _why_anew(out: Path, key: Mapping[str, Any], *, resume: bool) -> str | None:
    """Why the unfinished run in a folder cannot be gone on with; None where there is none."""
    left = _works(out)
    if not left:
        return None
    if not resume:
        return f"{out} holds an unfinished run, --no-resume: starting anew"
    keys = [before for folder in left if (before := _read_key(folder)) is not None]
    if not keys:
        return f"{out} holds an unfinished run whose {_KEY} cannot be read: starting anew"
    return f"{out} holds an unfinished run with another {differences_in_words(keys[0], key)}: starting anew"


def _works(out: Path) -> list[Path]:
    """The folders with what unfinished runs computed."""
    return [folder for folder in (out / _WORK).glob("*") if _ID.fullmatch(folder.name)]


def _read_key(work: Path) -> dict[str, Any] | None:
    """The key of what was computed in a folder; None where it was left before that was written, or is damaged."""
    try:
        key = json.loads((work / _KEY).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return key if isinstance(key, dict) else None


def _same(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> bool:
    return before is not None and canonical(before) == canonical(dict(now))


def _sweep(root: Path, *, keep: Path | None) -> None:
    """Delete all in the folder of works but one."""
    if root.is_dir():
        _delete(path for path in root.iterdir() if path != keep)


def _drop(root: Path) -> None:
    """Delete the folder of works; last what says that its run is finished, so that nobody takes the rest for work."""
    _sweep(root, keep=root / _MOVING)
    (root / _MOVING).unlink(missing_ok=True)
    with suppress(OSError):  # a worker left over from a killed run may be writing there still
        root.rmdir()


def _delete(paths: Iterable[Path]) -> None:
    """Delete files and folders; a folder is out of the way at once, so that nobody goes on with half of it."""
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            with suppress(FileNotFoundError):  # its writer was faster
                shutil.rmtree(path.rename(path.with_name(f"gone-{uuid4().hex}")), ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _undo_publish(out: Path) -> None:
    """Remove what an interrupted `publish` left: files of two runs, and no run.json."""
    moving = out / _WORK / _MOVING
    try:
        names = [str(name) for name in json.loads(moving.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return
    except (ValueError, TypeError) as error:
        raise RunFolderError(f"{moving} is damaged; delete the outputs in {out} and this file") from error
    if not (out / MANIFEST).exists():
        _remove(out, names)
    for name in (MANIFEST, _WRITTEN_IN_PLACE):
        for left in out.glob(f".{name}.*.partial"):
            shutil.rmtree(left, ignore_errors=True)
    moving.unlink()


def _listed(out: Path) -> list[str]:
    """The outputs of the run in a folder; none where there is no run, or none that can be read."""
    with suppress(RunFolderError):  # who says --overwrite need not mend a damaged run.json first
        return list(read_manifest(out)["outputs"])
    return []


def _remove(out: Path, names: Iterable[str]) -> None:
    """Delete files of a run folder; nothing outside of it is touched, whatever a manifest lists."""
    for name in names:
        path = (out / name).resolve()
        if path.is_relative_to(out.resolve()) and path.is_file():
            path.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
