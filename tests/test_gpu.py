"""What holds on a GPU; skipped where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scenes import save_small_bundle, smooth_pixels, write_scene

from geoseg.config import Settings
from geoseg.model import BundleEngine, EngineChoice, engine_of, lanes_of
from geoseg.workflow import segment_scene

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def source(folder: Path, encoder: str = "resnet18", **choice: int | str) -> BundleEngine:
    """Where a small untrained engine on the GPU comes from."""
    bundle = save_small_bundle(folder, encoder=encoder)
    return BundleEngine(folder, bundle.sha256, EngineChoice(device="cuda", **choice), 64)


@pytest.mark.parametrize("encoder", ["resnet18", "resnet152"])
def test_a_tile_does_not_depend_on_its_company(tmp_path: Path, encoder: str) -> None:
    where = source(tmp_path / "model", encoder, batch=4)
    engine, lanes = engine_of(where), lanes_of(where)
    tiles = np.random.default_rng(0).standard_normal((137, 4, 64, 64)).astype(np.float32)
    alone = [engine(tile, k) for k, tile in enumerate(tiles)]
    order = np.random.default_rng(1).permutation(len(tiles))
    futures = {k: lanes.submit(0, engine, tiles[k], k) for k in order}
    for k, expected in enumerate(alone):
        np.testing.assert_array_equal(futures[k].result(), expected)


def test_a_batch_that_is_too_large_is_halved(tmp_path: Path) -> None:
    engine = engine_of(source(tmp_path / "model", batch=1 << 22))
    assert engine.name.startswith("torch cuda")
    assert 1 <= int(engine.name.rsplit(" ", 1)[1]) < 1 << 22
    assert engine(np.zeros((4, 64, 64), np.float32)).shape == (5, 64, 64)


def test_a_scene_has_the_same_bytes_for_all_blocks(tmp_path: Path) -> None:
    model = tmp_path / "model"
    save_small_bundle(model)
    scene = write_scene(tmp_path / "scene.tif", smooth_pixels((500, 700)), descriptions=("red", "green", "blue", "nir"))
    contents = set()
    for block in (100, 300, 1000):
        settings = Settings(model=str(model), device="cuda", block=block, vectors=False)
        result = segment_scene(scene, tmp_path / str(block), settings)
        contents.add((result.folder / "classes.tif").read_bytes())
    assert len(contents) == 1
