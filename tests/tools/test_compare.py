"""`make compare` against real servers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from loadtest.compare.bare import Work
from loadtest.compare.bare import onnxruntime as open_sessions
from loadtest.compare.candidates import Server, iris_row, nereid, serve
from loadtest.compare.measurement import drive, infer, speed
from loadtest.compare.pipeline import detect
from loadtest.compare.preparation import FOLDER
from loadtest.compare.processes import CandidateError, start
from loadtest.errors import LoadTestError
from loadtest.generator.requests import Request, multipart
from tests.support.ports import find_free_ports
from tests.support.stack import ROOT, Stack

IMAGE = (ROOT / "loadtest" / "pictures" / "digits.jpg").read_bytes()
REQUEST = multipart("/predict/digit-finder", IMAGE)
DIGIT_FINDER = max(
    (ROOT / "model_repository" / "digit-finder").glob("[0-9]*/model.onnx"), key=lambda path: int(path.parent.name)
)


def test_speed_counts_what_ended_in_time(stack: Stack) -> None:
    document, size_bytes = infer(stack.http_port, REQUEST)
    assert document["predictions"]
    assert size_bytes > 100
    outcome = drive(stack.http_port, iris_row(), connections=3, seconds=1.0)  # quick on a busy machine too
    assert not outcome.result.failures
    counted = outcome.result.ended_before(outcome.began + 1.0).successes
    assert len(counted) > 3
    assert len(outcome.result.successes) == len(counted) + 3  # the last response of each connection came too late
    figures = speed(outcome, 1.0)
    assert figures["requests_per_s"] == pytest.approx(len(counted) / (counted[-1].ended - outcome.began), rel=0.05)
    percentiles = [figures[name] or 0.0 for name in ("p50_ms", "p95_ms", "p99_ms")]
    assert percentiles[0] > 0
    assert percentiles == sorted(percentiles)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (multipart("/predict/nothing", IMAGE), "404"),
        (REQUEST._replace(min_bytes=10**6), "expected at least 1000000"),
    ],
)
def test_failures_are_counted_and_have_no_speed(stack: Stack, request_: Request, error: str) -> None:
    outcome = drive(stack.http_port, request_, connections=2, seconds=0.3)
    assert len(outcome.result.failures) >= 2
    assert all(error in response.error for response in outcome.result.failures)
    assert speed(outcome, 0.3) == {"requests_per_s": 0.0, "p50_ms": None, "p95_ms": None, "p99_ms": None}


def test_value_of_export_begins_as_an_option_does() -> None:
    options = ["--export", "--precision bf16", "--picture", "nowhere.jpg"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.compare", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "unknown option" not in done.stderr
    assert done.stdout.startswith("error: ")  # of what is needed, before any measurement


def test_candidate_that_does_not_listen_is_an_error() -> None:
    (port,) = find_free_ports(1)
    with pytest.raises(LoadTestError, match="ConnectionRefusedError"):
        drive(port, REQUEST, connections=1, seconds=0.1)


def test_candidate_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such weights')"]
    server = Server("broken", "Broken", command, "/", lambda *_: REQUEST, lambda _: [])
    with pytest.raises(CandidateError, match="status 1\nno such weights"), serve(server, tmp_path / "log"):
        pass


def test_candidate_leaves_no_process_behind(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; x = 2 ** 10 ** 6; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    log = tmp_path / "log"
    with start([sys.executable, "-c", script], log) as group:
        group.wait_until(lambda: log.read_text().endswith("\n"))
        child = psutil.Process(int(log.read_text()))
        group.wait_until(lambda: group.cpu_s() > child.cpu_times().user)
        assert group.pss_mib() > 1
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_nereid_is_started_with_a_profile_and_a_mirror_of_its_own() -> None:
    server = nereid("int8", FOLDER)
    assert (server.name, server.variables["PROFILE"]) == ("nereid-int8", "int8")
    assert server.variables["MIRROR"] != nereid("fp32", FOLDER).variables["MIRROR"]


@pytest.mark.parametrize(
    ("runtime", "properties", "image"),
    [
        ("onnxruntime", {}, ""),
        ("openvino", {"HINT_BF16": "YES", "NUM_STREAMS": "2"}, ""),
        ("onnxruntime", {}, "digits.jpg"),
        ("openvino", {}, "digits.jpg"),
    ],
)
def test_bare_model_runs_as_its_backend_runs_it(
    tmp_path: Path, runtime: str, properties: dict[str, str], image: str
) -> None:
    np.save(tmp_path / "content.npy", np.zeros((1, 64, 64, 3), np.uint8))
    work = {
        "model": str(DIGIT_FINDER),
        "runtime": runtime,
        "properties": properties,
        "tensor": "image",
        "content": str(tmp_path / "content.npy"),
        "cores": 2,
        "seconds": 0.2,
        "image": image and str(ROOT / "loadtest" / "pictures" / image),
        "size": 320,
        "stride": 32,
    }
    program = [sys.executable, "-m", "loadtest.compare.bare"]
    done = subprocess.run(program, cwd=ROOT, input=json.dumps(work), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["connections"] for line in lines] == [1, 2]
    assert all(line["requests_per_s"] > 1 and not line["failures"] for line in lines)


def test_pipeline_finds_what_is_served(stack: Stack) -> None:
    document, _ = infer(stack.http_port, REQUEST)
    work = Work(str(DIGIT_FINDER), "onnxruntime", {}, "image", "", 1, 0.0)
    found = detect(IMAGE, open_sessions(work, 1)[0], size=320, stride=32)
    expected = [
        [*(each["box"][side] for side in ("x1", "y1", "x2", "y2")), each["confidence"], each["class_id"]]
        for each in document["predictions"]
    ]
    assert found == pytest.approx(np.array(expected), abs=0.01)
