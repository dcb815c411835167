"""The models that come with the repository, exported again: all of it as committed, and as good as ever."""

import json
from pathlib import Path

import pytest

from export.__main__ import main
from export.examples.train import TRAININGS

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "model_repository"
MODELS = (*TRAININGS, "digits", "iris")
DATATYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32", "tensor(int32)": "TYPE_INT32"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the shipped models, freshly exported."""
    repository = tmp_path_factory.mktemp("model_repository")
    assert main(["examples", "--repository", str(repository)]) == 0
    return repository


@pytest.mark.parametrize("name", MODELS)
def test_committed_config_is_what_export_writes(written: Path, name: str) -> None:
    for config in ("config.pbtxt", "configs/fast.pbtxt", "configs/gpu.pbtxt", "configs/tensorrt.pbtxt"):
        expected = written / name / config
        assert expected.exists() == (config == "config.pbtxt" or name in TRAININGS)
        assert not expected.exists() or (COMMITTED / name / config).read_bytes() == expected.read_bytes()


@pytest.mark.parametrize(("figure", "least"), [("accuracy_plain", 0.97), ("accuracy_rendered", 0.97)])
def test_digits_reads_held_out_digits(written: Path, figure: str, least: float) -> None:
    assert json.loads((written / "digits" / "1" / "parity.json").read_bytes())[figure] >= least


def test_examples_that_are_there_are_not_made_again(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    assert main(["examples", "--repository", str(written)]) == 0
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before
    assert capsys.readouterr().out.count("there already") == len(MODELS)
