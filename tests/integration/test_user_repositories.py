"""Repositories of users: NVIDIA's examples serve unchanged; what does not serve is listed with the reason."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from environment.error_codes import ErrorCode
from predictor.synchroniser.triton_client import TritonClient
from registry.errors import VersionRejected
from tests.support.error_codes import code_of, rejection
from tests.support.models import BATCHED, FLOAT_IO, Dim, build, build_identity, tensor, write_model
from tests.support.openvino_ir import write_sum
from tests.support.stack import PATIENCE_S, ROOT, Stack, start_stack, wait_until
from tests.support.synced import start_synchroniser
from tests.support.triton import start_triton

CASES = ROOT.parent / "shared" / "cases" / "triton"

# The configs of NVIDIA's docs/examples/model_repository (server r26.06), each value as it is there.
CLASSIFIER = """
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [ {{ name: "{given}" data_type: TYPE_FP32 format: {form} dims: {dims} reshape {{ shape: {shape} }} }} ]
output [
  {{
    name: "{gives}"
    data_type: TYPE_FP32
    dims: [ {classes} ]
    reshape {{ shape: {gives_shape} }}
    label_filename: "{labels}"
  }}
]
"""
DENSENET = CLASSIFIER.format(
    name="densenet_onnx",
    given="data_0",
    form="FORMAT_NCHW",
    dims=[3, 224, 224],
    shape=[1, 3, 224, 224],
    gives="fc6_1",
    classes=1000,
    gives_shape=[1, 1000, 1, 1],
    labels="densenet_labels.txt",
)
INCEPTION = CLASSIFIER.format(
    name="inception_onnx",
    given="input:0",
    form="FORMAT_NHWC",
    dims=[299, 299, 3],
    shape=[1, 299, 299, 3],
    gives="InceptionV3/Predictions/Softmax:0",
    classes=1001,
    gives_shape=[1, 1001],
    labels="inception_labels.txt",
)
SIMPLE = """
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ {{ name: "INPUT0" data_type: {type} dims: [ 16 ] }}, {{ name: "INPUT1" data_type: {type} dims: [ 16 ] }} ]
output [ {{ name: "OUTPUT0" data_type: {type} dims: [ 16 ] }}, {{ name: "OUTPUT1" data_type: {type} dims: [ 16 ] }} ]
"""
IDENTITY = """
name: "simple_identity"
backend: "python"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]
"""
# The config of Ultralytics' guide to Triton for a GPU.
ULTRALYTICS = """
optimization {
  execution_accelerators {
    gpu_execution_accelerator {
      name: "tensorrt"
      parameters { key: "precision_mode" value: "FP16" }
      parameters { key: "max_workspace_size_bytes" value: "3221225472" }
      parameters { key: "trt_engine_cache_enable" value: "1" }
      parameters { key: "trt_engine_cache_path" value: "/models/yolo/1" }
    }
  }
}
"""
ENSEMBLE = """
platform: "ensemble"
ensemble_scheduling { step [ { model_name: "simple" model_version: -1 } ] }
"""
PREFERRED = BATCHED + FLOAT_IO + "dynamic_batching { preferred_batch_size: [ 16 ] }\n"

# Name: a part of its reason.
REJECTED = {
    "yolo": "trt_engine_cache_path",
    "marked": "begins with a byte-order mark",
    "marked_without_version": "begins with a byte-order mark",
    "preferred": "preferred size must be <= max batch size, got preferred_batch_size 16, max_batch_size 8",
    "ensemble": "platform: got 'ensemble'",
    "simple_identity": "backend: got 'python'",
    "my models": "is no model's name: expected letters",
    "unversioned": "no version: expected unversioned/1/model.onnx or the like; ignored: unversioned/model.onnx",
    "latin": "ignored: latin/caf\\udce9.txt",
    "zeros": "Triton accepts none that begins with 0",
    "broken": "not an ONNX file",
    "weights_only": "waits for a model file (*.onnx, *.plan, *.xml): it has model.bin",
    "linked": "a link, which is not followed",
    "empty": "no version: expected empty/1/model.onnx",
}


def build_simple(datatype: int) -> bytes:
    """The sum and the difference of two inputs of 16 elements; of texts, those of the numbers that they hold."""
    shape: list[Dim] = ["n", 16]
    names = ("INPUT0", "INPUT1")
    nodes, given = [], names
    if datatype == TensorProto.STRING:
        given = ("number0", "number1")
        nodes = [
            helper.make_node("Cast", [name], [number], to=TensorProto.INT32)
            for name, number in zip(names, given, strict=True)
        ]
    results = ("OUTPUT0", "OUTPUT1") if datatype != TensorProto.STRING else ("sum", "difference")
    nodes += [helper.make_node("Add", given, [results[0]]), helper.make_node("Sub", given, [results[1]])]
    if datatype == TensorProto.STRING:
        nodes += [
            helper.make_node("Cast", [result], [name], to=TensorProto.STRING)
            for result, name in zip(results, ("OUTPUT0", "OUTPUT1"), strict=True)
        ]
    inputs = [tensor(name, shape, datatype) for name in names]
    return build(nodes, inputs, [tensor(name, shape, datatype) for name in ("OUTPUT0", "OUTPUT1")])


def build_classifier(given: str, dims: Sequence[int], gives: str, gives_dims: Sequence[int]) -> bytes:
    """A score for each class from the mean of the image: the signature of the real model, which is not shipped."""
    weights: NDArray[Any] = np.arange(np.prod(gives_dims), dtype=np.float32).reshape(gives_dims)
    nodes = [
        helper.make_node("ReduceMean", [given], ["mean"], keepdims=0),
        helper.make_node("Mul", ["weights", "mean"], [gives]),
    ]
    return build(nodes, [tensor(given, dims)], [tensor(gives, gives_dims)], constants={"weights": weights})


def write_in_folder(folder: Path) -> Path:
    """A version whose `model.onnx` is a folder, with its weights beside it: three times its input."""
    model = build(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [tensor("x")],
        [tensor("y")],
        constants={"factor": np.full(2, 3, np.float32)},
    )
    place = folder / "in_folder" / "1" / "model.onnx"
    place.mkdir(parents=True)
    loaded = onnx.load_from_string(model)
    onnx.save(loaded, place / "model.onnx", save_as_external_data=True, location="weights.data", size_threshold=0)
    assert (place / "weights.data").stat().st_size == 8
    return folder


def write_repository(folder: Path) -> None:
    write_model(
        folder,
        "densenet_onnx",
        config=DENSENET,
        onnx_file=build_classifier("data_0", [1, 3, 224, 224], "fc6_1", [1, 1000, 1, 1]),
    )
    (folder / "densenet_onnx" / "densenet_labels.txt").write_text("".join(f"CLASS {n}\n" for n in range(1000)))
    output = "InceptionV3/Predictions/Softmax:0"
    write_model(
        folder,
        "inception_onnx",
        config=INCEPTION,
        onnx_file=build_classifier("input:0", [1, 299, 299, 3], output, [1, 1001]),
    )
    (folder / "inception_onnx" / "inception_labels.txt").write_text("".join(f"{n}\n" for n in range(1001)))
    for name, datatype in (("simple", "INT32"), ("simple_int8", "INT8"), ("simple_string", "STRING")):
        config = SIMPLE.format(name=name, type=f"TYPE_{datatype}")
        write_model(folder, name, config=config, onnx_file=build_simple(getattr(TensorProto, datatype)))
    for name in ("Candidate.rows", "candidate.rows", "_8n-v2", "größe"):
        write_model(folder, name, config=BATCHED + FLOAT_IO)
    write_model(
        folder,
        "Own_Names",
        config=BATCHED + FLOAT_IO + 'default_model_filename: "Mein_Größtes.v2.onnx"',
        filename="Mein_Größtes.v2.onnx",
    )
    write_in_folder(folder)
    write_sum(folder / "ov_auto" / "1")
    write_sum(folder / "ov_batch4" / "1", layouts=False)
    (folder / "ov_batch4" / "config.pbtxt").write_text('backend: "openvino"\nmax_batch_size: 4\n' + integers("[ 4 ]"))
    write_sum(folder / "ov_größe" / "1")
    (folder / "ov_größe" / "config.pbtxt").write_text(
        'backend: "openvino"\n' + integers("[ 1, 4 ]").replace("INT32", "FP32")
    )
    for number in ("1", "2"):
        path = folder / "equal" / number / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(build_identity())
    (folder / "equal" / "config.pbtxt").write_text(BATCHED + FLOAT_IO + "version_policy { all { } }\n")
    # Models that do not serve.
    write_model(folder, "yolo", config=BATCHED + FLOAT_IO + ULTRALYTICS)
    write_model(folder, "marked")
    (folder / "marked" / "config.pbtxt").write_text(BATCHED + FLOAT_IO, encoding="utf-8-sig")
    (folder / "marked_without_version").mkdir()
    shutil.copy(folder / "marked" / "config.pbtxt", folder / "marked_without_version")
    write_model(folder, "preferred", config=PREFERRED)
    (folder / "ensemble" / "1").mkdir(parents=True)
    (folder / "ensemble" / "config.pbtxt").write_text(ENSEMBLE)
    write_model(
        folder, "simple_identity", config=IDENTITY, filename="model.py", onnx_file=b"class TritonPythonModel: ...\n"
    )
    write_model(folder, "my models")
    (folder / "unversioned").mkdir()
    (folder / "unversioned" / "model.onnx").write_bytes(build_identity())
    (folder / "latin").mkdir()
    (folder / "latin" / os.fsdecode(b"caf\xe9.txt")).touch()  # Latin-1, which is no UTF-8
    shutil.copytree(folder / "simple" / "1", folder / "zeros" / "01")
    write_model(folder, "broken", onnx_file=b"<html>404</html>", config=None)
    write_model(folder, "weights_only", filename="model.bin", config=None)
    (folder / "linked").symlink_to(folder / "simple")
    (folder / "empty").mkdir()
    # Versions that wait for their manifest, however long that takes.
    write_model(folder, "coming", config=None)
    (folder / "coming" / "1" / "config.pbtxt").write_text(BATCHED + FLOAT_IO)
    # Half of it serves.
    write_model(folder, "half", config=BATCHED + FLOAT_IO)
    (folder / "half" / "2").mkdir()
    (folder / "half" / "2" / "model.onnx").write_bytes(b"no model")


def integers(dims: str) -> str:
    return "".join(
        f'{kind} {{ name: "{name}" data_type: TYPE_INT32 dims: {dims} }}\n'
        for kind, name in (("input", "left"), ("input", "right"), ("output", "total"))
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("as-it-is")
    write_repository(folder / "models")
    if CASES.exists():
        for name in ("onnx-zero-1-float32", "simple-string"):
            shutil.copytree(CASES / name, folder / "models" / name)
        for name in ("dynamic_batch_1", "explicit_batch4", "fp32_config_int32_model"):
            shutil.copytree(CASES / "dynamic_batch_1", folder / "models" / name / "1")
            if name != "dynamic_batch_1":
                shutil.copy(CASES / name / "config.pbtxt", folder / "models" / name)
    variables = {"POLL_S": "0.5", "SETTLE_S": "1"}
    with start_stack(folder / "models", folder / "log", variables=variables) as running:
        wait_until(lambda: status(running)["broken"]["state"] == "refused", log=running.log)
        yield running


def status(stack: Stack) -> Any:
    return stack.http.get("/status").raise_for_status().json()["models"]


def infer(stack: Stack, model: str, **arrays: NDArray[Any]) -> Any:
    """Infer with Triton's gRPC client."""
    inputs = []
    for name, array in arrays.items():
        datatype = "BYTES" if array.dtype == np.object_ else np_to_triton_dtype(array.dtype)
        given = triton.InferInput(name, list(array.shape), datatype)
        given.set_data_from_numpy(array)
        inputs.append(given)
    with triton.InferenceServerClient(f"127.0.0.1:{stack.grpc_port}") as client:
        return client.infer(model, inputs)


