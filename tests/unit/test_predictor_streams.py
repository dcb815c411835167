"""When the requests of a batch run beside each other."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from predictor.backends.onnxruntime.streams import MOST_BYTES, SLOW_S, Streams, share_threads

SLOW = (2 * SLOW_S, 1)


def wait_for_session(streams: Streams, requests: int) -> Any:
    """The session that is created meanwhile; None after some seconds without."""
    deadline = time.monotonic() + 5
    while (session := streams.find_session(requests)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return session


def created(*runs: tuple[float, int], requests: int = 2, count: int = 2) -> list[int]:
    """Let a session be created where so many runs and requests call for it; which requests did so."""
    calls: list[int] = []
    streams = Streams(lambda: calls.append(requests), count=count)
    for seconds, in_run in runs:
        streams.observe(seconds, in_run)
    streams.find_session(requests)
    streams.map(lambda _: None, range(1))  # the pool has begun what was submitted before
    return calls


@pytest.mark.parametrize(
    ("runs", "requests", "called"),
    [
        ([SLOW, SLOW], 2, True),
        ([SLOW, (8 * SLOW_S, 4)], 3, True),
        ([SLOW, SLOW], 1, False),
        ([SLOW], 2, False),  # the first run also allocates its memory
        ([SLOW, (SLOW_S / 2, 1)], 2, False),
        ([SLOW, (2 * SLOW_S, 4)], 2, False),
    ],
)
def test_session_is_created_for_batches_of_a_slow_model(
    runs: list[tuple[float, int]], requests: int, *, called: bool
) -> None:
    assert bool(created(*runs, requests=requests)) is called


def test_session_is_created_once_and_used_once_it_is_there() -> None:
    go_on = threading.Event()
    calls = []

    def create() -> str:
        calls.append(1)
        go_on.wait()
        return "session"

    streams = Streams(create, count=2)
    streams.observe(*SLOW)
    streams.observe(*SLOW)
    assert [streams.find_session(2) for _ in range(3)] == [None] * 3
    go_on.set()
    assert wait_for_session(streams, 2) == "session"
    assert streams.find_session(1) is None
    assert len(calls) == 1


def test_batches_run_as_before_where_the_session_cannot_be_created() -> None:
    def create() -> None:
        raise ValueError("no memory")

    streams = Streams(create, count=2)
    streams.observe(*SLOW)
    streams.observe(*SLOW)
    for _ in range(3):
        assert streams.find_session(2) is None
        streams.map(lambda _: None, range(2))


def test_error_is_raised_once_every_run_has_ended() -> None:
    ended = []

    def run(number: int) -> int:
        if not number:
            raise ValueError("the first")
        time.sleep(0.1)
        ended.append(number)
        return number

    streams = Streams(lambda: None, count=2)
    with pytest.raises(ValueError, match="the first"):
        streams.map(run, range(6))
    assert sorted(ended) == [1, 2, 3, 4, 5]
    assert streams.map(run, range(1, 4)) == [1, 2, 3]


def of_size(number: int) -> Callable[[Path], None]:
    """A further file beside the model's, such as its weights."""

    def write(folder: Path) -> None:
        with (folder / "model.onnx.data").open("wb") as file:
            file.truncate(number)

    return write


@pytest.mark.parametrize(
    ("threads", "most", "groups", "spoil", "share"),
    [
        (2, 8, [{"count": 1}], None, 1),
        (2, 8, [], None, 1),
        (16, 8, [{"count": 1}], None, 2),
        (1, 8, [{"count": 1}], None, 0),
        (0, 8, [{"count": 1}], None, 0),
        (2, 1, [{"count": 1}], None, 0),
        (2, 0, [{"count": 1}], None, 0),
        (2, 8, [{"count": 2}], None, 0),
        (2, 8, [{"count": 1}, {"count": 1}], None, 0),
        (2, 8, [{"count": 1}], of_size(MOST_BYTES - 1), 1),
        (2, 8, [{"count": 1}], of_size(MOST_BYTES), 0),
    ],
)
def test_threads_of_a_run(
    tmp_path: Path,
    threads: int,
    most: int,
    groups: list[dict[str, int]],
    spoil: Callable[[Path], None] | None,
    share: int,
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    if spoil is not None:
        spoil(tmp_path)
    config = {"max_batch_size": most, "instance_group": groups}
    assert share_threads(config, path, threads=threads) == share
