"""Laws of the whole: the order of modules, the size of files, what the command line imports, the top level."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "geoseg"
SCRIPT = Path(sys.executable).parent / "geoseg"
SOURCES = sorted(PACKAGE.rglob("*.py"))

ORDER = (
    "errors", "frame", "legend", "scene", "grid", "model", "blend", "labels", "segment", "vector", "change", "report",
    "write", "config", "runtime", "workflow", "cli",
)  # fmt: skip
BESIDE = {
    "training": {"errors", "frame", "legend", "scene", "grid", "model", "blend", "labels"},
}
"""What stands beside the list, and what it may import."""
USERS = {"training": {"workflow", "cli"}}
"""Who may import what stands beside the list."""

TOP_LEVEL = {
    ".ci", ".github", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "configs", "docker",
    "docs", "geoseg", "notebooks", "pipelines", "pyproject.toml", "tests",
}  # fmt: skip
REQUIRED = TOP_LEVEL - {".github", "docs"}

HEAVY = {"torch", "rasterio", "dask", "distributed", "geopandas", "xarray", "scipy", "shapely", "pandas", "matplotlib"}
COMMANDS = (
    "demo",
    "info",
    "plan",
    "segment",
    "vectorize",
    "change",
    "train",
    "evaluate",
    "export",
    "suggest",
    "models",
    "verify",
)

MOST_LINES = 400
MOST_SECONDS = 0.5


def stage_of(source: Path) -> str:
    """The stage that a file belongs to; empty for the package's own __init__."""
    return source.relative_to(PACKAGE).parts[0].removesuffix(".py").replace("__init__", "").replace("__main__", "cli")


def imported_stages(source: Path) -> set[str]:
    """The stages that a file imports, at its top, inside functions, or for type checking."""
    package = ("geoseg", *source.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("geoseg.")} - {"__version__"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_above_it(source: Path) -> None:
    stage = stage_of(source)
    if stage in BESIDE:
        allowed = BESIDE[stage]
    elif stage:
        assert stage in ORDER, f"{stage} has no place in the order of modules; see CONTRIBUTING.md"
        allowed = set(ORDER[: ORDER.index(stage)]) | {name for name, users in USERS.items() if stage in users}
    else:
        allowed = set()
    assert imported_stages(source) <= allowed | {stage}


def test_the_law_of_order_sees_every_kind_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    folder = tmp_path / "grid"
    folder.mkdir()
    source = folder / "__init__.py"
    source.write_text(
        "import geoseg.cli\nfrom geoseg import write, __version__\nfrom ..workflow import run\nfrom .axis import Axis\n"
        "def f():\n    from geoseg.model.engine import LEVELS\n",
    )
    assert stage_of(source) == "grid"
    assert imported_stages(source) == {"cli", "write", "workflow", "grid", "model"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_stays_short(source: Path) -> None:
    assert len(source.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_the_top_level_is_the_one_agreed_on(repository: Path) -> None:
    git = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607  # whichever git there is
        cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if git.returncode:
        pytest.skip("not a git checkout, so there is no telling sources from leftovers")
    found = {line.split("/")[0] for line in git.stdout.splitlines()}
    assert found <= TOP_LEVEL
    assert found >= REQUIRED


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(repository: Path, name: str) -> None:
    text = (repository / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", text)
    relative = [link.split("#")[0] for pair in links for link in pair if link and "://" not in link]
    missing = sorted({link for link in relative if link and not (repository / link).exists()})
    assert not missing


def test_the_commands_are_these() -> None:
    listed = run_help().stdout.split("Commands:")[1]
    assert set(re.findall(r"^  (\w+)", listed, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("command", ["", *COMMANDS, "models show"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys\nfrom geoseg.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('loaded', *{name.split('.')[0] for name in sys.modules})"
    )
    arguments = [sys.executable, "-c", code, *command.split(), "--help"]
    answer = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert f"{command} [OPTIONS]".lstrip() in answer
    loaded = set(answer.splitlines()[-1].split()[1:])
    assert "geoseg" in loaded
    assert not loaded & HEAVY


def test_help_answers_at_once() -> None:
    # User time rather than time on the clock: other tests run beside this one.
    code = (
        f"import resource, subprocess\nsubprocess.run([{str(SCRIPT)!r}, '--help'], check=True, capture_output=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\nprint(used.ru_utime + used.ru_stime)"
    )
    seconds = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert seconds < MOST_SECONDS


def run_help(*command: str) -> subprocess.CompletedProcess[str]:
    """`geoseg COMMAND --help`, as a user calls it."""
    return subprocess.run([SCRIPT, *command, "--help"], capture_output=True, text=True, check=True)
