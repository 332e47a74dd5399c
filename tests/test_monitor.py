"""The map of blocks: what it makes of the news, and what a browser sees of it in the dashboards of real schedulers."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoseg.errors import EnvironmentFault
from geoseg.runtime import tell
from geoseg.runtime.monitor import STATES, BlockMap, Monitor, open_page
from geoseg.runtime.page import COLOURS, line_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIDE = 10
TILES = 3
"""Tiles of a block, one event each."""
BOUND_S = 60
"""What has not come by then does not come."""

STATES_SHOWN = "Bokeh.documents[0]?.get_model_by_name('map').renderers[0].data_source.data.state ?? []"


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def scene(blocks=6, run="r1", name="scene.tif", columns=3):
    boxes = [[SIDE * (k // columns), SIDE * (k % columns), SIDE, SIDE] for k in range(blocks)]
    shape = [SIDE * -(-blocks // columns), SIDE * columns]
    return {"what": "scene", "run": run, "name": name, "shape": shape, "boxes": boxes, "tiles": TILES * blocks}


def news(block, state, tiles=0, pixels=0, run="r1"):
    return {"what": "block", "run": run, "block": block, "state": state, "tiles": tiles, "pixels": pixels}


def attempt(block, run="r1"):
    """All that a worker tells of a block until the sums lie in their file."""
    parts = [SIDE * SIDE // TILES] * (TILES - 1)
    pixels = [*parts, SIDE * SIDE - sum(parts)]
    forward = [news(block, "forward", 1, count, run) for count in pixels]
    return [news(block, "reading", run=run), *forward, news(block, "forwarded", run=run)]


def began(clock=None, **what):
    monitor = Monitor(clock or Clock())
    monitor.take("client", scene(**what))
    return monitor, monitor.shown()


@st.composite
def lives(draw):
    """For each block, the events of its attempts, all but the last broken off; the last may find all of it done."""
    blocks = []
    for k in range(draw(st.integers(1, 6))):
        events = []
        for n in range(tries := draw(st.integers(1, 3))):
            whole = attempt(k)
            told = whole[: draw(st.integers(1, len(whole)))]
            worker = f"tcp://w{draw(st.integers(0, n))}"
            if n == tries - 1:
                # Only a worker's death loses news, so that others find what they have not heard of.
                worker, told = (worker, whole) if draw(st.booleans()) else ("tcp://heir", [news(k, "forwarded", TILES)])
            events += [(worker, event) for event in told]
        if draw(st.booleans()):
            events.insert(draw(st.integers(1, len(events))), (events[-1][0], news(k, "failed")))
        blocks.append([*events, ("tcp://w9", news(k, "done"))])
    return blocks


@given(lives(), st.randoms(use_true_random=False))
def test_tiles_add_up_whatever_was_begun_twice(blocks, random) -> None:
    monitor, shown = began(blocks=len(blocks), columns=1)
    failing = {k for k, events in enumerate(blocks) if any(event["state"] == "failed" for _, event in events)}
    queues = [list(events) for events in blocks]
    while any(queues):
        worker, event = random.choice([queue for queue in queues if queue]).pop(0)
        monitor.take(worker, event)
        progress = shown.progress(monitor.clock())
        assert 0 <= progress.tiles <= progress.of
    progress = shown.progress(monitor.clock())
    assert progress.tiles == progress.of == TILES * len(blocks)
    assert progress.share == 1
    assert progress.left_s == 0
    assert [STATES[code] for code in shown.states] == ["failed" if k in failing else "done" for k in range(len(blocks))]
    assert sum(shown.counts().values()) == len(blocks)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(STATES)), max_size=40))
def test_states_go_forward_until_a_block_is_begun_anew_and_what_failed_stays_failed(events) -> None:
    monitor, shown = began(blocks=4)
    for block, state in events:
        before = shown.states
        monitor.take("tcp://w", news(block, state))
        again = state == "reading" and STATES[before[block]] in {"forward", "forwarded"}
        assert again or all(old <= new for old, new in zip(before, shown.states, strict=True))
        assert not again or STATES[shown.states[block]] == "reading"
    for block, state in events:
        assert state != "failed" or STATES[shown.states[block]] == "failed"


def test_a_block_that_another_worker_begins_anew_counts_once() -> None:
    monitor, shown = began()
    for event in attempt(0)[:3]:
        monitor.take("tcp://dead", event)
    assert shown.progress(0).tiles == 2
    monitor.take("tcp://heir", attempt(0)[0])
    assert shown.progress(0).tiles == 0
    assert STATES[shown.states[0]] == "reading"
    for event in attempt(0)[1:]:
        monitor.take("tcp://heir", event)
    assert shown.progress(0).tiles == TILES
    assert shown.workers["tcp://dead"].tiles == 2  # it did work, though for nothing


def test_news_of_a_block_that_is_done_count_no_more() -> None:
    monitor, shown = began()
    for event in [*attempt(0), news(0, "done"), *attempt(0)]:
        monitor.take("tcp://w", event)
    assert shown.progress(0).tiles == TILES
    assert STATES[shown.states[0]] == "done"


def test_speed_is_pixels_over_seconds_and_gives_the_time_that_is_left() -> None:
    clock = Clock()
    monitor, shown = began(clock, blocks=400)
    for k in range(200):  # one block a second, by two workers in turn
        clock.now += 1
        for event in attempt(k):
            monitor.take(f"tcp://w{k % 2}", event)
    progress = shown.progress(clock.now)
    assert progress.overall == pytest.approx(SIDE * SIDE)
    assert progress.recent == pytest.approx(SIDE * SIDE, rel=0.05)
    assert progress.left_s == pytest.approx(200, rel=0.05)
    assert sum(share.tempo.recent(clock.now) for share in shown.workers.values()) == pytest.approx(
        SIDE * SIDE, rel=0.05
    )
    clock.now += 100
    progress = shown.progress(clock.now)
    assert progress.recent == 0
    assert progress.silent_s == 100
    assert "no news for 2" in line_of(progress)


def test_what_an_earlier_run_has_done_counts_but_is_no_speed() -> None:
    clock = Clock()
    monitor, shown = began(clock)
    monitor.take("tcp://w", news(0, "forwarded", TILES, SIDE * SIDE))
    monitor.take("tcp://w", news(1, "done", TILES, SIDE * SIDE))
    clock.now += 1
    progress = shown.progress(clock.now)
    assert progress.tiles == 2 * TILES
    assert progress.overall == progress.recent == 0
    assert progress.left_s is None
    assert not shown.workers


def test_a_scene_costs_little_whatever_happens_to_it() -> None:
    def cost(blocks):
        clock = Clock()
        monitor, shown = began(clock, blocks=blocks)
        for k in range(blocks):
            clock.now += 0.5
            for event in [*attempt(k), news(k, "done")]:
                monitor.take(f"tcp://w{k}", event)  # never the same worker twice
        assert len(shown.workers) <= 256
        return len(pickle.dumps(monitor))

    assert (cost(4000) - cost(1000)) / 3000 < 18  # four whole numbers for its place, a byte for its state


def test_only_the_last_scenes_are_kept_and_those_in_work_longest() -> None:
    monitor, first = began(run="first")
    for k in range(50):
        monitor.take("client", scene(run=f"r{k}"))
        monitor.take("client", {"what": "end", "run": f"r{k}"})
    assert len(monitor.scenes) == 8
    assert monitor.shown() is first
    assert [other.run for other in monitor.others()] == [f"r{k}" for k in range(49, 42, -1)]
    monitor.take("client", {"what": "end", "run": "first"})
    assert monitor.shown().run == "r49"
    assert "stopped after" in line_of(monitor.shown().progress(monitor.clock()))


def test_a_run_that_begins_again_is_told_anew() -> None:
    monitor, before = began()
    monitor.take("tcp://w", news(0, "done", TILES, SIDE * SIDE))
    monitor.take("client", {"what": "end", "run": "r1"})
    monitor.take("client", scene())
    assert len(monitor.scenes) == 1
    assert monitor.shown() is not before
    assert monitor.shown().counts()["waiting"] == 6


def test_news_that_fit_nothing_change_nothing() -> None:
    monitor, shown = began()
    before = pickle.dumps(monitor.scenes)
    for message in ({}, {"what": "tea"}, {"what": "tea", "run": "r1"}, news(0, "done", run="unknown"), {"what": "end"}):
        monitor.take("tcp://w", message)
    for block, state in ((6, "done"), (-1, "done"), (0, "asleep")):
        with pytest.raises(ValueError, match=f"block {block} is said to be {state}"):
            monitor.take("tcp://w", news(block, state))
    assert pickle.dumps(monitor.scenes) == before
    assert shown.counts() == {**dict.fromkeys(STATES, 0), "waiting": 6}


# How colours look without one kind of cone; G. M. Machado, M. M. Oliveira and L. A. F. Fernandes, 2009.
EYES = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def lab(colour, eye):
    """CIELAB of #rrggbb as an eye sees it."""
    srgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.clip(np.asarray(eye) @ np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4), 0, 1)
    x, y, z = np.cbrt(TO_XYZ @ linear / [0.95047, 1, 1.08883])  # all of them far from black
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", EYES)
def test_the_colours_of_states_differ_to_every_eye(eye) -> None:
    assert tuple(COLOURS) == STATES
    seen = {name: lab(colour, EYES[eye]) for name, colour in COLOURS.items()}
    for (_, one), (_, other) in itertools.combinations(seen.items(), 2):
        assert np.linalg.norm(one - other) > 18  # 2.3 is just noticeable


