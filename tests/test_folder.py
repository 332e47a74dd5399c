"""Laws of the run folder: one owner at a time, work that outlives its run, and no mix of two runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from geoseg.errors import EnvironmentFault, RunFolderError, SceneError, UsageError
from geoseg.workflow.folder import Claim, claimed, clear_finished, describe_outputs, write_manifest
from geoseg.workflow.key import code_sha256, differences, key_id
from geoseg.workflow.lock import Owner
from geoseg.workflow.verify import verify_run

if TYPE_CHECKING:
    from collections.abc import Callable

WORK, LOCK = ".geoseg-work", ".geoseg-lock"
KEY = {"scene": "a.tif", "grid": {"tile": 512, "block": 1024}, "model": "3f2a91c0" * 8, "nodata": None}

CLAIMS = """
import json, os, subprocess, sys
from pathlib import Path
from geoseg.workflow.folder import claimed
{before}
with claimed(Path(sys.argv[1]), overwrite=False, command=("geoseg", "segment", "a.tif")) as claim:
    claim.begin(json.loads(sys.argv[2]), resume=True)
    (claim.work / "forward_0000_0000.json").write_text("{}")
    (claim.stage / "classes.tif").write_text("half")
    {more}
    print("claimed", os.getpid(), flush=True)
    sys.stdin.read()
"""
"""A run that has computed a block and waits."""

OLD = {"classes.tif.txt": "old", "features_road.txt": "old", "report.html": "old"}
NEW = {"classes.tif.txt": "new", "features_water.txt": "new", "report.html": "new", "project.qgs": "new"}

KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_folder
prepare, act = (getattr(test_folder, name) for name in sys.argv[3:])

class Clock:
    def __init__(self, last):
        self.left = last
    def __call__(self, event, arguments):
        writes = event in {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
        if event == "open":
            writes = isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)

for step in range(1, 1000):
    out = Path(sys.argv[2]) / f"{step:03}"
    prepare(out)
    child = os.fork()
    if not child:
        sys.addaudithook(Clock(step))
        act(out)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(step)
        break
"""
"""Acts again and again, killed just before its first change of the disk, its second, and so on to the end."""


def old_run(out: Path) -> None:
    """A finished run, beside a file of the user's."""
    out.mkdir(parents=True)
    (out / "notes.txt").write_text("precious")
    for name, text in OLD.items():
        (out / name).write_text(text)
    write_manifest(out, {"outputs": describe_outputs(out, [out / name for name in OLD])})


def replace_run(out: Path) -> Claim:
    """What `segment --overwrite` does with a folder."""
    with claimed(out, overwrite=True) as claim:
        begin(claim)
        block(claim)
        for name in NEW.keys() - {"project.qgs"}:
            (claim.stage / name).write_text("new")
        outputs = claim.publish()
        (out / "project.qgs").write_text("new")
        write_manifest(out, {"outputs": describe_outputs(out, [*outputs, out / "project.qgs"])})
        claim.finish()
    return claim


def cut_short(out: Path, error: BaseException | None, *steps: Callable[[Claim], object]) -> None:
    """A run that takes these steps and then meets an error."""
    with pytest.raises(type(error)) if error else nullcontext() as caught, claimed(out, overwrite=True) as claim:
        for step in steps:
            step(claim)
        if error:
            raise error
    assert not error or caught.value is error


def restart_run(out: Path) -> None:
    """What `segment --no-resume` does with a folder, until it is interrupted."""
    with claimed(out, overwrite=False) as claim:
        claim.begin(KEY, resume=False)
        for k in range(4):
            block(claim, f"0001_{k:04}")


def kill_at_every_step(folder: Path, prepare: Callable[[Path], None], act: Callable[[Path], object]) -> list[Path]:
    """The folders that `act` leaves when it is killed just before each of its changes of the disk."""
    arguments = [str(Path(__file__).parent), str(folder), prepare.__name__, act.__name__]
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, *arguments]
    steps = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert steps > 20
    return sorted(folder.iterdir())