@pytest.mark.parametrize(
    ("model", "dtype"), [("simple", np.int32), ("simple_int8", np.int8), ("simple_string", np.object_)]
)
def test_nvidia_s_simple_models_add_and_subtract(stack: Stack, model: str, dtype: Any) -> None:
    left, right = np.arange(16).reshape(1, 16), np.ones((1, 16), int)

    def typed(array: NDArray[Any]) -> NDArray[Any]:
        if dtype is np.object_:
            return np.array([[str(value).encode() for value in row] for row in array], np.object_)
        return array.astype(dtype)

    result = infer(stack, model, INPUT0=typed(left), INPUT1=typed(right))
    assert np.array_equal(result.as_numpy("OUTPUT0"), typed(left + right))
    assert np.array_equal(result.as_numpy("OUTPUT1"), typed(left - right))


@pytest.mark.parametrize(
    ("model", "given", "dims", "gives", "classes"),
    [
        ("densenet_onnx", "data_0", (3, 224, 224), "fc6_1", 1000),
        ("inception_onnx", "input:0", (299, 299, 3), "InceptionV3/Predictions/Softmax:0", 1001),
    ],
)
def test_nvidia_s_classifiers_serve(
    stack: Stack, model: str, given: str, dims: tuple[int, ...], gives: str, classes: int
) -> None:
    response = infer(stack, model, **{given: np.full(dims, 2, np.float32)}).as_numpy(gives)
    assert response.shape == (classes,)
    assert np.array_equal(response, 2 * np.arange(classes, dtype=np.float32))
    config = stack.http.get(f"/v2/models/{model}/config").raise_for_status().json()
    assert config["output"][0]["label_filename"] == f"{model.removesuffix('_onnx')}_labels.txt"


