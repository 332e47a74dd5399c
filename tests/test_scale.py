"""At scale: the same bytes whatever the cluster, whoever is killed, and however often a run is begun.

Each test starts geoseg as a user does, in processes of its own. Nothing waits for a time: what is killed is killed once
the journal of the run says that a block is done.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
from processes import Program, dask_scheduler, dask_worker, receipts, record_of, segment, wait_for_workers
from scenes import ROLES, smooth_pixels, write_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

RASTERS = ("classes.tif", "confidence.tif")
COMMON = ("--no-vectors", "--threads", "1", "--tile", "64")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 x 900 pixels with a corner and a hole of nodata, both larger than a tile."""
    pixels = smooth_pixels((1000, 900), 3)
    pixels[:, :150, :200] = 0
    pixels[:, 500:640, 400:560] = 0
    return write_scene(
        tmp_path_factory.mktemp("scenes") / "scene.tif", pixels, nodata=0, descriptions=ROLES, tiled=True,
        blockxsize=256, blockysize=256, compress="deflate",
    )  # fmt: skip


@pytest.fixture
def start(scene: Path, model: str, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts `geoseg segment` on the scene, into `tmp_path / "out"`; what still runs at the end is killed."""
    programs: list[Program] = []

    def begin(*options: str, out: Path | None = None, scenes: tuple[Path, ...] = ()) -> Program:
        log = tmp_path / f"geoseg_{len(programs)}.log"
        where = ("--out", out or tmp_path / "out", "--model", model)
        programs.append(segment(*(scenes or (scene,)), *where, *COMMON, *options, log=log))
        return programs[-1]

    yield begin
    for program in programs:
        program.kill()


@pytest.fixture(scope="module")
def expected(scene: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The rasters of a run in this process, in one block."""
    from geoseg.config import Settings  # noqa: PLC0415  # imports torch
    from geoseg.workflow import segment_scene  # noqa: PLC0415

    out = tmp_path_factory.mktemp("expected") / "out"
    segment_scene(scene, out, Settings(model=model, tile=64, block=2048, threads=1, vectors=False))
    return rasters_of(out)


def rasters_of(out: Path) -> list[bytes]:
    """The bytes of classes and confidence."""
    return [(out / name).read_bytes() for name in RASTERS]


def assert_done(program: Program, out: Path, expected: list[bytes]) -> None:
    """The run ends well, with the bytes of any other, each tile forwarded or skipped once, and nothing left behind."""
    assert program.finish(180) == 0, program.said
    assert rasters_of(out) == expected
    record = record_of(out)
    tiles = record["tiles"]
    assert tiles["forwarded"] + tiles["skipped_nodata"] == tiles["planned"]
    assert tiles["skipped_nodata"] > 0
    assert (record["status"], tiles["failed"]) == ("done", [])
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("block", "workers"), [(128, 0), (300, 1), (450, 3)])
def test_blocks_and_workers_change_no_byte(
    start: Callable[..., Program], expected: list[bytes], tmp_path: Path, block: int, workers: int
) -> None:
    program = start("--block", str(block), "--workers", str(workers))
    assert_done(program, tmp_path / "out", expected)


def test_a_killed_worker_changes_no_byte(start: Callable[..., Program], expected: list[bytes], tmp_path: Path) -> None:
    program = start("--block", "128", "--workers", "2")
    program.until(lambda: receipts(tmp_path / "out"))
    os.kill(program.workers()[0], signal.SIGKILL)
    assert_done(program, tmp_path / "out", expected)


