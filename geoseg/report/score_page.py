"""An evaluation on one page: scores, confusion matrix, calibration, and the windows that came out worst."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geoseg.report.charts import reliability_curve
from geoseg.report.markup import Markup, data_uri, joined, tag
from geoseg.report.page import head_of, page_of
from geoseg.report.tables import heads, number_cell, row_head, swatch, table
from geoseg.report.wording import NONE, area, percent, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image

    from geoseg.legend import Legend


@dataclass(frozen=True)
class WorstWindow:
    """A window of a place, how much of it is right, and pictures of it by what they show."""

    place: str
    where: str
    accuracy: float
    pictures: Mapping[str, Image.Image]


@dataclass(frozen=True)
class ScoreReport:
    """All that the page of an evaluation tells."""

    title: str
    legend: Legend
    scores: Mapping[str, Any]
    """As `score_places` gives them."""
    worst: Sequence[WorstWindow] = ()
    places: Sequence[tuple[str, str, str]] = field(default_factory=list)
    """Name, predicted and truth of each place."""


def render_scores(data: ScoreReport) -> str:
    """The page as one HTML document that needs nothing else."""
    scores = data.scores
    sections = {
        "classes": ("Classes", _classes(data)),
        "areas": ("Areas", _areas(scores.get("areas"))),
        "confusion": ("Confusion", _confusion(data)),
        "objects": ("Objects and outlines", _objects(scores)),
        "calibration": ("Confidence", _calibration(scores.get("calibration"))),
        "worst": ("Worst windows", _worst(data.worst)),
        "places": ("Places", _places(data)),
    }
    lead = [f"{len(data.places)} {'place' if len(data.places) == 1 else 'places'}"]
    return page_of(head_of(data.title, "evaluation"), ("Evaluation", data.title, lead), _key_figures(scores), sections)


def _key_figures(scores: Mapping[str, Any]) -> Markup:
    pixels = scores.get("pixels")
    if pixels is None:
        areas = scores["areas"]
        figures = [
            ("Overall accuracy", percent(areas["accuracy"]), f"± {percent(areas['accuracy_95'])}, 95 % interval"),
            ("Points", whole(areas["points"]), "where the truth is known"),
        ]
    else:
        spread = _spread(scores)
        error = (scores.get("calibration") or {}).get("expected_error")
        figures = [
            ("Mean IoU", _number(pixels["mean_iou"]), _interval(spread.get("mean")) or "over the classes there are"),
            ("Overall accuracy", percent(pixels["accuracy"]), "of pixels with a known truth"),
            ("Calibration error", _number(error), "of the confidence; 0 is perfect"),
            ("Pixels", whole(pixels["pixels"]), "with a known truth"),
        ]
    items = [tag("div", tag("dt", name), tag("dd", value, tag("small", note))) for name, value, note in figures]
    heading = tag("h2", "At a glance", id="key-heading", hidden=True)
    return tag("section", heading, tag("dl", joined(items), class_="key"), class_="bare", aria_labelledby="key-heading")


def _classes(data: ScoreReport) -> Markup:
    pixels = data.scores.get("pixels")
    if pixels is None:
        return Markup()
    spread = _spread(data.scores)
    rows = []
    for entry in data.legend.classes:
        row = pixels["classes"][entry.name]
        cells = [number_cell(_number(row[key])) for key in ("iou", "f1", "precision", "recall")]
        interval = [number_cell(_interval(spread.get(entry.name)) or NONE)] if spread else []
        rows.append(
            (row_head(swatch(entry.color), entry.name), *cells, *interval, number_cell(whole(row["pixels"])))
        )  # fmt: skip
    names = ["Class", "IoU", "F1", "Precision", "Recall", *(["IoU, 95 % of places"] if spread else []), "True pixels"]
    return table("Scores of each class", heads(*names), rows)


def _areas(areas: Mapping[str, Any] | None) -> Markup:
    if areas is None:
        return Markup()

    def told(value: float) -> str:
        return area(value) if areas["unit"] == "m2" else f"{whole(value)} px"

    rows = [
        (
            row_head(name),
            number_cell(told(row["mapped"])),
            number_cell(told(row["area"])),
            number_cell(f"± {told(row['area_95'])}"),
            number_cell(_with_error(row, "users_accuracy")),
            number_cell(_with_error(row, "producers_accuracy")),
        )
        for name, row in areas["classes"].items()
    ]
    names = ("Class", "Mapped", "Estimated", "95 %", "User's accuracy", "Producer's accuracy")
    return table("Areas of the truth, estimated from points (Olofsson et al. 2014)", heads(*names), rows)


def _confusion(data: ScoreReport) -> Markup:
    """Rows are the truth; a cell is as dark as its share of the row."""
    matrix = data.scores["confusion"]
    counts = matrix.get("pixels") or matrix["points"]
    names = matrix["classes"]
    columns = [*names, "nodata"][: len(counts[0])]
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        cells = []
        for value in row:
            share = value / total if total else 0.0
            ink = f"background:color-mix(in srgb, var(--ink) {round(share * 45)}%, transparent)"
            cells.append(tag("td", percent(share) if total else NONE, class_="num", style=ink, title=whole(value)))
        rows.append((row_head(name), *cells, number_cell(whole(total))))
    unit = "Pixels" if "pixels" in matrix else "Points"
    return table(
        "Of each true class (rows), what it was taken for (columns)", heads("Truth", *columns, unit), rows
    )  # fmt: skip


def _objects(scores: Mapping[str, Any]) -> Markup:
    rows = []
    for name, row in (scores.get("objects") or {}).items():
        rows.append((row_head(f"{name}, all"), *_object_cells(row)))
        for size in row.get("sizes", []):
            high = size["to_m2"]
            span = f"{size['from_m2']:g} m² and more" if high is None else f"{size['from_m2']:g} to {high:g} m²"
            rows.append((row_head(span), *_object_cells(size)))
    parts = []
    if rows:
        names = ("Objects", "True", "Predicted", "Precision", "Recall")
        parts.append(table("Objects matched one to one at an IoU of 0.5 or more", heads(*names), rows))
    outlines = [
        (row_head(name), *(number_cell(_number(row["f1"])) for row in found))
        for name, found in (scores.get("boundaries") or {}).items()
    ]
    if outlines:
        parts.append(table("F1 of outlines", heads("Class", "Within 1 px", "Within 3 px"), outlines, "close"))
    return joined(parts)


def _object_cells(row: Mapping[str, Any]) -> list[Markup]:
    counts = [number_cell(whole(row[key])) for key in ("objects", "predicted")]
    return [*counts, *(number_cell(_number(row[key])) for key in ("precision", "recall"))]


def _calibration(calibration: Mapping[str, Any] | None) -> Markup:
    if calibration is None:
        return Markup()
    words = (
        "Accuracy of the pixels of a confidence; on the diagonal it is as high as the confidence says, below it lower. "
        f"The expected calibration error is {_number(calibration['expected_error'])}."
    )
    return tag("figure", reliability_curve(calibration["bins"]), tag("figcaption", words))


def _worst(windows: Sequence[WorstWindow]) -> Markup:
    shown = []
    for window in windows:
        pictures = [
            tag(
                "figure",
                tag("div", tag("img", src=data_uri(picture), alt=f"{name} of {window.place}"), class_="stack"),
                tag("figcaption", name),
            )
            for name, picture in window.pictures.items()
        ]
        heading = tag("h3", f"{window.place}, {window.where}: {percent(window.accuracy)} right")
        shown.append(joined([heading, tag("div", joined(pictures), class_="row")]))
    return joined(shown)


def _places(data: ScoreReport) -> Markup:
    told = data.scores.get("places") or {}
    rows = []
    for name, predicted, truth in data.places:
        own = told.get(name, {})
        cells = [number_cell(_number(own.get("mean_iou"))), number_cell(percent(own.get("accuracy")))] if told else []
        rows.append((row_head(name), *cells, tag("td", predicted), tag("td", truth)))
    names = ["Place", *(["Mean IoU", "Accuracy"] if told else []), "Predicted", "Truth"]
    return table("What was compared", heads(*names, numeric_from=1 if told else 9), rows)


def _spread(scores: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (scores.get("intervals") or {}).get("iou_95", {})
    return found


def _with_error(row: Mapping[str, Any], key: str) -> str:
    return NONE if row[key] is None else f"{percent(row[key])} ± {percent(row[f'{key}_95'])}"


def _interval(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
