"""What is decided of a comparison before its first block is computed: method, frame, what is too small."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.change.frames import CommonFrame, common_frame
from geoseg.change.pair import Pair
from geoseg.change.sieve import Sieve
from geoseg.errors import InputError, UsageError
from geoseg.scene import clip_scene, inspect_scene
from geoseg.scene.aoi import read_zones
from geoseg.scene.joined import JoinedScene
from geoseg.scene.warped import WarpedScene
from geoseg.vector.measure import pixel_area_m2
from geoseg.workflow.change_network import network_of
from geoseg.workflow.dates import Date, class_scene
from geoseg.workflow.folder import MANIFEST, read_manifest
from geoseg.workflow.key import CHANGE_STAGES, STAGES, code_sha256
from geoseg.workflow.prepare import prepare
from geoseg.workflow.running import RunResult
from geoseg.workflow.segmenting import HOW, segment_scene

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geoseg.config import ChangeSettings
    from geoseg.scene import Scene
    from geoseg.workflow.progress import Progress

_LEAST_PIXELS = 9
"""Patches of fewer pixels are no change, unless something else is said."""
_ROUNDING = 1e-6
"""Nine pixels of 0.09 m2 are 0.81 m2, whatever floating point makes of it."""
_MOST_PIXELS = 2048
"""Of the smallest patch: blocks look so far around themselves."""


def choose_method(dates: tuple[Date, Date], settings: ChangeSettings) -> tuple[ChangeSettings, list[str]]:
    """The settings with a method that suits both dates, and why it is this one."""
    if settings.method == "siamese":
        network_of(settings)
    if settings.method != "auto":
        return settings, []
    if all(date.run is not None for date in dates):
        return replace(settings, method="classes"), []
    try:
        for date in dates:
            if date.run is None:
                prepare(date.path, _of_date(settings, later=date is dates[1]).of_segment)
    except InputError as error:
        note = f"compared by change vectors (--method cva), since the model cannot compare classes: {error}"
        return replace(settings, method="cva"), [note]
    return replace(settings, method="classes"), []


def _of_date(settings: ChangeSettings, *, later: bool) -> ChangeSettings:
    return replace(settings, bands=settings.bands_after or settings.bands) if later else settings


@dataclass(frozen=True)
class Comparison:
    """Everything that is decided before the first block is computed."""

    dates: tuple[Date, Date]
    settings: ChangeSettings
    common: CommonFrame
    imagery: tuple[Scene, WarpedScene]
    """Both dates on the common frame, the later one where its file says that it lies."""
    sieve: Sieve
    notes: tuple[str, ...]

    @classmethod
    def prepare(cls, dates: tuple[Date, Date], settings: ChangeSettings, notes: Iterable[str] = ()) -> Comparison:
        """Choose the frame, and what is too small on it."""
        frames = [date.scene.frame for date in dates]
        grids = {"auto": None, "before": frames[0], "after": frames[1]}
        grid = grids[settings.frame] if settings.frame in grids else inspect_scene(Path(settings.frame)).frame
        common = common_frame(frames[0], frames[1], grid)
        first: Scene = WarpedScene(dates[0].scene, common.frame)
        if settings.aoi:
            first = clip_scene(first, settings.aoi)
        if settings.vectors and settings.simplify_m is not None and pixel_area_m2(common.frame) is None:
            raise UsageError("--simplify-m is in metres, and no CRS tells how large pixels are; give --simplify")
        if settings.zones:
            read_zones(Path(settings.zones), common.frame, "--zones")  # whatever is wrong with it is said at once
        imagery = first, WarpedScene(dates[1].scene, common.frame)
        return cls(dates, settings, common, imagery, sieve_of(settings, common), tuple(notes))

    def segmented(self, out: Path, *, overwrite: bool, resume: bool, progress: Progress) -> Comparison:
        """The same with a finished run of either date."""
        found = []
        for name, date in zip(("before", "after"), self.dates, strict=True):
            run = date.run
            if run is None:
                progress.note(f"segmenting {date.path} into {out / name}")
                settings = _of_date(self.settings, later=name == "after").of_segment
                segment_scene(date.path, out / name, settings, overwrite=overwrite, resume=resume, progress=progress)
                run = (out / name).absolute()
            found.append(replace(date, run=run))
        return replace(self, dates=(found[0], found[1]))

    @property
    def inputs(self) -> list[Path]:
        """Files that the comparison reads and must not write to."""
        named = [self.settings.aoi, self.settings.zones]
        return [*(date.path for date in self.dates), *(Path(name) for name in named if name)]

    @property
    def key(self) -> dict[str, Any]:
        """All that determines the bytes of blocks; JSON values by name."""
        settings = self.settings.to_json()
        runs = [None if date.run is None else read_manifest(date.run)["outputs"] for date in self.dates]
        return {
            "dates": [date.to_json() for date in self.dates],
            "runs": runs,
            "settings": {name: value for name, value in settings.items() if name not in {*HOW, "format", "vectors"}},
            "block": settings["block"],
            "area of interest": _content(self.settings.aoi),
            "zones": _content(self.settings.zones),
            "model": network_of(self.settings).sha256 if self.settings.method == "siamese" else "",
            "code of geoseg": [
                code_sha256(CHANGE_STAGES),
                code_sha256(STAGES) if self.settings.method == "siamese" else "",
            ],
        }

    def pairs(self, shift: tuple[float, float]) -> tuple[Pair, Pair]:
        """The imagery of both dates with the later one moved, and what of it is compared."""
        first, second = self.imagery
        imagery = Pair(first, second.moved(shift))
        if self.settings.method != "classes":
            return imagery, imagery
        runs = [class_scene(date.run) for date in self.dates if date.run is not None]
        if runs[0].legend != runs[1].legend:
            raise InputError("the two runs have different classes; segment both dates with one model")
        one: Scene = WarpedScene(runs[0], self.common.frame)
        if self.settings.aoi:
            one = clip_scene(one, self.settings.aoi)
        other = WarpedScene(runs[1], self.common.frame, shift)
        # The probabilities, and behind them the imagery: where that does not differ, no class has changed.
        return imagery, Pair(JoinedScene((one, imagery.before)), JoinedScene((other, imagery.after)))


def sieve_of(settings: ChangeSettings, common: CommonFrame) -> Sieve:
    """How small patches of change may be on a frame. Raises UsageError where that is more than blocks look around."""
    area = pixel_area_m2(common.frame)
    pixels = _LEAST_PIXELS if settings.mmu is None else ceil(settings.mmu / (area or 1.0) - _ROUNDING)
    if pixels > _MOST_PIXELS:
        raise UsageError(
            f"mmu is {settings.mmu} m2, {pixels} pixels of the frame; it takes up to {_MOST_PIXELS} of them; choose a "
            "coarser --frame"
        )
    side = sqrt(area or 1.0)
    return Sieve(max(1, pixels), settings.opening / side, settings.closing / side)


def _content(path: str | None) -> str:
    """What a file holds, as a hash; nothing where there is none."""
    return "" if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()


def finished(compared: Comparison, out: Path) -> RunResult | None:
    """The comparison in a folder, if it is this one and was finished; raises UsageError where it is another run."""
    if not (out / MANIFEST).exists():
        return None
    record = read_manifest(out)
    wanted = compared.settings.to_json()
    config = record.get("config", {})
    checks = {
        **{
            f"{name} date": {key: record.get(name, {}).get(key) for key in ("path", "bytes", "modified", "bands")}
            == {key: date.to_json()[key] for key in ("path", "bytes", "modified", "bands")}
            for name, date in zip(("before", "after"), compared.dates, strict=True)
        },
        "outputs": all((out / name).exists() for name in record["outputs"]),
        **{name: config.get(name) == value for name, value in wanted.items() if name not in HOW},
    }
    others = [name for name, equal in checks.items() if not equal]
    if others:
        raise UsageError(
            f"{out} holds a finished run with other {', '.join(others)}; choose another --out, or say --overwrite"
        )
    return RunResult.of(out, record)
