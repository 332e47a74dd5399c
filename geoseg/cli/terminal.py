"""What a person, or a log, sees of a run on stderr."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

_EVERY_S = 5.0
"""Without a terminal, a line of progress at most this often."""


class Bar:
    """Notes and a progress bar on a terminal; plain lines where there is none."""

    def __init__(self) -> None:
        """Start without a stage."""
        self._stage = ""
        self._bar: Any = None
        self._said = 0.0
        self._began = 0.0

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        if self._bar is None:
            print(message, file=sys.stderr, flush=True)
        else:
            self._bar.write(message, file=sys.stderr)

    def advance(self, stage: str, done: int, total: int, *, pixels: int = 0) -> None:
        """Move the bar, or print a line every few seconds and at the end of a stage."""
        if stage != self._stage or done == 0:
            self._begin(stage)
        if sys.stderr.isatty():
            self._move(stage, done, total, pixels)
        elif done == total or time.monotonic() - self._said > _EVERY_S:
            self._said = time.monotonic()
            print(f"{stage} {done}/{total}{self._rate(pixels)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _begin(self, stage: str) -> None:
        self.close()
        self._stage, self._began, self._said = stage, time.monotonic(), time.monotonic()

    def _move(self, stage: str, done: int, total: int, pixels: int) -> None:
        if self._bar is None:
            from tqdm import tqdm  # noqa: PLC0415  # not for --help

            self._bar = tqdm(total=total, desc=stage, unit=stage.rstrip("s"), file=sys.stderr, leave=True)
        self._bar.set_postfix_str(self._rate(pixels).strip(" ,"), refresh=False)
        self._bar.update(done - self._bar.n)
        if done == total:
            self.close()

    def _rate(self, pixels: int) -> str:
        seconds = time.monotonic() - self._began
        return f", {pixels / 1e6 / seconds:.2f} Mpx/s" if pixels and seconds > 0 else ""


class JsonLines:
    """A JSON object a line."""

    def note(self, message: str) -> None:
        """Log a note."""
        self._write(event="note", message=message)

    def advance(self, stage: str, done: int, total: int, *, pixels: int = 0) -> None:
        """Log progress."""
        self._write(event="progress", stage=stage, done=done, total=total, pixels=pixels)

    def fault(self, message: str) -> None:
        """Log what went wrong."""
        self._write(event="fault", message=message)

    def close(self) -> None:
        """Nothing to tidy."""

    def _write(self, **fields: object) -> None:
        print(json.dumps({"time": round(time.time(), 3), **fields}), file=sys.stderr, flush=True)


class Mute:
    """Nothing at all."""

    def note(self, message: str) -> None:
        """Drop the message."""

    def advance(self, stage: str, done: int, total: int, *, pixels: int = 0) -> None:
        """Drop the news."""

    def close(self) -> None:
        """Nothing to tidy."""


def say_fault(message: str, *, log_json: bool) -> None:
    """Say what went wrong in a run that goes on or has ended: also to those who want to hear no more than that."""
    if log_json:
        JsonLines().fault(message)
    else:
        print(f"geoseg: {message}", file=sys.stderr, flush=True)


def open_progress(*, quiet: bool, log_json: bool) -> Bar | JsonLines | Mute:
    """What the options ask for."""
    if quiet:
        return Mute()
    return JsonLines() if log_json else Bar()
