"""Everything that geoseg raises on purpose, each with the exit code that the command line answers with."""

from __future__ import annotations


class GeosegError(Exception):
    """What geoseg raises when it cannot do as asked; the message is one sentence for the user."""

    exit_code = 1


class UsageError(GeosegError, ValueError):
    """An option or a configuration key is wrong: names it, what it got and what it takes."""

    exit_code = 2


class InputError(GeosegError, ValueError):
    """A file given to geoseg cannot be used: names it and what to do."""

    exit_code = 3


class SceneError(InputError):
    """A scene cannot be opened, or a window of it cannot be read."""


class DamagedSceneError(SceneError):
    """A window of a raster that opens cannot be read: a block of it is damaged, or the disk fails there."""

    def __init__(self, message: str, path: str = "") -> None:
        """The sentence, and the file that it is about."""
        super().__init__(message)
        self.path = path


class BandRoleError(InputError):
    """The bands that a model needs are not, or not unambiguously, found in a scene."""


class GsdError(InputError):
    """The ground sampling distance of a scene is outside of what the model can see."""


class MissingCrsError(InputError):
    """A scene says nowhere on Earth it lies."""


class FrameMismatchError(InputError):
    """Two rasters that must lie on one grid do not."""


class BundleError(InputError):
    """A model bundle is incomplete, damaged or contradicts itself."""


class RunFolderError(InputError):
    """A run folder is not what a finished run leaves behind."""


class EnvironmentFault(GeosegError, OSError):
    """The machine lacks what was asked of it: space, permission, a device, a scheduler."""

    exit_code = 5
