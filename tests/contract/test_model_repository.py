"""The committed model repository is what export writes, and Triton and the transformer can read it."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export import compatibility
from export.__main__ import main
from export.detector import read_onnx
from transformer.model import describe

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "model_repository"
MODELS = ("digit-finder", "digits", "iris")
DATATYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32", "tensor(int32)": "TYPE_INT32"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the three models, freshly exported."""
    repository = tmp_path_factory.mktemp("model_repository")
    assert main(["examples", "--repository", str(repository)]) == 0
    return repository


@pytest.mark.parametrize("name", MODELS)
def test_committed_config_is_what_export_writes(written: Path, name: str) -> None:
    for config in ("config.pbtxt", "configs/fast.pbtxt", "configs/int8.pbtxt", "configs/gpu.pbtxt"):
        expected = written / name / config
        assert expected.exists() == (config == "config.pbtxt" or name == "digit-finder")
        assert not expected.exists() or (COMMITTED / name / config).read_bytes() == expected.read_bytes()


def test_committed_repository_holds_the_three_models_and_the_schema() -> None:
    folders = {path.parent.name for path in COMMITTED.glob("*/config.pbtxt")}
    assert set(MODELS) <= folders
    assert (COMMITTED / "manifest.schema.json").is_file()


@pytest.mark.parametrize("name", MODELS)
def test_config_names_the_tensors_of_the_graph(written: Path, name: str) -> None:
    text = (written / name / "1" / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.backend, describe(config, version="1").name) == (name, "onnxruntime", name)
    session = onnxruntime.InferenceSession(written / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    graph = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    assert list(graph) == [value.name for value in (*config.input, *config.output)]
    for value in (*config.input, *config.output):
        # As Triton's C++ backend compares them: the batch dimension and every -1 are free in the graph too.
        shape = [-1 if isinstance(size, str | None) else size for size in graph[value.name].shape]
        assert shape == [-1, *value.dims]
        assert DATATYPES[graph[value.name].type] == model_config_pb2.DataType.Name(value.data_type)


@pytest.mark.parametrize("name", MODELS)
def test_version_is_complete_and_its_manifest_fits_the_schema(written: Path, name: str) -> None:
    folder = written / name / "1"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    jsonschema.validate(manifest, json.loads((COMMITTED / "manifest.schema.json").read_bytes()))
    assert {path.name for path in folder.iterdir()} == {*manifest["files"], "manifest.json"}
    compatibility.check(read_onnx(folder / "model.onnx"))


@pytest.mark.parametrize("name", MODELS)
def test_golden_input_gives_the_golden_outputs(written: Path, name: str) -> None:
    session = onnxruntime.InferenceSession(written / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name
    with np.load(written / name / "1" / "golden.npz") as golden:
        outputs = session.run(None, {source: golden[source]})
        for value, output in zip(session.get_outputs(), outputs, strict=True):
            np.testing.assert_allclose(output, golden[value.name], atol=1e-4)


@pytest.mark.parametrize(("figure", "least"), [("accuracy_plain", 0.97), ("accuracy_rendered", 0.97)])
def test_digits_reads_held_out_digits(written: Path, figure: str, least: float) -> None:
    assert json.loads((written / "digits" / "1" / "parity.json").read_bytes())[figure] >= least


def test_examples_that_are_there_are_not_made_again(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    assert main(["examples", "--repository", str(written)]) == 0
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before
    assert capsys.readouterr().out.count("there already") == len(MODELS)
