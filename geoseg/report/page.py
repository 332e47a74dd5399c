"""A run on one page: self-contained HTML that opens offline, on a phone and on paper."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from geoseg.report.charts import confidence_histogram
from geoseg.report.markup import Markup, data_uri, joined, tag
from geoseg.report.pictures import foreground_picture
from geoseg.report.sheet import is_width, length_text, scale_bar_m
from geoseg.report.style import SCRIPT, STYLE
from geoseg.report.tables import (
    class_table,
    facts,
    failed_table,
    feature_table,
    model_part,
    output_table,
    scene_facts,
    swatch,
    tile_facts,
    time_table,
)
from geoseg.report.wording import NONE, area, duration, percent, value_of, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image

    from geoseg.report.numbers import SceneNumbers


@dataclass(frozen=True)
class RunReport:
    """All that the page of a run tells.

    The mappings hold what a run records, under the keys of `run.json`: known keys get words of their own, all others
    are shown as they are; a unit at the end of a key (`_m`, `_m2`, `_bytes`, `_mb`, `_deg`) is understood.
    """

    title: str
    scene: Mapping[str, Any]
    """`path`, `shape` (height, width), `crs`, `gsd_m` (along a column, along a row), `bands`, `dtype`, `nodata`, ..."""
    model: Mapping[str, Any]
    """`name`, `sha256`, `architecture`, `licence`, `gsd_m` (finest, coarsest), `description`, `scores`, `card`, ..."""
    numbers: SceneNumbers
    feature_counts: Mapping[str, Mapping[str, Any]]
    """By layer: `count`, `area_m2`, `median_area_m2`, ..."""
    tiles: Mapping[str, Any]
    """`planned`, `forwarded`, `skipped_nodata`, `failed`, ..."""
    seconds: Mapping[str, float]
    """`total` and the parts of it."""
    settings: Mapping[str, Any]
    notices: Sequence[str] = ()
    """What the user should know before trusting the result: sentences."""
    failed_tiles: Sequence[Mapping[str, Any]] = ()
    """`window` (a Box, or row, col, height, width) and `cause` of each tile that failed; not empty: a partial run."""
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    """`scene`, `classes`, `confidence`; `overlay` is shown where scene or classes are missing."""
    outputs: Sequence[tuple[str, int, str]] = ()
    """Path relative to the page, bytes, what it is."""
    ground_width_m: float | None = None
    """Width of the scene on the ground, for the scale bar."""


def render_report(data: RunReport) -> str:
    """The page as one HTML document: style, script and pictures lie inside it, only links to outputs lead out."""
    sections = {
        "map": ("Map", _map(data)),
        "classes": ("Classes", _classes(data)),
        "confidence": ("Confidence", _confidence(data)),
        "run": ("Run", _run(data)),
        "scene": ("Scene", scene_facts(data.scene)),
        "model": ("Model", model_part(data.model)),
        "settings": ("Settings", facts(data.settings)),
        "outputs": ("Outputs", output_table(data.outputs)),
    }
    first = joined([_alert(data), notices_of(data.notices), _key_figures(data)])
    return page_of(
        head_of(data.title, "segmentation report"), ("Segmentation report", data.title, _lead(data)), first, sections
    )


def page_of(
    head: Markup, top: tuple[str, str, Sequence[str]], first: Markup, sections: Mapping[str, tuple[str, Markup]]
) -> str:
    """A page: what it is, its title and a line below; then `first`; then sections (name -> heading, content)."""
    present = {name: part for name, part in sections.items() if part[1]}
    body = [
        tag("section", tag("h2", heading, id=f"{name}-heading"), content, id=name, aria_labelledby=f"{name}-heading")
        for name, (heading, content) in present.items()
    ]
    links = [tag("li", tag("a", heading, href=f"#{name}")) for name, (heading, _) in present.items()]
    nav = tag("nav", tag("ul", joined(links)), aria_label="Sections")
    main = tag("main", first, joined(body))
    footer = tag("footer", tag("p", "Made by geoseg. The page holds all it shows and loads nothing from elsewhere."))
    page = tag(
        "html",
        head,
        tag("body", _header(top, nav), main, footer, tag("script", Markup(SCRIPT))),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def head_of(title: str, kind: str) -> Markup:
    """The head of a page, whose policy allows its own style, script and pictures, and nothing else."""
    script_hash = b64encode(sha256(SCRIPT.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script_hash}'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} \u2013 {kind}"),
        tag("style", Markup(STYLE)),
    )


def _lead(data: RunReport) -> list[str]:
    scene = data.scene
    words = [f"{value_of('shape', scene['shape'])} pixels"] if scene.get("shape") else []
    if scene.get("gsd_m"):
        words.append(f"{value_of('gsd_m', scene['gsd_m'])} a pixel")
    if data.model.get("name"):
        words.append(f"model {data.model['name']}")
    return words


def _header(top: tuple[str, str, Sequence[str]], nav: Markup) -> Markup:
    kind, title, words = top
    lead = tag("p", joined([tag("span", word) for word in words if word]), class_="lead")
    return tag("header", tag("p", kind, class_="eyebrow"), tag("h1", title), lead, nav)


def _alert(data: RunReport) -> Markup:
    count = len(data.failed_tiles)
    if not count:
        return Markup()
    planned = data.tiles.get("planned")
    of_all = f"of {whole(planned)} " if isinstance(planned, int) and planned >= count else ""
    tiles = "tile" if (planned if of_all else count) == 1 else "tiles"
    return tag(
        "section",
        tag("h2", f"Partial result: {whole(count)} {of_all}{tiles} could not be read", id="alert-heading"),
        tag("p", "What they cover is nodata in all outputs. Once the file is mended, segment it again."),
        failed_table(data.failed_tiles),
        class_="alert",
        aria_labelledby="alert-heading",
    )


def notices_of(notices: Sequence[str]) -> Markup:
    """What the user should know, as a part of the page; nothing for none."""
    if not notices:
        return Markup()
    listed = tag("ul", joined([tag("li", notice) for notice in notices]))
    return tag(
        "section", tag("h2", "To note", id="notes-heading"), listed, class_="notes", aria_labelledby="notes-heading"
    )


def _key_figures(data: RunReport) -> Markup:
    numbers = data.numbers
    every = numbers.valid_pixels + numbers.nodata_pixels
    covered = f"{percent(numbers.valid_pixels / every)} of the scene" if every else ""
    mapped = area(numbers.area_m2) if numbers.area_m2 is not None else f"{whole(numbers.valid_pixels)} px"
    named = {entry.name for entry in numbers.classes}
    polygons = [int(row["count"]) for name, row in data.feature_counts.items() if name in named and "count" in row]
    layers = f"in {len(polygons)} {'layer' if len(polygons) == 1 else 'layers'}"
    forwarded = data.tiles.get("forwarded")
    tiles = f"{whole(forwarded)} tiles" if isinstance(forwarded, int) else ""
    figures = [
        ("Mapped", mapped, covered),
        ("Polygons", whole(sum(polygons)) if polygons else NONE, layers if polygons else "not vectorized"),
        ("Mean confidence", percent(numbers.mean_confidence), "over all mapped pixels"),
        ("Time", duration(data.seconds.get("total")), tiles),
    ]
    items = [tag("div", tag("dt", name), tag("dd", value, tag("small", note))) for name, value, note in figures]
    heading = tag("h2", "At a glance", id="key-heading", hidden=True)
    return tag("section", heading, tag("dl", joined(items), class_="key"), class_="bare", aria_labelledby="key-heading")


def _map(data: RunReport) -> Markup:
    scene, classes = data.pictures.get("scene"), data.pictures.get("classes")
    if scene is None or classes is None:
        shown = data.pictures.get("overlay") or scene or classes
        if shown is None:
            return Markup()
        layers = [tag("img", src=data_uri(shown), alt=f"Picture of {data.title}")]
    else:
        background = {entry.rgb for entry in data.numbers.classes if entry.kind == "background"}
        layers = [
            tag("img", src=data_uri(scene), alt=f"Imagery of {data.title}"),
            tag("img", src=data_uri(foreground_picture(classes, background)), alt=f"Classes found: {_shares(data)}"),
        ]
        shown = scene
    plate = plate_of(tag("div", joined(layers), class_="stack"), shown, data.ground_width_m)
    margin = tag("div", _slider() if len(layers) > 1 else Markup(), _legend(data), class_="margin")
    return tag("figure", plate, margin, class_="map")


def plate_of(stack: Markup, shown: Image.Image, ground_width_m: float | None) -> Markup:
    """Pictures on top of each other in the proportions of one of them, with a scale bar if their width is known."""
    parts = [stack]
    if is_width(ground_width_m):
        parts.append(_scale(ground_width_m))
    return tag("div", joined(parts), class_="plate", style=f"--ratio:{shown.width / shown.height:.4f}")


def _scale(width_m: float) -> Markup:
    bar_m = scale_bar_m(width_m)
    return tag("div", length_text(bar_m), tag("i", style=f"width:{bar_m / width_m * 100:.3f}%"), class_="scale")


def _slider() -> Markup:
    shown = tag("output", "55\u202f%", for_="opacity")
    control = tag("input", id="opacity", type="range", min="0", max="100", value="55")
    return tag(
        "div", tag("label", "Classes over imagery", shown, for_="opacity"), control, class_="slider", hidden=True
    )


def _legend(data: RunReport) -> Markup:
    items = [
        tag("li", swatch(entry.color), entry.name, tag("b", percent(entry.share))) for entry in data.numbers.classes
    ]
    return tag("ul", joined(items), class_="legend", aria_label="Legend, with the share of each class")


def _shares(data: RunReport) -> str:
    return ", ".join(f"{entry.name} {percent(entry.share)}" for entry in data.numbers.classes if entry.pixels) or "none"


def _classes(data: RunReport) -> Markup:
    return joined([class_table(data.numbers, data.feature_counts), feature_table(data.feature_counts)])


def _confidence(data: RunReport) -> Markup:
    mean = percent(data.numbers.mean_confidence)
    words = "It is the probability that the model gave to the class it chose, not a measured accuracy."
    chart = tag(
        "figure",
        confidence_histogram(data.numbers.confidence_histogram),
        tag("figcaption", f"Mapped pixels by confidence, coloured as in the picture; the mean is {mean}. {words}"),
    )
    picture = data.pictures.get("confidence")
    if picture is None:
        return chart
    image = tag("img", src=data_uri(picture), alt=f"Map of confidence; the mean is {mean}")
    return tag("div", tag("figure", tag("div", image, class_="stack")), chart, class_="pair")


def _run(data: RunReport) -> Markup:
    left = joined([tag("h3", "Time"), time_table(data.seconds)]) if data.seconds else Markup()
    right = joined([tag("h3", "Tiles"), tile_facts(data.tiles)]) if data.tiles else Markup()
    return tag("div", tag("div", left), tag("div", right), class_="pair") if left or right else Markup()