def unfinished(out: Path, key: dict[str, object] = KEY) -> None:
    """Leave the folder of a run that was interrupted after a block."""
    names = (".part_0000_0000.tif.12.34.partial", "outputs/classes.tif")
    litter = [lambda claim, name=name: (claim.work / name).write_text("half") for name in names]
    blocks = [lambda claim, k=k: block(claim, f"0000_{k:04}") for k in range(4)]
    cut_short(out, KeyboardInterrupt(), lambda claim: claim.begin(key, resume=True), *blocks, *litter)


def begin(claim: Claim) -> None:
    """Start, or go on with, the work of these tests."""
    claim.begin(KEY, resume=True)


def block(claim: Claim, name: str = "0000_0000") -> None:
    """Compute a block: the sums, then the receipt."""
    (claim.work / f"sums_{name}.npz").write_text("sums")
    (claim.work / f"forward_{name}.json").write_text("{}")


def texts(out: Path) -> dict[str, str]:
    """Every file of a folder but run.json."""
    return {
        path.relative_to(out).as_posix(): path.read_text()
        for path in out.rglob("*")
        if path.is_file() and path.name != "run.json"
    }


@contextmanager
def running(out: Path, *, before: str = "", more: str = "pass", stdin: int = subprocess.PIPE):
    """Another process that has claimed a folder; dead at the end."""
    code = CLAIMS.replace("{before}", before).replace("{more}", more)
    command = [sys.executable, "-c", code, str(out), json.dumps(KEY)]
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == f"claimed {process.pid}\n"
            yield process
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_two_at_once_are_one_and_a_refusal_that_names_the_owner(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running(out) as process:
        before = texts(out)
        owner = rf"another geoseg \(process {process.pid} of \S+ on {socket.gethostname()}, since 20\d\d-.* UTC\)"
        with (
            pytest.raises(EnvironmentFault, match=rf"{owner} is writing to {out}; wait for it"),
            claimed(out, overwrite=True),
        ):
            pytest.fail("two own one folder")
        assert texts(out) == before
        lock = json.loads((out / LOCK).read_text())
        assert lock.keys() == {"pid", "host", "user", "started", "command"}
        assert lock["command"] == ["geoseg", "segment", "a.tif"]
        assert abs(datetime.fromisoformat(lock["started"]) - datetime.now(UTC)).days == 0


def test_two_threads_are_two_owners(tmp_path: Path) -> None:
    refused = []

    def second() -> None:
        try:
            with claimed(tmp_path / "out", overwrite=False):
                pass
        except EnvironmentFault as fault:
            refused.append(str(fault))

    with claimed(tmp_path / "out", overwrite=False):
        thread = Thread(target=second)
        thread.start()
        thread.join()
        assert (tmp_path / "out" / LOCK).exists()
    assert len(refused) == 1
    assert f"process {os.getpid()} of" in refused[0]


def test_after_a_kill_the_same_run_goes_on_and_the_former_owner_is_known(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running(out) as process:
        kill(process)
    assert json.loads((out / LOCK).read_text())["pid"] == process.pid
    with claimed(out, overwrite=False) as claim:
        assert claim.former is not None
        assert (claim.former.pid, claim.former.host) == (process.pid, socket.gethostname())
        assert claim.former.command == ("geoseg", "segment", "a.tif")
        assert json.loads((out / LOCK).read_text())["pid"] == os.getpid()
        assert claim.begin(dict(reversed(KEY.items())), resume=True) is None
        assert claim.resumed
        assert (claim.work / "forward_0000_0000.json").exists()
        assert list(claim.stage.iterdir()) == []
        assert not list(out.rglob("classes.tif"))
        claim.finish()
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    "more",
    [
        # The owner goes on when the other is there: what it must not hold, it lets go of before it says so.
        "r, w = os.pipe(); os.fork() or (os.write(w, b'x'), os.close(1), sys.stdin.read(), os._exit(0)); os.read(r, 1)",
        "subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], stdout=2, close_fds=False)",
    ],
    ids=["forked", "spawned"],
)
def test_a_process_that_outlives_the_owner_does_not_hold_its_lock(tmp_path: Path, more: str) -> None:
    reader, writer = os.pipe()
    try:
        with running(tmp_path, more=more, stdin=reader) as process:
            kill(process)
            with claimed(tmp_path, overwrite=False) as claim:
                assert claim.former is not None
                assert claim.former.pid == process.pid
    finally:
        os.close(writer)
        os.close(reader)


@pytest.mark.parametrize(("end", "code"), [("sys.exit(7)", 7), ("raise UsageError('wrong')", 1)])
def test_a_forked_process_lets_nothing_go(tmp_path: Path, end: str, code: int) -> None:
    more = f"""from geoseg.errors import UsageError
    child = os.fork()
    if not child:
        {end}
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == {code}"""
    with running(tmp_path, more=more) as process:
        assert list(tmp_path.glob(f"{WORK}/*/forward_*.json"))
        with pytest.raises(EnvironmentFault, match=f"process {process.pid} of"), claimed(tmp_path, overwrite=False):
            pytest.fail("two own one folder")


def test_a_lock_file_that_its_owner_deletes_just_now_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("")
    before = """
def meanwhile(event, arguments, left=[1]):
    if event == "fcntl.flock" and left and left.pop():
        Path(sys.argv[1], ".geoseg-lock").unlink()
sys.addaudithook(meanwhile)
"""
    with running(tmp_path, before=before) as process:
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == process.pid
        with pytest.raises(EnvironmentFault, match=f"process {process.pid} of"), claimed(tmp_path, overwrite=False):
            pytest.fail("two own one folder")


@pytest.mark.slow
def test_however_many_compete_there_is_one_owner_at_a_time(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from geoseg.errors import EnvironmentFault
from geoseg.workflow.folder import claimed
out, mark, won = Path(sys.argv[1]), Path(sys.argv[1] + ".mark"), 0
while won < 30:
    try:
        with claimed(out, overwrite=False) as claim:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            assert claim.former is None
            won += 1
            mark.unlink()
    except EnvironmentFault as fault:
        assert "is writing to" in str(fault), fault
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a" / "out")]
    crowd = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in crowd] == [""] * 3
    assert list(tmp_path.iterdir()) == [tmp_path / "a"] or not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"hello", b"\xff\x00\n", b"[1]", b'{"pid": 1}', b"\0" * 300])
