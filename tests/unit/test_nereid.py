"""The command `nereid`: the list of commands, which exporter a file gets, what a command needs."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from nereid import needs
from nereid.commands import COMMANDS, MODELS, TRITON
from nereid.exporters import choose
from tests.support.stack import ROOT

NOT_NEEDED = {"argparse", "fastapi", "httpx", "numpy", "pydantic", "rich", "tritonclient"}
LOADTEST = ".venv/.loadtest"


def nereid(*words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    script = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nsys.argv[1:] = {list(words)!r}\n"
        "from nereid.__main__ import main\nstatus = main()\n"
        f"assert not {NOT_NEEDED!r} & sys.modules.keys(), 'imported'\nsys.exit(status)"
    )
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [(), ("--help",), ("help",)])
def test_list_of_commands_has_a_line_for_each_and_imports_nothing_heavy(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = nereid(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, command in COMMANDS.items():
        assert [line for line in done.stdout.splitlines() if line.split() == [name, *command.summary.split()]]


@pytest.mark.parametrize(
    ("word", "says"),
    [("vesrions", "did you mean versions?"), ("exprot", "did you mean export?"), ("xyz", "next: nereid --help")],
)
def test_unknown_command_is_reported_in_one_line(word: str, says: str) -> None:
    script = f"import sys; sys.argv[1:] = [{word!r}]; from nereid.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: unknown command: {word}; {says}\n"


@pytest.mark.parametrize("words", [("--help",), ("export", "--help"), ("versions", "--help")])
def test_reader_that_is_gone_is_no_traceback(words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "nereid", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode in {0, 1}  # argparse ignores it


def test_every_command_is_a_program() -> None:
    for command in COMMANDS.values():
        found = find_spec(command.module)
        assert found is not None, command
        assert found.submodule_search_locations is None or find_spec(f"{command.module}.__main__"), command


@pytest.mark.parametrize(
    ("words", "exporter"),
    [
        ("yolov8n yolov8n.pt", "ultralytics"),
        ("yolov8n some/YOLOV8N.ONNX --interface fused", "ultralytics"),
        ("yolov8n yolov8n.engine", "ultralytics"),
        ("digits digits.keras --fit stretch", "keras"),
        ("digits DIGITS.H5", "keras"),
        ("prices prices.json", "xgboost"),
        ("prices prices.ubj --scaler scaler.pkl", "xgboost"),
        ("iris iris.joblib --allow-unpickling", "sklearn"),
        ("iris absent.pkl", "sklearn"),
        ("xgboost prices prices.joblib", "xgboost"),
        ("examples --precision fp32", "examples"),
    ],
)
def test_exporter_is_chosen_by_the_file(words: str, exporter: str) -> None:
    assert choose(words.split()) == exporter


def test_folder_of_a_saved_model_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    assert choose(["digits", str(tmp_path)]) == "keras"


def test_pickle_of_xgboost_is_known_by_the_names_in_it(tmp_path: Path) -> None:
    (tmp_path / "prices.pkl").write_bytes(b"\x80\x04\x95cxgboost.sklearn\nXGBClassifier\n")
    assert choose(["prices", str(tmp_path / "prices.pkl")]) == "xgboost"


@pytest.mark.parametrize(
    ("content", "exporter"),
    [(b"..names..imgsz..stride..", "ultralytics"), (b"..imgsz..", "onnx"), (b"any graph", "onnx")],
)
def test_onnx_file_is_for_the_exporter_that_its_metadata_names(tmp_path: Path, content: bytes, exporter: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert choose(["m", str(tmp_path / "m.onnx")]) == exporter


@pytest.mark.parametrize("words", ["prices", "prices --rows rows.csv", "--rows rows.csv prices", "prices prices.csv"])
def test_file_that_no_exporter_reads_is_rejected(words: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        choose(words.split())


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Targets of make that a command calls in a project where nothing is installed."""
    monkeypatch.setattr(needs, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("REPOSITORY", "TRITON_URL"):
        monkeypatch.delenv(name, raising=False)
    called = tmp_path / "called"
    make = tmp_path / "make"
    make.write_text(f'#!/bin/sh\necho "$@" > {called}\n')
    make.chmod(0o755)

    def provided(*targets: str, words: str = "") -> list[str]:
        called.unlink(missing_ok=True)
        needs.provide(targets, words.split())
        return called.read_text().split()[3:] if called.exists() else []

    return provided


def test_make_installs_what_a_command_needs(made: Callable[..., list[str]], tmp_path: Path) -> None:
    assert made(LOADTEST) == [LOADTEST]
    (tmp_path / ".venv").mkdir()
    (tmp_path / LOADTEST).touch()
    assert made(LOADTEST) == []
    assert made(TRITON, MODELS) == [TRITON, MODELS]
    assert made(TRITON, MODELS, words="--repository models") == [TRITON]
    assert made(TRITON, MODELS, words="--triton-url=host:8001") == []
    assert made(TRITON, MODELS, words="--help") == []
    version = tmp_path / "model_repository" / "iris" / "1"
    version.mkdir(parents=True)
    (version / "manifest.json").touch()
    assert made(TRITON, MODELS) == [TRITON]


def test_make_that_fails_or_is_missing_is_reported(made: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "make").write_text("#!/bin/sh\nexit 2\n")
    with pytest.raises(needs.NeedsError, match=f"next: make -C {tmp_path} {LOADTEST}"):
        made(LOADTEST)
    (tmp_path / "make").unlink()
    with pytest.raises(needs.NeedsError, match="make is missing"):
        made(LOADTEST)
