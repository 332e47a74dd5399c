"""The two dates of a comparison: scenes, or finished runs of them."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.change.pair import common_bands
from geoseg.errors import InputError, MissingCrsError
from geoseg.legend import NODATA, Legend
from geoseg.scene import BandNeeds, FileScene, assign_roles, inspect_scene, open_scene, parse_bands
from geoseg.scene.info import open_dataset
from geoseg.workflow.change_network import needs_of, network_of
from geoseg.workflow.folder import MANIFEST, read_manifest
from geoseg.write import tiff_datetime

if TYPE_CHECKING:
    from geoseg.config import ChangeSettings
    from geoseg.frame import Box, Frame
    from geoseg.scene import SceneInfo

Array = np.ndarray[Any, Any]

_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_]?(\d\d)[-_]?(\d\d)(?!\d)")


@dataclass(frozen=True)
class Date:
    """One of two dates: the scene, and the finished run of it, where one was given."""

    name: str
    scene: FileScene
    run: Path | None

    @property
    def taken(self) -> str | None:
        """When the scene was taken (`YYYY-MM-DD`), if its file or the name of that says so."""
        moment = tiff_datetime(open_dataset(self.scene.info.path).tags().get("TIFFTAG_DATETIME"))
        return date_in_name(self.path.stem) if moment is None else moment.date().isoformat()

    @property
    def path(self) -> Path:
        """The scene's file."""
        return Path(self.scene.info.path)

    def to_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        info, stat = self.scene.info, self.path.stat()
        return {
            "name": self.name,
            "path": str(self.path.resolve()),
            "run": None if self.run is None else str(self.run.resolve()),
            "bytes": stat.st_size,
            "modified": stat.st_mtime,
            "shape": list(info.frame.shape),
            "crs": info.frame.crs,
            "transform": list(info.frame.transform)[:6],
            "gsd_m": None if info.frame.gsd_m is None else [round(side, 6) for side in info.frame.gsd_m],
            "dtype": info.dtype,
            "bands": dict(zip(self.scene.roles, self.scene.bands, strict=True)),
            "date": self.taken,
        }


def date_in_name(stem: str) -> str | None:
    """The date (`YYYY-MM-DD`) in a file's name, if there is one and no other.

    >>> date_in_name("LE07_L2SP_20030206_02_T1"), date_in_name("S2_2021-06-30"), date_in_name("tile_20219999")
    ('2003-02-06', '2021-06-30', None)
    """
    found = set()
    for year, month, day in _DATE.findall(stem):
        with suppress(ValueError):
            found.add(date(int(year), int(month), int(day)).isoformat())
    return found.pop() if len(found) == 1 else None


def open_dates(before: Path, after: Path, settings: ChangeSettings) -> tuple[Date, Date]:
    """The scenes of both dates with the bands that they have in common. Raises InputError or one of its kind."""
    found = [_scene_of(path) for path in (before, after)]
    infos = [inspect_scene(scene) for scene, _ in found]
    for info in infos:
        _require_place(info, force=settings.force)
    given = [parse_bands(text) if text else None for text in (settings.bands, settings.bands_after or settings.bands)]
    if settings.method == "siamese":
        bands = _bands_of_network(infos, given, settings)
    else:
        bands = common_bands(infos[0], infos[1], (given[0], given[1]))
    scenes = [
        open_scene(info.path, BandNeeds(tuple(own)), bands=own, nodata=settings.nodata, require_crs=not settings.force)
        for info, own in zip(infos, bands, strict=True)
    ]
    one, other = (Date(path.stem, scene, run) for (path, run), scene in zip(found, scenes, strict=True))
    return one, other


def _bands_of_network(
    infos: list[SceneInfo], given: list[dict[str, int] | None], settings: ChangeSettings
) -> tuple[dict[str, int], dict[str, int]]:
    """Role to band number of either date, of the roles that the network knows and both have."""
    needs = needs_of(network_of(settings))
    one, other = (assign_roles(info, needs, bands) for info, bands in zip(infos, given, strict=True))
    shared = [role for role in one if role in other]
    return {role: one[role] for role in shared}, {role: other[role] for role in shared}


def _scene_of(path: Path) -> tuple[Path, Path | None]:
    """The scene of a date, and its run, if it is given by that."""
    path = path.absolute()
    if not path.is_dir():
        return path, None
    scene = read_manifest(path).get("scene", {}).get("path")
    if not isinstance(scene, str):
        raise InputError(f"{path / MANIFEST} names no scene; give a scene, or a run of geoseg segment")
    if not Path(scene).is_file():
        raise InputError(f"{scene}, the scene of the run {path}, is not there any more; put it back")
    return Path(scene), path


def _require_place(info: SceneInfo, *, force: bool) -> None:
    if info.frame.crs is None and not force:
        raise MissingCrsError(
            f"{info.path} has no CRS or no georeference, so that areas are not known and two dates may not lie on each "
            "other; assign one (gdal_edit.py -a_srs EPSG:...) or go on without by --force"
        )


@dataclass(frozen=True)
class ClassScene:
    """A finished run as a scene: a band of probabilities for each class, 0..1."""

    classes: FileScene
    confidence: FileScene
    probabilities: FileScene | None
    legend: Legend

    @property
    def frame(self) -> Frame:
        """The grid of the run."""
        return self.classes.frame

    @property
    def roles(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.legend.names

    @property
    def dtype(self) -> str:
        """Of probabilities."""
        return "float32"

    @property
    def stored_scaling(self) -> None:
        """None is stored."""
        return

    def read(self, box: Box) -> tuple[Array, Array]:
        """Probabilities (classes, height, width), and where there are any.

        Of a run that kept none, the class has its confidence and the others share the rest.
        """
        codes, valid = self.classes.read(box)
        if self.probabilities is not None:
            levels, seen = self.probabilities.read(box)
            total = np.maximum(levels.sum(axis=0, dtype=np.float32), 1)
            return (levels / total).astype(np.float32), valid & seen
        sure = self.confidence.read(box)[0][0].astype(np.float32) / 100
        rest = (1 - sure) / max(len(self.legend.codes) - 1, 1)
        shares = [np.where(codes[0] == code, sure, rest) for code in self.legend.codes]
        return np.stack(shares).astype(np.float32), valid


def class_scene(run: Path) -> ClassScene:
    """The classes of a finished run. Raises RunFolderError or SceneError where they are not there."""
    manifest = read_manifest(run)
    legend = Legend.from_json(manifest.get("model", {}).get("legend", []))
    one = BandNeeds(("class",))
    classes, confidence = (
        open_scene((run / name).absolute(), one, bands={"class": 1}, nodata=NODATA, require_crs=False)
        for name in ("classes.tif", "confidence.tif")
    )
    probabilities = None
    if "probabilities.tif" in manifest["outputs"]:
        bands = {name: band for band, name in enumerate(legend.names, 1)}
        path = (run / "probabilities.tif").absolute()
        probabilities = open_scene(path, BandNeeds(legend.names), bands=bands, nodata=NODATA, require_crs=False)
    return ClassScene(classes, confidence, probabilities, legend)