def test_a_lock_file_that_names_nobody_is_taken_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK).write_bytes(content)
    with claimed(tmp_path, overwrite=False) as claim:
        assert claim.former is None
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_what_a_lock_file_says_is_fit_for_a_terminal() -> None:
    ours = Owner.this_process(("geoseg", "segment"))
    assert Owner.from_json(ours.to_json()) == ours
    assert Owner.from_json(ours.to_json() + 'on"]}') == ours
    told = Owner.from_json(ours.to_json().replace(ours.host, "\\u001b[2J" + "x" * 999))
    assert told is not None
    assert str(told).isprintable()
    assert len(str(told)) < 200


def test_what_is_no_lock_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to("precious")):
        make(tmp_path / LOCK)
        with pytest.raises(EnvironmentFault, match=r"choose another --out"), claimed(tmp_path, overwrite=False):
            pytest.fail("there is no lock")
        assert (tmp_path / LOCK).is_symlink() or not (tmp_path / LOCK).is_file()
        shutil.rmtree(tmp_path / LOCK) if (tmp_path / LOCK).is_dir() else (tmp_path / LOCK).unlink()
    assert texts(tmp_path) == {"precious": "precious"}


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    (tmp_path.parent / "file").write_text("")
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        for out in (tmp_path, tmp_path / "out", tmp_path.parent / "file" / "out"):
            with pytest.raises(EnvironmentFault, match="cannot be written to"), claimed(out, overwrite=False):
                pytest.fail("this folder is read-only")
    finally:
        os.seteuid(user)
    with pytest.raises(EnvironmentFault, match="File exists"), claimed(tmp_path.parent / "file", overwrite=True):
        pytest.fail("this is a file")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"grid": {"tile": 512, "block": 2048}}, "another grid (block 1024, now 2048): starting anew"),
        ({"model": "9b" * 32, "scene": "b.tif"}, "another scene (a.tif, now b.tif) and model (3f2a91c03f…c03f2a91c0, "),
        ({"nodata": float("nan")}, "another nodata (none, now NaN): starting anew"),
        ({"tta": True}, "another tta (absent, now true): starting anew"),
    ],
)
def test_another_key_starts_anew_and_says_why(tmp_path: Path, change: dict[str, object], told: str) -> None:
    unfinished(tmp_path)
    with claimed(tmp_path, overwrite=False) as claim:
        note = claim.begin({**KEY, **change}, resume=True)
        assert note is not None
        assert note.startswith(f"{tmp_path} holds an unfinished run with {told}")
        assert not claim.resumed
        assert [path.name for path in (tmp_path / WORK).iterdir()] == [key_id({**KEY, **change})]
        assert sorted(path.name for path in claim.work.iterdir()) == ["key.json", "outputs"]


