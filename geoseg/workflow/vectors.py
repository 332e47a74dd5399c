"""From class rasters on disk to files of polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoseg.config import FORMATS
from geoseg.errors import FrameMismatchError, InputError, UsageError
from geoseg.model import find_bundle
from geoseg.scene import inspect_scene
from geoseg.scene.info import read_window
from geoseg.vector import TidyRule, measure, polygonize, tidy
from geoseg.vector.measure import pixel_area_m2
from geoseg.write import read_legend, write_layers

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd
    import numpy as np

    from geoseg.config import Settings
    from geoseg.frame import Box, Frame
    from geoseg.legend import Legend

NO_TIDYING = TidyRule(0, 0, 0)


def polygons_of(
    classes: Path, confidence: Path | None, legend: Legend, rule: TidyRule, *, block: int = 2048
) -> dict[str, gpd.GeoDataFrame]:
    """A GeoDataFrame of polygons for each foreground class of a class raster; without confidence that column is NaN."""
    frame = inspect_scene(classes).frame

    def read(box: Box) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        codes = read_window(str(classes), [1], box)[0]
        return codes, codes if confidence is None else read_window(str(confidence), [1], box)[0]

    components = polygonize(read, frame.shape, legend, block)
    layers = measure(tidy(components, rule, pixel_area_m2(frame) or 1.0), frame, legend)
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
) -> list[Path]:
    """Polygons of a class raster again, without inference, in the format that the suffix of `out` names.

    The legend is the one stored in the raster, or that of `model`; the confidence is `confidence`, else what lies
    beside the raster as confidence.tif. Raises UsageError or InputError.
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
    beside = classes.with_name("confidence.tif")
    confidence = confidence or (beside if beside.is_file() and beside != classes else None)
    if confidence is not None:
        _same_frame(info.frame, inspect_scene(confidence).frame, classes, confidence)
    layers = polygons_of(classes, confidence, legend, rule)
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_layers(layers, out.parent, out.stem, kind, legend)


def tidy_rule(settings: Settings) -> TidyRule:
    """The rule that settings ask for."""
    return TidyRule(settings.min_area, settings.min_hole, settings.simplify)


def count_features(layers: dict[str, gpd.GeoDataFrame]) -> dict[str, dict[str, float | int | None]]:
    """By layer: how many, how large together, how large in the middle."""
    return {
        name: {
            "count": len(layer),
            "area_m2": round(float(layer.area_m2.sum()), 1),
            "median_area_m2": round(float(layer.area_m2.median()), 1) if len(layer) else None,
        }
        for name, layer in layers.items()
    }


def _same_frame(first: Frame, second: Frame, classes: Path, confidence: Path) -> None:
    if first.shape != second.shape or not first.transform.almost_equals(second.transform, 1e-6):
        raise FrameMismatchError(
            f"{confidence} ({second.shape[0]} x {second.shape[1]}) does not lie on the grid of {classes} "
            f"({first.shape[0]} x {first.shape[1]})"
        )
