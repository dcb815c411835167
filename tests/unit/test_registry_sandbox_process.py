"""A judgement that crashes, hangs or grows ends its own process alone."""

import os
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from registry.errors import Incomplete, VersionRejected
from registry.judgement.sandbox_process import Defect, Limits, confined
from tests.support import judged
from tests.support.stack import PATIENCE_S

LIMITS = Limits(cpu_s=1, wall_s=60, memory_bytes=64 * 2**20)


def test_result_comes_from_another_process() -> None:
    before = resource.getrlimit(resource.RLIMIT_CPU)
    result = confined(judged.echo, [1, "a"])
    assert result["got"] == [1, "a"]
    assert result["process"] != os.getpid()
    assert resource.getrlimit(resource.RLIMIT_CPU) == before


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (judged.spin, VersionRejected, "got more than 1 s of CPU for its check"),
        (judged.grow, VersionRejected, "got more than 64 MiB of memory for its check"),
        (judged.crash, VersionRejected, "crashed (signal 11)"),
        (judged.vanish, Defect, "ended with status 3"),
        (judged.be_killed, TimeoutError, "ended from outside (signal 9)"),
        (judged.recurse, Defect, "RecursionError"),
        (judged.reject, VersionRejected, "no"),
        (judged.wait, Incomplete, "not yet"),
        (judged.fill_disk, OSError, "No space left on device"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_judgement_that_fails_has_the_cause(function: Callable[[], Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        confined(function, limits=LIMITS)
    assert says in str(caught.value)
    assert confined(judged.echo, 1)["got"] == 1, "the next one is judged"


def test_judgement_that_hangs_is_ended() -> None:
    with pytest.raises(TimeoutError, match=r"ended after 0\.5 s"):
        confined(judged.sleep, limits=Limits(wall_s=0.5))


def test_starter_that_ends_is_started_again() -> None:
    before = confined(judged.starter)
    os.kill(before, signal.SIGKILL)
    assert confined(judged.starter) != before


def test_concurrent_judgements_leave_nothing_behind() -> None:
    confined(judged.echo, 0)
    process = psutil.Process()
    before = left_by(process)
    with ThreadPoolExecutor(8) as threads:
        assert [result["got"] for result in threads.map(partial(confined, judged.echo), range(200))] == [*range(200)]
    deadline = time.monotonic() + PATIENCE_S
    while any(now > then for now, then in zip(left_by(process), before, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def left_by(process: psutil.Process) -> tuple[int, int, int]:
    return process.num_fds(), process.num_threads(), len(process.children(recursive=True))


def test_folder_that_vanishes_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("TMPDIR", str(gone))
    gone.rmdir()
    assert confined(judged.echo, 1)["got"] == 1
