"""The lock of a run folder: one process holds it at a time, and the file says which."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import socket
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from geoseg.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".geoseg-lock"
_MOST_BYTES = 1 << 20
_TRIES = 100
_LONGEST = 80
_LONGEST_WORD = 1000
_MOST_WORDS = 64
_HELD: set[int] = set()
"""Descriptors of the locks that this process holds."""


@dataclass(frozen=True)
class Owner:
    """The process that writes, or wrote, to a run folder."""

    pid: int
    host: str
    user: str
    started: datetime
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As it stands in a sentence."""
        return f"process {self.pid} of {self.user} on {self.host}, since {self.started:%Y-%m-%d %H:%M} UTC"

    @classmethod
    def this_process(cls, command: tuple[str, ...] = ()) -> Owner:
        """Ourselves, from now on."""
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:  # containers run as users that have no name there
            user = f"user {os.geteuid()}"
        words = tuple(
            _plain(word, _LONGEST_WORD) for word in command[:_MOST_WORDS]
        )  # a batch names thousands of scenes
        return cls(os.getpid(), socket.gethostname(), user, datetime.now(UTC).replace(microsecond=0), words)

    def to_json(self) -> str:
        """As it stands in the lock file."""
        started = self.started.isoformat()
        values = {"pid": self.pid, "host": self.host, "user": self.user, "started": started}
        return json.dumps({**values, "command": list(self.command)}) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Owner | None:
        """The inverse of `to_json`; None where the text, torn or of other origin, names no owner."""
        try:
            # The first value alone: what follows is the end of a longer text that was written over.
            values, _ = json.JSONDecoder().raw_decode(text)
            started = datetime.fromisoformat(values["started"]).astimezone(UTC)
            command = tuple(_plain(word, _LONGEST_WORD) for word in values["command"])
            return cls(int(values["pid"]), _plain(values["host"]), _plain(values["user"]), started, command)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Turn what the system refuses into an EnvironmentFault that names the run folder."""
    try:
        yield
    except EnvironmentFault:
        raise
    except OSError as error:
        raise EnvironmentFault(f"{out} cannot be written to: {error.strerror}; choose another --out") from error


@contextmanager
def locked(out: Path, owner: Owner) -> Iterator[Owner | None]:
    """Hold the lock of a run folder, which is made if need be; yields who held it before and died without letting go.

    The lock goes with the process that took it, however that ends; one forked from it neither holds it nor lets it go.
    Raises EnvironmentFault where another process holds it, or the folder cannot be written to.
    """
    path = out / LOCK
    with writing_to(out):
        descriptor = _take(path)
    try:
        with writing_to(out):
            former = Owner.from_json(_content(descriptor))
            text = owner.to_json().encode()
            os.pwrite(descriptor, text, 0)  # before the file is cut, so that it is never without an owner
            os.ftruncate(descriptor, len(text))
        yield former
    finally:
        if os.getpid() == owner.pid:
            _let_go(descriptor, path)


def _take(path: Path) -> int:
    """Open and lock the file of this name; one that its owner deletes meanwhile is no lock, and is opened anew."""
    refused: OSError | None = None
    for _ in range(_TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Nothing is written through a link, and no reader of a pipe is waited for.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except (FileNotFoundError, FileExistsError) as error:
            refused = error
            continue  # a run that failed may have just deleted the folder that it had made
        _HELD.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _lies_at(descriptor, path):
                return descriptor
        except BlockingIOError as error:
            owner = Owner.from_json(_content(descriptor))
            _close(descriptor)
            who = f"another geoseg ({owner})" if owner else "another geoseg"
            raise EnvironmentFault(
                f"{who} is writing to {path.parent}; wait for it, or choose another --out"
            ) from error
        except BaseException:
            _close(descriptor)
            raise
        _close(descriptor)
    raise refused or EnvironmentFault(f"{path} vanishes as soon as it is made; choose another --out")


def _let_go(descriptor: int, path: Path) -> None:
    """Delete the lock file, unless somebody has put another in its place, then end the lock."""
    try:
        if _lies_at(descriptor, path):
            path.unlink(missing_ok=True)
    finally:
        _close(descriptor)


def _close(descriptor: int) -> None:
    _HELD.discard(descriptor)
    os.close(descriptor)


def _lies_at(descriptor: int, path: Path) -> bool:
    """Whether this open file is the one that others find under the name; EnvironmentFault if it is no plain file."""
    opened = os.fstat(descriptor)
    if not stat.S_ISREG(opened.st_mode):
        raise EnvironmentFault(f"{path} is no file; remove it, or choose another --out")
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (found.st_dev, found.st_ino)


def _content(descriptor: int) -> str:
    return os.pread(descriptor, _MOST_BYTES, 0).decode(errors="replace")


def _plain(value: object, longest: int = _LONGEST) -> str:
    """What a file says, fit for a terminal."""
    return "".join(letter for letter in str(value) if letter.isprintable())[:longest]


def _forget() -> None:
    """In a forked process: close its copies of our locks, which would otherwise outlive us with it."""
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


os.register_at_fork(after_in_child=_forget)
