"""What determines the blocks of a run: told apart by a hash, and said in words where two runs differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGES = ("frame", "legend", "scene", "grid", "model", "blend", "labels", "segment")
"""Modules, or folders of modules, whose code decides which bytes a block of a segmentation has."""
CHANGE_STAGES = ("frame", "legend", "scene", "change")
"""The same of a block of a comparison."""
_LIBRARIES = ("torch", "openvino", "onnxruntime", "numpy", "rasterio", "segmentation-models-pytorch", "timm")
_MISSING = object()
_LONGEST = 24
_KEPT = 10


@cache
def code_sha256(stages: tuple[str, ...] = STAGES) -> str:
    """The SHA-256 of the code that determines the bytes of blocks, and of the versions of the libraries it calls."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for source in _sources(package, stages):
        content = source.read_bytes()
        digest.update(f"{source.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    for library in _LIBRARIES:
        digest.update(f"{library} {_version(library)}\n".encode())
    return digest.hexdigest()


def canonical(value: Any) -> str:
    """The one text of a JSON value, whatever the order of its keys; NaN and infinity stay apart from null."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def key_id(key: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that tell a key from all others."""
    return hashlib.sha256(canonical(dict(key)).encode()).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Every name whose value differs, one level into mappings, with both values: `grid.block 1024, now 2048`."""
    return [
        f"{name}.{inner} {values}" if inner else f"{name} {values}" for name, inner, values in _changes(before, now)
    ]


def differences_in_words(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The same as a part of a sentence: `grid (block 1024, now 2048) and scene (a.tif, now b.tif)`."""
    grouped: dict[str, list[str]] = {}
    for name, inner, values in _changes(before, now):
        grouped.setdefault(name, []).append(f"{inner} {values}".lstrip())
    *most, last = [f"{name} ({'; '.join(values)})" for name, values in grouped.items()] or ["nothing"]
    return f"{', '.join(most)} and {last}" if most else last


def _sources(package: Path, stages: tuple[str, ...]) -> list[Path]:
    """The modules of all stages, sorted; FileNotFoundError where a stage has none, for that code would be missed."""
    found: list[Path] = []
    for stage in stages:
        here = [*package.glob(f"{stage}.py"), *package.glob(f"{stage}/**/*.py")]
        if not here:
            raise FileNotFoundError(f"{package} has no source of geoseg.{stage}; install geoseg with its sources")
        found += here
    return sorted(found)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, name within it or nothing, and both values, of all that differs; in the order of `now`."""
    for name, was, is_ in _pairs(before, now):
        if isinstance(was, Mapping) and isinstance(is_, Mapping):
            yield from ((name, inner, _values(*values)) for inner, *values in _pairs(was, is_))
        else:
            yield name, "", _values(was, is_)


def _pairs(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in (*now, *(name for name in before if name not in now)):
        was, is_ = before.get(name, _MISSING), now.get(name, _MISSING)
        if was is _MISSING or is_ is _MISSING or canonical(was) != canonical(is_):
            yield name, was, is_


def _values(was: Any, is_: Any) -> str:
    texts = [_text(was), _text(is_)]
    short = [_shortened(text) for text in texts]
    # Two long values that differ in the middle alone would read alike.
    return "{}, now {}".format(*(short if short[0] != short[1] else texts))


def _text(value: Any) -> str:
    if value is _MISSING or value is None:
        return "absent" if value is _MISSING else "none"
    return value if isinstance(value, str) else json.dumps(value)


def _shortened(text: str) -> str:
    """Both ends of a long text: a hash is known by its start, a path by its end."""
    return text if len(text) <= _LONGEST else f"{text[:_KEPT]}…{text[-_KEPT:]}"
