"""Settings of a run: command line over file over environment over default.

A settings file is YAML with the names of the fields below; the environment uses `GEOSEG_` and the name in capitals.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from geoseg.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMATS = ("gpkg", "parquet", "fgb", "shp", "geojson")


S = TypeVar("S", bound="Settings")

Limit = float | dict[str, float]
"""A number of m2, or one for some classes by name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be chosen for `segment`; the names are those of the options."""

    model: str = "aerial"
    tile: int | None = None
    """Side of the square the network sees, in pixels of the network; the model's own if None."""
    overlap: int | None = None
    """By how many pixels tiles overlap; 64, a quarter of the tile at most, if None."""
    blend: str = "hann"
    block: int = 2048
    batch: int | None = None
    """Tiles that go through the network together on a GPU, as many as fit if None; a CPU takes one a thread."""
    workers: int = 0
    """Local worker processes; 0 computes in this process."""
    threads: int | None = None
    """Threads of each process; the cores divided among the workers, or those of the Dask worker, if None."""
    scheduler: str | None = None
    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    tta: str = "none"
    """Views of each tile that are averaged: `flip` adds its mirror image, `d4` all eight turns and mirror images."""
    format: tuple[str, ...] = ("gpkg",)
    aoi: str | None = None
    bands: str | None = None
    nodata: float | None = None
    force: bool = False
    vectors: bool = True
    probabilities: bool = False
    min_area: Limit = 15.0
    """Polygons smaller than this many m2 go to the class beside them; a number, or one by class."""
    min_hole: Limit = 15.0
    """Holes smaller than this many m2 are closed; a number, or one by class."""
    simplify: float = 1.25
    """Tolerance of the simplification in pixels; 0 keeps the stairs."""
    simplify_m: float | None = None
    """The same in metres on the ground; wins over pixels, unless these are said later: in a file after the environment,
    or on the command line after both."""
    square: bool = True
    """Whether buildings get straight walls at right angles."""
    split: float = 0.0
    """By how much the confidence, 0..1, dips between touching buildings that are taken apart; 0 leaves all together."""

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        for name, least in _LEAST.items():
            given = getattr(self, name)
            for value in given.values() if isinstance(given, dict) else [given]:
                if value is not None and not (math.isfinite(value) and least <= value <= _MOST.get(name, value)):
                    wanted = f"{least} to {_MOST[name]}" if name in _MOST else f"{least} or more"
                    raise UsageError(f"{name} is {value}; it takes {wanted}")
        if self.nodata is not None and math.isinf(self.nodata):
            raise UsageError(f"nodata is {self.nodata}; it takes a finite number or nan (infinite pixels never count)")
        for name in self.format:
            if name not in FORMATS:
                raise UsageError(f"format is {name!r}; it takes {', '.join(FORMATS)}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it takes {', '.join(choices)}")

        if not _DEVICE.fullmatch(self.device):
            raise UsageError(f"device is {self.device!r}; it takes auto, cpu, cuda or cuda:N")

    def to_json(self) -> dict[str, Any]:
        """As recorded in run.json."""
        return {
            field.name: list(value) if isinstance(value := getattr(self, field.name), tuple) else value
            for field in fields(self)
        }


@dataclass(frozen=True, slots=True)
class ChangeSettings(Settings):
    """Everything that can be chosen for `change`: what `segment` takes, for both dates, and how they are compared."""

    method: str = "auto"
    """How dates are compared; `auto`: by classes where the model fits both, else by change vectors. `siamese` takes a
    model of two dates."""
    frame: str = "auto"
    """The grid of the comparison: that of a date, or of a raster file; `auto`: of the coarser date."""
    register: str = "auto"
    """Whether the later date is moved onto the earlier one: `auto` where most windows agree on more than a quarter of a
    pixel, `shift` by whatever they say, `off` never."""
    threshold: str = "auto"
    """`otsu`, `em` or a number; `auto`: an even chance for classes, else `otsu`."""
    mmu: float | None = None
    """The smallest patch of change in m2; nine pixels if None."""
    opening: float = 0.0
    """Radius in m of the disk that must fit into change."""
    closing: float = 0.0
    """Radius in m of the disk that must fit between two patches for them to be two."""
    indices: tuple[str, ...] = ()
    """Spectral indices for the method `index`; NDVI, NDWI and NBR, as bands allow, if there are none."""
    bands_after: str | None = None
    """As `bands`, for the later date alone."""
    zones: str | None = None
    """A vector file of polygons for each of which areas are told, by its name."""

    def __post_init__(self) -> None:
        """Refuse values that no comparison can use."""
        Settings.__post_init__(self)
        for name, choices in CHANGE_CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it takes {', '.join(choices)}")
        for name in ("mmu", "opening", "closing"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} is {value}; it takes 0 or more")
        if self.threshold not in {"auto", "otsu", "em"} and self.threshold_value is None:
            raise UsageError(f"threshold is {self.threshold!r}; it takes auto, otsu, em or a number above 0")

    @property
    def threshold_value(self) -> float | None:
        """The threshold, if it is a number above 0."""
        try:
            value = float(self.threshold)
        except ValueError:
            return None
        return value if math.isfinite(value) and value > 0 else None

    @property
    def of_segment(self) -> Settings:
        """What both dates are segmented with."""
        given = {field.name: getattr(self, field.name) for field in fields(Settings)}
        return Settings(**{**given, "probabilities": True})


