"""The tables and lists of facts of a page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pyproj.exceptions import CRSError

from geoseg.frame import Box, parse_crs
from geoseg.report.charts import bar
from geoseg.report.markup import Markup, joined, tag
from geoseg.report.wording import NONE, area, duration, figures, file_size, label_of, percent, value_of, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from geoseg.report.numbers import ClassNumbers, SceneNumbers

_FAILED_SHOWN = 20
"""Rows of failed tiles on the page; all are in run.json."""

_FAILED_OPEN = 5
"""More of them are folded up, so that the result stays in sight."""

_WHERE = re.compile(r".*, rows \d+\.\.\d+, columns \d+\.\.\d+: ")
"""How an error about a window of a file begins; the window has a column of its own."""

_MODEL_ELSEWHERE = {"scores", "card", "description", "gsd_m", "legend"}
"""Keys of a model that are told in other words, or by the table of classes."""

Row = tuple[Markup, ...]


def table(caption: str, heads: Sequence[Markup], rows: Sequence[Row], class_: str | None = None) -> Markup:
    """A table whose first column heads its rows, scrolling by itself where it is too wide for the page."""
    head = tag("thead", tag("tr", joined(list(heads))))
    body = tag("tbody", joined([tag("tr", joined(list(row))) for row in rows]))
    return tag("div", tag("table", tag("caption", caption), head, body, class_=class_), class_="scroll")


def heads(*names: str, numeric_from: int = 1) -> list[Markup]:
    """The cells of a table's head; from `numeric_from` on they stand at the right, over numbers."""
    return [
        tag("th", name, scope="col", class_="num" if at >= numeric_from and name else None)
        for at, name in enumerate(names)
    ]


def number_cell(text: str) -> Markup:
    """A cell with a number."""
    return tag("td", text, class_="num")


def row_head(*content: str) -> Markup:
    """The cell that heads a row."""
    return tag("th", *content, scope="row")


def swatch(color: str) -> Markup:
    """A small square of a class's colour."""
    return tag("span", class_="swatch", style=f"background:{color}")


def facts(items: Mapping[str, Any]) -> Markup:
    """Keys and values, whatever they are; nothing for none."""
    rows = [tag("div", tag("dt", label_of(key)), tag("dd", value_of(key, value))) for key, value in items.items()]
    return tag("dl", joined(rows), class_="facts") if rows else Markup()


