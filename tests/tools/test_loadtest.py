"""The latency tests, run as a user runs them against a stack that serves."""

import csv
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest

from tests.support.http_server import run_server
from tests.support.ports import find_free_ports
from tests.support.stack import PATIENCE_S, ROOT, Stack, wait_until

STAGES = {"queue", "decode", "preprocess", "infer", "postprocess", "total", "outside"}


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes:
        status: of the process.
        text: its output.
        folder: that it wrote; empty where it wrote nothing.
    """

    status: int
    text: str
    folder: Path

    @property
    def result(self) -> Any:
        """Figures of the run."""
        return json.loads((self.folder / "result.json").read_text())


def addresses(stack: Stack) -> list[str]:
    return [
        *("--url", f"http://127.0.0.1:{stack.http_port}", "--grpc", f"127.0.0.1:{stack.grpc_port}"),
        *("--triton-metrics-url", f"http://127.0.0.1:{stack.triton_metrics_port}/metrics"),
    ]


def latency(command: str, output: Path, *arguments: object) -> Run:
    words = [str(argument) for argument in arguments]
    ended = subprocess.run(
        [sys.executable, "-m", "loadtest.latency", command, *words, "--output", str(output)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Run(ended.returncode, ended.stdout, next(output.glob("*"), Path()))


SHORT = ("--warm-up-s", 0.2, "--duration-s", 0.8, "--pictures", ROOT / "loadtest" / "pictures")


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        ("digit-finder", {"predict", "v1", "v2", "grpc"}),
        ("digits", {"predict", "v1", "v2", "grpc"}),
        ("iris", {"row", "batch"}),
    ],
)
def test_requests_of_every_kind_succeed(stack: Stack, tmp_path: Path, model: str, kinds: set[str]) -> None:
    run = latency("run", tmp_path, *addresses(stack), *SHORT, "--model", model, "--fail-ratio", 0)
    assert run.status == 0, run.text
    figures, server = run.result["latency"], run.result["server"]
    assert set(figures) == kinds | {"total"}
    for kind in kinds:
        assert figures[kind]["requests"] > 0
        assert 0 < figures[kind]["p50"] <= figures[kind]["p95"] <= figures[kind]["p99"] <= figures[kind]["longest"]
        assert set(server[kind]) == STAGES
        assert 0 < server[kind]["infer"][0] < server[kind]["total"][0] < figures[kind]["longest"]
    assert run.result["triton"]["requests"] > 0
    assert run.result["triton"]["compute infer"] > 0
    assert all(mib > 20 for mib in run.result["resident_mib"])
    assert run.result["under_way"] == 4
    expected = (*kinds, "postprocess", "compute infer", "MiB resident", "generator:", str(run.folder))
    assert all(word in run.text for word in expected)


def test_rows_over_v2_and_grpc_succeed(stack: Stack, tmp_path: Path) -> None:
    weights = ("--model", "iris", "--weights", "v2=1 grpc=3", "--users", 4)
    run = latency("run", tmp_path, *addresses(stack), *SHORT, *weights, "--fail-ratio", 0)
    assert run.status == 0, run.text
    assert run.result["latency"]["v2"]["requests"] > 0
    assert run.result["latency"]["grpc"]["requests"] > run.result["latency"]["v2"]["requests"]


def test_users_over_grpc_have_their_requests_in_progress_together(stack: Stack, tmp_path: Path) -> None:
    run = latency("run", tmp_path, *addresses(stack), *SHORT, "--weights", "grpc", "--users", 7)
    assert (run.status, run.result["under_way"]) == (0, 7), run.text


def test_files_are_readable_and_agree(stack: Stack, tmp_path: Path) -> None:
    run = latency("run", tmp_path, *addresses(stack), *SHORT, "--model", "iris")
    chart = cv2.imread(str(run.folder / "latency.png"))
    assert chart is not None
    assert chart.shape[0] > 300
    assert len({tuple(pixel) for pixel in chart[::7, ::7].reshape(-1, 3)}) > 3
    assert "<html" in (run.folder / "locust.html").read_text().lower()
    rows = list(csv.DictReader((run.folder / "locust_stats.csv").read_text().splitlines()))
    counted = {row["Name"]: int(row["Request Count"]) for row in rows}
    expected = {kind: figures["requests"] for kind, figures in run.result["latency"].items()}
    assert counted == {"Aggregated" if kind == "total" else kind: count for kind, count in expected.items()}
    assert "Timestamp" in (run.folder / "locust_stats_history.csv").read_text()


def test_warm_up_is_not_counted(stack: Stack, tmp_path: Path) -> None:
    rate = ("--model", "iris", "--rate", 20, "--warm-up-s", 1, "--duration-s", 0.5)
    before = row_requests(stack)
    run = latency("run", tmp_path, *addresses(stack), *rate)
    assert run.result["latency"]["total"]["requests"] == 10, run.text
    assert row_requests(stack) - before == 30


def row_requests(stack: Stack) -> int:
    """Requests for rows that the transformer has counted."""
    lines = stack.http.get("/metrics").text.splitlines()
    return sum(
        int(float(line.split()[-1])) for line in lines if "_count{" in line and "iris" in line and "infer" in line
    )


def test_missed_threshold_is_reported(stack: Stack, tmp_path: Path) -> None:
    run = latency("run", tmp_path, *addresses(stack), *SHORT, "--model", "iris", "--p95-ms", 0.01)
    assert run.status == 1
    assert "missed: p95: got" in run.text
    assert "expected at most 0.01 ms" in run.text
    assert len(run.result["missed"]) == 1


def test_failures_are_counted_and_shown(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"no image")
    images = ("--pictures", tmp_path / "pictures", "--warm-up-s", 0, "--duration-s", 0.5)
    run = latency("run", tmp_path / "output", *addresses(stack), "--model", "digits", *images)
    assert run.status == 1
    figures = run.result["latency"]
    assert all(part["failures"] == part["requests"] > 0 for part in figures.values())
    assert "missed: failures: got 100.00%" in run.text
    assert "predict: 400 " in run.text
    assert "grpc: INVALID_ARGUMENT " in run.text


def test_rate_that_cannot_be_reached_does_not_count(stack: Stack, tmp_path: Path) -> None:
    rate = ("--rate", 3000, "--warm-up-s", 0, "--duration-s", 1, "--connections", 8)
    run = latency("run", tmp_path, *addresses(stack), *SHORT, *rate)
    assert run.status == 1
    assert "missed: rate: the run does not count: got" in run.text
    assert "expected at least 95% of 3000" in run.text
    total = run.result["latency"]["total"]
    assert total["requests"] == 3000
    assert total["failures"] > 2000  # those that were never sent


def test_stall_delays_all_requests_that_were_due_in_it(stack: Stack, tmp_path: Path) -> None:
    # Over one connection: if latencies counted from when a request is sent, only one would be slow.
    transformer, before = stack.part("transformer"), row_requests(stack)

    def stall() -> None:
        wait_until(lambda: row_requests(stack) > before + 10, log=stack.log)
        transformer.suspend()
        time.sleep(1)
        transformer.resume()

    thread = threading.Thread(target=stall)
    thread.start()
    try:
        rate = ("--rate", 20, "--connections", 1, "--warm-up-s", 0, "--duration-s", 4, "--weights", "row")
        run = latency("run", tmp_path, *addresses(stack), "--model", "iris", *rate)
    finally:
        thread.join()
    assert run.result["latency"]["total"]["requests"] == 80
    assert run.result["latency"]["total"]["p95"] > 300


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that is taken, and where no process listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_server_that_is_away_is_one_line(silent_port: int, tmp_path: Path) -> None:
    for command in (["run"], ["cold"], ["capacity", "--p95-ms", "10"], ["ui"]):
        run = latency(command[0], tmp_path, *command[1:], "--url", f"http://127.0.0.1:{silent_port}")
        assert run.status == 1
        assert run.text.splitlines() == [
            f"error: http://127.0.0.1:{silent_port}: [Errno 111] Connection refused; "
            "next: make serve, or URL=<where it runs>"
        ]
    assert not list(tmp_path.iterdir())


def test_server_that_is_not_nereid_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "models").write_text('["another"]')
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with run_server(handler) as url:
        run = latency("run", tmp_path / "output", "--url", url)
    assert (run.status, len(run.text.splitlines())) == (1, 1), run.text
    assert "responds, but not as Nereid does" in run.text


def test_grpc_that_is_away_is_one_line(stack: Stack, silent_port: int, tmp_path: Path) -> None:
    run = latency("run", tmp_path, *addresses(stack), "--grpc", f"127.0.0.1:{silent_port}")
    assert (run.status, len(run.text.splitlines())) == (1, 1)
    assert f"error: gRPC 127.0.0.1:{silent_port}: " in run.text
    assert "next: GRPC=<host:port>, or WEIGHTS without grpc" in run.text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rate", "fast"], "--rate: got 'fast', expected requests/s from 0.01 to 10000"),
        (["--fail-ratio", "2"], "--fail-ratio: got '2', expected a number from 0 to 1"),
        (["--users", "0"], "--users: got '0', expected a whole number from 1"),
        (["--weights", "soap=1"], "--weights: got 'soap=1', expected <kind>=<whole number>, kinds: predict, v1"),
        (["--url", "localhost:8080"], "--url: got 'localhost:8080', expected http://host:port"),
        (["--model", "none"], "MODEL: got none, expected one of digit-classes, digit-finder, "),
        (["--model", "iris", "--weights", "v1"], "iris (tabular) does not take v1; expected v2, grpc, row, batch"),
        (["--pictures", "/none"], "PICTURES: /none: No such file or directory"),
        (["--pictures", "loadtest/latency"], "PICTURES: loadtest/latency: got no image"),
    ],
)
def test_wrong_argument_is_reported(stack: Stack, tmp_path: Path, arguments: list[str], expected: str) -> None:
    run = latency("run", tmp_path, *addresses(stack), *arguments)
    assert run.status == 2, run.text
    assert expected in run.text.splitlines()[-1]


def test_absent_metrics_are_reported_as_absent(stack: Stack, silent_port: int, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{silent_port}/metrics"
    run = latency("run", tmp_path, *addresses(stack), *SHORT, "--model", "iris", "--triton-metrics-url", url)
    assert run.status == 0, run.text
    assert f"Triton's metrics are absent: {url}: [Errno 111]" in run.text


def test_capacity_prints_fields_of_the_manifest(stack: Stack, tmp_path: Path) -> None:
    steps = ("--p95-ms", 500, "--fail-ratio", 0.2, "--duration-s", 0.5, "--warm-up-s", 0.1, "--rate", 2000)
    run = latency("capacity", tmp_path, *addresses(stack), "--model", "iris", *steps)
    assert run.status == 0, run.text
    lines = run.text.splitlines()
    found = next(line for line in lines if line.startswith("capacity of one replica: "))
    assert float(found.split()[4]) > 0
    for metric in ("concurrency", "rps"):
        words = next(line for line in lines if line.strip().startswith(f"scaleMetric: {metric}")).split()
        assert int(words[3]) >= 1
        assert int(words[5]) >= 2
    assert int(lines[-1].removeprefix("replicas for 2000 requests/s: ")) >= 1


def test_capacity_where_no_rate_holds_is_an_error(stack: Stack, tmp_path: Path) -> None:
    steps = ("--p95-ms", 0.01, "--duration-s", 0.2, "--warm-up-s", 0)
    run = latency("capacity", tmp_path, *addresses(stack), "--model", "iris", *steps)
    assert run.status == 1
    assert "error: no rate from 50 requests/s holds p95 under 0.01 ms" in run.text


def test_a_server_is_shown_beside_its_simulation(stack: Stack) -> None:
    url, image = f"http://127.0.0.1:{stack.http_port}", str(ROOT / "loadtest/pictures/seven.png")
    words = ["--url", url, "--model", "digits", "--picture", image, "--seconds", "0.5", "--turns", "1"]
    ended = subprocess.run(
        [sys.executable, "-m", "loadtest.growth", "queueing", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    rows = [line.replace("│", " ").split() for line in ended.stdout.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == ["0.5", "0.7", "0.85"]
    for row in rows:
        assert all(float(word.strip(",%")) >= 0 for word in row if word != "/"), row


def test_bursts_after_silence_are_reported(stack: Stack, tmp_path: Path) -> None:
    shape = ("--silence-s", 0.5, "--burst-s", 0.5, "--cycles", 2, "--users", 2)
    run = latency("cold", tmp_path, *addresses(stack), "--model", "iris", *shape)
    assert run.status == 0, run.text
    assert len(run.result["bursts"]) == 2
    for burst in run.result["bursts"]:
        assert burst["failures"] == 0
        assert burst["first_response_s"] > 0
        assert len(burst["first_ms"]) == 10
        assert burst["steady_p50_ms"] > 0
    assert "After silence" in run.text
    assert (run.folder / "latency.png").exists()


def test_page_sends_the_same_kinds_of_requests(stack: Stack, tmp_path: Path) -> None:
    (port,) = find_free_ports(1)
    log = tmp_path / "log"
    words = [*addresses(stack), "--model", "iris", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.latency", "ui", *words], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as page:
            wait_until(lambda: responds(page), log=log)
            foreign = {"Host": "evil.example"}
            for method, path in (("GET", "/"), ("POST", "/swarm"), ("GET", "/stats/requests")):
                assert page.request(method, path, headers=foreign).status_code == 421, path
            assert page.post("/swarm", data={"user_count": "2", "spawn_rate": "2"}).json()["success"]
            wait_until(lambda: {"row", "batch"} <= kinds_sent(page), log=log)
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
        assert log.read_text().count("\n") == 1
    finally:
        process.kill()


def responds(page: httpx.Client) -> bool:
    try:
        return page.get("/").is_success
    except httpx.TransportError:
        return False


def kinds_sent(page: httpx.Client) -> set[str]:
    return {row["name"] for row in page.get("/stats/requests").json()["stats"] if row["num_requests"]}
