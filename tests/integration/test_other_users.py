"""Files and memory of the stack are private: another user of the machine can read none."""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from stack.settings import StackSettings
from stack.supervise import keep
from tests.support.models import build_identity, write_model
from tests.support.processes import words_of
from tests.support.stack import ROOT, start_stack
from tests.support.triton import start_triton
from transformer.auth import make

REGION = re.compile(r"triton_\w+_shm_region_[\w-]+")
# Options of setpriv for a user without rights; the files of this project need not be open to one.
WITHOUT_ROOTS_RIGHTS = ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]


def is_ours_alone(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def regions_of(triton: psutil.Process) -> list[str]:
    """The names of the memory that a Triton shares with its models: arguments of the processes that run them."""
    words = [word for child in triton.children(recursive=True) for word in words_of(child)]
    return [word for word in words if REGION.fullmatch(word)]


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """The umask of most users; processes inherit it."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.usefixtures("usual_umask")
@pytest.mark.parametrize("user", ["root", "another"])
def test_memory_of_the_embedded_triton_is_not_for_other_users(tmp_path: Path, user: str) -> None:
    """Triton opens it to every user; it lies in a folder that no other user can read."""
    write_model(tmp_path / "repository", "same", onnx_file=build_identity())
    if user == "another" and (os.geteuid() != 0 or not shutil.which("setpriv")):
        pytest.skip("needs root, and setpriv, of util-linux")
    prefix = ["setpriv", *WITHOUT_ROOTS_RIGHTS] if user == "another" else []
    with start_triton(tmp_path / "repository", tmp_path / "log", prefix=prefix) as triton:
        regions = regions_of(psutil.Process(triton.process.pid))
        assert regions
        assert "warning" not in triton.log.read_text()
        memory = Path("/proc", str(triton.process.pid), "root", "dev", "shm")
        assert all((memory / region).is_file() for region in regions)
        assert is_ours_alone(memory)
        assert not any((Path("/dev/shm") / region).exists() for region in regions)  # noqa: S108  # everybody's
        inputs = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
        response = httpx.post(f"http://127.0.0.1:{triton.http_port}/v2/models/same/infer", json=inputs)
        assert response.json()["outputs"][0]["data"] == [1, 2]


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv, of util-linux")
@pytest.mark.parametrize("rights", [[], WITHOUT_ROOTS_RIGHTS], ids=["root", "another"])
def test_private_process_still_ends_with_its_parent(rights: list[str]) -> None:
    """The kernel forgets it where rights change."""
    script = (
        "import ctypes; from predictor.triton.privacy import close_to_others; why = close_to_others(); "
        "signal = ctypes.c_int(0); ctypes.CDLL(None).prctl(2, ctypes.byref(signal)); print([why, signal.value])"
    )
    command = ["setpriv", "--pdeathsig", "TERM", *(rights if os.geteuid() == 0 else []), sys.executable, "-c", script]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout == "['', 15]\n", run.stderr


@pytest.mark.usefixtures("usual_umask")
def test_mirror_of_the_stack_is_not_for_other_users(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "model_repository" / "iris", tmp_path / "repository" / "iris")
    with start_stack(tmp_path / "repository", tmp_path / "log") as stack:
        written = [path for path in (tmp_path / "log-mirror").rglob("*") if path.exists() and not path.is_symlink()]
        assert "model.onnx" in {path.name for path in written}
        assert all(is_ours_alone(path) for path in written)
        assert stack.http.get("/v2/models/iris").is_success


@pytest.mark.usefixtures("usual_umask")
def test_folder_of_mirrors_is_private_where_it_belongs_to_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = StackSettings(repository="s3://models/private")
    keep(settings)
    assert is_ours_alone(settings.mirror_folder)
    settings.mirror_folder.chmod(0o755)  # of a version before
    keep(settings)
    assert is_ours_alone(settings.mirror_folder)
    (tmp_path / "shared").mkdir()
    keep(StackSettings(mirror=tmp_path / "shared"))
    assert not is_ours_alone(tmp_path / "shared")


@pytest.mark.usefixtures("usual_umask")
def test_file_of_keys_is_its_owners_and_keeps_the_mode_that_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    make("first", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    make("second", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert len(path.read_text().splitlines()) == 2
