"""v2 requests as the field's clients write them, compared with the real Triton, which gets the same at its own port."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.support.models import BATCHED, CPU, FLOAT_IO, build, build_identity, tensor, write_model
from tests.support.stack import Stack, start_stack

UNBATCHED = CPU + 'backend: "onnxruntime"\nmax_batch_size: 0\n'
OPENVINO_FOURS = CPU + 'backend: "openvino"\ndefault_model_filename: "model.onnx"\nmax_batch_size: 4\n'
TYPES = {"FP32": TensorProto.FLOAT, "FP16": TensorProto.FLOAT16, "BYTES": TensorProto.STRING}
# Datatype, shape of the graph, config before the tensors, dims.
MODELS: dict[str, tuple[str, tuple[int | str, ...], str, list[int]]] = {
    "pairs": ("FP32", ("n", 2), BATCHED, [2]),
    "halves": ("FP16", ("n", 2), BATCHED, [2]),
    "free": ("FP32", ("n", "m"), BATCHED, [-1]),  # as NVIDIA's onnx_zero_1_float32
    "free-pairs": ("FP32", ("n", "m", 2), BATCHED, [-1, 2]),
    "free-twice": ("FP32", ("n", "m", "k"), BATCHED, [-1, -1]),
    "unbatched": ("FP32", ("n", 2), UNBATCHED, [-1, 2]),
    "unbatched-pair": ("FP32", (1, 2), UNBATCHED, [1, 2]),
    "text": ("BYTES", ("n", 1), BATCHED, [1]),
    "texts": ("BYTES", ("n", 2), BATCHED, [2]),
    "free-texts": ("BYTES", ("n", "m"), BATCHED, [-1]),
    "unbatched-text": ("BYTES", (1,), UNBATCHED, [1]),
}
RAW = {"Inference-Header-Content-Length": "0"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack over models that give back what they take, and one of two inputs."""
    repository = tmp_path_factory.mktemp("small")
    for name, (datatype, shape, start, dims) in MODELS.items():
        form = f"data_type: TYPE_{datatype.replace('BYTES', 'STRING')} dims: {dims}"
        labels = 'label_filename: "labels.txt"' if name == "pairs" else ""
        tensors = f'input {{ name: "x" {form} }}\noutput {{ name: "y" {form} {labels} }}\n'
        write_model(repository, name, onnx_file=build_identity(shape, TYPES[datatype]), config=start + tensors)
    (repository / "pairs" / "labels.txt").write_text("left\nright\n")
    both = build([helper.make_node("Add", ["a", "b"], ["y"])], [tensor("a"), tensor("b")], [tensor("y")])
    inputs = "".join(f'input {{ name: "{name}" data_type: TYPE_FP32 dims: [ 2 ] }}\n' for name in "ab")
    output = 'output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }\n'
    write_model(repository, "sum", onnx_file=both, config=BATCHED + inputs + output)
    write_model(repository, "fours", onnx_file=build_identity(), config=OPENVINO_FOURS + FLOAT_IO)
    with start_stack(repository, tmp_path_factory.mktemp("small-log") / "log") as running:
        yield running


def send_to_both(
    stack: Stack, model: str, body: bytes, headers: Mapping[str, str] | None = None
) -> list[httpx.Response]:
    """Our response to a request, and Triton's."""
    return [
        httpx.post(f"http://127.0.0.1:{port}/v2/models/{model}/infer", content=body, headers=headers, trust_env=False)
        for port in (stack.http_port, stack.triton_http_port)
    ]


def given(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} | changes


def document(entry: dict[str, Any] | None = None, **more: Any) -> bytes:
    return json.dumps({"inputs": [entry or given()], **more}).encode()


@pytest.mark.parametrize("size", [0, 2, 4, 8, 16, 17, 36])
@pytest.mark.parametrize("model", [*MODELS, "sum"])
def test_body_of_nothing_but_the_input_has_the_shape_that_triton_gives_it(small: Stack, model: str, size: int) -> None:
    ours, tritons = send_to_both(small, model, bytes(range(size)), RAW)
    assert ours.status_code == tritons.status_code, (ours.text, tritons.text)
    if tritons.is_success:
        assert ours.content == tritons.content
    else:
        assert "Inference-Header-Content-Length over 0" in ours.json()["error"] or size == 0


