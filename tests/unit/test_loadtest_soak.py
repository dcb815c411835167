import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import psutil
import pytest

from loadtest import soak
from loadtest.flood.meter import Meter
from loadtest.swap import SwapError
from tests.support.http_server import Quiet, run_server


class Handler(Quiet, BaseHTTPRequestHandler):
    """Answers everything with nothing."""

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
    with pytest.raises(SwapError, match="no version of m in"):
        soak.find_newest(tmp_path / "m")
    for name in ("9", "10", "configs"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert soak.find_newest(tmp_path / "m").name == "10"


def test_every_request_is_counted(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        outcome = Meter(client, "m", soak._PICTURE).generate(20, 1)
    assert outcome.statuses == [200] * 20


def test_failed_upload_ends_the_load_and_is_told(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = tmp_path / "model_repository" / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"1")
    (tmp_path / "taken").touch()
    monkeypatch.setattr(soak, "_ROOT", tmp_path)
    monkeypatch.setattr(soak, "_MEASURE_S", 0.5)
    arguments = {"--url": url, "--repository": tmp_path / "taken", "--model": "m", "--minutes": 2, "--pid": 1}
    monkeypatch.setattr(sys, "argv", ["soak", *(str(word) for pair in arguments.items() for word in pair)])
    began = time.monotonic()
    assert soak.main() == 1
    assert time.monotonic() - began < 60
    assert "taken" in capsys.readouterr().out
    assert not [child for child in psutil.Process().children() if "loadtest.flood.generator" in child.cmdline()]