@pytest.mark.parametrize("model", ["Candidate.rows", "candidate.rows", "_8n-v2", "größe", "Own_Names"])
def test_any_name_that_triton_takes_serves(stack: Stack, model: str) -> None:
    x = np.array([[1, 2]], np.float32)
    assert np.array_equal(infer(stack, model, x=x).as_numpy("y"), x)
    assert stack.http.get(f"/v2/models/{model}/ready").json() == {"name": model, "ready": True}
    assert model in stack.http.get("/v2/models").json()["models"]


def test_model_that_is_a_folder_serves_with_its_weights_beside_it(stack: Stack, tmp_path: Path) -> None:
    x = np.array([[1, 2]], np.float32)
    assert np.array_equal(infer(stack, "in_folder", x=x).as_numpy("y"), x * 3)
    judged = subprocess.run(
        [sys.executable, "-m", "predictor", "judge", str(write_in_folder(tmp_path))],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (judged.returncode, judged.stdout) == (0, "good     'in_folder/1'\n"), judged.stderr


def test_equal_bytes_under_two_numbers_serve(stack: Stack) -> None:
    wait_until(lambda: status(stack)["equal"]["serving"] == ["1", "2"], log=stack.log)
    x = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    for version in ("1", "2"):
        response = stack.http.post(f"/v2/models/equal/versions/{version}/infer", json=x).raise_for_status().json()
        assert (response["model_version"], response["outputs"][0]["data"]) == (version, [1, 2])


def test_generated_input_that_fails_rejects_no_version_and_is_reported(stack: Stack) -> None:
    known = status(stack)["simple_string"]
    assert (known["state"], known["serving"]) == ("serving", ["1"])
    assert known["versions"]["1"]["reason"].startswith("not verified, a generated input failed: ")
    assert status(stack)["simple"]["versions"]["1"]["reason"] is None


def test_openvino_s_own_format_serves_without_a_config(stack: Stack) -> None:
    row = np.arange(16, dtype=np.int32).reshape(4, 4)
    assert np.array_equal(infer(stack, "ov_auto", left=row, right=row).as_numpy("total"), row * 2)
    config = stack.http.get("/v2/models/ov_auto/config").json()
    assert (config["backend"], config["max_batch_size"], config["input"][0]["dims"]) == ("openvino", 4, [4])
    assert np.array_equal(infer(stack, "ov_batch4", left=row, right=row).as_numpy("total"), row * 2)
    half = np.full((1, 4), 0.5, np.float32) + 1
    assert infer(stack, "ov_größe", left=half, right=half).as_numpy("total").tolist() == [[2.0] * 4]


@pytest.mark.parametrize("name", REJECTED)
def test_model_that_does_not_serve_is_reported_with_its_reason(stack: Stack, name: str) -> None:
    wait_until(lambda: status(stack)[name]["state"] == "refused", log=stack.log)
    known = status(stack)[name]
    assert REJECTED[name] in " ".join([known["error"] or "", *(v["reason"] or "" for v in known["versions"].values())])
    assert known["serving"] == []
    assert known["since"]
    assert all(version["since"] for version in known["versions"].values())


def test_load_error_points_to_the_log_of_triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model like `preferred`, which our checks let pass: only the log of Triton says why it is not loaded."""
    write_model(tmp_path / "trial", "preferred", config=PREFERRED)
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("PREDICTOR_MIRROR", str(tmp_path))
    with start_triton(tmp_path, tmp_path / "log") as running:
        server = TritonClient(f"127.0.0.1:{running.grpc_port}", secret="", load_timeout_s=PATIENCE_S)
        with pytest.raises(VersionRejected) as rejected:
            server.load("preferred")
    reason = "failed to load 'preferred', failed to poll from model repository"
    assert str(rejected.value) == f"{reason}: the reason is in Triton's log, at 'Poll failed'"
    (line,) = [line for line in (tmp_path / "log").read_text().splitlines() if "Poll failed" in line]
    assert REJECTED["preferred"].partition(",")[0] in line


@pytest.mark.parametrize("name", [name for name in REJECTED if name != "my models"])
def test_request_to_a_rejected_model_fails_at_once_with_the_reason(stack: Stack, name: str) -> None:
    wait_until(lambda: status(stack)[name]["state"] == "refused", log=stack.log)
    responses = [
        stack.http.post(f"/predict/{name}", json=[1.0]),
        stack.http.post(f"/v1/models/{name}:predict", json={"instances": [[1.0]]}),
        stack.http.post(f"/v2/models/{name}/infer", json={"inputs": []}),
        stack.http.get(f"/v2/models/{name}"),
        stack.http.get(f"/v2/models/{name}/ready"),
        stack.http.get(f"/v2/models/{name}/config"),
        stack.http.get(f"/v1/models/{name}"),
    ]
    for response in responses:
        assert code_of(response) is ErrorCode.NO_SERVABLE_VERSION, response.url
    assert REJECTED[name] in responses[0].json()["error"] or name == "weights_only"
    with grpc.insecure_channel(f"127.0.0.1:{stack.grpc_port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert not stub.ModelReady(service_pb2.ModelReadyRequest(name=name)).ready
        rejected = rejection(stub.ModelMetadata, service_pb2.ModelMetadataRequest(name=name))
        assert (rejected.code, rejected.retry_after) == (ErrorCode.NO_SERVABLE_VERSION, None)


def test_unknown_model_is_404_and_one_that_loads_is_503(stack: Stack) -> None:
    assert stack.http.get("/v2/models/strange/ready").status_code == 404
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        infer(stack, "strange", x=np.zeros((1, 2), np.float32))
    assert status(stack)["coming"]["state"] == "loading"
    response = stack.http.get("/v2/models/coming/ready")
    assert code_of(response) in {ErrorCode.NOT_READY, ErrorCode.NO_READY_VERSION}
    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        infer(stack, "coming", x=np.zeros((1, 2), np.float32))


def test_rejected_version_of_a_model_that_serves_is_reported(stack: Stack) -> None:
    wait_until(lambda: status(stack)["half"]["versions"]["2"]["state"] == "refused", log=stack.log)
    assert (status(stack)["half"]["state"], status(stack)["half"]["serving"]) == ("serving", ["1"])
    assert stack.http.get("/v2/models/half/ready").is_success
    response = stack.http.get("/v2/models/half/versions/2/ready")
    assert code_of(response) is ErrorCode.NO_SERVABLE_VERSION
    assert "version '2' does not serve: see /status; model.onnx: not an ONNX file" in response.json()["error"]
    assert code_of(stack.http.get("/v2/models/half/versions/3/ready")) is ErrorCode.VERSION_NOT_FOUND


def test_metric_counts_models_by_state(stack: Stack) -> None:
    text = stack.http.get(f"{stack.sync}/metrics").text
    counts = {state: [m["state"] for m in status(stack).values()].count(state) for state in ("serving", "refused")}
    for state, count in counts.items():
        assert f'nereid_sync_models{{state="{state}"}} {count}.0' in text


@pytest.mark.skipif(not CASES.exists(), reason="../shared/cases is absent: models that are no part of the project")
def test_cases(stack: Stack) -> None:
    known = status(stack)
    names = ["onnx-zero-1-float32", "simple-string", "dynamic_batch_1", "explicit_batch4", "fp32_config_int32_model"]
    assert {name: (known[name]["state"], known[name]["error"]) for name in names} == dict.fromkeys(
        names, ("serving", None)
    )
    assert "not verified" in known["simple-string"]["versions"]["1"]["reason"]
    first, second = "Func/PartitionedCall/input/_0:0", "input1"
    total = "Func/PartitionedCall/output/_2:0"
    row = np.arange(16, dtype=np.int32).reshape(4, 4)
    for model in ("dynamic_batch_1", "explicit_batch4"):
        assert np.array_equal(infer(stack, model, **{first: row, second: row}).as_numpy(total), row * 2)
    half = np.full((1, 4), 1.5, np.float32)
    response = infer(stack, "fp32_config_int32_model", **{first: half, second: half}).as_numpy(total)
    assert (response.dtype, response.tolist()) == (np.float32, [[2.0] * 4])


def test_thousands_of_rejected_folders_are_listed_and_counted(tmp_path: Path) -> None:
    with start_synchroniser(tmp_path, PREDICTOR_POLL_S="1") as port:
        models = tmp_path / "models"
        for number in range(1500):
            for name, text in ((f"broken{number:04}", b"name: {"), (f"no name {number:04}", b"")):
                (models / name).mkdir()
                (models / name / "config.pbtxt").write_bytes(text)

        def content() -> Any:
            return httpx.get(f"http://127.0.0.1:{port}/status", trust_env=False).raise_for_status().json()

        def rejected() -> list[str]:
            return [name for name, model in content()["models"].items() if model["state"] == "refused"]

        wait_until(lambda: len(rejected()) == 1024, log=tmp_path / "log")
        listed = content()
        assert len(listed["models"]) == 1024
        assert listed["more_models"] == 3000 - 1024
        assert len(json.dumps(listed)) < 1_000_000
        reasons = (
            "config.pbtxt: line 1",
            "got 1024 models, expected at most 512",
            "got more models",
            "no model's name",
        )
        assert all(any(reason in model["error"] for reason in reasons) for model in listed["models"].values())


def test_stack_whose_models_are_all_rejected_is_not_ready(tmp_path: Path) -> None:
    """Else a rollout to such a repository would replace pods that serve by pods that do not."""
    models, log = tmp_path / "models", tmp_path / "log"
    write_model(models, "broken", onnx_file=b"no graph")
    waiting = "not ready yet, waiting for a model that serves; rejected: broken"

    def publish() -> None:
        wait_until(lambda: log.is_file() and waiting in log.read_text(errors="replace"), log=log)
        write_model(models, "good")

    with ThreadPoolExecutor(1) as executor:
        published = executor.submit(publish)
        with start_stack(models, log, variables={"POLL_S": "0.5", "SETTLE_S": "0.5"}) as stack:
            published.result()
            assert stack.http.get("/status").json()["waiting_for"] is None
        assert "broken 1 refused: " in log.read_text(errors="replace")