def test_a_worker_killed_at_the_start_is_not_waited_for(
    start: Callable[..., Program], expected: list[bytes], tmp_path: Path
) -> None:
    program = start("--block", "128", "--workers", "2")
    program.until(lambda: "watch the run" in program.said)  # the workers are there, and begin to load their network
    os.kill(program.workers()[0], signal.SIGKILL)
    assert_done(program, tmp_path / "out", expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_from_its_journal(
    start: Callable[..., Program], expected: list[bytes], tmp_path: Path, workers: int
) -> None:
    options = ("--block", "128", "--workers", str(workers))
    program = start(*options)
    program.until(lambda: len(receipts(tmp_path / "out")) >= 3)
    program.kill()
    assert not (tmp_path / "out" / "run.json").exists()
    assert [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == []
    done = {path: path.stat().st_mtime_ns for path in receipts(tmp_path / "out")}
    again = start(*options)
    # More receipts than before: so the second run is at work, and has not begun by throwing the journal away.
    again.until(lambda: len(receipts(tmp_path / "out")) > len(done))
    os.killpg(again.pid, signal.SIGSTOP)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    os.killpg(again.pid, signal.SIGCONT)
    assert_done(again, tmp_path / "out", expected)
    assert str(program.pid) in again.said  # the stale lock names its owner


def test_without_resume_a_run_begins_anew(start: Callable[..., Program], expected: list[bytes], tmp_path: Path) -> None:
    options = ("--block", "128", "--workers", "0")
    program = start(*options)
    program.until(lambda: len(receipts(tmp_path / "out")) >= 3)
    program.kill()
    done = {path: path.stat().st_mtime_ns for path in receipts(tmp_path / "out")}
    again = start(*options, "--no-resume")
    again.until(lambda: any(path.exists() and path.stat().st_mtime_ns != when for path, when in done.items()))
    assert_done(again, tmp_path / "out", expected)


def test_a_changed_option_begins_anew_and_says_why(
    start: Callable[..., Program], expected: list[bytes], tmp_path: Path
) -> None:
    program = start("--block", "128", "--workers", "0", "--overlap", "24")
    program.until(lambda: receipts(tmp_path / "out"))
    program.kill()
    again = start("--block", "128", "--workers", "0")
    assert_done(again, tmp_path / "out", expected)
    assert "overlap" in again.said, again.said


def test_a_second_run_into_one_folder_is_refused(
    start: Callable[..., Program], expected: list[bytes], tmp_path: Path
) -> None:
    program = start("--block", "128", "--workers", "0")
    program.until(lambda: receipts(tmp_path / "out"))
    os.killpg(program.pid, signal.SIGSTOP)  # so that it cannot end before the second one has looked
    second = start("--block", "128", "--workers", "0")
    assert second.finish() == 5
    assert str(program.pid) in second.said
    assert len(second.said.splitlines()) == 1
    os.killpg(program.pid, signal.SIGCONT)
    assert_done(program, tmp_path / "out", expected)


def test_a_scheduler_and_a_worker_killed(start: Callable[..., Program], expected: list[bytes], tmp_path: Path) -> None:
    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address, tmp_path, "stays"),
        dask_worker(address, tmp_path, "dies") as victim,
    ):
        wait_for_workers(address, 2)
        program = start("--block", "128", "--scheduler", address)
        program.until(lambda: receipts(tmp_path / "out"))
        victim.kill()  # with its nanny: it does not come back
        assert_done(program, tmp_path / "out", expected)


def test_a_killed_scheduler_is_said_and_another_goes_on(
    start: Callable[..., Program], expected: list[bytes], tmp_path: Path
) -> None:
    with dask_scheduler(tmp_path) as (scheduler, address), dask_worker(address, tmp_path, "orphan"):
        wait_for_workers(address, 1)
        program = start("--block", "128", "--scheduler", address)
        program.until(lambda: receipts(tmp_path / "out"))
        scheduler.kill()
        assert program.finish() == 5
        assert "scheduler is gone" in program.said
    assert receipts(tmp_path / "out")
    assert_done(start("--block", "128"), tmp_path / "out", expected)


def test_a_worker_that_joins_late_takes_part(
    start: Callable[..., Program], expected: list[bytes], tmp_path: Path
) -> None:
    with dask_scheduler(tmp_path) as (_, address), dask_worker(address, tmp_path, "early") as early:
        wait_for_workers(address, 1)
        program = start("--block", "100", "--scheduler", address)
        program.until(lambda: receipts(tmp_path / "out"))
        os.killpg(early.pid, signal.SIGSTOP)  # so that work is left, however long the other takes to start
        with dask_worker(address, tmp_path, "late"):
            wait_for_workers(address, 2)
            os.killpg(early.pid, signal.SIGCONT)
            assert_done(program, tmp_path / "out", expected)
    assert len(record_of(tmp_path / "out")["workers"]) == 2


def test_a_batch_keeps_one_cluster(start: Callable[..., Program], tmp_path: Path) -> None:
    scenes = tuple(
        write_scene(tmp_path / f"scene_{k}.tif", smooth_pixels((200 + 60 * k, 300), k), descriptions=ROLES)
        for k in range(3)
    )
    program = start("--block", "128", "--workers", "2", scenes=scenes)
    assert program.finish() == 0, program.said
    records = [record_of(tmp_path / "out" / path.stem) for path in scenes]
    assert len({worker["name"] for record in records for worker in record["workers"]}) <= 2
    for record in records:
        assert record["tiles"]["forwarded"] == record["tiles"]["planned"]
    alone = tmp_path / "alone"
    assert start("--block", "128", out=alone, scenes=scenes[1:2]).finish() == 0
    assert rasters_of(alone) == rasters_of(tmp_path / "out" / scenes[1].stem)


@pytest.mark.parametrize("kind", ["closed", "mute"])
def test_a_scheduler_that_does_not_answer_is_said_soon(start: Callable[..., Program], kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes calls and says nothing
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        if kind == "closed":
            server.close()
        began = time.monotonic()
        program = start("--scheduler", address)
        assert program.finish(60) == 5
        assert time.monotonic() - began < 15  # the contract's limit
    assert f"no Dask scheduler answers at {address}" in program.said
    assert len(program.said.splitlines()) == 1, program.said