def test_batch_dimension_of_a_raw_body_is_one(small: Stack) -> None:
    numbers = np.arange(8, dtype=np.float32)
    (ours, _) = send_to_both(small, "free", numbers.tobytes(), RAW)
    split = int(ours.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(ours.content[:split])["outputs"]
    assert (output["shape"], ours.content[split:]) == ([1, 8], numbers.tobytes())


# Body and headers of requests for `pairs` that Triton accepts: our response is the same.
SAME: dict[str, tuple[bytes, dict[str, str]]] = {
    "null parameters of an input": (document(given(parameters=None)), {}),
    "null parameters of an output": (document(outputs=[{"name": "y", "parameters": None}]), {}),
    "unknown parameter of an input": (document(given(parameters={"what": 1})), {}),
    "unknown parameter of an output": (document(outputs=[{"name": "y", "parameters": {"what": 1}}]), {}),
    "unknown object of an output": (document(outputs=[{"name": "y", "parameters": {"what": {"a": [1]}}}]), {}),
    "no classes": (document(outputs=[{"name": "y", "parameters": {"classification": 0}}]), {}),
    "best class": (document(outputs=[{"name": "y", "parameters": {"classification": 1}}]), {}),
    "more classes than there are": (document(outputs=[{"name": "y", "parameters": {"classification": 9}}]), {}),
    "classes as binary data": (
        document(outputs=[{"name": "y", "parameters": {"classification": 1, "binary_data": True}}]),
        {},
    ),
    "content type of MLServer": (
        document(
            given(parameters={"content_type": "np"}),
            parameters={"content_type": "np"},
            outputs=[{"name": "y", "parameters": {"content_type": "np"}}],
        ),
        {},
    ),
    "unknown members": (document(given(what=1), what=1), {}),
    "no outputs": (document(outputs=[]), {}),
    "output twice": (document(outputs=[{"name": "y"}, {"name": "y"}]), {}),
    "empty id": (document(id=""), {}),
    "sequence": (document(parameters={"sequence_id": 7, "sequence_start": True, "sequence_end": True}), {}),
    "sequence by text": (document(parameters={"sequence_id": "seven"}), {}),
    "timeout of none": (document(parameters={"timeout": 0}), {}),
    "parameters of each type": (document(parameters={"a": "a", "b": 1, "c": 1.5, "d": True}), {}),
    "nested deeper than the shape": (document(given(data=[[[1], [2]]])), {}),
    "byte order mark": (b"\xef\xbb\xbf" + document(), {}),
    "charset": (document(), {"Content-Type": "application/json; charset=utf-8"}),
    "no content type": (document(), {"Content-Type": ""}),
    "another content type": (document(), {"Content-Type": "text/plain"}),
    "form of curl": (document(), {"Content-Type": "application/x-www-form-urlencoded"}),
    "gzip": (gzip.compress(document(), mtime=0), {"Content-Encoding": "gzip"}),
    "deflate": (zlib.compress(document()), {"Content-Encoding": "deflate"}),
    "wants gzip": (document(), {"Accept-Encoding": "gzip"}),
    "not finite, as binary data": (
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [NaN, -Infinity]}],'
        b' "parameters": {"binary_data_output": true}}',
        {},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_request_that_triton_accepts_gets_the_same_response(small: Stack, name: str) -> None:
    ours, tritons = send_to_both(small, "pairs", *SAME[name])
    assert (ours.status_code, ours.content) == (200, tritons.content), tritons.text


# Of `pairs`, with a null that KServe's SDK and MLServer write for what is absent, and which Triton 2.51 takes for a
# wrong type.
NULLS = {
    "request": document(id=None, parameters=None, outputs=None),
    "parameters of a request": document(parameters={"priority": None, "timeout": None, "binary_data_output": None}),
    "unknown parameter": document(parameters={"headers": None}),
    "binary_data": document(outputs=[{"name": "y", "parameters": {"binary_data": None}}]),
    "binary_data_size": document(given(parameters={"binary_data_size": None, "content_type": None})),
    # A request of MLServer's types, as pydantic writes it.
    "MLServer": document(
        given(parameters={"content_type": "np", "headers": None}),
        id=None,
        parameters={"content_type": "np", "headers": None},
        outputs=[{"name": "y", "parameters": {"content_type": None, "headers": None}}],
    ),
}


@pytest.mark.parametrize("name", NULLS)
def test_null_is_absent(small: Stack, name: str) -> None:
    ours, _ = send_to_both(small, "pairs", NULLS[name])
    plain, tritons = send_to_both(small, "pairs", document())
    assert (ours.status_code, ours.json()) == (200, plain.json()), ours.text
    assert plain.json() == tritons.json()


LIBRARIES = [tritonclient.http, tritonclient.grpc]


def infer(stack: Stack, library: Any, model: str, array: Any, *, of_triton: bool = False, **options: Any) -> Any:
    """The outputs that NVIDIA's client gets, from this server or from Triton itself."""
    ports = [stack.http_port, stack.triton_http_port], [stack.grpc_port, stack.triton_grpc_port]
    port = ports[library is tritonclient.grpc][of_triton]
    taken = library.InferInput("x", array.shape, MODELS[model][0])
    taken.set_data_from_numpy(array)
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        return client.infer(model, [taken], **options)


def successes(stack: Stack, model: str) -> int:
    """How many requests of a model succeeded, in Triton's own count."""
    text = httpx.get(f"http://127.0.0.1:{stack.triton_metrics_port}/metrics", trust_env=False).text
    return int(
        sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("nv_inference_request_success") and sample.labels["model"] == model
        )
    )


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("model", "array"),
    [
        ("pairs", np.arange(40, dtype=np.float32).reshape(20, 2)),
        ("halves", np.arange(40, dtype=np.float16).reshape(20, 2)),
        ("free", np.arange(60, dtype=np.float32).reshape(20, 3)),
        ("texts", np.array([[b"x" * n, "é".encode() * n] for n in range(20)], object)),
    ],
)
def test_request_of_more_items_than_triton_takes_is_several(small: Stack, library: Any, model: str, array: Any) -> None:
    before = successes(small, model)
    np.testing.assert_array_equal(infer(small, library, model, array).as_numpy("y"), array)
    # Three parts of at most eight: all of them at once are too many for Triton itself.
    assert successes(small, model) == before + 3
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        infer(small, library, model, array, of_triton=True)


