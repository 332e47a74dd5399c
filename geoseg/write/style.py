"""How QGIS draws what geoseg writes: symbols for layers, renderers for rasters, as QGIS 3 stores them (QML)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from geoseg.write.columns import title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.legend import ClassEntry, Kind, Legend

QGIS_VERSION = "3.22.0"
"""The oldest QGIS that reads these files without converting them."""

Stretch = tuple[tuple[float, float], ...]
"""(lowest, highest) stored value that is drawn, for red, green, blue."""

_FILL_ALPHA: dict[Kind, int] = {"object": 90, "line": 110, "area": 90, "background": 40}
_OUTLINE_MM: dict[Kind, float] = {"object": 0.36, "line": 0.26, "area": 0.26, "background": 0.1}
_CENTERLINE_MM = 0.5
_CASING_MM = 1.1
_DARKER = 0.72
_DARK = 0.4
_LIGHT = 0.55
"""Of centre lines, that they show on the areas of their own class: how much colour the casing has, and the line."""

_DASHED = "if(\"bridged\", 'dash', 'solid')"
"""Where a centre line bridges a gap that the network saw, it is seen."""

_CONFIDENCE = ((0, "#7a0403"), (40, "#d23105"), (60, "#f9a41a"), (80, "#e9e35b"), (100, "#1a9850"))
"""Percent and colour: red where the model guessed, green where it was sure."""

_MAGNITUDE = ((0.0, "#fcfbf5"), (0.25, "#fee0b0"), (0.5, "#fc9259"), (0.75, "#d7301f"), (1.0, "#7f0000"))
"""Share of the highest magnitude and colour."""


def layer_qml(entries: Sequence[ClassEntry], geometry: str, columns: Sequence[str]) -> str:
    """The QML of a layer of polygons or lines (`geometry` as OGR names it), of one class or several."""
    root = ET.Element("qgis", version=QGIS_VERSION, styleCategories="Symbology|Fields|MapTips")
    root.extend(layer_elements(entries, geometry, columns))
    return _text(root)


def classes_qml(legend: Legend) -> str:
    """The QML of a class raster."""
    return _raster_qml(classes_renderer(legend))


def confidence_qml() -> str:
    """The QML of a confidence raster."""
    return _raster_qml(confidence_renderer())


def layer_elements(entries: Sequence[ClassEntry], geometry: str, columns: Sequence[str]) -> list[ET.Element]:
    """Renderer, titles of columns and map tip of a layer, as they stand in a QML and in a project."""
    aliases = ET.Element("aliases")
    for index, name in enumerate(columns):
        ET.SubElement(aliases, "alias", index=str(index), field=name, name=title(name))
    renderer = (
        _symbol_renderer(entries[0], geometry, columns)
        if len(entries) == 1
        else _categories(entries, "status" if "status" in columns else "class")
    )
    elements = [renderer, aliases]
    tip = ET.Element("mapTip")
    if "confidence" in columns:
        tip.text = '<b>[% "class" %]</b> [% round(100 * "confidence") %] %'
    elif "length_m" in columns:
        tip.text = '<b>[% "class" %]</b> [% round("length_m") %] m'
    if tip.text:
        elements.append(tip)
    return elements


def classes_renderer(legend: Legend, opacity: float = 1) -> ET.Element:
    """Codes in the colours of their classes; background is left clear."""
    renderer = _renderer("paletted", opacity, band="1")
    palette = ET.SubElement(renderer, "colorPalette")
    for entry in legend.classes:
        alpha = "0" if entry.kind == "background" else "255"
        ET.SubElement(palette, "paletteEntry", value=str(entry.code), color=entry.color, label=entry.name, alpha=alpha)
    return renderer


def confidence_renderer(opacity: float = 1) -> ET.Element:
    """Percent on a ramp from red (a guess) to green (sure)."""
    lowest, highest = str(_CONFIDENCE[0][0]), str(_CONFIDENCE[-1][0])
    renderer = _renderer(
        "singlebandpseudocolor", opacity, band="1", classificationMin=lowest, classificationMax=highest
    )
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"), "colorrampshader", colorRampType="INTERPOLATED",
        classificationMode="1", clip="0", minimumValue=lowest, maximumValue=highest,
    )  # fmt: skip
    for percent, color in _CONFIDENCE:
        ET.SubElement(shader, "item", value=str(percent), label=f"{percent} %", color=color, alpha="255")
    return renderer


def magnitude_renderer(highest: float, opacity: float = 1) -> ET.Element:
    """Magnitudes of change from clear to dark red, at `highest`."""
    renderer = _renderer(
        "singlebandpseudocolor", opacity, band="1", classificationMin="0", classificationMax=f"{highest:g}"
    )
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"), "colorrampshader", colorRampType="INTERPOLATED",
        classificationMode="1", clip="0", minimumValue="0", maximumValue=f"{highest:g}",
    )  # fmt: skip
    for share, color in _MAGNITUDE:
        value = f"{share * highest:.4g}"
        ET.SubElement(shader, "item", value=value, label=value, color=color, alpha="255")
    return renderer


def magnitude_qml(highest: float) -> str:
    """The QML of a raster of magnitudes."""
    return _raster_qml(magnitude_renderer(highest))


def scene_renderer(bands_rgb: tuple[int, int, int], stretch: Stretch) -> ET.Element:
    """Three bands (from 1) as red, green, blue, stretched; a band tagged alpha is not taken for one."""
    red, green, blue = map(str, bands_rgb)
    renderer = _renderer("multibandcolor", 1, redBand=red, greenBand=green, blueBand=blue)
    for color, (lowest, highest) in zip(("red", "green", "blue"), stretch, strict=True):
        contrast = ET.SubElement(renderer, f"{color}ContrastEnhancement")
        ET.SubElement(contrast, "minValue").text = f"{lowest:.10g}"
        ET.SubElement(contrast, "maxValue").text = f"{highest:.10g}"
        ET.SubElement(contrast, "algorithm").text = "StretchToMinimumMaximum"
    return renderer


def _renderer(kind: str, opacity: float, **attributes: str) -> ET.Element:
    common = {"type": kind, "opacity": f"{opacity:g}", "alphaBand": "-1", "nodataColor": ""}
    renderer = ET.Element("rasterrenderer", common | attributes)
    ET.SubElement(renderer, "rasterTransparency")
    origin = ET.SubElement(renderer, "minMaxOrigin")
    # Without limits of its own: QGIS must not replace the stretch by one of the part in view.
    for name, value in (("limits", "None"), ("extent", "WholeRaster"), ("statAccuracy", "Estimated")):
        ET.SubElement(origin, name).text = value
    return renderer


def _raster_qml(renderer: ET.Element) -> str:
    root = ET.Element("qgis", version=QGIS_VERSION, styleCategories="Symbology")
    ET.SubElement(root, "pipe").append(renderer)
    return _text(root)


def _symbol_renderer(entry: ClassEntry, geometry: str, columns: Sequence[str]) -> ET.Element:
    renderer = ET.Element("renderer-v2", type="singleSymbol", symbollevels="0", enableorderby="0", forceraster="0")
    symbols = ET.SubElement(renderer, "symbols")
    kind = "line" if "LineString" in geometry else "fill"
    symbol = ET.SubElement(symbols, "symbol", type=kind, name="0", alpha="1", clip_to_extent="1", force_rhr="0")
    if kind == "line":
        _line(symbol, tuple(round(value * _DARK) for value in entry.rgb), _CASING_MM)
        core = _line(symbol, tuple(round(255 - (255 - value) * _LIGHT) for value in entry.rgb), _CENTERLINE_MM)
        if "bridged" in columns:
            _define(core, "outlineStyle", _DASHED)
        renderer.set("symbollevels", "1")  # casings below all lines, so that crossings are open
        core.set("pass", "1")
    else:
        _fill(symbol, entry)
    ET.SubElement(renderer, "rotation")
    ET.SubElement(renderer, "sizescale")
    return renderer


def _categories(entries: Sequence[ClassEntry], column: str) -> ET.Element:
    """A symbol for each class of a layer of polygons, by a column."""
    renderer = ET.Element("renderer-v2", type="categorizedSymbol", attr=column, symbollevels="0", forceraster="0")
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for place, entry in enumerate(entries):
        shown = {"render": "true", "symbol": str(place), "value": entry.name, "label": entry.name, "type": "string"}
        ET.SubElement(categories, "category", shown)
        name = {"type": "fill", "name": str(place), "alpha": "1", "clip_to_extent": "1", "force_rhr": "0"}
        _fill(ET.SubElement(symbols, "symbol", name), entry)
    ET.SubElement(renderer, "rotation")
    ET.SubElement(renderer, "sizescale")
    return renderer


def _fill(symbol: ET.Element, entry: ClassEntry) -> None:
    edge = ",".join(str(round(value * _DARKER)) for value in entry.rgb) + ",255"
    fill = ",".join(map(str, (*entry.rgb, _FILL_ALPHA[entry.kind])))
    properties = {"color": fill, "style": "solid", "outline_color": edge, "outline_style": "solid"}
    properties |= {
        "outline_width": f"{_OUTLINE_MM[entry.kind]:g}",
        "outline_width_unit": "MM",
        "joinstyle": "miter",
    }
    _symbol_layer(symbol, "SimpleFill", properties)


def _line(symbol: ET.Element, rgb: tuple[int, ...], width_mm: float) -> ET.Element:
    properties = {"line_color": ",".join(map(str, (*rgb, 255))), "line_width": f"{width_mm:g}", "line_style": "solid"}
    properties |= {"line_width_unit": "MM", "capstyle": "round", "joinstyle": "round"}
    return _symbol_layer(symbol, "SimpleLine", properties)


def _symbol_layer(symbol: ET.Element, kind: str, properties: dict[str, str]) -> ET.Element:
    layer = ET.SubElement(symbol, "layer", {"class": kind, "enabled": "1", "locked": "0", "pass": "0"})
    options = ET.SubElement(layer, "Option", type="Map")
    for name, value in sorted(properties.items()):
        ET.SubElement(options, "Option", name=name, type="QString", value=value)
    return layer


def _define(layer: ET.Element, name: str, expression: str) -> None:
    """Let an expression on the feature's columns decide on a property of a symbol layer."""
    properties = ET.SubElement(layer, "data_defined_properties")
    collection = ET.SubElement(properties, "Option", type="Map")
    ET.SubElement(collection, "Option", name="name", type="QString", value="")
    defined = ET.SubElement(ET.SubElement(collection, "Option", name="properties", type="Map"), "Option", name=name)
    defined.set("type", "Map")
    ET.SubElement(defined, "Option", name="active", type="bool", value="true")
    ET.SubElement(defined, "Option", name="expression", type="QString", value=expression)
    ET.SubElement(defined, "Option", name="type", type="int", value="3")
    ET.SubElement(collection, "Option", name="type", type="QString", value="collection")


def _text(root: ET.Element) -> str:
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode")
