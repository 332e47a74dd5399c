"""How a workflow tells what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a workflow calls while it works; the command line prints it, a notebook or service may do as it likes."""

    def note(self, message: str) -> None:
        """Say something that the user should know."""

    def advance(self, stage: str, done: int, total: int, *, pixels: int = 0) -> None:
        """Of `total` steps of a stage `done` are done; together they covered `pixels` pixels of the scene."""


class Silent:
    """Says nothing."""

    def note(self, message: str) -> None:
        """Drop the message."""

    def advance(self, stage: str, done: int, total: int, *, pixels: int = 0) -> None:
        """Drop the news."""
