"""Two dates of one place as one scene: what a network that sees both is fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geoseg.scene.joined import JoinedScene

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geoseg.scene.reading import Scene

_DATES = ("before", "after")


def of_dates(roles: Iterable[str]) -> tuple[str, ...]:
    """The roles of both dates, the earlier first.

    >>> of_dates(("red", "nir"))
    ('before red', 'before nir', 'after red', 'after nir')
    """
    own = tuple(roles)
    return tuple(f"{date} {role}" for date in _DATES for role in own)


def of_one_date(roles: Iterable[str]) -> tuple[str, ...]:
    """The inverse of `of_dates`; roles that are not of two dates stay as they are.

    >>> of_one_date(("before red", "before nir", "after red", "after nir"))
    ('red', 'nir')
    """
    return tuple(dict.fromkeys(role.removeprefix("before ").removeprefix("after ") for role in roles))


@dataclass(frozen=True)
class StackedScene(JoinedScene):
    """Two scenes on one frame as one: the bands of the earlier date, then those of the later."""

    @classmethod
    def of(cls, before: Scene, after: Scene) -> StackedScene:
        """Both dates."""
        return cls((before, after))

    @property
    def roles(self) -> tuple[str, ...]:
        """`before red`, ..., `after red`, ..."""
        named = zip(_DATES, self.scenes, strict=True)
        return tuple(f"{date} {role}" for date, scene in named for role in scene.roles)
