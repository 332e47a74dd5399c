"""geoseg's page in the Dask dashboard: the scene as a map of blocks, and how fast which worker fills it.

It stands among Dask's own pages, is served by the scheduler, and asks nothing of any other server.
"""

from __future__ import annotations

import re
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from bokeh.models import ColumnDataSource, HoverTool, Range1d
from bokeh.models.widgets import Div
from bokeh.plotting import figure
from bokeh.transform import factor_cmap, factor_hatch
from distributed.dashboard.components.scheduler import env
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables
from tornado.ioloop import IOLoop

from geoseg.report.wording import THIN, TIMES, whole
from geoseg.report.wording import duration as exact_duration
from geoseg.runtime.monitor import RECENT_S, ROUTE, STATES

if TYPE_CHECKING:
    from bokeh.document import Document

    from geoseg.runtime.monitor import Monitor, Progress, SceneNews

COLOURS = {
    "waiting": "#e2dfd5",
    "reading": "#f5d547",
    "forward": "#e07b1a",
    "forwarded": "#74b9dc",
    "done": "#0f5c86",
    "failed": "#7a1128",
}
"""Told apart without red and green, and by lightness: a block darkens as it goes on."""
_MEANINGS = {
    "waiting": "not begun",
    "reading": "pixels on their way",
    "forward": "in the network",
    "forwarded": "waits for its neighbours",
    "done": "written",
    "failed": "with tiles that could not be read",
}
_PAPER = "#fbfaf6"
_EVERY_MS = 500
_SILENT_S = 60
_FINE = 64
"""From so many blocks a side on, their borders are drawn thin."""

_STYLE = """
:host{display:block;width:100%;color:#22282b;line-height:1.45;font-size:15px;font-variant-numeric:tabular-nums;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif}
h1{margin:0;font-size:28px;line-height:1.2;font-weight:600;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{margin:0 0 6px;font-size:16px;font-weight:600}
p{margin:0}
a{color:#1f6470;text-underline-offset:.18em}
.bk-clearfix{width:100%}
.top{display:flex;justify-content:space-between;gap:24px;font-size:14px;margin-bottom:2px}
.top b{color:#1f6470;font-weight:600}
.line{margin-top:8px;font-size:17px}
.soft{color:#5d666a}
.track{height:8px;margin-top:10px;background:#e9e6dd;border-radius:4px;overflow:hidden}
.track i{display:block;height:100%;background:#0f5c86}
table{border-collapse:collapse;width:100%}
th,td{padding:5px 0 5px 14px;text-align:right;border-bottom:1px solid #d9d6cb;white-space:nowrap;font-weight:400}
th:first-child,td:first-child{padding-left:0;text-align:left}
thead th{color:#5d666a;font-size:13px;border-bottom-color:#22282b}
.any{white-space:normal;overflow-wrap:anywhere}
.bar{width:30%}
.bar i{display:block;height:9px;background:#1f6470;min-width:1px}
.swatch{display:inline-block;width:13px;height:13px;margin-right:9px;vertical-align:-1px;
border:1px solid rgba(0,0,0,.35)}
.hatched{background-image:repeating-linear-gradient(45deg,#fff 0 1px,transparent 1px 4.6px),
repeating-linear-gradient(-45deg,#fff 0 1px,transparent 1px 4.6px)}
"""
_TEMPLATE = """
{% extends "base.html" %}
{% block extra_resources %}
<style>
html{background:#fbfaf6}
.geoseg{max-width:1500px;margin:0 auto;padding:18px 14px 40px}
.geoseg .sheet{display:flex;flex-wrap:wrap;gap:24px 40px;align-items:flex-start;margin:20px 0 28px}
.geoseg .plate{flex:3 1 480px;min-width:0}
.geoseg .margin{flex:2 1 360px;min-width:0;display:grid;gap:26px}
</style>
{% endblock %}
{% block content %}
{% from macros import embed %}
<main class="geoseg">
{{ embed(roots.head) }}
<div class="sheet">
<div class="plate">{{ embed(roots.map) }}</div>
<div class="margin"><div>{{ embed(roots.legend) }}</div><div>{{ embed(roots.workers) }}</div></div>
</div>
{{ embed(roots.others) }}
</main>
{{ plot_script }}
{% endblock %}
"""


def add_page(monitor: Monitor, scheduler: Any, prefix: str) -> None:
    """Serve the page at /geoseg under the dashboard's prefix, and name it in the bar of all its pages."""
    variables = template_variables(scheduler)
    if ROUTE not in variables["pages"]:
        variables["pages"].insert(0, ROUTE)
    application = BokehApplication(
        {f"/{ROUTE}": partial(_fill, monitor)}, scheduler, prefix=prefix, template_variables=variables
    )
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    application.start()


