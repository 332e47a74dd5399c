"""From a YAML mapping to a frozen dataclass; a key that nothing reads is refused, with the nearest one named."""

from __future__ import annotations

import difflib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from geoseg.errors import UsageError

T = TypeVar("T")


def build(cls: type[T], data: Any, where: str) -> T:
    """An instance of a dataclass from parsed YAML; `where` names it in messages. Raises UsageError."""
    given = mapping(data, where)
    refuse_unknown(cls, given, where)
    return construct(cls, convert(cls, given, where), where)


def construct(cls: type[T], values: dict[str, Any], where: str) -> T:
    """The same from values that are of the right kinds; raises UsageError where one is missing."""
    missing = [
        f.name
        for f in fields(cls)  # type: ignore[arg-type]
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise UsageError(f"{where}: the key {missing[0]!r} is missing")
    return cls(**values)


def mapping(data: Any, where: str) -> dict[str, Any]:
    """`data`, which must be a mapping; raises UsageError."""
    if not isinstance(data, dict):
        raise UsageError(f"{where} must be a mapping of keys to values; found {type(data).__name__}")
    return data


def refuse_unknown(cls: type, given: dict[str, Any], where: str, hidden: tuple[str, ...] = ()) -> None:
    """Raise UsageError, naming the nearest, where a key is no field, or one of `hidden`."""
    names = [f.name for f in fields(cls) if f.name not in hidden]
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)
            raise UsageError(f"{where}: there is no key {key!r}; did you mean {near[0]!r}?")


def convert(cls: type, given: dict[str, Any], where: str) -> dict[str, Any]:
    """Values in the kinds that the fields are annotated with."""
    kinds = {f.name: str(f.type) for f in fields(cls)}
    try:
        return {key: _as_kind(value, kinds[key]) for key, value in given.items()}
    except _WrongKindError as error:
        key = next(k for k, v in given.items() if not _fits(v, kinds[k]))
        raise UsageError(f"{where}: {key} is {given[key]!r}; it takes {_words(kinds[key])}") from error


class _WrongKindError(Exception):
    """A value is not of the kind that its key takes."""


_WORDS = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "float | None": "a number", "str": "text",
    "str | Path": "text",
    "tuple[float, float]": "two numbers", "tuple[float, float] | None": "two numbers",
    "tuple[str, ...]": "a list of names", "tuple[tuple[str, ...], ...]": "a list of lists of names",
    "tuple[float, ...]": "a list of numbers",
    "dict[int, int]": "a mapping of whole numbers", "dict[str, int]": "a mapping of roles to band numbers",
    "dict[str, Any]": "a mapping",
}  # fmt: skip


def _words(kind: str) -> str:
    return _WORDS.get(kind, kind)


def _fits(value: Any, kind: str) -> bool:
    try:
        _as_kind(value, kind)
    except _WrongKindError:
        return False
    return True


def _as_kind(value: Any, kind: str) -> Any:  # noqa: PLR0911  # one answer a kind
    if value is None and kind.endswith("| None"):
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = number and isinstance(value, int)
    if kind == "int" and whole:
        return value
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind in {"float", "float | None"} and number:
        return float(value)
    if kind in {"str", "str | None", "Path | None", "str | Path"} and isinstance(value, str | Path):
        return value
    if kind.startswith("tuple[float, float]") and isinstance(value, list) and len(value) == 2:
        return tuple(_as_kind(item, "float") for item in value)
    if kind.startswith("tuple[") and kind.endswith(", ...]") and isinstance(value, list):
        return tuple(_as_kind(item, kind.removeprefix("tuple[").removesuffix(", ...]")) for item in value)
    if kind.startswith("dict[") and isinstance(value, dict):
        key_kind, value_kind = kind.removeprefix("dict[").removesuffix("]").split(", ")
        if value_kind == "Any":
            return value
        return {_as_kind(k, key_kind): _as_kind(v, value_kind) for k, v in value.items()}
    raise _WrongKindError
