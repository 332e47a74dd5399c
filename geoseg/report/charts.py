"""Drawings of a page: inline SVG that takes its ink from the page's style."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoseg.report.markup import Markup, joined, tag
from geoseg.report.pictures import confidence_color
from geoseg.report.wording import percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT = 360, 190
_LABELLED = 0.005
"""Bars of a lesser share have no number: it would be 0 %."""
_LEFT, _BASE, _TOP = 4, 166, 24


def confidence_histogram(counts: Sequence[int]) -> Markup:
    """Bars of pixels by confidence, 0 to 100 % in even bins, each in the colour that it has in the picture."""
    total = sum(counts)
    highest = max(counts, default=0) or 1
    step = (_WIDTH - 2 * _LEFT) / max(1, len(counts))
    parts = [tag("title", _in_words(counts))]
    for index, count in enumerate(counts):
        left, height = _LEFT + index * step, (_BASE - _TOP) * count / highest
        color = confidence_color((index + 0.5) * 100 / len(counts))
        if count:
            parts.append(
                tag("rect", x=left + 1, y=_BASE - height, width=step - 2, height=height, fill=color, class_="frame")
            )
            if count / total >= _LABELLED:
                parts.append(_text(percent(round(count / total, 2)), left + step / 2, _BASE - height - 6))
    parts.append(tag("line", x1=_LEFT, y1=_BASE, x2=_WIDTH - _LEFT, y2=_BASE, class_="axis"))
    for tick in (0, 25, 50, 75, 100):
        x = _LEFT + (_WIDTH - 2 * _LEFT) * tick / 100
        parts.append(tag("line", x1=x, y1=_BASE, x2=x, y2=_BASE + 4, class_="axis"))
        anchor = {0: "start", 100: "end"}.get(tick, "middle")
        parts.append(_text(percent(tick / 100), x, _BASE + 18, anchor))
    return tag("svg", joined(parts), viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img")


def reliability_curve(bins: Sequence[Mapping[str, float]]) -> Markup:
    """Accuracy over confidence, a dot a bin, as large as its share of all pixels; the diagonal is perfect."""
    side, left, top = 260, 52, 10
    total = sum(row["pixels"] for row in bins) or 1

    def at(confidence: float, accuracy: float) -> tuple[float, float]:
        return round(left + side * confidence, 1), round(top + side * (1 - accuracy), 1)

    words = "; ".join(f"{row['confidence']:.0%} confident, {row['accuracy']:.0%} right" for row in bins)
    parts = [tag("title", f"Reliability of the confidence. {words}.")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        (x, base), (_, y) = at(tick, 0), at(0, tick)
        parts.append(tag("line", x1=x, y1=base, x2=x, y2=base + 4, class_="axis"))
        parts.append(tag("line", x1=left - 4, y1=y, x2=left, y2=y, class_="axis"))
        parts += [_text(percent(tick), x, base + 18), _text(percent(tick), left - 8, y + 4, "end")]
    for (x1, y1), (x2, y2) in ((at(0, 0), at(1, 0)), (at(0, 0), at(0, 1)), (at(0, 0), at(1, 1))):
        parts.append(tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="axis"))
    points = [at(row["confidence"], row["accuracy"]) for row in bins]
    drawn = " ".join(f"{'L' if k else 'M'}{x} {y}" for k, (x, y) in enumerate(points))
    parts.append(tag("path", d=drawn, fill="none", stroke="currentColor", stroke_width=1.5))
    for row, (x, y) in zip(bins, points, strict=True):
        radius = 2 + 10 * (row["pixels"] / total) ** 0.5
        color = confidence_color(100 * row["confidence"])
        parts.append(tag("circle", cx=x, cy=y, r=round(radius, 1), fill=color, class_="frame"))
    return tag(
        "svg", joined(parts), viewBox=f"0 0 {left + side + 20} {top + side + 26}", role="img", style="max-width:26rem"
    )


def bar(share: float, color: str | None = None) -> Markup:
    """A bar as long as `share` (0..1) of its place."""
    style = f"width:{max(0.0, min(1.0, share)) * 100:.2f}%" + (f";background:{color}" if color else "")
    return tag("span", class_="bar", style=style)


def _text(words: str, x: float, y: float, anchor: str = "middle") -> Markup:
    return tag("text", words, x=round(x, 1), y=round(y, 1), text_anchor=anchor)


def _in_words(counts: Sequence[int]) -> str:
    total, bins = sum(counts), len(counts)
    if not total:
        return "Histogram of confidence: no valid pixel."
    parts = (
        f"{round(index * 100 / bins)} to {round((index + 1) * 100 / bins)} %: {count / total:.0%}"
        for index, count in enumerate(counts)
        if count
    )
    return "Share of pixels by confidence. " + "; ".join(parts) + "."
