"""`make compare` against real servers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from loadtest.compare.candidates import Server, nereid, serve
from loadtest.compare.generator import LoadError, Question, ask, drive, form
from loadtest.compare.preparation import FOLDER
from loadtest.compare.processes import CandidateError, start
from tests.support.ports import find_free_ports
from tests.support.stack import ROOT, Stack

PICTURE = (ROOT / "loadtest" / "pictures" / "digits.jpg").read_bytes()
QUESTION = form("/predict/digit-finder", PICTURE)


def test_generator_counts_answers(stack: Stack) -> None:
    reply, size_bytes = ask(stack.http_port, QUESTION)
    assert reply["predictions"]
    load = drive(stack.http_port, QUESTION, connections=3, seconds=1.0, at_least=size_bytes // 2)
    assert not load.failures
    assert len(load.latencies_s) > 3
    assert load.answered == len(load.latencies_s) + 3  # each connection's last answer came after the time was over
    assert load.per_second == len(load.latencies_s) / load.span_s
    percentiles = [value for value in load.percentiles_ms().values() if value is not None]
    assert len(percentiles) == 3
    assert percentiles == sorted(percentiles)


@pytest.mark.parametrize(
    ("question", "at_least", "words"),
    [
        (form("/predict/nothing", PICTURE), 1, "404"),
        (QUESTION, 10**6, "expected at least 1000000"),
    ],
)
def test_generator_counts_what_is_no_answer(stack: Stack, question: Question, at_least: int, words: str) -> None:
    load = drive(stack.http_port, question, connections=2, seconds=0.3, at_least=at_least)
    assert len(load.failures) >= 2
    assert all(words in failure for failure in load.failures)
    assert (load.latencies_s, load.per_second, load.percentiles_ms()["p50_ms"]) == ([], 0.0, None)


def test_generator_says_that_nothing_listens() -> None:
    (port,) = find_free_ports(1)
    with pytest.raises(LoadError, match="ConnectionRefusedError"):
        drive(port, QUESTION, connections=1, seconds=0.1, at_least=1)


def test_candidate_that_does_not_start_says_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such weights')"]
    server = Server("broken", "Broken", command, "/", lambda *_: QUESTION, lambda _: [])
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
    ("runtime", "properties"), [("onnxruntime", {}), ("openvino", {"HINT_BF16": "YES", "NUM_STREAMS": "2"})]
)
def test_bare_model_runs_as_its_backend_runs_it(tmp_path: Path, runtime: str, properties: dict[str, str]) -> None:
    np.save(tmp_path / "content.npy", np.zeros((1, 64, 64, 3), np.uint8))
    work = {
        "model": str(ROOT / "model_repository" / "digit-finder" / "1" / "model.onnx"),
        "runtime": runtime,
        "properties": properties,
        "tensor": "image",
        "content": str(tmp_path / "content.npy"),
        "cores": 2,
        "seconds": 0.2,
    }
    program = [sys.executable, str(ROOT / "loadtest" / "compare" / "bare.py")]
    done = subprocess.run(program, input=json.dumps(work), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["connections"] for line in lines] == [1, 2]
    assert all(line["requests_per_s"] > 1 and not line["failures"] for line in lines)
