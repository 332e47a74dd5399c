"""What the blocks of a class raster leave on disk on their way to polygons: finished features, and loose ends.

Features lie there as Arrow files, a file a block and class, so that writers read them batch by batch; loose ends as
arrays. Nothing of it is executable, and each file appears when it is complete.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from geoseg.frame import Box
from geoseg.vector import LooseEnds
from geoseg.vector.arcs import Arcs
from geoseg.vector.features import Census
from geoseg.write import Layer, replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Array = np.ndarray[Any, Any]

_NESTED: dict[str, type[Any]] = {"census": Census, "loose": Arcs, "kept": Arcs, "kept_raw": Arcs}
"""The parts of loose ends that have parts of their own."""
_SEAM = "seams."


def spill_features(folder: Path, part: str, layers: Sequence[Layer]) -> None:
    """Leave the features of a part, a file a layer; empty layers leave none."""
    for layer in layers:
        groups = iter(layer.groups())
        first = next(groups, None)
        if first is None:
            continue
        with (
            replacing(_features_path(folder, part, layer.name)) as partial,
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_file(sink, first.schema) as writer,
        ):
            writer.write_batch(first)
            for group in groups:
                writer.write_batch(group)


def spilled_features(folder: Path, parts: Sequence[str], layer: str) -> Iterator[pa.RecordBatch]:
    """The features of a layer, part after part, as they were left."""
    for part in parts:
        path = _features_path(folder, part, layer)
        if path.exists():
            with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
                for index in range(reader.num_record_batches):
                    yield reader.get_batch(index)


def spilled_column(folder: Path, parts: Sequence[str], layer: str, column: str) -> Array:
    """A column of numbers of all features of a layer; NaN where a feature has none."""
    columns = (batch.column(column) for batch in spilled_features(folder, parts, layer))
    found = [values.to_numpy(zero_copy_only=False).astype(np.float64) for values in columns]
    return np.concatenate([np.empty(0), *found])


def spill_arrays(folder: Path, name: str, arrays: Mapping[str, Array]) -> None:
    """Leave named arrays."""
    with replacing(folder / f"{name}.npz") as partial, partial.open("wb") as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type]  # its own flags are keywords as well


def spilled_arrays(folder: Path, name: str) -> dict[str, Array]:
    """The arrays that were left by a name."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def arrays_of(value: Any) -> dict[str, Array]:
    """The arrays of a dataclass by the names of its fields; those of a part as `part.field`."""
    arrays: dict[str, Array] = {}
    for field in fields(value):
        content = getattr(value, field.name)
        if isinstance(content, Box):
            arrays[field.name] = np.array([content.row, content.col, content.height, content.width])
        elif is_dataclass(content):
            arrays |= {f"{field.name}.{name}": array for name, array in arrays_of(content).items()}
        elif isinstance(content, dict):
            arrays |= {f"{field.name}.{name}": array for name, array in content.items()}
        else:
            arrays[field.name] = content
    return arrays


def loose_ends_of(arrays: Mapping[str, Array]) -> LooseEnds:
    """The inverse of `arrays_of` for what a block leaves."""
    given: dict[str, Any] = {name: array for name, array in arrays.items() if "." not in name}
    for name, kind in _NESTED.items():
        given[name] = kind(*(arrays[f"{name}.{field.name}"] for field in fields(kind)))
    given["box"] = Box(*given["box"].tolist())
    given["seams"] = {name.removeprefix(_SEAM): array for name, array in arrays.items() if name.startswith(_SEAM)}
    return LooseEnds(**given)


def _features_path(folder: Path, part: str, layer: str) -> Path:
    return folder / f"{part}-{layer.encode().hex()}.arrow"  # a name may hold what no file name may
