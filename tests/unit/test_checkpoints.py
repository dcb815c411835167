"""Which checkpoints may be loaded: no torch is needed to reject one."""

import hashlib
import io
import pickle
import re
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from export.__main__ import main
from export.sources.trusted_checkpoints import OFFICIAL, CheckpointError, admit

ROOT = Path(__file__).parents[2]


class Trap:
    """Unpickling this leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def checkpoint(content: object) -> bytes:
    """A checkpoint as torch.save() writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_official_checkpoint_is_known_by_its_content_whatever_its_name(shared: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "renamed.pt"
    path.write_bytes((shared / "weights" / name).read_bytes())
    with admit(path, allowed=False) as copy:
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == OFFICIAL[name]


def test_unofficial_checkpoint_needs_the_permission_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"made by a user")
    digest = hashlib.sha256(b"made by a user").hexdigest()
    with pytest.raises(CheckpointError) as rejected, admit(path, allowed=False):
        pass
    assert f"{path}: got SHA-256 {digest}, expected one of the {len(OFFICIAL)} on our list" in str(rejected.value)
    assert "pass --allow-unpickling (make: ALLOW_UNPICKLING=1) if you trust where it comes from" in str(rejected.value)
    with admit(path, allowed=True) as copy:
        assert copy.read_bytes() == b"made by a user"


def test_official_name_alone_permits_no_other_content(tmp_path: Path) -> None:
    path = tmp_path / "yolov8n.pt"
    path.write_bytes(b"what a mirror has under that name")
    with pytest.raises(CheckpointError) as rejected, admit(path, allowed=False):
        pass
    assert f"expected that of the official yolov8n.pt, {OFFICIAL['yolov8n.pt']}" in str(rejected.value)


def test_bytes_that_were_checked_are_the_bytes_that_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"judged")
    with admit(path, allowed=True) as copy:
        path.write_bytes(b"put there since")
        assert copy.read_bytes() == b"judged"
        assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
    assert not copy.parent.exists()


@pytest.mark.parametrize("name", ["best.pt", "yolov8n.pt", "best.PT", "best.pth", "best"])
def test_nothing_is_unpickled_without_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path, mark = tmp_path / name, tmp_path / "mark"
    path.write_bytes(checkpoint(Trap(mark)))
    assert main(["ultralytics", "made", str(path), "--repository", str(tmp_path / "repository")]) == 1
    output = capsys.readouterr().err
    assert f"got SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in output
    assert "--allow-unpickling" in output
    assert not mark.exists()


@pytest.mark.parametrize("target", ["export", "compare"])
def test_make_passes_on_the_permission_to_unpickle(target: str) -> None:
    command = ["make", "--dry-run", "--always-make", target, "MODEL=made", "WEIGHTS=best.pt"]
    for more, given in (["ALLOW_UNPICKLING=1"], True), ([], False):
        printed = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert ("--allow-unpickling" in printed) is given


def test_only_listed_modules_load_checkpoints() -> None:
    """Each of them calls `admit`, or loads the checkpoint that it has just trained."""
    loading = re.compile(r"\bYOLO\(|\btorch\.load\(|\btorch\.jit\.load\(")
    paths = [
        path for part in ("export", "loadtest", "predictor", "transformer") for path in (ROOT / part).rglob("*.py")
    ]
    found = {str(path.relative_to(ROOT)) for path in (*paths, *ROOT.glob("*.py")) if loading.search(path.read_text())}
    admitting = {
        "export/sources/ultralytics_checkpoint.py",
        "loadtest/compare/baselines/detector.py",
        "loadtest/compare/baselines/exports.py",
    }
    assert found == {*admitting, "export/examples/train.py"}
