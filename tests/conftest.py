"""What tests share: one thread a process, real scenes, and a reason for each test that is skipped."""

from __future__ import annotations

import getpass
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Before numpy and torch are imported: tests run in parallel processes, and the sums of a network depend on its threads.
for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
# No test looks into the user's own models or settings.
for name in [key for key in os.environ if key.startswith("GEOSEG_")]:
    del os.environ[name]
os.environ["GEOSEG_MODELS"] = str(Path(__file__).parent / "no-models-here")

# One for all processes that test, and for the commands that they start.
os.environ["GEOSEG_CACHE"] = str(Path(tempfile.gettempdir()) / f"geoseg-tests-{getpass.getuser()}")

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY.parent / "shared" / "data"
QGIS_PYTHON = Path("/usr/bin/python3")
"""QGIS comes with the system's Python, not with ours."""

# Examples of one law differ a lot in size, and other processes compete for the cores.
settings.register_profile("geoseg", deadline=None)
settings.load_profile("geoseg")

collect_ignore = ["qgis_render.py"]  # runs in the system's Python


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    """The embedded scenes."""
    return REPOSITORY / "geoseg" / "demo"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The data folder beside the repository; for tests marked `data`."""
    return DATA


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small untrained model."""
    from scenes import save_small_bundle  # noqa: PLC0415  # imports torch, which must see the variables above

    folder = tmp_path_factory.mktemp("models") / "small"
    save_small_bundle(folder)
    return str(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs things that this machine does not have."""
    missing = {}
    if not DATA.is_dir():
        missing["data"] = f"no data folder at {DATA}"
    if any(item.get_closest_marker("qgis") for item in items) and not _has_qgis():
        missing["qgis"] = f"{QGIS_PYTHON} has no qgis module; install QGIS with its Python bindings"
    for item in items:
        for marker, reason in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _has_qgis() -> bool:
    if not QGIS_PYTHON.exists():
        return False
    found = subprocess.run([QGIS_PYTHON, "-c", "import qgis.core"], capture_output=True, check=False)
    return found.returncode == 0