def class_table(numbers: SceneNumbers, feature_counts: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Area, share, confidence and polygons of each class."""
    with_area = numbers.area_m2 is not None
    rows = [_class_row(entry, feature_counts.get(entry.name, {}), with_area=with_area) for entry in numbers.classes]
    nodata = number_cell(f"{whole(numbers.nodata_pixels)} px")
    rows.append((row_head("nodata"), nodata, *(tag("td") for _ in range(4))))
    top = heads("Class", "Area" if with_area else "Pixels", "Share", "", "Confidence", "Polygons")
    top[3] = tag("td", class_="bars")
    caption = "Shares are of all mapped pixels; confidence is the mean over the pixels of a class."
    return table(caption, top, rows, "classes")


def _class_row(entry: ClassNumbers, features: Mapping[str, Any], *, with_area: bool) -> Row:
    return (
        row_head(swatch(entry.color), entry.name),
        number_cell(area(entry.area_m2) if with_area else whole(entry.pixels)),
        number_cell(percent(entry.share)),
        tag("td", bar(entry.share, entry.color), class_="bars"),
        number_cell(percent(entry.mean_confidence)),
        number_cell(whole(features["count"]) if "count" in features else NONE),
    )


def feature_table(feature_counts: Mapping[str, Mapping[str, Any]]) -> Markup:
    """What is known of the features of each layer: a column for every key that a layer has."""
    keys = list(dict.fromkeys(key for row in feature_counts.values() for key in row))
    if not keys:
        return Markup()
    rows = [
        (row_head(name), *(number_cell(value_of(key, row.get(key))) for key in keys))
        for name, row in feature_counts.items()
    ]
    return joined(
        [tag("h3", "Features"), table("The layers of the vector file.", heads("Layer", *map(label_of, keys)), rows)]
    )


def scene_facts(scene: Mapping[str, Any]) -> Markup:
    """What the scene is; a CRS in WKT by its name."""
    return facts({key: _crs_name(value) if key == "crs" else value for key, value in scene.items()})


def _crs_name(value: object) -> object:
    if not isinstance(value, str) or "[" not in value:
        return value
    try:
        crs = parse_crs(value)
    except CRSError:  # shown as it stands
        return value
    code = crs.to_epsg()
    return f"{crs.name} (EPSG:{code})" if code else crs.name


def tile_facts(tiles: Mapping[str, Any]) -> Markup:
    """How many tiles; of those listed one by one, their number."""
    counted = {key: len(value) if isinstance(value, list | tuple) else value for key, value in tiles.items()}
    return facts(counted)


def time_table(seconds: Mapping[str, float]) -> Markup:
    """The parts of a run's time, each as a bar against the longest, and the total."""
    parts = {key: value for key, value in seconds.items() if key != "total"}
    longest = max(parts.values(), default=0.0) or 1.0
    rows = [
        (row_head(label_of(key)), number_cell(duration(value)), tag("td", bar(value / longest), class_="bars"))
        for key, value in parts.items()
    ]
    total = seconds.get("total")
    if total is not None:
        rows.append((row_head("Total"), number_cell(duration(total)), tag("td")))
    return table("The parts are summed over all workers; the total is by the clock.", heads("Part", "Time", ""), rows)


def failed_table(failed: Sequence[Mapping[str, Any]]) -> Markup:
    """Where tiles failed, and why: the first ones, and how many more there are; folded up where it is long."""
    if not failed:
        return Markup()
    rows = [
        (*_window_cells(tile.get("window")), tag("td", _cause(tile.get("cause")), class_="any"))
        for tile in failed[:_FAILED_SHOWN]
    ]
    more = len(failed) - len(rows)
    rest = tag("p", f"And {whole(more)} more; all are listed in run.json.") if more else Markup()
    listed = table("In pixels of the scene, counted from 0.", heads("Rows", "Columns", "Cause", numeric_from=3), rows)
    summary = tag("summary", "Which, and why", style="margin:.5rem 0 .25rem;cursor:pointer")
    return tag("details", summary, listed, rest, open=len(failed) <= _FAILED_OPEN)


def _cause(cause: object) -> str:
    return _WHERE.sub("", cause, count=1) if isinstance(cause, str) else value_of("", cause)


def _window_cells(window: object) -> tuple[Markup, Markup]:
    """The cells of a window's rows and columns; of anything else, what it is."""
    if isinstance(window, dict) and {"row", "col", "height", "width"} <= set(window):
        window = Box(window["row"], window["col"], window["height"], window["width"])
    if not isinstance(window, Box):
        return row_head(value_of("", window)), tag("td", NONE)
    rows, columns = (
        f"{first}\u2060\u2013\u2060{end - 1}"
        for first, end in ((window.row, window.bottom), (window.col, window.right))
    )
    return row_head(rows), tag("td", columns)


def output_table(outputs: Sequence[tuple[str, int, str]]) -> Markup:
    """The files beside the page."""
    if not outputs:
        return Markup()
    rows = [
        (
            row_head(tag("a", path, href=quote(path, safe="/"))),
            tag("td", what),
            number_cell(file_size(size) if size else NONE),
        )
        for path, size, what in outputs
    ]
    return table("Links open where this page lies beside them.", heads("File", "What", "Size", numeric_from=2), rows)


def model_part(model: Mapping[str, Any]) -> Markup:
    """The model's card: what it is, how well it did where it was checked, what it is known to do badly."""
    if not model:
        return Markup()
    card = dict(model.get("card") or {})
    weaknesses = {key: card.pop(key) for key in list(card) if "weakness" in key or "limitation" in key}
    first = {key: value for key, value in model.items() if key not in _MODEL_ELSEWHERE}
    if isinstance(model.get("bands"), list):
        first["bands"] = [_band_words(band) for band in model["bands"]]
    if model.get("gsd_m"):
        finest, coarsest = model["gsd_m"]
        first["trained_for_gsd"] = f"{figures(finest)} to {figures(coarsest)} m"
    parts = [tag("p", str(model["description"]))] if model.get("description") else []
    parts.append(facts({**first, **card}))
    for value in weaknesses.values():
        sentences = [value] if isinstance(value, str) else list(value)
        listed = tag("ul", joined([tag("li", value_of("", sentence)) for sentence in sentences]))
        parts.append(tag("div", tag("h3", "Known weaknesses"), listed, class_="weak"))
    parts.append(_scores(model.get("scores") or {}))
    return joined(parts)


def _band_words(band: object) -> object:
    if not isinstance(band, dict) or "role" not in band:
        return band
    return f"{band['role']} (optional)" if band.get("optional") else band["role"]


def _scores(scores: Mapping[str, Any]) -> Markup:
    """Numbers as a list; numbers by class as a table, a column a measure."""
    plain = {key: value for key, value in scores.items() if not isinstance(value, dict)}
    by_class = {key: value for key, value in scores.items() if isinstance(value, dict)}
    deeper = {key: value for key, value in by_class.items() if any(isinstance(part, dict) for part in value.values())}
    flat = {key: value for key, value in by_class.items() if key not in deeper}
    parts = [tag("h3", "Scores")] if scores else []
    parts.append(facts(plain))
    if flat:
        columns = list(dict.fromkeys(name for row in flat.values() for name in row))
        rows = [
            (row_head(label_of(key)), *(number_cell(value_of("", row.get(name))) for name in columns))
            for key, row in flat.items()
        ]
        parts.append(table("As the model states them.", heads("", *columns), rows, "close"))
    for key, value in deeper.items():
        parts.append(joined([tag("h3", label_of(key)), _scores(value)]))
    return joined(parts)
