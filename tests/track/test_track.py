"""Tracking by the program as a user starts it, beside the real stack: files, an RTSP camera, faults."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import av
import cv2
import pytest

from tests.support import moving_digits, rtsp_camera
from tests.support.http_server import Exchange, run_server
from tests.support.moving_digits import CROSSING, Mover
from tests.support.ports import find_free_ports
from tests.support.stack import ROOT, Stack, start_shipped

PYTHON = ROOT / ".venv-track" / "bin" / "python"
FRAMES = 90
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-track: make .venv-track/.installed")


def command(stack: Stack | None, source: str | Path, *options: str, model: str = "digit-finder") -> list[str]:
    """How it is started."""
    url = ["--url", f"http://127.0.0.1:{stack.http_port}"] if stack else []
    return [str(PYTHON), "-m", "integrations.track", str(source), model, *url, *options]


def track(*arguments: Any, **more: Any) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    return subprocess.run(
        command(*arguments, **more), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def lines_of(text: str) -> list[dict[str, Any]]:
    """JSON lines, read."""
    return [json.loads(line) for line in text.splitlines()]


def ids_of(lines: list[dict[str, Any]], mover: Mover, *, within: float = 25) -> dict[int, int]:
    """The track that is where an object truly is, by frame."""
    found: dict[int, int] = {}
    for line in lines:
        x, y = mover.middle(line["frame"])
        near = [each for each in line["predictions"] if abs(each["x"] - x) + abs(each["y"] - y) < within]
        for each in near:
            if each["class"] == mover.digit:
                found[line["frame"]] = each["tracker_id"]
    return found


def decode(path: Path) -> list[Any]:
    """The frames of a video."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24").astype(int) for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three digits, of which two pass each other."""
    return moving_digits.write(tmp_path_factory.mktemp("video") / "crossing.mp4", CROSSING, FRAMES)


def test_tracks_stay_with_their_objects_where_two_cross(stack: Stack, video: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.mp4"
    done = track(stack, video, "--jsonl", "-", "--draw", str(drawn), "--in-flight", "4")
    assert done.returncode == 0, done.stderr
    lines = lines_of(done.stdout)
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    tracks = [ids_of(lines, mover) for mover in CROSSING]
    for ids in tracks:
        assert len(ids) > 0.9 * FRAMES
        assert len(set(ids.values())) == 1
    assert len({next(iter(ids.values())) for ids in tracks}) == 3
    assert f"{FRAMES} frames read, 0 dropped, {FRAMES} sent, 0 failed; 3 tracks" in done.stderr
    changes = [int((abs(ours - theirs) > 60).sum()) for ours, theirs in zip(*map(decode, (drawn, video)), strict=True)]
    assert changes[0] == 0  # no track is sure yet
    assert min(changes[5:]) > 1000


def test_tracks_outlive_frames_that_are_missing(stack: Stack, video: Path) -> None:
    done = track(stack, video, "--jsonl", "-", "--fps", "8")
    lines = lines_of(done.stdout)
    assert len(lines) == pytest.approx(FRAMES * 8 / 25, abs=1)
    assert len(set(ids_of(lines, CROSSING[2]).values())) == 1
    assert f"{FRAMES - len(lines)} skipped" in done.stderr


@pytest.mark.parametrize(
    ("model", "member"),
    [("digit-outlines", "points"), ("digit-strokes", "keypoints"), ("tilted-digits", "corners")],
)
def test_every_task_is_tracked_and_drawn(stack: Stack, video: Path, tmp_path: Path, model: str, member: str) -> None:
    drawn = tmp_path / "drawn.mp4"
    done = track(stack, video, "--fps", "5", "--jsonl", "-", "--draw", str(drawn), model=model)
    assert done.returncode == 0, done.stderr
    seven = CROSSING[0]
    lines = lines_of(done.stdout)
    assert ids_of(lines, seven)
    for line in lines:
        for each in line["predictions"]:
            if points := each[member]:
                # In pixels of the frame, as the box is, and not of what was sent.
                xs = [point["x"] for point in points]
                assert each["box"]["x1"] - 15 <= min(xs) <= max(xs) <= each["box"]["x2"] + 15
    assert drawn.stat().st_size > 5000


def test_live_source_gives_its_newest_frame_alone(stack: Stack, tmp_path: Path) -> None:
    video = moving_digits.write(tmp_path / "fast.mp4", CROSSING, 75, fps=60)
    done = track(stack, video, "--live", "--in-flight", "1", "--size", "full", "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    frames = [line["frame"] for line in lines_of(done.stdout)]
    assert frames == sorted(set(frames))
    read, dropped, sent = (
        int(done.stderr.split(f" {word}")[0].split()[-1]) for word in ("frames read", "dropped", "sent")
    )
    assert (read, sent) == (75, len(frames))
    assert dropped == 75 - sent > 0


def test_camera_that_comes_back_is_read_again(stack: Stack, tmp_path: Path) -> None:
    if not rtsp_camera.is_installed():
        pytest.skip(rtsp_camera.NEEDED)
    for number, image in enumerate(moving_digits.draw(CROSSING, FRAMES)):
        cv2.imwrite(str(tmp_path / f"{number:04}.jpg"), image)
    (port,), out = find_free_ports(1), tmp_path / "lines"
    with rtsp_camera.start_camera(port, tmp_path) as url, running(stack, url, out, "--fps", "5") as process:
        wait_for_lines(out, 10)
    with rtsp_camera.start_camera(port, tmp_path):
        wait_for_lines(out, len(out.read_text().splitlines()) + 10)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    for words in ("next attempt in 0.5 s", "is back after", "stopped", " frames read, "):
        assert words in errors
    assert "secret" not in errors
    assert "user:***@127.0.0.1" in errors


def test_server_that_restarts_costs_a_file_no_frame(video: Path, tmp_path: Path) -> None:
    out, ports = tmp_path / "lines", {}
    with start_shipped(tmp_path / "first", "digit-finder") as first:
        ports = {"HTTP_PORT": str(first.http_port)}
        with running(first, video, out, "--fps", "10") as process:
            wait_for_lines(out, 5)
            process.send_signal(signal.SIGSTOP)  # so that the file has not ended before the server has
    process.send_signal(signal.SIGCONT)
    time.sleep(2)
    with start_shipped(tmp_path / "second", "digit-finder", variables=ports):
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "server: " in errors
    assert "responds again after" in errors
    assert len(lines_of(out.read_text())) == pytest.approx(FRAMES * 10 / 25, abs=1)
    assert " 0 failed" in errors


def test_busy_server_is_left_alone_for_as_long_as_it_says(video: Path) -> None:
    arrived: list[float] = []

    class Busy(Exchange):
        def do_GET(self) -> None:  # noqa: N802
            self.send(200, {}, b'{"parameters": {"task": "detect"}}')

        def do_POST(self) -> None:  # noqa: N802
            self.read()
            arrived.append(time.monotonic())
            if len(arrived) == 1:
                self.send(429, {"Retry-After": "2"}, b'{"error": "64 requests wait", "code": "queue_full"}')
            else:
                self.send(200, {}, b'{"predictions": []}')

    with run_server(Busy) as url:
        done = track(None, video, "--url", url, "--fps", "5", "--size", "full", "--in-flight", "1")
    assert done.returncode == 0, done.stderr
    assert "server: 429 64 requests wait; next attempt in 2 s" in done.stderr
    assert 1.9 < arrived[1] - arrived[0] < 4


def test_ctrl_c_does_not_wait_for_a_request_that_hangs(video: Path, tmp_path: Path) -> None:
    arrived, released = threading.Event(), threading.Event()

    class Hanging(Exchange):
        def do_GET(self) -> None:  # noqa: N802
            self.send(200, {}, b'{"parameters": {"task": "detect"}}')

        def do_POST(self) -> None:  # noqa: N802
            arrived.set()
            released.wait(60)

    with run_server(Hanging) as url:
        words = command(None, video, "--url", url, "--size", "full", "--jsonl", str(tmp_path / "lines"))
        with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert arrived.wait(60)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
            took_s = time.monotonic() - began
        released.set()
    assert process.returncode == 0
    assert took_s < 5
    first, second = errors.splitlines()
    assert first == "stopped"
    assert " frames read, 0 dropped, 0 sent, 0 failed; 0 tracks" in second


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"predictions": [7]}', b'{"predictions": [{"class": "7", "box": {}}]}']
)
def test_server_that_is_not_nereid_is_one_line(video: Path, body: bytes) -> None:
    class Other(Exchange):
        def do_GET(self) -> None:  # noqa: N802
            self.send(200, {}, b'{"parameters": {"task": "detect"}}')

        def do_POST(self) -> None:  # noqa: N802
            self.read()
            self.send(200, {}, body)

    with run_server(Other) as url:
        done = track(None, video, "--url", url, "--size", "full")
        no_size = track(None, video, "--url", url)
    assert done.returncode == no_size.returncode == 1
    assert f"got {body.decode()!r}, expected a response of Nereid" in done.stderr
    assert "its config names no size; next: --size full" in no_size.stderr
    assert "Traceback" not in done.stderr + no_size.stderr


def test_what_is_counted_of_a_camera_does_not_grow() -> None:
    program = """
