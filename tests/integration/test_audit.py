"""`make audit`: what a source of advisories says of the locks, and a source that cannot say is no pass."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from requirements.audit import ROOT, read_locks
from tests.support.http_server import Quiet, run_server

NOW = datetime.now(UTC).isoformat()
KNOWN = ("urllib3", [{"introduced": "0"}, {"fixed": "1.26.5"}], "CVE-2021-33503")


def record(name: str, events: list[dict[str, str]], *aliases: str, modified: str = NOW, **more: Any) -> dict[str, Any]:
    """A record of OSV."""
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": f"X-{name}", "aliases": list(aliases), "modified": modified, "affected": [affected], **more}


def audit(source: object) -> tuple[int, str]:
    """Exit status and output of `make audit`."""
    command = [sys.executable, "-m", "requirements.audit", "--source", str(source)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout + run.stderr


def write(folder: Path, *records: dict[str, Any]) -> Path:
    for index, each in enumerate(records):
        (folder / f"{index}.json").write_text(json.dumps(each))
    return folder


@contextmanager
def index(holes: Mapping[str, list[dict[str, Any]]], *, unknown: str = "") -> Iterator[str]:
    """An index with PyPI's JSON API; `holes` by `<name>/<version>`."""

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/pypi/").removesuffix("/json")
            self.send_response(404 if path.partition("/")[0] == unknown else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"vulnerabilities": holes.get(path, [])}).encode())

    with run_server(Handler) as url:
        yield url


CANARY = {"urllib3/1.26.4": [{"id": "PYSEC-2021-108", "aliases": ["CVE-2021-33503"], "fixed_in": ["1.26.5"]}]}


def test_locks_without_a_vulnerability_pass(tmp_path: Path) -> None:
    status, output = audit(write(tmp_path, record(*KNOWN)))
    assert (status, output.count("0 with known vulnerabilities")) == (0, 1), output


def test_vulnerability_is_reported_once_with_its_names(tmp_path: Path) -> None:
    events = [{"introduced": "0"}, {"fixed": "9999"}]
    other = record("NumPy", events, "CVE-1") | {"id": "GHSA-1"}
    gone = record("scipy", events, withdrawn=NOW)
    elsewhere = record("pillow", events)
    elsewhere["affected"][0]["package"]["ecosystem"] = "npm"
    status, output = audit(write(tmp_path, record(*KNOWN), record("numpy", events, "CVE-1"), other, gone, elsewhere))
    assert status == 1
    assert "9999" in output
    assert output.count("CVE-1 ") == len([pin for pin in read_locks() if pin.name == "numpy"])
    assert "scipy" not in output
    assert "pillow" not in output


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "got no records, expected a folder of .json or .yaml files"),
        ([record("numpy", [{"introduced": "0"}, {"fixed": "1"}])], "got no record of urllib3 1.26.4"),
        ([record(*KNOWN, modified=(datetime.now(UTC) - timedelta(days=31)).isoformat())], "31 days ago"),
    ],
    ids=["empty", "of other packages", "old"],
)
def test_incomplete_or_old_folder_is_an_error(tmp_path: Path, records: list[dict[str, Any]], words: str) -> None:
    status, output = audit(write(tmp_path, *records))
    assert status == 2
    assert words in output
    assert "next: AUDIT=" in output


def test_advisories_of_pypa_are_read(tmp_path: Path) -> None:
    text = (
        f"id: P\naliases: [CVE-2021-33503]\nmodified: {NOW}\naffected:\n- package: {{name: urllib3, ecosystem: PyPI}}\n"
    )
    (tmp_path / "P.yaml").write_text(f'{text}  versions: ["1.26.4"]\n')
    assert audit(tmp_path)[0] == 0


def test_index_with_advisories_is_queried() -> None:
    with index(CANARY) as url:
        assert audit(url)[0] == 0
    pin = next(pin for pin in read_locks() if pin.name == "fastapi")
    hole = {"id": "PYSEC-1", "aliases": [], "fixed_in": []}
    with index(CANARY | {f"fastapi/{pin.version}": [hole]}) as url:
        status, output = audit(url)
    assert (status, "PYSEC-1" in output) == (1, True)


def test_incomplete_index_is_an_error() -> None:
    with index({}) as url:  # as mirrors do that copy packages and no advisories
        status, output = audit(url)
    assert (status, "got no advisory of urllib3 1.26.4" in output) == (2, True)
    with index(CANARY, unknown="fastapi") as url:
        status, output = audit(url)
    assert (status, "got 404 for /pypi/fastapi/" in output) == (2, True)
    status, output = audit(url)
    assert (status, "Connection refused" in output) == (2, True)
