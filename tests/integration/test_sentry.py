"""Errors to Sentry: the SDK's own envelopes, at a server that takes them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from environment import __version__
from tests.support.http_server import Exchange, run_server
from tests.support.ports import find_free_ports
from tests.support.queues import create_queues
from tests.support.s3 import start_s3
from tests.support.stack import ROOT, Stack, wait_until
from tests.support.transformer import DIGITS, infer_message, infer_rejection, start_transformer

KEY = "0123456789abcdef0123456789abcdef"
DEFECTIVE = "tests.support.defective"


@dataclass
class Sentry:
    """A server of Sentry's envelopes.

    Attributes:
        dsn: for SENTRY_DSN.
        events: all that arrived.
        bodies: of the requests, decompressed.
    """

    dsn: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)


@contextmanager
def serve_sentry() -> Iterator[Sentry]:
    sentry = Sentry()

    class Handler(Exchange):
        def do_POST(self) -> None:  # noqa: N802  # http.server's name
            assert self.path == "/api/1/envelope/"
            assert f"sentry_key={KEY}" in self.headers["X-Sentry-Auth"]
            encoding = {"Content-Encoding": self.headers["Content-Encoding"] or "identity"}
            text = httpx.Response(200, headers=encoding, content=self.read()).text
            sentry.bodies.append(text)
            lines = [json.loads(line) for line in text.splitlines() if line]
            sentry.events += [line for line in lines if "exception" in line or "logentry" in line]
            self.send(200, {"Content-Type": "application/json"}, b"{}")

    with run_server(Handler) as url:
        sentry.dsn = f"http://{KEY}@{url.removeprefix('http://')}/1"
        yield sentry


def test_defect_is_reported_with_its_traceback_and_nothing_of_the_request(stack: Stack, tmp_path: Path) -> None:
    triton, log = f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log"
    with serve_sentry() as sentry:
        variables = {"SENTRY_DSN": sentry.dsn, "SENTRY_ENVIRONMENT": "staging", "LOG_FORMAT": "json"}
        with start_transformer(triton, log, variables=variables, module=DEFECTIVE) as transformer:
            response = transformer.http.post(
                "/predict/digit-finder?private=in-the-query",
                files={"image": ("private-name.jpg", DIGITS)},
                headers={"X-Request-Id": "of-a-client", "Authorization": "Bearer private-key", "X-Private": "private"},
            )
            assert response.status_code == 500
            transformer.http.post("/predict/nope", files={"image": DIGITS})  # a client's own error
            infer_rejection(transformer.grpc, infer_message("digit-finder", DIGITS))
            wait_until(lambda: len(sentry.events) == 2, log=log, seconds=30)
    event = sentry.events[0]
    assert {name: event[name] for name in ("level", "logger", "environment")} == {
        "level": "error",
        "logger": "transformer",
        "environment": "staging",
    }
    assert event["release"] == f"nereid@{__version__}"
    assert (event["tags"]["part"], event["tags"]["request_id"]) == ("transformer", "of-a-client")
    raised = event["exception"]["values"][-1]
    assert (raised["type"], raised["value"]) == ("ValueError", "")
    assert raised["stacktrace"]["frames"][-1]["function"] == "infer_images"
    everything = "".join(sentry.bodies)
    assert "private" not in everything
    assert '"vars"' not in everything
    assert not {"request", "user", "modules"} & event.keys()
    assert sentry.events[1]["tags"]["request_id"] != "of-a-client"


def test_synchroniser_reports_what_ends_it(tmp_path: Path) -> None:
    program = (
        "import sys; from predictor.program import main; from predictor.synchroniser.loop import Synchroniser\n"
        "def run(_): raise RuntimeError('a defect')\n"
        "Synchroniser.run = run; sys.exit(main())"
    )
    (tmp_path / "models").mkdir()
    with serve_sentry() as sentry:
        variables = {
            "SENTRY_DSN": sentry.dsn,
            "PREDICTOR_REPOSITORY": str(tmp_path / "models"),
            "PREDICTOR_MIRROR": str(tmp_path / "mirror"),
            "PREDICTOR_SYNC_PORT": str(*find_free_ports(1)),
        }
        done = subprocess.run(
            [sys.executable, "-c", program, "synchroniser"], cwd=ROOT, env=os.environ | variables,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    reported = [each for each in sentry.events if each.get("logentry", {}).get("message") == "the synchroniser ended"]
    assert [each["tags"]["part"] for each in reported] == ["synchroniser"]
    assert reported[0]["exception"]["values"][-1]["type"] == "RuntimeError"


def test_server_that_is_away_holds_nothing_up(stack: Stack, tmp_path: Path) -> None:
    (port,) = find_free_ports(1)
    triton, log = f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log"
    variables = {"SENTRY_DSN": f"http://{KEY}@127.0.0.1:{port}/1"}
    with start_transformer(triton, log, variables=variables, module=DEFECTIVE) as transformer:
        for _ in range(200):
            assert transformer.http.post("/predict/digit-finder", files={"image": DIGITS}).status_code == 500
        assert transformer.http.get("/v2/health/ready").status_code == 200
        transformer.process.terminate()
        assert transformer.process.wait(15) == 0


@pytest.mark.parametrize("dsn", ["https://secret@", "https://secret@host:abc/1", "https://secret@[::1/1", "secret"])
def test_wrong_dsn_is_logged(stack: Stack, tmp_path: Path, dsn: str) -> None:
    triton, log = f"127.0.0.1:{stack.triton_grpc_port}", tmp_path / "log"
    with start_transformer(triton, log, variables={"SENTRY_DSN": dsn}) as transformer:
        assert transformer.http.get("/v2/health/live").status_code == 200
    (line,) = [line for line in log.read_text().splitlines() if "SENTRY_DSN" in line]
    assert "expected a DSN of Sentry" in line
    assert "secret" not in line


def test_missing_package_is_logged() -> None:
    program = (
        "import sys; sys.modules['sentry_sdk'] = None; from environment.sentry import report_errors; report_errors('x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={"SENTRY_DSN": "https://key@example.com/1"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "SENTRY_DSN needs the extra sentry of pyproject.toml" in done.stderr


def test_nothing_is_imported_without_a_dsn() -> None:
    program = (
        "import sys; from environment.sentry import report_errors; report_errors('x'); import transformer.program;"
        "assert 'sentry_sdk' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={"SENTRY_DSN": ""}, timeout=60, check=True)


def test_worker_reports_its_last_error(tmp_path: Path) -> None:
    program = (
        "import logging, sys; from worker.consumer import Consumer; from worker.program import main\n"
        "def run(_): logging.getLogger('worker').error('a last word')\n"
        "Consumer.run = run; sys.argv = ['worker']; sys.exit(main())"
    )
    with serve_sentry() as sentry, start_s3(tmp_path / "s3") as s3, run_server(Ready) as url:
        queues = create_queues(s3, "last")
        variables = {"SENTRY_DSN": sentry.dsn, "WORKER_QUEUE_URL": queues.url, "WORKER_URL": url}
        variables |= {"WORKER_PORT": str(*find_free_ports(1)), **s3.environment()}
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=os.environ | variables,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [each["tags"]["part"] for each in sentry.events] == ["worker"]


class Ready(Exchange):
    """A transformer that is ready."""

    def do_GET(self) -> None:  # noqa: N802  # http.server's name
        self.send(200, {"Content-Type": "application/json"}, b"{}")