def test_no_resume_starts_anew_and_says_so(tmp_path: Path) -> None:
    unfinished(tmp_path)
    with claimed(tmp_path, overwrite=False) as claim:
        note = claim.begin(KEY, resume=False)
        assert note == f"{tmp_path} holds an unfinished run, --no-resume: starting anew"
        assert not claim.resumed
        assert sorted(path.name for path in claim.work.iterdir()) == ["key.json", "outputs"]
        with pytest.raises(RuntimeError, match="has not begun"):
            _ = Claim(tmp_path).work
    with claimed(tmp_path, overwrite=False) as claim:
        assert claim.begin(KEY, resume=False) is None, "nothing was left"


def test_the_same_key_goes_on_without_what_was_half_written(tmp_path: Path) -> None:
    key = {**KEY, "nodata": float("nan")}
    unfinished(tmp_path, key)
    assert not (tmp_path / LOCK).exists()
    with claimed(tmp_path, overwrite=False) as claim:
        assert claim.former is None
        assert claim.begin(dict(reversed(key.items())), resume=True) is None
        assert claim.resumed
        blocks = {f"{step}_0000_000{k}.{end}" for k in range(4) for step, end in (("sums", "npz"), ("forward", "json"))}
        assert {path.name for path in claim.work.iterdir()} == {"key.json", "outputs", *blocks}
        assert list(claim.stage.iterdir()) == []


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_work_that_does_not_say_of_what_is_not_gone_on_with(tmp_path: Path, content: str | None) -> None:
    unfinished(tmp_path)
    path = tmp_path / WORK / key_id(KEY) / "key.json"
    path.unlink() if content is None else path.write_text(content)
    with claimed(tmp_path, overwrite=False) as claim:
        assert "key.json cannot be read: starting anew" in str(claim.begin(KEY, resume=True))
        assert not list(claim.work.glob("forward_*"))


def test_work_of_a_run_that_is_no_more_has_no_place_to_be_written_to(tmp_path: Path) -> None:
    unfinished(tmp_path)
    left = tmp_path / WORK / key_id(KEY)
    with claimed(tmp_path, overwrite=False) as claim:
        claim.begin({**KEY, "scene": "b.tif"}, resume=True)
        assert not left.exists()
        assert claim.work != left


@pytest.mark.parametrize("receipts", [0, 1])
@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (SceneError("damaged"), False),
        (UsageError("wrong"), False),
        (EnvironmentFault("full"), True),
        (OSError(28, "full"), True),
        (KeyboardInterrupt(), True),
        (SystemExit(1), True),
        (ZeroDivisionError(), True),
        (None, True),
    ],
    ids=repr,
)
def test_work_stays_where_the_same_command_could_go_on(
    tmp_path: Path, error: BaseException | None, receipts: int, *, stays: bool
) -> None:
    out = tmp_path / "a" / "out"
    blocks = [lambda claim, k=k: block(claim, f"0000_{k:04}") for k in range(receipts)]
    cut_short(out, error, begin, *blocks)
    if stays and receipts:
        assert {path.name for path in out.iterdir()} == {WORK}
        assert list(out.glob(f"{WORK}/{key_id(KEY)}/forward_*.json"))
    else:
        assert list(tmp_path.iterdir()) == []