from integrations.track.report import Counts
counts = Counts()
for number in range(50_000):
    counts.add_tracks([0, number, number])
    counts.latencies_ms.append(number)
    counts.ages_ms.append(number)
print(counts.tracks, len(counts._latest_ids), len(counts.latencies_ms), len(counts.ages_ms))
"""
    done = subprocess.run([PYTHON, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "50000 10000 10000 10000\n"


@pytest.mark.parametrize(
    ("source", "model", "options", "says"),
    [
        ("/nowhere.mp4", "digit-finder", (), "/nowhere.mp4: No such file or directory; expected a video file"),
        ("README.md", "digit-finder", (), "README.md: not a video"),
        ("rtsp://u:p@127.0.0.1:9/x", "digit-finder", (), "rtsp://u:***@127.0.0.1:9/x: Connection refused"),
        ("97", "digit-finder", (), "97: No such file or directory; expected a video file, rtsp://... or /dev/video0"),
        ("README.md", "digit-finde", (), "model 'digit-finde' is unknown; expected one of digit-classes, digit-finder"),
        ("README.md", "iris", (), "iris: got tabular, expected a model that finds objects: detect, segment, pose, obb"),
        ("README.md", "digits", (), "digits: got classify, expected a model that finds objects"),
        ("README.md", "digit-finder", ("--fps", "fast"), "--fps: got 'fast', expected a number from 0.01 to 1000"),
    ],
)
def test_mistake_is_one_line(stack: Stack, source: str, model: str, options: tuple[str, ...], says: str) -> None:
    done = track(stack, source, *options, model=model)
    assert done.returncode in {1, 2}
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_class_and_no_server_are_one_line(stack: Stack, video: Path) -> None:
    done = track(stack, video, "--classes", "cat")
    assert done.returncode == 1
    assert "has no class 'cat'" in done.stderr
    done = track(None, video, "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: http://127.0.0.1:9: [Errno 111] Connection refused; expected a server; next: make serve, or --url\n"
    )


class running:  # noqa: N801
    """The program beside the test; killed where the block fails."""

    def __init__(self, stack: Stack, source: str | Path, out: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            command(stack, source, "--jsonl", str(out), *options), cwd=ROOT, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "subprocess.Popen[str]":
        return self.process

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:
            self.process.kill()
            self.process.communicate()


def wait_for_lines(path: Path, count: int) -> None:
    """Until the file has so many."""
    deadline = time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_program_of_the_page_counts_the_objects_of_its_lines(stack: Stack, video: Path) -> None:
    page = (ROOT / "docs/video.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (line,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    done = track(stack, video, "--fps", "5", "--jsonl", "-")
    counted = subprocess.run([PYTHON, "-c", program], input=done.stdout, capture_output=True, text=True, check=True)
    assert counted.stdout == "3 objects\n"
    assert describe(json.loads(line)) == describe(lines_of(done.stdout)[-1])


def describe(value: Any) -> Any:
    """Names and types of what JSON holds; of a list that of its first member."""
    if isinstance(value, dict):
        return {name: describe(each) for name, each in value.items()}
    return [describe(value[0])] if isinstance(value, list) else type(value)


def test_make_starts_it_with_the_words_of_the_page(stack: Stack, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "tracked.jsonl"
    words = ["make", "track", f"SOURCE={video}", "MODEL=digit-finder", f"OPTIONS=--fps 5 --jsonl {out}"]
    own = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL"}}
    done = subprocess.run(
        [*words, f"URL=http://127.0.0.1:{stack.http_port}"],
        cwd=ROOT,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(lines_of(out.read_text())) == 18