@contextmanager
def local_cluster(dashboard_address="127.0.0.1:0"):
    with (
        LocalCluster(
            1, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1",
            dashboard_address=dashboard_address,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


@contextmanager
def separate_processes(folder, *, workers=1, without=""):
    """A scheduler and workers of the command line; the scheduler cannot import what it is to be without."""
    address = folder / "scheduler.json"
    code = "from distributed.cli.dask_scheduler import main; main()"
    if without:
        code = f"import sys; sys.modules[{without!r}] = None; {code}"
    arguments = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    commands = [[sys.executable, "-c", code, *arguments, "--scheduler-file", str(address)]]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(address), "--no-nanny"]
    commands += [[*worker, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]] * workers
    with (folder / "log.txt").open("w") as log:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}  # tasks are functions of this file
        running = [subprocess.Popen(command, stdout=log, stderr=log, env=environment) for command in commands]
    try:
        until = time.monotonic() + BOUND_S
        while not (address.exists() and "address" in json.loads(address.read_text() or "{}")):
            assert time.monotonic() < until, (folder / "log.txt").read_text()
            assert running[0].poll() is None, (folder / "log.txt").read_text()
            time.sleep(0.1)
        with Client(scheduler_file=str(address), set_as_default=False) as client:
            if workers:
                client.wait_for_workers(workers, timeout=BOUND_S)
            yield client
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


