"""A comparison on one page: both dates under a divider that one can move, and what changed by how much."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geoseg.report.markup import Markup, data_uri, joined, tag
from geoseg.report.page import head_of, notices_of, page_of, plate_of
from geoseg.report.tables import (
    facts,
    failed_table,
    heads,
    number_cell,
    output_table,
    row_head,
    scene_facts,
    swatch,
    table,
    time_table,
)
from geoseg.report.wording import NONE, THIN, area, percent, value_of, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image

_TITLE = "Change report"


@dataclass(frozen=True)
class ChangeReport:
    """All that the page of a comparison tells; the mappings hold what run.json holds under the same keys."""

    title: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    frame: Mapping[str, Any]
    registration: Mapping[str, Any]
    method: Mapping[str, Any]
    numbers: Mapping[str, Any]
    """`valid`, `changed`, `changes`, and, where classes are known, `matrix` and `net`."""
    colors: Mapping[str, str]
    """Of each change by its name."""
    feature_counts: Mapping[str, Mapping[str, Any]]
    objects: Mapping[str, Mapping[str, int]]
    """Of each class of objects, how many have which status."""
    zones: Sequence[Mapping[str, Any]]
    """Of each zone its name, `valid_m2`, `changed_m2` and the m2 of each change."""
    seconds: Mapping[str, float]
    settings: Mapping[str, Any]
    notices: Sequence[str] = ()
    failed: Sequence[Mapping[str, Any]] = ()
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    """`before`, `after` and `change`, all of one size."""
    outputs: Sequence[tuple[str, int, str]] = ()
    ground_width_m: float | None = None


def render_change_report(data: ChangeReport) -> str:
    """The page as one HTML document that loads nothing from elsewhere."""
    sections = {
        "map": ("Before and after", _map(data)),
        "changes": ("Changes", _changes(data)),
        "classes": ("From class to class", _matrix(data)),
        "objects": ("Objects", _objects(data)),
        "zones": ("Zones", _zones(data)),
        "method": ("How it was compared", _method(data)),
        "dates": ("Dates", _dates(data)),
        "run": ("Run", time_table(data.seconds) if data.seconds else Markup()),
        "settings": ("Settings", facts(data.settings)),
        "outputs": ("Outputs", output_table(data.outputs)),
    }
    first = joined([_alert(data), notices_of(data.notices), _key_figures(data)])
    words = [f"{data.before['name']} to {data.after['name']}", f"{value_of('shape', data.frame['shape'])} pixels"]
    dates = [date for date in (data.before.get("date"), data.after.get("date")) if date]
    return page_of(
        head_of(data.title, "change report"), (_TITLE, data.title, [*words, " to ".join(dates)]), first, sections
    )


def _alert(data: ChangeReport) -> Markup:
    if not data.failed:
        return Markup()
    count = len(data.failed)
    return tag(
        "section",
        tag(
            "h2",
            f"Partial result: {whole(count)} {'part' if count == 1 else 'parts'} could not be read",
            id="alert-heading",
        ),
        tag("p", "What they cover is nodata in all outputs. Once the file is mended, compare again."),
        failed_table(data.failed),
        class_="alert",
        aria_labelledby="alert-heading",
    )


def _key_figures(data: ChangeReport) -> Markup:
    valid, changed = data.numbers["valid"], data.numbers["changed"]
    within = "" if changed["within_m2"] is None else f"\u00b1 {area(changed['within_m2'])}"
    polygons = sum(int(row["count"]) for row in data.feature_counts.values())
    kinds = len(data.feature_counts)
    figures = [
        ("Compared", _amount(valid), "covered by both dates"),
        ("Changed", percent(changed["share"]), "of what both dates cover"),
        ("Area of change", _amount(changed), within),
        (
            "Patches",
            whole(polygons) if data.feature_counts else NONE,
            f"of {kinds} {'kind' if kinds == 1 else 'kinds'}",
        ),
    ]
    items = [tag("div", tag("dt", name), tag("dd", value, tag("small", note))) for name, value, note in figures]
    heading = tag("h2", "At a glance", id="key-heading", hidden=True)
    return tag("section", heading, tag("dl", joined(items), class_="key"), class_="bare", aria_labelledby="key-heading")


def _amount(row: Mapping[str, Any]) -> str:
    return f"{whole(row['pixels'])}{THIN}px" if row["area_m2"] is None else area(row["area_m2"])


def _map(data: ChangeReport) -> Markup:
    if not {"before", "after", "change"} <= set(data.pictures):
        return Markup()
    names = {"before": data.before["name"], "after": data.after["name"]}
    layers = [
        tag("img", src=data_uri(data.pictures["before"]), alt=f"Before: {names['before']}"),
        tag("img", src=data_uri(data.pictures["after"]), alt=f"After: {names['after']}", class_="later"),
        tag("img", src=data_uri(data.pictures["change"]), alt=f"Changes found: {_shares(data)}", class_="found"),
        tag("i", class_="divider"),
    ]
    swipe = tag(
        "div",
        tag("label", "Before", tag("span", "after"), for_="divider"),
        tag("input", id="divider", type="range", min="0", max="100", value="50", step="0.1"),
        class_="slider swipe",
        hidden=True,
    )
    shown = tag("output", f"70{THIN}%", for_="changes-shown")
    opacity = tag(
        "div",
        tag("label", "Changes over both", shown, for_="changes-shown"),
        tag("input", id="changes-shown", type="range", min="0", max="100", value="70"),
        class_="slider fade",
        hidden=True,
    )
    items = [
        tag("li", swatch(data.colors[row["name"]]), row["name"], tag("b", percent(row["share"])))
        for row in data.numbers["changes"]
    ]
    legend = tag("ul", joined(items), class_="legend", aria_label="Changes, with the share of each")
    plate = plate_of(tag("div", joined(layers), class_="stack dates"), data.pictures["before"], data.ground_width_m)
    return tag("figure", plate, tag("div", swipe, opacity, legend, class_="margin"), class_="map")


def _shares(data: ChangeReport) -> str:
    return ", ".join(f"{row['name']} {percent(row['share'])}" for row in data.numbers["changes"]) or "none"


def _changes(data: ChangeReport) -> Markup:
    if not data.numbers["changes"]:
        return tag("p", "Nothing changed, as far as the method can tell.")
    rows = [
        (
            row_head(swatch(data.colors[row["name"]]), row["name"]),
            number_cell(_amount(row)),
            number_cell(NONE if row["within_m2"] is None else f"\u00b1 {area(row['within_m2'])}"),
            number_cell(percent(row["share"])),
            number_cell(whole(data.feature_counts.get(row["name"], {}).get("count", 0))),
        )
        for row in data.numbers["changes"]
    ]
    caption = (
        "Shares are of what both dates cover. The range holds with 95 % if the confidence of pixels is right, and "
        "those of one square of 32 pixels are right or wrong together."
    )
    return table(caption, heads("Change", "Area", "Within", "Share", "Patches"), rows, "classes")


def _matrix(data: ChangeReport) -> Markup:
    if "matrix" not in data.numbers:
        return Markup()
    names = [row["class"] for row in data.numbers["net"]]
    cells = {(row["from"], row["to"]): row for row in data.numbers["matrix"]}
    rows = [
        (
            row_head(one),
            *(number_cell(_amount(cells[one, other]) if (one, other) in cells else NONE) for other in names),
        )
        for one in names
    ]
    matrix = table("Rows are classes before, columns are classes after.", heads("", *names), rows)
    net = [
        (
            row_head(row["class"]),
            *(number_cell(area(row[key])) for key in ("before_m2", "after_m2", "gained_m2", "lost_m2")),
            number_cell(_signed(row["net_m2"])),
            number_cell(NONE if row["within_m2"] is None else f"\u00b1 {area(row['within_m2'])}"),
        )
        for row in data.numbers["net"]
    ]
    caption = "Net change is what a class gained less what it lost."
    return joined([matrix, table(caption, heads("Class", "Before", "After", "Gained", "Lost", "Net", "Within"), net)])


def _objects(data: ChangeReport) -> Markup:
    if not data.objects:
        return Markup()
    names = list(dict.fromkeys(name for counts in data.objects.values() for name in counts))
    rows = [
        (row_head(name), *(number_cell(whole(counts[status])) for status in names))
        for name, counts in data.objects.items()
    ]
    caption = (
        "Matched by overlap; an object is unchanged where a shift and the drawing of outlines explain the difference."
    )
    return table(caption, heads("Class", *map(str.capitalize, names)), rows)


def _zones(data: ChangeReport) -> Markup:
    if not data.zones:
        return Markup()
    names = list(dict.fromkeys(name for row in data.zones for name in row["changes"]))
    rows = [
        (
            row_head(row["zone"]),
            *(number_cell(area(row[key])) for key in ("valid_m2", "changed_m2")),
            *(number_cell(area(row["changes"].get(name, 0.0))) for name in names),
        )
        for row in data.zones
    ]
    caption = "By polygon of the file of zones; a pixel belongs to the zones in which its centre lies."
    return table(caption, heads("Zone", "Compared", "Changed", *names), rows)


def _signed(area_m2: float | None) -> str:
    if area_m2 is None:
        return NONE
    sign = "\u2212" if area_m2 < 0 else "+"
    return f"{sign}{area(abs(area_m2))}"


def _method(data: ChangeReport) -> Markup:
    return tag(
        "div",
        tag("div", tag("h3", "Method"), facts(data.method)),
        tag("div", tag("h3", "Registration"), facts(data.registration)),
        class_="pair",
    )


def _dates(data: ChangeReport) -> Markup:
    hidden = {"transform", "modified", "sha256"}
    parts = [
        tag("div", tag("h3", heading), scene_facts({key: value for key, value in date.items() if key not in hidden}))
        for heading, date in (("Before", data.before), ("After", data.after))
    ]
    common = scene_facts({key: value for key, value in data.frame.items() if key not in hidden})
    return joined([tag("div", joined(parts), class_="pair"), tag("h3", "Common frame"), common])
