"""The container files: clean to their linters, complete, and true to the command line."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DOCKER = Path(__file__).resolve().parent.parent / "docker"
COMPOSE = DOCKER / "compose.yaml"
TOOLS = Path(sys.executable).parent


def run_tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment; skips where it is not installed."""
    if not (TOOLS / name).exists():
        pytest.skip(f"{name} is not installed; it comes with the test extra where there is a build for this machine")
    return subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=False)


def test_the_dockerfile_is_clean() -> None:
    lint = run_tool("hadolint", "--no-color", DOCKER / "Dockerfile")
    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_the_compose_file_follows_its_schema() -> None:
    check = run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert check.returncode == 0, check.stdout + check.stderr


def test_all_that_the_image_is_built_from_is_there_and_not_ignored(repository: Path) -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    copied = [name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert {"geoseg", "pyproject.toml"} <= set(copied)
    rules = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    for name in copied:
        assert (repository / name).exists(), name
        parts = [name, *map(str, Path(name).parents)]  # a rule for a folder holds for what is in it
        applying = [rule for rule in rules if rule and any(fnmatch.fnmatch(part, rule.lstrip("!")) for part in parts)]
        assert applying[-1].startswith("!"), f"{name} is ignored by {applying[-1]}"


def test_the_image_runs_as_a_user_and_starts_geoseg() -> None:
    last_stage = (DOCKER / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[-1]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last_stage, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["geoseg"\]$', last_stage, re.MULTILINE)


def test_compose_opens_no_port_to_the_world() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("service", ["scheduler", "worker"])
def test_the_dask_options_of_compose_exist(service: str) -> None:
    described = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"][service]
    text = run_tool(*described["entrypoint"], "--help").stdout
    options = [word for word in described["command"] if word.startswith("--")]
    assert options
    assert all(option in text for option in options)


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml"])
def test_the_commands_shown_in_comments_exist(file: str) -> None:
    text = re.sub(r"\\\n#\s+", "", (DOCKER / file).read_text(encoding="utf-8"))
    shown = re.findall(r"^#   .*\bdocker .*\b(segment .*)$", text, re.MULTILINE)
    assert shown
    for command in shown:
        name, *words = command.split()
        answer = run_tool("geoseg", name, "--help")
        assert answer.returncode == 0, answer.stderr
        assert all(word in answer.stdout for word in words if word.startswith("--"))