@pytest.fixture(scope="module", params=["in this process", "separate"])
def client(request, tmp_path_factory):
    """A client of either kind of scheduler."""
    if request.param == "separate":
        with separate_processes(tmp_path_factory.mktemp("cluster")) as client:
            yield client
    else:
        with local_cluster() as client:
            yield client


@pytest.fixture(scope="module")
def browser():
    """A real browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as starter:
        yield starter.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def told(messages):
    """A task that tells news, as those that segment do."""
    for message in messages:
        tell(message)


def known(dask_scheduler):
    """What the scheduler knows, by run: states, workers."""
    scenes = dask_scheduler.plugins[BlockMap.name].monitor.scenes
    return {run: (list(scene.states), sorted(scene.workers)) for run, scene in scenes.items()}


@pytest.mark.slow
def test_the_page_is_served_and_a_second_one_keeps_what_the_first_has_heard(client) -> None:
    url = open_page(client)
    assert url == client.dashboard_link.removesuffix("status") + "geoseg"
    client.log_event("geoseg", scene(run="kept"))
    client.submit(told, attempt(0, "kept"), pure=False).result(timeout=BOUND_S)
    assert open_page(client) == url
    states, workers = client.run_on_scheduler(known)["kept"]
    assert STATES[states[0]] == "forwarded"
    assert workers == list(client.scheduler_info()["workers"])  # the scheduler says who told it
    for page in (url, client.dashboard_link):
        with urllib.request.urlopen(page, timeout=BOUND_S) as answer:  # noqa: S310  # http
            assert 'href="geoseg"' in answer.read().decode()  # in the bar of all pages


def colours_of(picture):
    """The colours of five blocks, two by three on the picture; the third is hatched."""
    pixels = Image.open(io.BytesIO(picture)).convert("RGB")
    places = [(column, row) for row in (1, 3) for column in (1, 3, 5) if (column, row) != (5, 1)]
    found = [pixels.getpixel((pixels.width * x // 6, pixels.height * y // 4)) for x, y in places]
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in found]


@pytest.mark.slow
def test_a_browser_sees_blocks_fill_in(client, browser) -> None:
    url = open_page(client)
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    asked, troubles = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(url)

    def see(states):
        page.wait_for_function(f"Array.from({STATES_SHOWN}).join() === '{','.join(states)}'", timeout=BOUND_S * 1000)

    def tell_all(*messages):
        client.submit(told, messages, pure=False).result(timeout=BOUND_S)

    client.log_event("geoseg", scene(run="seen", name="<i>north</i> & south.tif"))
    see(["waiting"] * 6)
    page.get_by_role("heading", name="<i>north</i> & south.tif", exact=True).wait_for()
    tell_all(news(0, "reading", run="seen"))
    see(["reading", *["waiting"] * 5])
    tell_all(
        *attempt(0, "seen")[1:], *attempt(1, "seen"), news(2, "reading", run="seen"), news(2, "failed", run="seen")
    )
    see(["forwarded", "forwarded", "failed", "waiting", "waiting", "waiting"])
    page.get_by_text("6 of 18 tiles, 33").wait_for()
    box = page.locator(".bk-Figure").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(3 / 2, rel=0.02)  # as the scene
    tell_all(*(event for k in range(3, 6) for event in attempt(k, "seen")), *attempt(2, "seen")[1:])
    tell_all(*(news(k, "done", run="seen") for k in range(6)))
    see(["done", "done", "failed", "done", "done", "done"])
    page.get_by_text("18 of 18 tiles, 100").wait_for()
    until = time.monotonic() + BOUND_S
    while colours_of(page.locator(".bk-Figure").screenshot()) != [COLOURS["done"]] * 5:  # a canvas is drawn later
        assert time.monotonic() < until
    page.get_by_text("writing the outputs").wait_for()
    client.log_event("geoseg", {"what": "end", "run": "seen"})
    page.get_by_text("finished after").first.wait_for()
    page.get_by_role("link", name="Dask status").click()
    page.wait_for_url(client.dashboard_link, wait_until="commit")  # that it gets there; the rest is for Dask to draw
    page.close()
    assert not troubles
    assert asked
    assert all(request.startswith(url.removesuffix("geoseg")) for request in asked)


@pytest.mark.slow
def test_a_scheduler_without_a_dashboard_is_said() -> None:
    with local_cluster(dashboard_address=None) as client, pytest.raises(EnvironmentFault, match="has no dashboard"):
        open_page(client)


@pytest.mark.slow
@pytest.mark.parametrize(("missing", "said"), [("bokeh", "has no dashboard"), ("geoseg", "install the same geoseg")])
def test_a_scheduler_that_lacks_a_package_is_said(missing, said, tmp_path) -> None:
    with separate_processes(tmp_path, workers=0, without=missing) as client:
        with pytest.raises(EnvironmentFault, match=said):
            open_page(client)
        client.log_event("geoseg", scene())  # and the run goes on
