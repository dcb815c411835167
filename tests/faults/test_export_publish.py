"""Exports that are killed, interrupted, or run at the same time: real processes."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from export.writer.repository import write_version
from export.writer.versions import latest, read_complete
from tests.support.exported import version

ROOT = Path(__file__).parents[2]

# Noise does not compress: writing golden.new, which becomes golden.npz, takes seconds, in which model.onnx and
# config.pbtxt are there already.
SLOW = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from export.writer.repository import write_version
from tests.support.exported import version
noise = np.random.default_rng(0).integers(0, 256, 200_000_000, np.uint8)
print("ready", flush=True)
write_version(Path(sys.argv[1]), replace(version(), golden={"noise": noise}))
"""

MANY = """
import sys
from pathlib import Path
from export.writer.repository import write_version
from tests.support.exported import version
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    print(write_version(Path(sys.argv[1]), version()).name, flush=True)
"""


@contextmanager
def start(script: str, repository: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(repository)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.005)


@pytest.mark.parametrize("before", [0, 1])
def test_killed_export_leaves_no_version_and_the_next_cleans_up(tmp_path: Path, before: int) -> None:
    for _ in range(before):
        write_version(tmp_path, version())
    with start(SLOW, tmp_path) as process:
        wait_for(tmp_path / "tiny" / ".export" / "golden.new")
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert (tmp_path / "tiny" / ".export" / "model.onnx").exists(), "it was killed in the middle"
    assert latest(tmp_path / "tiny") == (tmp_path / "tiny" / "1" if before else None)
    folder = write_version(tmp_path, version("other"))
    assert folder == tmp_path / "other" / "1"
    assert (tmp_path / "tiny").exists() == bool(before)
    assert not list(tmp_path.glob("*/.*"))


def test_interrupted_export_cleans_up_itself(tmp_path: Path) -> None:
    with start(SLOW, tmp_path) as process:
        wait_for(tmp_path / "tiny" / ".export" / "golden.new")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_exports_at_once_take_numbers_of_their_own(tmp_path: Path) -> None:
    with start(MANY, tmp_path) as first, start(MANY, tmp_path) as second, start(MANY, tmp_path) as third:
        processes = (first, second, third)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        names = [name for process in processes for name in process.communicate(timeout=60)[0].split()]
    assert sorted(map(int, names)) == list(range(1, 16))
    for name in names:
        manifest = read_complete(tmp_path / "tiny" / name)
        assert manifest is not None
        assert manifest["version"] == name
    assert json.loads((tmp_path / "tiny" / "15" / "manifest.json").read_bytes())["model"] == "tiny"
