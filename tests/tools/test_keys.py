"""Every tool that sends requests, to a server that requires a key: with it, without it, and with another one."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.ports import find_free_ports
from tests.support.stack import PATIENCE_S, ROOT, Stack, run_program, start_stack
from tests.support.transformer import make_key

IMAGES = str(ROOT / "loadtest" / "pictures")
SHORT = ("--pictures", IMAGES, "--duration-s", "0.5", "--warm-up-s", "0.1")
COMMANDS = (
    "run", "run rows", "cold", "capacity", "flood", "queueing", "soak", "swap", "protocols", "versions", "prune",
    "publish", "rollback",  # last: it pins a version
)  # fmt: skip
NEXT = "; next: NEREID_API_KEY=<one of the server's keys>"


@dataclass(frozen=True)
class Guarded:
    """A stack with keys.

    Attributes:
        key: that it knows.
        repository: what it serves, a folder.
    """

    stack: Stack
    key: str
    repository: Path

    def command(self, name: str, output: Path) -> list[str]:
        """The arguments of Python: what a target of make runs, for a short time."""
        http, grpc = (f"127.0.0.1:{port}" for port in (self.stack.http_port, self.stack.grpc_port))
        url = f"http://{http}"
        latency = ["-m", "loadtest.latency"]
        where = ["--url", url, "--grpc", grpc, "--output", str(output / "latency"), "--fail-ratio", "0"]
        remote = ["--repository", str(self.repository)]
        parent = ["--pid", str(self.stack.process.pid)]
        common = ["--url", url, "--model", "digit-finder", "--output", str(output / "result.json")]
        return {
            "run": [*latency, "run", *where, *SHORT, "--model", "digit-finder"],
            "run rows": [*latency, "run", *where, *SHORT, "--model", "iris", "--weights", "row=1 grpc=1 v2=1"],
            "cold": [*latency, "cold", *where, *SHORT[:2], "--silence-s", "0", "--burst-s", "0.3", "--cycles", "1"],
            "capacity": [*latency, "capacity", *where, *SHORT, "--p95-ms", "100000", "--model", "iris"],
            "flood": ["-m", "loadtest.flood", *common, "--seconds", "0.5", "--repeats", "1", "--factors", "1"],
            "queueing": ["-m", "loadtest.growth", "queueing", *common[:4], "--seconds", "0.5", "--turns", "1"],
            "soak": ["-m", "loadtest.soak", *common, *remote, *parent, "--minutes", "0.02"],
            "swap": [
                *("-m", "loadtest.swap", "--http", http, "--grpc", grpc, "--sync", self.stack.sync, *remote, *parent),
                *("--swaps", "1", "--quiet-s", "0", "--output", str(output / "swap.json")),
            ],
            "protocols": ["-m", "loadtest.protocols", "--http", http, "--grpc", grpc, "--requests", "2"],
            "versions": ["-m", "export", "versions", *remote, "--url", url],
            "rollback": ["-m", "export", "rollback", "digits", *remote, "--url", url],
            "prune": ["-m", "export", "prune", "digits", *remote, "--url", url, "--keep", "9"],
            "publish": ["-m", "export", "publish", "digits", *remote, "--wait", url],
        }[name]

    def run(self, name: str, output: Path, key: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end, and look meanwhile that no process has the key among its arguments."""
        with (output / "said").open("w+") as printed:
            process = subprocess.Popen(
                [sys.executable, *self.command(name, output)],
                cwd=ROOT, env=os.environ | {"NEREID_API_KEY": key}, stdout=printed, stderr=printed,
            )  # fmt: skip
            try:
                deadline = time.monotonic() + PATIENCE_S
                while process.poll() is None and time.monotonic() < deadline:
                    for each in psutil.process_iter(["cmdline"]):
                        assert not key or not any(key in word for word in each.info["cmdline"] or ())
                    time.sleep(0.2)
            finally:
                process.kill()
                process.wait()
            printed.seek(0)
            return subprocess.CompletedProcess([name], process.returncode, printed.read())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    repository = folder / "models"
    shutil.copytree(ROOT / "model_repository", repository)
    digits = repository / "digits"
    newest = max(int(folder.name) for folder in digits.iterdir() if folder.name.isdecimal())
    shutil.copytree(digits / str(newest), digits / str(newest + 1))  # to go back from
    key = make_key("tools", folder / "keys.txt")
    variables = {"TRANSFORMER_API_KEYS_FILE": str(folder / "keys.txt"), "POLL_S": "0.5", "SETTLE_S": "0.5"}
    # Without metrics too: a tool that reads them shows its key there as well.
    variables |= {"TRANSFORMER_KEYLESS": "health"}
    with start_stack(repository, folder / "log", variables=variables) as stack:
        yield Guarded(stack, key, repository)


@pytest.mark.parametrize("name", COMMANDS)
def test_tool_with_the_key_succeeds(guarded: Guarded, tmp_path: Path, name: str) -> None:
    done = guarded.run(name, tmp_path, guarded.key)
    assert done.returncode == 0, done.stdout
    assert "no API key" not in done.stdout
    written = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert guarded.key not in "".join([*written, guarded.stack.log.read_text()])


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(("key", "says"), [("", "401 no API key; "), ("nereid_wrong", "403 unknown API key")])
def test_tool_without_the_key_reports_that_in_one_line(
    guarded: Guarded, tmp_path: Path, name: str, key: str, says: str
) -> None:
    done = guarded.run(name, tmp_path, key)
    assert done.returncode == 1, done.stdout
    lines = done.stdout.splitlines()
    assert [line for line in lines if "error" in line] == lines[-1:], done.stdout
    assert lines[-1].startswith("error: ")
    assert says in lines[-1]
    assert lines[-1].endswith(NEXT)
    assert len(lines) <= 2, done.stdout  # soak shows how far it is
    assert not key or key not in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_invalid_key_is_rejected_and_not_shown(guarded: Guarded, tmp_path: Path, name: str) -> None:
    key = "two wörds"
    done = guarded.run(name, tmp_path, key)
    assert done.returncode == 1, done.stdout
    assert "error: NEREID_API_KEY: got something else (not shown)" in done.stdout
    assert key not in done.stdout
    assert "Traceback" not in done.stdout


def test_locusts_page_sends_the_key(guarded: Guarded) -> None:
    (port,) = find_free_ports(1)
    where = ["--url", f"http://127.0.0.1:{guarded.stack.http_port}", "--grpc", f"127.0.0.1:{guarded.stack.grpc_port}"]
    command = [sys.executable, "-m", "loadtest.latency", "ui", "--port", str(port), *where]
    for key, says in (("", "error: "), (guarded.key, "Locust: http://localhost")):
        with subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"NEREID_API_KEY": key, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            line = process.stdout.readline()
            process.terminate()
        assert line.startswith(says)
        assert line.rstrip().endswith(NEXT) is not bool(key)


@pytest.mark.parametrize("given", [True, False])
def test_demo_with_keys(tmp_path: Path, given: bool) -> None:
    key = make_key("demo", tmp_path / "keys.txt")
    done = run_program(
        "stack.demo", TRANSFORMER_API_KEYS_FILE=str(tmp_path / "keys.txt"), NEREID_API_KEY=key if given else ""
    )
    assert done.returncode == int(not given), done.stdout
    assert ("Responses" in done.stdout) is given
    assert bool(re.search(r"error: http\S+: 401 no API key; .*" + re.escape(NEXT), done.stdout)) is not given
    assert key not in done.stdout + done.stderr
