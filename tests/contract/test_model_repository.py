"""What `make models` wrote beside the committed configs: complete, and as Triton and the transformer read it."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.examples.train import TRAININGS
from export.graph import compatibility
from export.sources.onnx_file import read_onnx
from tests.support.tolerances import BOX_PX, SCORE
from transformer.tasks import describe

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "model_repository"
MODELS = (*TRAININGS, "digits", "iris")
DATATYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32", "tensor(int32)": "TYPE_INT32"}


def newest(name: str) -> Path:
    """The version that serves."""
    return max((COMMITTED / name).glob("[0-9]*"), key=lambda folder: int(folder.name))


def test_committed_repository_holds_the_shipped_models_and_the_schema() -> None:
    folders = {path.parent.name for path in COMMITTED.glob("*/config.pbtxt")}
    assert set(MODELS) <= folders
    assert (COMMITTED / "manifest.schema.json").is_file()


@pytest.mark.parametrize("name", MODELS)
def test_config_names_the_tensors_of_the_graph(name: str) -> None:
    text = (newest(name) / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.backend, describe(config, version="1").name) == (name, "onnxruntime", name)
    session = onnxruntime.InferenceSession(newest(name) / "model.onnx", providers=["CPUExecutionProvider"])
    graph = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    assert list(graph) == [value.name for value in (*config.input, *config.output)]
    for value in (*config.input, *config.output):
        # As Triton's C++ backend compares them: the batch dimension and every -1 are free in the graph too.
        shape = [-1 if isinstance(size, str | None) else size for size in graph[value.name].shape]
        assert shape == [-1, *value.dims]
        assert DATATYPES[graph[value.name].type] == model_config_pb2.DataType.Name(value.data_type)


@pytest.mark.parametrize("name", MODELS)
def test_version_is_complete_and_its_manifest_fits_the_schema(name: str) -> None:
    folder = newest(name)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    jsonschema.validate(manifest, json.loads((COMMITTED / "manifest.schema.json").read_bytes()))
    assert {path.name for path in folder.iterdir()} == {*manifest["files"], "manifest.json"}
    compatibility.check(read_onnx(folder / "model.onnx"))


@pytest.mark.parametrize("name", MODELS)
def test_golden_input_gives_the_golden_outputs(name: str) -> None:
    session = onnxruntime.InferenceSession(newest(name) / "model.onnx", providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name
    with np.load(newest(name) / "golden.npz") as golden:
        outputs = session.run(None, {source: golden[source]})
        for value, output in zip(session.get_outputs(), outputs, strict=True):
            is_pixels = value.name in {"boxes", "keypoints"}
            np.testing.assert_allclose(output, golden[value.name], atol=BOX_PX if is_pixels else SCORE)
