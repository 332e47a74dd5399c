"""From a path and settings to a job: everything that is decided before the first pixel is computed."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from geoseg.errors import UsageError
from geoseg.grid import Grid
from geoseg.model import BundleEngine, EngineChoice, ModelBundle, TileFit, find_bundle, fit_to_gsd
from geoseg.model.bundle import ENSEMBLE
from geoseg.scene import ClippedScene, FileScene, Scaling, clip_scene, open_scene, parse_bands, resolve_scaling
from geoseg.scene.aoi import grown_area
from geoseg.scene.info import share_of_zeros
from geoseg.segment import SegmentJob
from geoseg.workflow.key import code_sha256

if TYPE_CHECKING:
    from geoseg.blend import Blend
    from geoseg.config import Settings
    from geoseg.frame import Frame


OBJECTS_M = 60.0
"""So far beyond the area of interest the scene is segmented too: objects that reach out of it are kept whole."""

_OVERLAP = 64
"""What a network says near the rim of a tile is worth less, however large the tile is."""
_MUCH_ZERO = 0.02
"""Beyond this share of pixels that are 0 in all bands the user is asked whether they are fill."""


@dataclass(frozen=True)
class Prepared:
    """A job, but for the folder it works in, and what led to it."""

    scene: FileScene
    bundle: ModelBundle
    fit: TileFit
    grid: Grid
    choice: EngineChoice
    settings: Settings
    clipped: ClippedScene | None = None
    """The scene within the area of interest, if there is one, and around it as far as objects may reach out of it."""
    area: bytes | None = None
    """The area of interest itself (WKB), where the scene reaches beyond it."""
    zeros: float = 0.0
    """Where no nodata is declared, the share of pixels that are 0 in all bands, and so perhaps fill."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know before trusting the result."""
        missing = [role for role in self.bundle.needs.roles if role not in self.scene.roles]
        info = self.scene.info
        without = f"{info.path}: no {' and '.join(missing)} band; {self.bundle.name} goes on without, at some loss"
        alpha = [role for role, band in self.scene_bands.items() if info.interpretations[band - 1] == "alpha"]
        taken = f"{info.path}: the band tagged alpha is no mask and is taken as {' and '.join(alpha)}"
        masked = f"{info.path}: band {info.alpha_band}, tagged alpha, masks; if it is near infrared, name it in --bands"
        fill = (
            f"{info.path}: {self.zeros:.0%} of a sample are 0 in all bands and no nodata is declared; "
            "if that is fill, say --nodata 0"
        )
        texts = (
            self.fit.notice,
            without if missing else "",
            taken if alpha else "",
            masked if self.scene.alpha and missing else "",
            fill if self.zeros > _MUCH_ZERO else "",
        )
        return tuple(text for text in texts if text)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Files that the run reads and must not write to."""
        return (Path(self.scene.info.path), *([Path(self.settings.aoi)] if self.settings.aoi else []))

    @property
    def scene_bands(self) -> dict[str, int]:
        """Role to band number."""
        return dict(zip(self.scene.roles, self.scene.bands, strict=True))

    @property
    def source(self) -> BundleEngine:
        """Where workers get the engine from."""
        assert self.bundle.path is not None  # noqa: S101  # find_bundle found it in a folder
        return BundleEngine(self.bundle.path, self.bundle.sha256, self.choice, self.fit.network)

    def job(self, folder: Path, scaling: Scaling | None = None) -> SegmentJob:
        """The job, its scaling fixed by a look at the scene, unless it is known."""
        return SegmentJob(
            scene=self.clipped or self.scene,
            scaling=scaling or resolve_scaling(self.scene, self.bundle.scaling),
            bundle=self.bundle,
            engine=self.source,
            grid=self.grid,
            blend=cast("Blend", self.settings.blend),
            folder=folder,
            with_probabilities=self.settings.probabilities,
            area=self.area,
        )


def prepare(path: Path, settings: Settings) -> Prepared:
    """Decide how a scene is segmented; reads no more of its pixels than a sample.

    Raises what `find_bundle`, `open_scene`, `fit_to_gsd`, `Grid` and `drawing_of` raise.
    """
    bundle = find_bundle(settings.model)
    if bundle.of_two_dates:
        raise UsageError(f"--model: {bundle.name} compares two dates; name it to geoseg change --method siamese")
    scene = open_scene(
        path.absolute(),  # workers may run elsewhere
        bundle.needs,
        bands=parse_bands(settings.bands) if settings.bands else None,
        nodata=settings.nodata,
        require_crs=not settings.force,
    )
    fit, grid = grid_of(settings, bundle, scene.frame, name=str(path))
    if settings.vectors:
        from geoseg.workflow.vectors import drawing_of, tidy_rule  # noqa: PLC0415  # shapely and its like

        drawing_of(tidy_rule(settings), bundle.legend, scene.frame)  # what polygons cannot be is said before all work
    clipped = clip_scene(scene, settings.aoi) if settings.aoi else None
    area = None
    if clipped is not None and settings.vectors and any(entry.kind == "object" for entry in bundle.legend.classes):
        area, grown = clipped.area, grown_area(clipped.area, scene.frame, OBJECTS_M)
        clipped = replace(clipped, area=grown)
    undeclared = scene.nodata is None and scene.info.mask == "none"
    zeros = share_of_zeros(scene.info.path, scene.bands) if undeclared else 0.0
    return Prepared(scene, bundle, fit, grid, choice_of(settings), settings, clipped, area, zeros)


def grid_of(settings: Settings, bundle: ModelBundle, frame: Frame, *, name: str) -> tuple[TileFit, Grid]:
    """The tiles of a frame for a model, and how large they are; `name` names the scene in messages.

    Raises UsageError for a tile or an overlap that cannot be, GsdError where the model would see nothing it knows.
    """
    tile = settings.tile or bundle.tile
    if tile % 32:
        raise UsageError(f"--tile is {tile}; the network takes multiples of 32")
    fit = fit_to_gsd(frame.gsd_m, bundle.gsd_m, tile, name=name, force=settings.force)
    overlap = min(_OVERLAP, tile // 4) if settings.overlap is None else settings.overlap
    if overlap >= tile:
        raise UsageError(f"--overlap is {overlap}; it takes 0 to {tile - 1} with tiles of {tile}")
    rows, cols = (min(round(overlap * side / tile), side - 1) for side in fit.scene)
    return fit, Grid(frame.shape, fit.scene, (rows, cols), settings.block)


def choice_of(settings: Settings) -> EngineChoice:
    """How the network is to be run."""
    return EngineChoice(
        engine=settings.engine,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads or _threads(settings),
        batch=settings.batch or 0,
        tta=settings.tta,
    )


def _threads(settings: Settings) -> int:
    """The cores of this machine divided among the workers; 0, as many as a worker has, where those are elsewhere."""
    return 0 if settings.scheduler else max(1, (os.cpu_count() or 1) // max(1, settings.workers))


def job_key(prepared: Prepared, job: SegmentJob, engines: tuple[str, ...]) -> dict[str, Any]:
    """All that determines the bytes of a run's blocks, but for the pixels of the scene; JSON values by name."""
    record = scene_record(prepared, job)
    changing = {"path", "bytes", "modified"}
    parts = [part for part in (prepared.clipped and prepared.clipped.area, prepared.area) if part]
    area = hashlib.sha256(b"|".join(parts)).hexdigest() if parts else ""
    return {
        "scene": record["path"],
        "bands": {name: value for name, value in record.items() if name not in changing},
        "area of interest": area,
        "model": prepared.bundle.sha256,
        "engine": list(engines),
        "tiles": {"network": prepared.fit.network, "tile": list(job.grid.tile), "overlap": list(job.grid.overlap)},
        "block": job.grid.block,
        "blend": job.blend,
        "probabilities": job.with_probabilities,
        "code of geoseg": code_sha256(),
    }


