"""The search for the number of cameras that a server keeps up with, and what a simulated camera counts."""

import threading
import time
from dataclasses import replace

import pytest

from loadtest.cameras import Cameras, Watched, find_most
from loadtest.generator.requests import Request
from tests.support.http_server import Exchange, run_server


@pytest.mark.parametrize("capacity", [0, 1, 5, 8, 23])
def test_search_finds_the_largest_number_that_is_kept_up_with(capacity: int) -> None:
    tried: list[int] = []

    def watch(cameras: int) -> Watched:
        tried.append(cameras)
        return Watched(cameras, 100, 0, 0, 1.0 if cameras <= capacity else 0.5, 1, 1)

    attempts = find_most(watch, most=64)
    assert max((each.cameras for each in attempts if each.is_kept_up), default=0) == capacity
    assert len(tried) < 20


def test_search_repeats_an_attempt_that_failed_once() -> None:
    failed: set[int] = set()

    def watch(cameras: int) -> Watched:
        is_pause = cameras not in failed
        failed.add(cameras)
        return Watched(cameras, 100, int(is_pause or cameras > 4), 0, 1.0, 1, 1)

    assert max(each.cameras for each in find_most(watch) if each.is_kept_up) == 4


def test_camera_counts_late_and_dropped_frames() -> None:
    one_at_a_time = threading.Lock()

    class Slow(Exchange):
        def do_POST(self) -> None:  # noqa: N802
            self.read()
            with one_at_a_time:
                time.sleep(0.06)
            self.send(200, {}, b"{}")

    with run_server(Slow) as url:
        cameras = Cameras(url.removeprefix("http://"), Request("predict", "/", b"image"), 10, 1.0, 100)
        three = cameras.watch(3)
        alone = replace(cameras, fps=1, seconds=2).watch(1)
    # What holds on a busy machine too: each response takes 60 ms at least, and three of them longer than a frame.
    assert (alone.frames, alone.dropped, alone.failed) == (2, 0, 0)
    assert alone.p50_ms >= 60
    assert not three.is_kept_up
    assert three.dropped > 0
    assert 15 < three.frames <= 30


def test_camera_counts_what_has_no_result() -> None:
    watched = Cameras("127.0.0.1:9", Request("predict", "/", b"image"), 10, 1.0, 100).watch(1)
    assert (watched.frames, watched.failed, watched.in_time) == (10, 10, 0)
