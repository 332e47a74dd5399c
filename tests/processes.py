"""Programs in processes of their own, to be watched and killed: geoseg, schedulers, workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_POLL_S = 0.02


class Program:
    """A Python module, running in a process group of its own; what it prints on stdout and stderr goes into files.

    Used as a context, nothing of it is left at the end.
    """

    def __init__(self, module: str, *arguments: str | Path, log: Path) -> None:
        """Start it; `log` gets stderr, and the same name with `.out` stdout."""
        self.log, self.out = log, log.with_suffix(".out")
        self.began = time.perf_counter()
        self.peak_mb = 0.0
        with self.log.open("wb") as err, self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
        threading.Thread(target=self._watch_memory, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The process id, which is that of the group too."""
        return self.process.pid

    @property
    def said(self) -> str:
        """What it has written to stderr so far."""
        return self.log.read_text()

    def workers(self) -> list[int]:
        """Ids of the worker processes that it, or a nanny of its own, started."""
        try:
            below = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child.pid for child in below if "spawn_main" in _command_line(child)]

    def until(self, ready: Callable[[], Any], timeout_s: float = 300) -> Any:
        """Wait for something true and return it; raises AssertionError where the program ends, or time runs out."""
        end = time.monotonic() + timeout_s
        while True:
            found = ready()
            if found:
                return found
            assert self.process.poll() is None, f"it ended with {self.process.returncode} too early:\n{self.said}"
            assert time.monotonic() < end, f"nothing came in {timeout_s} s:\n{self.said}"
            time.sleep(_POLL_S)

    def finish(self, timeout_s: float = 600) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL to all of it at once, workers too; returns when all are gone."""
        family = [process for process in psutil.process_iter() if _group(process) == self.pid]
        if not family:
            return
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(30)
        _, left = psutil.wait_procs(family, timeout=30)
        assert not left, f"{left} outlived the kill of their group"

    def _watch_memory(self) -> None:
        """Keep the largest resident size of the program's first process, as the kernel has it."""
        while self.process.returncode is None:
            self.peak_mb = max(self.peak_mb, peak_mb(self.pid))
            time.sleep(_POLL_S)


def peak_mb(pid: int) -> float:
    """The largest resident size of a process so far, as the kernel has it; 0 where it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmHWM"))


def segment(*arguments: str | Path, log: Path) -> Program:
    """`geoseg segment ...`, started."""
    return Program("geoseg", "segment", *arguments, log=log)


def record_of(out: Path) -> dict[str, Any]:
    """The manifest of a finished run."""
    record: dict[str, Any] = json.loads((out / "run.json").read_text())
    return record


def receipts(out: Path) -> list[Path]:
    """The journal of a run in work: one file for each block that was forwarded, of all scenes of a batch."""
    journals = (".geoseg-work/*/forward_*.json", "*/.geoseg-work/*/forward_*.json")
    try:
        return sorted(path for journal in journals for path in out.glob(journal))
    except FileNotFoundError:  # a folder went while it was looked at: so this run has only begun
        return []


@contextmanager
def dask_scheduler(folder: Path) -> Iterator[tuple[Program, str]]:
    """A `dask scheduler` on a free port of the loopback; the program and its address."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)  # that of a scheduler before
    arguments = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", file)
    with Program("dask", "scheduler", *map(str, arguments), log=folder / "scheduler.log") as program:
        yield program, program.until(lambda: _address(file))


def dask_worker(address: str, folder: Path, name: str) -> Program:
    """A `dask worker` of two threads, under a nanny, in one group."""
    arguments = ("--nworkers", "1", "--nthreads", "2", "--no-dashboard", "--local-directory", folder, "--name", name)
    return Program("dask", "worker", address, *map(str, arguments), log=folder / f"{name}.log")


def wait_for_workers(address: str, count: int) -> None:
    """Return when so many workers have registered."""
    from distributed import Client  # noqa: PLC0415  # 0.7 s

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


def _address(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_text())["address"])
    except (FileNotFoundError, ValueError):  # not there yet, or half written
        return None


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None
