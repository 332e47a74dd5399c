"""Model bundles, the networks they describe, and engines that run them.

A bundle is a folder with `model.json` and `weights.safetensors`; `load_bundle` reads the first without torch,
`fit_to_gsd` says how tiles of a scene become tiles of the network, `open_engine` gives the callable that runs it.
"""

from geoseg.model.bundle import (
    ModelBand,
    ModelBundle,
    find_bundle,
    known_bundles,
    load_bundle,
    save_bundle,
    weights_path,
)
from geoseg.model.engine import (
    LEVELS,
    BundleEngine,
    Engine,
    EngineChoice,
    EngineSource,
    choose_engine,
    engine_of,
    lanes_of,
    open_engine,
)
from geoseg.model.fit import TileFit, fit_to_gsd
from geoseg.model.normalise import Normaliser

__all__ = [
    "LEVELS",
    "BundleEngine",
    "Engine",
    "EngineChoice",
    "EngineSource",
    "ModelBand",
    "ModelBundle",
    "Normaliser",
    "TileFit",
    "choose_engine",
    "engine_of",
    "find_bundle",
    "fit_to_gsd",
    "known_bundles",
    "lanes_of",
    "load_bundle",
    "open_engine",
    "save_bundle",
    "weights_path",
]
