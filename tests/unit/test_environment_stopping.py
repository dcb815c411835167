"""Programs end at SIGTERM while they start: as the first process of a container they would not without a handler."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.ports import find_free_ports
from tests.support.stack import PATIENCE_S, ROOT

SIGTERM_BIT = 1 << 14


@pytest.mark.parametrize(
    ("program", "imported_later"),
    [
        (("transformer",), "cv2"),
        (("worker",), "_ssl"),
        (("predictor", "synchroniser"), "_pydantic_core"),
    ],
    ids=["transformer", "worker", "predictor"],
)
def test_program_ends_at_sigterm_before_its_imports(program: tuple[str, ...], imported_later: str) -> None:
    variables = os.environ | {"WORKER_QUEUE_URL": "http://127.0.0.1:9/1/queue"}
    process = subprocess.Popen([sys.executable, "-m", *program], cwd=ROOT, env=variables)
    try:
        of_it = Path("/proc", str(process.pid))
        deadline = time.monotonic() + PATIENCE_S
        while not caught(of_it) & SIGTERM_BIT:
            assert time.monotonic() < deadline
        assert imported_later not in (of_it / "maps").read_text()
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


def caught(of_it: Path) -> int:
    """The signals that a process has handlers for, a bit each."""
    lines = (of_it / "status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("SigCgt:"))
    return int(line.split()[1], 16)


@pytest.mark.parametrize("program", [("transformer",), ("predictor", "synchroniser")], ids=["transformer", "predictor"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_program_ends_without_a_word_at_a_signal_before_its_event_loop(
    program: tuple[str, ...], number: signal.Signals, tmp_path: Path
) -> None:
    script = (
        "import asyncio, os, runpy\n"
        "run = asyncio.Runner.run\n"
        f"asyncio.Runner.run = lambda *args, **kwargs: (os.kill(os.getpid(), {int(number)}), run(*args, **kwargs))[1]\n"
        f"runpy.run_module('{program[0]}', run_name='__main__', alter_sys=True)\n"
    )
    (tmp_path / "models").mkdir()
    http_port, grpc_port = find_free_ports(2)
    variables = {
        "LOG_FORMAT": "json",
        "PREDICTOR_REPOSITORY": str(tmp_path / "models"),
        "PREDICTOR_MIRROR": str(tmp_path / "mirror"),
        "PREDICTOR_SYNC_PORT": str(http_port),
    }
    options = [f"--http_port={http_port}", f"--grpc_port={grpc_port}", "--predictor_host=localhost:1"]
    arguments = program[1:] or options
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, env=os.environ | variables,
        stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logged = [json.loads(line) for line in done.stderr.splitlines()]
    assert not [line for line in logged if line["logger"] == "py.warnings"]