@pytest.mark.parametrize("library", LIBRARIES)
def test_request_of_more_items_than_the_limit_is_rejected(small: Stack, library: Any) -> None:
    assert infer(small, library, "pairs", np.zeros((1024, 2), np.float32)).as_numpy("y").shape == (1024, 2)
    with pytest.raises(InferenceServerException, match="got 1025 images or rows in one request, expected 1 to 1024"):
        infer(small, library, "pairs", np.zeros((1025, 2), np.float32))


def test_request_without_a_batch_is_not_cut(small: Stack) -> None:
    rows = np.arange(40, dtype=np.float32).reshape(20, 2)
    before = successes(small, "unbatched")
    np.testing.assert_array_equal(infer(small, tritonclient.http, "unbatched", rows).as_numpy("y"), rows)
    assert successes(small, "unbatched") == before + 1
    entries = [given(name="a", shape=[9, 2], data=[1] * 18), given(name="b", shape=[10, 2], data=[1] * 20)]
    ours, tritons = send_to_both(small, "sum", json.dumps({"inputs": entries}).encode())
    assert (ours.status_code, tritons.status_code) == (400, 400)
    assert "batch size does not match" in ours.json()["error"]


def test_batch_that_a_backend_does_not_run_is_the_clients_input(small: Stack) -> None:
    for count in (1, 6):  # of six the first four are run
        entry = given(shape=[count, 2], data=[0] * 2 * count)
        response = small.http.post("/v2/models/fours/infer", content=document(entry))
        got = f"expected a batch of 4, got {count % 4}: the openvino backend runs max_batch_size only"
        assert (response.status_code, got in response.json()["error"]) == (400, True), response.text
    entry = given(shape=[8, 2], data=list(range(16)))
    (output,) = small.http.post("/v2/models/fours/infer", content=document(entry)).raise_for_status().json()["outputs"]
    assert output["data"] == list(range(16))