def test_an_error_before_the_work_begins_costs_no_former_work(tmp_path: Path) -> None:
    unfinished(tmp_path)
    before = texts(tmp_path)
    cut_short(tmp_path, UsageError("wrong"))
    assert texts(tmp_path) == before


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    cut_short(tmp_path, SceneError("damaged"), begin)
    assert texts(tmp_path) == {"notes.txt": "precious"}


def test_foreign_outputs_are_refused_until_a_run_of_ours_lies_there(tmp_path: Path) -> None:
    (tmp_path / "classes.tif").write_text("precious")
    with (
        pytest.raises(UsageError, match=r"classes\.tif, which no run of geoseg left"),
        claimed(tmp_path, overwrite=False),
    ):
        pytest.fail("this is not ours")
    assert texts(tmp_path) == {"classes.tif": "precious"}
    (tmp_path / WORK).mkdir()
    with claimed(tmp_path, overwrite=False):
        pass
    with claimed(tmp_path, overwrite=True):
        pass


def test_a_new_run_takes_the_place_of_the_former(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside.txt"
    old_run(out)
    outside.write_text("precious")
    record = json.loads((out / "run.json").read_text())
    record["outputs"] |= {"../outside.txt": {}, str(outside): {}, ".": {}}
    write_manifest(out, record)
    replace_run(out)
    assert texts(out) == {**NEW, "notes.txt": "precious"}
    assert outside.read_text() == "precious"
    assert verify_run(out) == []
    (out / "run.json").write_text("{torn")
    replace_run(out)
    assert verify_run(out) == []


def test_a_first_run_leaves_its_outputs_alone(tmp_path: Path) -> None:
    claim = replace_run(tmp_path / "out")
    assert texts(tmp_path / "out") == NEW
    assert verify_run(tmp_path / "out") == []
    with pytest.raises(RuntimeError, match="finished"):
        _ = claim.work


def test_an_error_between_publish_and_manifest_leaves_no_outputs(tmp_path: Path) -> None:
    for error, left in ((SceneError("damaged"), set()), (KeyboardInterrupt(), {WORK})):
        out = tmp_path / type(error).__name__
        old_run(out)
        cut_short(
            out, error, begin, block,
            lambda claim: (claim.stage / "item.json").write_text("new"),
            lambda claim: claim.publish(),
            lambda claim: (claim.out / "project.qgs").write_text("new"),
        )  # fmt: skip
        assert {path.name for path in out.iterdir()} == {"notes.txt", *left}


@pytest.mark.slow
def test_killed_at_any_step_a_folder_holds_one_run_or_none_and_the_next_mends_it(tmp_path: Path) -> None:
    seen = set()
    for out in kill_at_every_step(tmp_path / "runs", old_run, replace_run):
        found = {name: text for name, text in texts(out).items() if not name.startswith(".")}
        assert found.pop("notes.txt") == "precious"
        if (out / "run.json").exists():
            assert verify_run(out) == []
            assert found in (OLD, NEW)
        seen.add(("old" if found == OLD else "new") if (out / "run.json").exists() else "none")
        twin = shutil.copytree(out, tmp_path / "twins" / out.name)
        cleared = shutil.copytree(out, tmp_path / "cleared" / out.name)
        clear_finished(cleared)
        if (out / "run.json").exists() and found == NEW:
            assert texts(cleared) == {**NEW, "notes.txt": "precious"}
            assert not list(cleared.glob(".*"))
        elif not (out / "run.json").exists():
            assert texts(cleared) == texts(out)
        replace_run(out)
        assert texts(out) == {**NEW, "notes.txt": "precious"}
        assert verify_run(out) == []
        assert not list(out.glob(".*"))
        cut_short(twin, SceneError("damaged"), begin)
        expected = found if (twin / "run.json").exists() else {}
        assert texts(twin) == {**expected, "notes.txt": "precious"}
        assert not list(twin.glob(".*"))
    assert seen == {"old", "none", "new"}


def test_work_is_cleared_of_a_finished_run_alone_and_of_none_that_is_at_work(tmp_path: Path) -> None:
    with claimed(tmp_path, overwrite=False) as claim:
        begin(claim)
        (claim.stage / "classes.tif").write_text("new")
        write_manifest(tmp_path, {"outputs": describe_outputs(tmp_path, claim.publish())})
        clear_finished(tmp_path)
        assert claim.stage.exists(), "its run clears up itself"
        claim.finish()
    unfinished(tmp_path)
    work = texts(tmp_path)
    clear_finished(tmp_path)
    assert texts(tmp_path) == work, "it can be gone on with"


@pytest.mark.slow
def test_killed_at_any_step_no_block_is_gone_on_with_that_is_not_whole(tmp_path: Path) -> None:
    seen = set()
    for out in kill_at_every_step(tmp_path, unfinished, restart_run):
        with claimed(out, overwrite=False) as claim:
            claim.begin(KEY, resume=True)
            names = {path.stem.partition("_")[::2] for path in claim.work.glob("*_*")}
            receipts = {block for step, block in names if step == "forward"}
            assert receipts <= {block for step, block in names if step == "sums"}
            assert len({block[:4] for block in receipts}) <= 1, "blocks of two runs"
            seen.add((claim.resumed, len(receipts)))
    assert {(True, 4), (True, 1), (False, 0)} <= seen


def test_a_damaged_list_of_what_was_moved_is_said(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / "publish.json").write_text("{torn")
    with pytest.raises(RunFolderError, match=r"publish\.json is damaged"), claimed(tmp_path, overwrite=False):
        pytest.fail("nobody knows what lies here")


def test_the_hash_of_the_code_follows_what_decides_the_blocks_and_loads_none_of_it(
    tmp_path: Path, repository: Path
) -> None:
    shutil.copytree(
        repository / "geoseg", tmp_path / "geoseg", ignore=shutil.ignore_patterns("bundles", "demo", "__p*")
    )

    def of_copy() -> str:
        code = (
            "import sys\nfrom geoseg.workflow.key import code_sha256\nprint(code_sha256())\n"
            "assert not {'torch', 'numpy', 'rasterio', 'timm'} & sys.modules.keys()"
        )
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    assert of_copy() == code_sha256()
    with (tmp_path / "geoseg" / "errors.py").open("a") as file:
        file.write("# one more line\n")
    assert of_copy() == code_sha256()
    with (tmp_path / "geoseg" / "model" / "network.py").open("a") as file:
        file.write("# one more line\n")
    changed = of_copy()
    assert changed != code_sha256()
    (tmp_path / "geoseg" / "model" / "network.py").rename(tmp_path / "geoseg" / "model" / "net.py")
    assert of_copy() not in {changed, code_sha256()}


def test_differences_are_named_one_level_deep_with_both_values() -> None:
    before = {"grid": {"block": 1024, "tile": 512}, "bands": [1, 2], "aoi": "a.json", "same": float("nan"), "gone": 1}
    now = {"same": float("nan"), "aoi": {"path": "a.json"}, "bands": [2, 1], "grid": {"tile": 512, "block": 2048}}
    assert differences(before, now) == [
        'aoi a.json, now {"path": "a.json"}', "bands [1, 2], now [2, 1]", "grid.block 1024, now 2048",
        "gone 1, now absent",
    ]  # fmt: skip
    assert differences(before, dict(reversed(before.items()))) == []
    alike = differences({"x": "a" * 20 + "1" + "b" * 20}, {"x": "a" * 20 + "2" + "b" * 20})
    assert alike == [f"x {'a' * 20}1{'b' * 20}, now {'a' * 20}2{'b' * 20}"]
