"""From class rasters on disk to files of polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.config import FORMATS
from geoseg.errors import FrameMismatchError, InputError, UsageError
from geoseg.legend import NODATA
from geoseg.model import find_bundle
from geoseg.scene import inspect_scene
from geoseg.scene.info import read_file_mask, read_window
from geoseg.vector import TidyRule, measure, polygonize, tidy
from geoseg.vector.measure import pixel_area_m2
from geoseg.write import read_legend, write_layers
from geoseg.write.raster import same_crs
from geoseg.write.vector import layer_files

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd

    from geoseg.config import Settings
    from geoseg.frame import Box
    from geoseg.legend import Legend
    from geoseg.scene import SceneInfo
    from geoseg.vector.polygonize import Reader

Array = np.ndarray[Any, Any]

NO_TIDYING = TidyRule(0, 0, 0)

_SURE = 100
"""Percent."""


def polygons_of(
    classes: Path, confidence: Path | None, legend: Legend, rule: TidyRule, *, block: int = 2048
) -> dict[str, gpd.GeoDataFrame]:
    """A GeoDataFrame of polygons for each foreground class of a class raster; without confidence that column is NaN.

    What the raster's own nodata value or mask leaves out is nodata. Raises InputError where a code is not in the
    legend, or a pixel that has a class has no confidence of 0..100 %.
    """
    info = inspect_scene(classes)
    components = polygonize(_reader(info, confidence, legend), info.frame.shape, block)
    layers = measure(tidy(components, rule, legend, pixel_area_m2(info.frame) or 1.0), info.frame, legend)
    if confidence is None:
        unknown = {"confidence": float("nan"), "confidence_min": float("nan")}
        layers = {name: layer.assign(**unknown) for name, layer in layers.items()}
    return layers


def vectorize(
    classes: Path,
    out: Path,
    *,
    confidence: Path | None = None,
    model: str | None = None,
    rule: TidyRule,
    overwrite: bool = False,
) -> list[Path]:
    """Polygons of a class raster again, without inference, in the format that the suffix of `out` names.

    The legend is the one stored in the raster, or that of `model`; the confidence is `confidence`, else what lies
    beside the raster as confidence.tif. Files that are there already are replaced only with `overwrite`. Raises
    UsageError or InputError.
    """
    kind = out.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        suffixes = ", ".join(f".{name}" for name in FORMATS)
        raise UsageError(f"--out {out}: the suffix names the format; it takes {suffixes}")
    info = inspect_scene(classes)
    if info.dtype != "uint8":
        raise InputError(f"{classes} holds {info.dtype}; class codes are uint8, as geoseg segment writes them")
    legend = find_bundle(model).legend if model else read_legend(classes)
    if legend is None:
        raise InputError(f"{classes} does not say what its codes mean; name the model it comes from by --model")
    files = layer_files([entry.name for entry in legend.foreground], out.parent, out.stem, kind)
    there = next((path for path in files.values() if path.exists()), None)
    if there is not None and not overwrite:
        raise UsageError(f"--out {out}: {there} is there already; name another file, or replace it by --overwrite")
    beside = classes.with_name("confidence.tif")
    confidence = confidence or (beside if beside.is_file() and beside != classes else None)
    if confidence is not None:
        _check_confidence(inspect_scene(confidence), info)
    layers = polygons_of(classes, confidence, legend, rule)
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_layers(layers, out.parent, out.stem, kind, legend)


def tidy_rule(settings: Settings) -> TidyRule:
    """The rule that settings ask for."""
    return TidyRule(settings.min_area, settings.min_hole, settings.simplify)


def count_features(layers: dict[str, gpd.GeoDataFrame]) -> dict[str, dict[str, float | int | None]]:
    """By layer: how many, how large together, how large in the middle; None where that is not known."""
    return {
        name: {
            "count": len(layer),
            "area_m2": _known(layer.area_m2.sum(skipna=False)),
            "median_area_m2": _known(layer.area_m2.median()) if len(layer) else None,
        }
        for name, layer in layers.items()
    }


def _known(area_m2: float) -> float | None:
    return round(float(area_m2), 1) if np.isfinite(area_m2) else None


def _reader(info: SceneInfo, confidence: Path | None, legend: Legend) -> Reader:
    """Codes, nodata as 255, and confidence by box; without confidence the codes stand in its place."""
    masked = info.nodata not in {None, NODATA} or info.mask != "none"
    known = np.isin(np.arange(256), [*legend.codes, NODATA])

    def read(box: Box) -> tuple[Array, Array]:
        codes = read_window(info.path, [1], box)[0]
        if masked:  # what GDAL calls a mask covers nodata values and alpha as well
            codes = np.where(read_file_mask(info.path, box), codes, NODATA).astype(np.uint8)
        if not known[codes].all():
            unknown = np.unique(codes[~known[codes]]).tolist()
            raise InputError(
                f"{info.path} holds the codes {unknown}; the legend has {sorted(legend.codes)}, and {NODATA} is "
                "nodata; name the model it comes from by --model"
            )
        if confidence is None:
            return codes, codes
        percent = read_window(str(confidence), [1], box)[0]
        if (percent[codes != NODATA] > _SURE).any():
            raise InputError(f"{confidence} holds more than {_SURE} where {info.path} has a class; it takes percent")
        return codes, percent

    return read


def _check_confidence(confidence: SceneInfo, classes: SceneInfo) -> None:
    """Raise InputError unless one raster can be the confidence of the other."""
    if confidence.dtype != "uint8":
        raise InputError(f"{confidence.path} holds {confidence.dtype}; confidence is uint8 in percent, 255 is nodata")
    first, second = classes.frame, confidence.frame
    if first.shape != second.shape or not first.transform.almost_equals(second.transform, 1e-6):
        raise FrameMismatchError(
            f"{confidence.path} ({second.shape[0]} x {second.shape[1]}) does not lie on the grid of {classes.path} "
            f"({first.shape[0]} x {first.shape[1]})"
        )
    if not same_crs(first.crs, second.crs, first):
        raise FrameMismatchError(f"{confidence.path} has another CRS than {classes.path}; they must come from one run")
