"""Polygons of change: one layer, with what each was and is, how large the change, and how sure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.scene.info import read_window
from geoseg.vector import measure
from geoseg.workflow.change_objects import ObjectRuns, object_layer
from geoseg.workflow.spill import spill_features, spilled_column, spilled_features
from geoseg.workflow.vectors import VectorJob, summary
from geoseg.write import Layer
from geoseg.write.columns import CHANGE_COLUMNS, schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from geoseg.change.transitions import Transitions
    from geoseg.frame import Box
    from geoseg.scene import SceneInfo
    from geoseg.vector import Components

Array = np.ndarray[Any, Any]

LAYER = "change"
"""The name of the layer."""

_STEPS = 1000
"""Magnitudes are added up as whole thousandths, so that their sum does not depend on the order."""
_MOST = 1 << 40


@dataclass(frozen=True)
class ChangeVectors(VectorJob):
    """As `VectorJob`, of a change raster: all changes in one layer."""

    magnitude: Path = Path()
    transitions: Transitions | None = None
    dates: tuple[str | None, str | None] = (None, None)
    objects: ObjectRuns | None = None
    """Where there are objects to match."""

    def layers(self) -> list[Layer]:
        """The layer of changes, once all blocks have been outlined."""
        self._join()
        entries = self.legend.foreground
        schema = schema_of(CHANGE_COLUMNS)

        def batches() -> Iterator[pa.RecordBatch]:
            for entry in entries:
                yield from spilled_features(self.folder, self._parts, entry.name)

        grey = replace(self.legend.classes[0], name=LAYER, kind="area")
        return [Layer(LAYER, grey, schema, self._frame.crs, batches, categories=entries)]

    def object_layers(self) -> tuple[list[Layer], dict[str, dict[str, int]]]:
        """A layer for each class of objects, and how many of them have which status."""
        if self.objects is None:
            return [], {}
        made = {entry.name: object_layer(self.objects, entry, self._frame) for entry in self.objects.classes}
        return [layer for layer, _ in made.values()], {name: counts for name, (_, counts) in made.items()}

    def count(self) -> dict[str, dict[str, float | int | None]]:
        """How many changes of each kind, how large together, how large in the middle; of those that there are."""
        found = {
            entry.name: summary(spilled_column(self.folder, self._parts, entry.name, "area_m2"))
            for entry in self.legend.foreground
        }
        return {name: counted for name, counted in found.items() if counted["count"]}

    def _spill(self, part: str, components: Components) -> None:
        assert self.transitions is not None  # noqa: S101  # it comes with the job
        measured = measure(components, self._frame, self.legend, means=("magnitude",))
        layers = []
        for entry in self.transitions.entries:
            rows = measured[entry.name]
            told = {"from": entry.from_, "to": entry.to, "date_before": self.dates[0], "date_after": self.dates[1]}
            rows = rows.assign(magnitude=np.round(rows["magnitude"] / _STEPS, 4), **told)
            layers.append(Layer.of(entry.name, rows, self.legend))
        spill_features(self.folder, part, layers)

    def _read(self, info: SceneInfo, box: Box) -> tuple[Array, ...]:
        magnitude = np.nan_to_num(read_window(str(self.magnitude), [1], box)[0].astype(np.float64))
        return (*super()._read(info, box), np.rint(np.clip(magnitude * _STEPS, 0, _MOST)).astype(np.int64))