def _fill(monitor: Monitor, scheduler: Any, extra: dict[str, Any], doc: Document) -> None:
    page = Page(monitor, scheduler)
    page.update()
    for root in (page.head, page.map.figure, page.legend, page.workers, page.others):
        doc.add_root(root)
    doc.title = "geoseg"
    doc.template = env.from_string(_TEMPLATE)
    doc.template_variables.update(extra)
    doc.add_periodic_callback(page.update, _EVERY_MS)


class BlockFigure:
    """The blocks of one scene at a time, in the scene's proportions."""

    def __init__(self) -> None:
        """Draw nothing yet."""
        names = list(STATES)
        self.source = ColumnDataSource({key: [] for key in ("left", "right", "top", "bottom", "state", "block", "at")})
        self.figure = figure(
            name="map", x_range=Range1d(start=0, end=1), y_range=Range1d(start=1, end=0), aspect_ratio=1,
            sizing_mode="stretch_width", toolbar_location=None, tools="", min_border=1,
            background_fill_color=_PAPER, border_fill_color=None, outline_line_color=None,
        )  # fmt: skip
        self.figure.axis.visible = False
        self.figure.grid.visible = False
        self._blocks = self.figure.quad(
            "left", "right", "top", "bottom", source=self.source, line_color=_PAPER, line_width=1.5,
            fill_color=factor_cmap("state", list(COLOURS.values()), names),
            hatch_pattern=factor_hatch("state", [" "] * (len(names) - 1) + ["x"], names),
            hatch_color=_PAPER, hatch_scale=16, hatch_weight=1.5, hover_line_color="#22282b",
        )  # fmt: skip
        self.figure.add_tools(
            HoverTool(
                renderers=[self._blocks], tooltips=[("block", "@block"), ("state", "@state"), ("rows, columns", "@at")]
            )
        )
        self._scene: SceneNews | None = None
        self._states = b""

    def update(self, scene: SceneNews | None) -> None:
        """Show a scene's states: all of it when it is another scene, else what has changed."""
        if scene is None:
            self.figure.visible = False
        elif scene is not self._scene:
            self._draw(scene)
        else:
            states = scene.states
            if states != self._states:
                changed = [k for k, (old, new) in enumerate(zip(self._states, states, strict=True)) if old != new]
                self.source.patch({"state": [(k, STATES[states[k]]) for k in changed]})
                self._states = states

    def _draw(self, scene: SceneNews) -> None:
        height, width = scene.shape
        self._scene, self._states = scene, scene.states
        top, left, tall, wide = scene.boxes.T.astype(float)
        self.source.data = {
            "left": left, "right": left + wide, "top": top, "bottom": top + tall,
            "state": [STATES[code] for code in self._states],
            "block": [f"{k + 1} of {len(scene.boxes)}" for k in range(len(scene.boxes))],
            "at": [f"{r}–{r + h - 1}, {c}–{c + w - 1}" for r, c, h, w in scene.boxes.tolist()],
        }  # fmt: skip
        self.figure.x_range.update(start=0, end=width)
        self.figure.y_range.update(start=height, end=0)
        ratio = width / height
        self.figure.update(
            visible=True, aspect_ratio=ratio, styles={"max-width": f"calc(74vh * {ratio:.4f})", "min-width": "40px"}
        )
        fine = max(len(set(top)), len(set(left))) >= _FINE
        self._blocks.glyph.update(line_width=0.5 if fine else 1.5)


class Page:
    """What one browser sees."""

    def __init__(self, monitor: Monitor, scheduler: Any) -> None:
        """Lay out the parts."""
        self._monitor = monitor
        self._scheduler = scheduler
        self.map = BlockFigure()
        self.head, self.legend, self.workers, self.others = (
            Div(name=name, stylesheets=[_STYLE], sizing_mode="stretch_width", margin=0)
            for name in ("head", "legend", "workers", "others")
        )

    def update(self) -> None:
        """Bring all parts up to the news."""
        now = self._monitor.clock()
        scene = self._monitor.shown()
        self.map.update(scene)
        _say(self.head, _head(scene, now))
        _say(self.legend, _legend(scene))
        _say(self.workers, _workers(scene, self._scheduler.workers, now))
        _say(self.others, _others(self._monitor.others(), now))


def _say(part: Div, text: str) -> None:
    if part.text != text:
        part.text = text


