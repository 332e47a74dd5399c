"""Numbers as one reads them: areas, lengths, durations, file sizes."""

from __future__ import annotations

from math import floor, isfinite, log10
from typing import Any

THIN = "\u202f"
"""A narrow space that does not break, between thousands and before units."""
TIMES = " \u00d7 "
"""Between height and width."""
NONE = "\u2013"
"""Stands where there is no number."""

_HECTARE_M2 = 1e4
_SQUARE_KILOMETRE_M2 = 1e6
_UNITS = ("_m2", "_m", "_deg", "_bytes", "_mb", "_seconds")
_WORDS = {
    "bytes": "File size",
    "shape": "Height, width",
    "crs": "CRS",
    "gsd": "GSD",
    "sha256": "SHA-256",
    "dtype": "Data type",
    "peak rss": "Peak memory",
    "iou": "IoU",
    "aoi": "AOI",
    "trained for gsd": "Trained for GSD",
}


def whole(number: float) -> str:
    """A count, thousands apart.

    >>> whole(1234567).replace(THIN, " ")
    '1 234 567'
    """
    return f"{round(number):,}".replace(",", THIN)


def figures(number: float, digits: int = 3) -> str:
    """A number to so many significant digits, never in powers of ten where it is whole.

    >>> [figures(x).replace(THIN, " ") for x in (0.6000001, 12.345, 1235.0, 0, 0.00012)]
    ['0.6', '12.3', '1 235', '0', '0.00012']
    """
    if not isfinite(number):
        return NONE
    if number == 0:
        return "0"
    decimals = max(0, digits - 1 - floor(log10(abs(number))))
    text = f"{number:,.{decimals}f}".replace(",", THIN)
    return text.rstrip("0").rstrip(".") if "." in text else text


def area(area_m2: float | None) -> str:
    """An area in the unit that keeps it short.

    >>> [area(x).replace(THIN, " ") for x in (84.21, 23400, 4.2e6)]
    ['84.2 m²', '2.34 ha', '4.2 km²']
    """
    if area_m2 is None or not isfinite(area_m2):
        return NONE
    if area_m2 >= _SQUARE_KILOMETRE_M2:
        return f"{figures(area_m2 / _SQUARE_KILOMETRE_M2)}{THIN}km²"
    if area_m2 >= _HECTARE_M2:
        return f"{figures(area_m2 / _HECTARE_M2)}{THIN}ha"
    return f"{figures(area_m2)}{THIN}m²"


def length(length_m: float | None) -> str:
    """A length in metres or kilometres.

    >>> [length(x).replace(THIN, " ") for x in (0.6, 84.2, 12345)]
    ['0.6 m', '84.2 m', '12.3 km']
    """
    if length_m is None or not isfinite(length_m):
        return NONE
    return f"{figures(length_m / 1000)}{THIN}km" if abs(length_m) >= 1000 else f"{figures(length_m)}{THIN}m"


def percent(share: float | None) -> str:
    """A share 0..1 in percent; small ones are not rounded to nothing.

    >>> [percent(x).replace(THIN, " ") for x in (0.4213, 1.0, 0.0004, 0.0)]
    ['42.1 %', '100 %', '< 0.1 %', '0 %']
    """
    if share is None or not isfinite(share):
        return NONE
    if 0 < share < 0.001:
        return f"<{THIN}0.1{THIN}%"
    return f"{share * 100:.1f}".removesuffix(".0") + f"{THIN}%"


def duration(seconds: float | None) -> str:
    """A time span.

    >>> [duration(x).replace(THIN, " ") for x in (0.42, 12.3, 200, 3900)]
    ['0.42 s', '12.3 s', '3 min 20 s', '1 h 5 min']
    """
    if seconds is None or not isfinite(seconds):
        return NONE
    if seconds < 60:
        return f"{figures(seconds, 3 if seconds >= 10 else 2)}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest}{THIN}s"
    return f"{minutes // 60}{THIN}h {minutes % 60}{THIN}min"


def file_size(size_bytes: float) -> str:
    """A file size in decimal units.

    >>> [file_size(x).replace(THIN, " ") for x in (12, 4200, 4_200_000, 5e9)]
    ['12 bytes', '4.2 kB', '4.2 MB', '5 GB']
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= unit:
            return f"{figures(size_bytes / unit)}{THIN}{name}"
    return f"{round(size_bytes)}{THIN}bytes"


def label_of(key: str) -> str:
    """A key as a heading: without the unit that its end names.

    >>> label_of("gsd_m"), label_of("skipped_nodata"), label_of("median_area_m2"), label_of("crs")
    ('GSD', 'Skipped nodata', 'Median area', 'CRS')
    """
    stem = next((key.removesuffix(end) for end in _UNITS if key.endswith(end) and key != end), key)
    words = stem.replace("_", " ").strip()
    return _WORDS.get(words, words[:1].upper() + words[1:])


def value_of(key: str, value: Any) -> str:  # whatever a run records
    """A recorded value as text, in the unit that the end of its key names.

    >>> value_of("area_m2", 8.4).replace(THIN, " "), value_of("bands", {"red": 1, "nir": 4})
    ('8.4 m²', 'red 1, nir 4')
    """
    if value is None or value in ("", (), [], {}):
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {value_of(str(name), part)}" for name, part in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return _several(key, list(value))
    if isinstance(value, int | float):
        return _measure(key, value)
    return str(value)


def _several(key: str, values: list[Any]) -> str:
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if plain and len(values) == 2 and (key.endswith("_m") or key in {"shape", "blocks", "scene_tile"}):
        sides = [figures(value) if key.endswith("_m") else whole(value) for value in values]
        if key.endswith("_m"):
            return f"{TIMES.join(dict.fromkeys(sides))}{THIN}m"
        return TIMES.join(sides)
    return ", ".join(value_of("", value) for value in values)


def _measure(key: str, value: float) -> str:
    if not isfinite(value):
        return "not a number" if key == "nodata" else NONE
    for end, written in (("_m2", area), ("_m", length), ("bytes", file_size), ("seconds", duration)):
        if key.endswith(end):
            return written(value)
    for end, unit in (("_mb", f"{THIN}MB"), ("_deg", "°")):
        if key.endswith(end):
            return f"{figures(value)}{unit}"
    return whole(value) if isinstance(value, int) else figures(value)
