"""Programs end at SIGTERM while they start: as the first process of a container they would not without a handler."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
