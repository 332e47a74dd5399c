"""Opens what `geoseg segment`, or `geoseg change`, wrote in QGIS, as a user does, and tells what QGIS made of it.

    /usr/bin/python3 qgis_render.py RUN_DIR SCENE OUT_DIR

Renders the scene to OUT_DIR/scene.png, the layers of features.gpkg (or change.gpkg) over it to OUT_DIR/features.png,
and project.qgs, with all layers that it shows at first, to OUT_DIR/project.png; prints JSON. Runs in the Python that
QGIS comes with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsLayerTreeModel,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize

SIDE = 900


def main() -> None:
    run, scene, out = map(Path, sys.argv[1:])
    application = QgsApplication([], GUIenabled=False)
    application.initQgis()
    warnings: list[str] = []
    application.messageLog().messageReceived.connect(
        lambda text, tag, level: warnings.append(f"{tag}: {text}") if level >= Qgis.Warning else None
    )
    found = next(path for path in (run / "features.gpkg", run / "change.gpkg") if path.exists())
    features = open_features(found, scene, out)
    project = open_project(run / "project.qgs", out / "project.png")
    print(json.dumps({"features": features, "project": project, "warnings": warnings}))
    QgsProject.instance().clear()
    application.exitQgis()


def open_features(path: Path, scene: Path, out: Path) -> list[dict]:
    """All layers that QGIS offers when the file is opened, styled as the file says."""
    offered = QgsProviderRegistry.instance().providerMetadata("ogr").querySublayers(str(path))
    layers = [QgsVectorLayer(found.uri(), found.name(), found.providerKey()) for found in offered]
    background = QgsRasterLayer(str(scene), "scene")
    # Lines above areas, as QGIS itself puts them.
    drawn = sorted((layer for layer in layers if layer.isSpatial()), key=lambda layer: layer.geometryType() == 2)
    for name, stack in (("scene.png", [background]), ("features.png", [*drawn, background])):
        render(stack, background.extent(), background.crs(), out / name)
    told = [tell(layer) for layer in layers]
    del layers, drawn, background
    return told


def open_project(path: Path, picture: Path) -> dict:
    """The layers of a project from top to bottom."""
    project = QgsProject.instance()
    opened = project.read(str(path))
    tree = project.layerTreeRoot()
    layers = tree.layerOrder()
    if layers:
        render(tree.checkedLayers(), project.viewSettings().defaultViewExtent(), project.crs(), picture)
    legend = QgsLayerTreeModel(tree)
    return {
        "opened": opened,
        "crs": project.crs().authid(),
        "layers": [
            tell(layer) | {"shown": tree.findLayer(layer).isVisible(), "legend": entries(legend, tree.findLayer(layer))}
            for layer in layers
        ],
    }


def tell(layer: QgsVectorLayer | QgsRasterLayer) -> dict:
    about = {"name": layer.name(), "valid": layer.isValid(), "crs": layer.crs().authid(), "source": layer.source()}
    if not isinstance(layer, QgsVectorLayer):
        return about
    single = layer.isSpatial() and layer.renderer().type() == "singleSymbol"
    symbol = layer.renderer().symbol() if single else None
    areas = [f.geometry().area() for f in layer.getFeatures() if f.hasGeometry()]
    invalid = [f.id() for f in layer.getFeatures() if f.hasGeometry() and not f.geometry().isGeosValid()]
    return about | {
        "features": layer.featureCount(),
        "invalid": invalid,
        "columns": [field.name() for field in layer.fields()],
        "area": sum(areas),
        "color": symbol and symbol.color().name(),
        "alpha": symbol and symbol.color().alphaF(),
        "symbol": symbol and symbol.symbolLayer(0).layerType(),
        "categories": [category.label() for category in layer.renderer().categories()] if is_categorised(layer) else [],
    }


def is_categorised(layer: QgsVectorLayer) -> bool:
    return layer.isSpatial() and layer.renderer().type() == "categorizedSymbol"


def entries(model: QgsLayerTreeModel, node: object) -> list[str]:
    """The words that the legend shows under a layer."""
    texts = [entry.data(0) for entry in model.layerLegendNodes(node)]
    return [text for text in texts if isinstance(text, str)]  # a colour ramp has none


def render(layers: list, extent: object, crs: object, picture: Path) -> None:
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setExtent(extent)
    settings.setDestinationCrs(crs)
    settings.setOutputSize(QSize(SIDE, SIDE))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(str(picture))


if __name__ == "__main__":
    main()