def _head(scene: SceneNews | None, now: float) -> str:
    top = '<div class="top"><b>geoseg</b><a href="status">Dask status</a></div>'
    if scene is None:
        return (
            f'{top}<h1>No scene yet</h1><p class="line soft">The next one that this cluster segments fills this page.'
        )
    progress = scene.progress(now)
    height, width = scene.shape
    return (
        f'{top}<h1>{escape(scene.name)}</h1><p class="line">{line_of(progress)}</p>'
        f'<p class="soft">{whole(height)}{TIMES}{whole(width)} pixels in {whole(len(scene.boxes))} blocks</p>'
        f'<div class="track"><i style="width:{progress.share * 100:.2f}%"></i></div>'
    )


def line_of(progress: Progress) -> str:
    """How far, how fast, how long: one line."""
    parts = [
        f"{whole(progress.tiles)} of {whole(progress.of)} tiles",
        f"{int(progress.share * 100)}{THIN}%",
    ]
    if speed := progress.overall if progress.ended else progress.recent:
        parts.append(f"{_mpx(speed)}{THIN}Mpx/s")
    if progress.ended:
        ended = "finished" if progress.tiles == progress.of else "stopped"
        parts.append(f"{ended} after {exact_duration(round(progress.lasted_s))}")
    elif progress.tiles == progress.of:
        parts.append("writing the outputs")
    elif progress.left_s is not None:
        parts.append(f"about {rough_duration(progress.left_s)} left")
    if progress.silent_s > _SILENT_S:
        parts.append(f"no news for {rough_duration(progress.silent_s)}")
    return ", ".join(parts)


def rough_duration(seconds: float) -> str:
    """A time span as precise as a guess deserves.

    >>> [rough_duration(x).replace(THIN, " ") for x in (3, 44, 230, 5000, 90000)]
    ['5 s', '45 s', '4 min', '1 h 25 min', '25 h']
    """
    if seconds < 57:
        return f"{max(5, 5 * round(seconds / 5))}{THIN}s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes}{THIN}min"
    hours, minutes = divmod(5 * round(minutes / 5), 60)
    return f"{hours}{THIN}h {minutes}{THIN}min" if minutes and hours < 10 else f"{hours}{THIN}h"


def _mpx(pixels_per_s: float) -> str:
    """Megapixels a second, with as many decimals as one can read in passing."""
    speed = pixels_per_s / 1e6
    return f"{speed:.2f}" if speed < 10 else whole(speed)


def _legend(scene: SceneNews | None) -> str:
    if scene is None:
        return ""
    counts = scene.counts()
    rows = "".join(
        f'<tr><td><span class="swatch{" hatched" if name == "failed" else ""}" '
        f'style="background-color:{COLOURS[name]}"></span>{name}</td>'
        f'<td class="soft" style="text-align:left">{_MEANINGS[name]}</td><td>{whole(counts[name])}</td></tr>'
        for name in STATES
    )
    return f"<h2>Blocks</h2><table>{rows}</table>"


def _workers(scene: SceneNews | None, present: dict[str, Any], now: float) -> str:
    if scene is None:
        return ""
    if not scene.workers:
        return '<h2>Workers</h2><p class="soft">None has computed a tile yet.</p>'
    until = now if scene.ended_at is None else scene.ended_at
    names = {worker: _name(worker, present) for worker in scene.workers}
    speeds = {worker: share.tempo.recent(until) for worker, share in scene.workers.items()}
    fastest = max(speeds.values()) or 1.0
    rows = "".join(
        f"<tr><td>{escape(names[worker])}</td><td>{whole(scene.workers[worker].tiles)}</td>"
        f"<td>{_mpx(scene.workers[worker].tempo.overall(until))}</td><td>{_mpx(speeds[worker])}</td>"
        f'<td class="bar"><i style="width:{100 * speeds[worker] / fastest:.1f}%"></i></td></tr>'
        for worker in sorted(names, key=lambda worker: _natural(names[worker]))
    )
    return (
        "<h2>Workers</h2><table><thead><tr><th></th><th>tiles</th><th>Mpx/s overall</th>"
        f'<th>last {RECENT_S}{THIN}s</th><th class="bar"></th></tr></thead>{rows}</table>'
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts worker 10 after worker 9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _name(worker: str, present: dict[str, Any]) -> str:
    """A worker's own name if it has one, and its address; says where it is no longer there."""
    address = worker.partition("://")[2] or worker
    if worker not in present:
        return f"{address} (gone)" if address != worker else worker
    name = str(present[worker].name)
    return address if name == worker else f"{name} · {address}"


def _others(scenes: list[SceneNews], now: float) -> str:
    if not scenes:
        return ""
    rows = "".join(
        f'<tr><td class="any">{escape(scene.name)}</td>'
        f'<td class="any" style="text-align:left">{line_of(scene.progress(now))}</td></tr>'
        for scene in scenes
    )
    return f"<h2>Other scenes</h2><table>{rows}</table>"
