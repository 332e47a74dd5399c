"""A network in whole numbers: half of its sums in int8, made from a network in floats and tiles that it will see."""

from __future__ import annotations

import io
import logging
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import EnvironmentFault
from geoseg.model.bundle import INT8
from geoseg.model.exported import exported_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from geoseg.model.bundle import ModelBundle

    Array = np.ndarray[Any, Any]

SPARED = (0, 2, 6)
"""So many layers stay in floats: none, or the first and the last, or the first and the last five."""


def quantise(bundle: ModelBundle, tiles: Sequence[Array], spared: int = 0) -> dict[str, bytes]:
    """The network of a bundle in int8, calibrated on normalised tiles (channels, tile, tile) float32: files by name.

    Ranges of values are those seen on the tiles. `spared` layers stay as they are, those at both ends of the network,
    which rounding hurts most. Raises EnvironmentFault where NNCF is not installed.
    """
    try:
        import nncf  # noqa: PLC0415  # of the extra int8
    except ImportError as error:
        raise EnvironmentFault(
            'int8 weights are made by NNCF, which is not installed; pip install "geoseg[int8]"'
        ) from (error)
    import openvino  # noqa: PLC0415

    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(exported_network(bundle, bundle.tile))
    layers = [op.get_friendly_name() for op in model.get_ordered_ops() if "Convolution" in op.get_type_name()]
    kept = [*layers[: min(1, spared)], *layers[len(layers) - max(0, spared - 1) :]]
    with redirect_stdout(io.StringIO()):  # where it draws bars
        quantised = nncf.quantize(
            model,
            nncf.Dataset(list(tiles), lambda tile: tile[None]),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(tiles),
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
        )
    for name in ("nncf", "conversion_parameters", "Runtime_version"):  # notes of how, where and when it was made
        if quantised.has_rt_info(name):
            quantised.set_rt_info("", name)
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(quantised, Path(folder) / INT8[0])
        return {name: (Path(folder) / name).read_bytes() for name in INT8}
