"""The soak test, against a server that responds to everything."""

import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil
import pytest

from loadtest import soak
from loadtest.errors import LoadTestError
from loadtest.generator.responses import Response, Result
from loadtest.repository import Uploads, shipped_versions
from tests.support.http_server import Quiet, run_server
from tests.support.processes import words_of


class Handler(Quiet, BaseHTTPRequestHandler):
    """Responds to everything with nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def url() -> Iterator[str]:
    with run_server(Handler) as running:
        yield running


def test_version_ten_is_newer_than_nine(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="no version of m in"):
        shipped_versions("m", tmp_path)
    for name in ("9", "10", "configs"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert [path.name for path in shipped_versions("m", tmp_path)] == ["9", "10"]


def test_uploads_are_numbered_from_the_newest_and_leave_versions_of_others(tmp_path: Path) -> None:
    source, repository = tmp_path / "source", tmp_path / "repository"
    for folder in (source, repository / "m" / "3"):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text('{"model": "other", "version": "1"}')
    uploads = Uploads(str(repository), "m", [source], keep=2)
    for _ in range(4):
        uploads.upload()
        uploads.prune()
    assert (uploads.newest, uploads.count) == (7, 4)
    assert sorted(path.name for path in (repository / "m").iterdir()) == ["3", "6", "7"]
    assert (repository / "m" / "7" / "manifest.json").read_text() == '{"model": "m", "version": "7"}'


def test_drift_is_that_from_the_first_to_the_last_fifth() -> None:
    responses = [Response(0, "predict", at, 0.1 if at < 50 else 0.2, "200", "") for at in map(float, range(100))]
    responses[10] = responses[10]._replace(status="", error="TimeoutError")
    samples = [soak.Sample(number, {"sync": 1024 * number}, 10 * number) for number in range(1, 6)]
    summary = soak.summarize(Result(responses), samples, 1.0)
    assert (summary["requests"], summary["failed"], summary["swaps"]) == (100, 1, 5)
    assert summary["statuses"] == {"200": 99, "no response": 1}
    assert (summary["p99_first_fifth_ms"], summary["p99_last_fifth_ms"]) == pytest.approx((100, 200))
    assert (summary["memory_mib"], summary["files"]) == ({"sync": [3, 5]}, [30, 50])


def test_failed_upload_ends_the_load_and_is_reported(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").touch()
    monkeypatch.setattr(soak, "shipped_versions", lambda _: [tmp_path / "1"])
    monkeypatch.setattr(soak, "MEASURE_S", 0.5)
    arguments = {"--url": url, "--repository": tmp_path / "taken", "--model": "m", "--minutes": 2, "--pid": 1}
    monkeypatch.setattr(sys, "argv", ["soak", *(str(word) for pair in arguments.items() for word in pair)])
    began = time.monotonic()
    assert soak.main() == 1
    assert time.monotonic() - began < 60
    assert "taken" in capsys.readouterr().out
    assert not [child for child in psutil.Process().children() if "loadtest.generator" in words_of(child)]