CHANGE_CHOICES = {
    "method": ("auto", "classes", "cva", "irmad", "index", "siamese"),
    "register": ("auto", "off", "shift"),
}
CHOICES = {
    "blend": ("hann", "gaussian", "pyramid", "crop"),
    "engine": ("auto", "torch", "openvino", "onnx"),
    "tta": ("none", "flip", "d4"),
    "precision": ("auto", "fp32", "bf16", "fp16", "int8"),
}
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")
_OTHER_VARIABLES = {"GEOSEG_MODELS", "GEOSEG_CACHE"}
_LEAST = {
    "tile": 32, "overlap": 0, "block": 1, "batch": 1, "workers": 0, "threads": 1, "min_area": 0, "min_hole": 0,
    "simplify": 0, "simplify_m": 0, "split": 0,
}  # fmt: skip
_MOST = {"split": 1}


def resolve_settings(
    given: Mapping[str, Any],
    file: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    kind: type[S] = Settings,  # type: ignore[assignment]  # a default for a type that the caller chooses
) -> S:
    """Settings from what the command line gave (None where it gave nothing), a file and the environment.

    A variable of another command sets nothing here. Raises UsageError naming the key, what it got and what it takes.
    """
    own = {field.name: _READERS[field.name] for field in fields(kind)}
    merged: dict[str, Any] = {}
    read: dict[str, Any] = {}
    for variable, text in (environment or {}).items():
        if not variable.startswith("GEOSEG_") or variable in _OTHER_VARIABLES or not text:
            continue
        name = variable.removeprefix("GEOSEG_").lower()
        if name not in _READERS:
            raise UsageError(f"the variable {variable} sets nothing{nearest(name, _READERS)}")
        if name in own:
            merged[name] = read_setting(name, text, f"the variable {variable}")
    if file is not None:
        for name, value in read_yaml(file).items():
            if name not in own:
                raise UsageError(f"{file}: there is no setting {name!r}{nearest(name, own)}")
            read[name] = read_setting(name, value, f"{file}: {name}")
    for level in (read, {name: value for name, value in given.items() if value is not None}):
        if "simplify" in level:  # pixels that are said win over metres that were said before
            merged.pop("simplify_m", None)
        merged |= level
    return kind(**merged)


def read_yaml(file: str | Path) -> dict[str, Any]:
    """A YAML mapping; raises UsageError with the line where it is not one. No tag of it can build an object."""
    try:
        data = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{file} holds a {type(data).__name__}; it needs lines of the form name: value")
    return {str(name): value for name, value in data.items()}


def nearest(name: str, names: Mapping[str, Any]) -> str:
    """`; did you mean ...?`, or nothing where no name is near.

    >>> nearest("overlp", {"overlap": 1})
    '; did you mean overlap?'
    """
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(names))}"


def read_setting(name: str, value: Any, where: str) -> Any:
    """A setting from a text, or from what YAML makes of one; raises UsageError that begins with `where`."""
    if value is None:
        return None
    reader, wanted = _READERS[name]
    try:
        return reader(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise UsageError(f"{where} is {value!r}; it takes {wanted}") from error


def _text(value: Any) -> str:
    if isinstance(value, (dict, list, bool)):
        raise TypeError
    return str(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or float(value) != int(value):
        raise TypeError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _yes_no(value: Any) -> bool:
    text = str(value).lower()
    if text not in {"true", "false", "yes", "no", "on", "off", "1", "0"}:
        raise ValueError
    return text in {"true", "yes", "on", "1"}


def _names(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(_text(part).strip() for part in parts))


def _bands(value: Any) -> str:
    if isinstance(value, dict):  # in YAML a mapping reads better: bands: {red: 3, nir: 4}
        return ",".join(f"{role}={band}" for role, band in value.items())
    return _text(value)


def _limit(value: Any) -> Limit:
    """A number, or class=number pairs: a text, or in YAML a mapping."""
    if isinstance(value, str) and "=" in value:
        value = dict(part.split("=") for part in value.split(","))
    if isinstance(value, dict):
        return {_text(name).strip(): _number(number) for name, number in value.items()}
    return _number(value)


_LIMIT = "a number, or class=number pairs, as building=30,water=100"
_KINDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "str": (_text, "a text"),
    "int": (_whole, "a whole number"),
    "float": (_number, "a number"),
    "bool": (_yes_no, "true or false"),
    "tuple[str, ...]": (_names, "names, separated by commas"),
}
_READERS = {
    field.name: _KINDS[str(field.type).removesuffix(" | None")]
    for field in fields(ChangeSettings)
    if field.type != "Limit"
} | {
    "bands": (_bands, "role=number pairs, as red=3,green=2"),
    "min_area": (_limit, _LIMIT),
    "min_hole": (_limit, _LIMIT),
}