@pytest.mark.parametrize("library", LIBRARIES)
def test_classes_of_more_items_than_triton_takes(small: Stack, library: Any) -> None:
    rows = np.array([[index, 7] for index in range(20)], np.float32)
    outputs = [library.InferRequestedOutput("y", class_count=1)]
    best = infer(small, library, "pairs", rows, outputs=outputs).as_numpy("y").ravel().tolist()
    assert best[:8] == [b"7.000000:1:right"] * 7 + [b"7.000000:0:left"]
    assert best[8:] == [f"{index}.000000:0:left".encode() for index in range(8, 20)]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "options",
    [
        {"request_id": "mine"},
        {"priority": 1, "timeout": 5_000_000},
        {"sequence_id": 7, "sequence_start": True, "sequence_end": True},
        {"parameters": {"own": "text", "number": 5, "yes": True}},
        {"model_version": "1"},
    ],
)
def test_options_of_nvidias_clients_are_understood(small: Stack, library: Any, options: dict[str, Any]) -> None:
    rows = np.array([[1, 2]], np.float32)
    np.testing.assert_array_equal(infer(small, library, "pairs", rows, **options).as_numpy("y"), rows)


@pytest.mark.parametrize(
    ("library", "options"),
    [
        (tritonclient.http, {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}),
        (tritonclient.http, {"request_compression_algorithm": "deflate", "response_compression_algorithm": "deflate"}),
        (tritonclient.http, {"query_params": {"own": 1}, "headers": {"x-mine": "1"}}),
        (tritonclient.grpc, {"compression_algorithm": "gzip"}),
        (tritonclient.grpc, {"compression_algorithm": "deflate"}),
        (tritonclient.grpc, {"client_timeout": 20}),
    ],
)
def test_options_of_one_of_nvidias_clients_are_understood(small: Stack, library: Any, options: dict[str, Any]) -> None:
    rows = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    np.testing.assert_array_equal(infer(small, library, "pairs", rows, **options).as_numpy("y"), rows)


@pytest.mark.parametrize("library", LIBRARIES)
def test_shared_memory_of_an_output_is_rejected_with_a_message(small: Stack, library: Any) -> None:
    output = library.InferRequestedOutput("y")
    output.set_shared_memory("region", 8)
    with pytest.raises(InferenceServerException, match="shared memory is not supported"):
        infer(small, library, "pairs", np.array([[1, 2]], np.float32), outputs=[output])


def test_unknown_parameter_of_an_output_is_not_looked_at_over_grpc(small: Stack) -> None:
    request = service_pb2.ModelInferRequest(model_name="pairs", raw_input_contents=[bytes(8)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.outputs.add(name="y").parameters["content_type"].string_param = "np"
    for port in (small.grpc_port, small.triton_grpc_port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
        assert response.raw_output_contents == [bytes(8)]


@pytest.mark.parametrize(
    "path",
    [
        *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/pairs", "/v2/models/pairs/ready"),
        *("/v2/models/pairs/config", "/v2/models/pairs/versions/1", "/v1/models", "/v1/models/pairs"),
    ],
)
def test_slash_at_the_end_of_a_path_is_ignored(small: Stack, path: str) -> None:
    plain, slashed = small.http.get(path), small.http.get(f"{path}/")
    assert (slashed.status_code, slashed.json()) == (200, plain.json())
    assert small.http.get(f"{path}//").status_code == 404
    assert small.http.get(f"{path}%2F").status_code == 404


def test_slash_at_the_end_of_an_inference_path_is_ignored(small: Stack) -> None:
    response = small.http.post("/v2/models/pairs/versions/1/infer/", content=document())
    assert (response.status_code, response.json()["outputs"][0]["data"]) == (200, [1, 2])