def scene_record(prepared: Prepared, job: SegmentJob) -> dict[str, Any]:
    """What run.json says of the scene."""
    info = prepared.scene.info
    stat, nodata = Path(info.path).stat(), prepared.scene.nodata
    masks = [kind for kind in info.mask.split("+") if kind != "alpha" or prepared.scene.alpha]
    return {
        "path": str(Path(info.path).resolve()),
        "bytes": stat.st_size,
        "modified": stat.st_mtime,
        "shape": list(info.frame.shape),
        "crs": info.frame.crs,
        "transform": list(info.frame.transform)[:6],
        "gsd_m": None if info.frame.gsd_m is None else [round(side, 6) for side in info.frame.gsd_m],
        "dtype": info.dtype,
        "bands": prepared.scene_bands,
        "nodata": "nan" if nodata is not None and math.isnan(nodata) else nodata,
        "mask": "+".join(masks) or "none",
        "scaling": {"gain": list(job.scaling.gain), "offset": list(job.scaling.offset), "gamma": job.scaling.gamma},
    }


def model_record(prepared: Prepared) -> dict[str, Any]:
    """What run.json says of the model."""
    bundle = replace(prepared.bundle, card={}, scores={})
    record = bundle.to_json()
    return {
        "name": bundle.name,
        "sha256": bundle.sha256,
        "network_tile": prepared.fit.network,
        "scene_tile": list(prepared.fit.scene),
        **{key: record[key] for key in ("architecture", "encoder", "bands", "gsd_m", "legend", "licence")},
        **({"members": bundle.decoder["members"]} if bundle.architecture == ENSEMBLE else {}),
    }
