"""One data plane: the same request gets the same response over every protocol, valid or not."""

import base64
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.support.stack import ROOT, Stack
from tests.support.tolerances import close

IMAGES = ROOT / "loadtest" / "pictures"
DIGITS = (IMAGES / "digits.jpg").read_bytes()
PAPER = (IMAGES / "digits-on-paper.jpg").read_bytes()
SEVEN = (IMAGES / "seven.png").read_bytes()
VIRGINICA, SETOSA = [6.3, 3.3, 6.0, 2.5], [5.1, 3.5, 1.4, 0.2]

# gRPC's code for each status of the tree in transformer/errors.py.
CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "RESOURCE_EXHAUSTED", 415: "INVALID_ARGUMENT"}


def blank_png(size_wh: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", size_wh).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Case:
    """A request, over any protocol.

    Attributes:
        items: encoded images, or rows.
        status: of the response over HTTP.
        says: part of the message of an error.
        same_words: whether every protocol says it in the same words.
    """

    model: str
    items: Sequence[Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    says: str = ""
    same_words: bool = True

    @property
    def is_table(self) -> bool:
        """Whether the items are rows."""
        return isinstance(self.items[0], list)


CASES = {
    "detect": Case("digit-finder", [DIGITS]),
    "detect many": Case("digit-finder", [DIGITS, SEVEN, PAPER]),
    "detect nothing": Case("digit-finder", [DIGITS, PAPER], {"confidence": 1.0}),
    "detect few": Case("digit-finder", [DIGITS, PAPER], {"confidence": 0.1, "iou": 0.4, "max_detections": 3}),
    "detect classes": Case("digit-finder", [DIGITS], {"classes": "7,2"}),
    "detect, then classify": Case("digit-finder", [DIGITS], {"then": "digits"}),
    "detect many, then classify": Case("digit-finder", [PAPER, DIGITS, SEVEN], {"then": "digits", "confidence": 0.3}),
    "detect nothing, then classify": Case("digit-finder", [DIGITS, PAPER], {"then": "digits", "confidence": 1.0}),
    "classify": Case("digits", [SEVEN]),
    "classify many": Case("digits", [SEVEN, DIGITS]),
    "table": Case("iris", [VIRGINICA]),
    "table many": Case("iris", [VIRGINICA, SETOSA, VIRGINICA]),
    "no image": Case("digit-finder", [b"no image"], status=400, says="8 bytes that begin with b'no image'"),
    "one of many": Case("digits", [SEVEN, b"no"], status=400, says="image 1 of 2: image: 2 bytes"),
    "cut off": Case("digits", [DIGITS[:-500]], status=400, says="ends before its last row"),
    "heic": Case("digits", [b"\0\0\0\x18ftypheic" + bytes(40)], status=415, says="got HEIC"),
    "too many pixels": Case("digits", [blank_png((10_000, 5001))], status=413, says="10000x5001 pixels is over"),
    "too many bytes": Case("digits", [SEVEN + bytes(20 * 2**20)], status=413, says="bytes is over the limit"),
    "too many": Case("digits", [b"x"] * 1025, status=413, says="1024", same_words=False),
    "too many rows": Case("iris", [SETOSA] * 1025, status=413, says="got 1025 images or rows"),
    "unknown model": Case("none", [SEVEN], status=404, says="model 'none' is unknown"),
    "unknown parameter": Case("digit-finder", [SEVEN], {"conf": 1}, 400, "'conf' is unknown; expected one of"),
    "parameter of another task": Case("digits", [SEVEN], {"iou": 0.5}, 400, "'iou' is unknown; expected one of top_k"),
    "parameter of a table": Case("iris", [SETOSA], {"confidence": 0.5}, 400, "unknown; expected none"),
    "then an unknown model": Case("digit-finder", [SEVEN], {"then": "none"}, 404, "a classifier): model 'none' is"),
    "then a table": Case("digit-finder", [SEVEN], {"then": "iris"}, 400, "got 'iris', a model for tabular"),
    "then a detector": Case("digit-finder", [SEVEN], {"then": "digit-finder"}, 400, "a model for detect"),
    "then of a classifier": Case("digits", [SEVEN], {"then": "digits"}, 400, "'then' is unknown; expected"),
    "out of range": Case("digit-finder", [SEVEN], {"iou": 1.5}, 400, "expected a number from 0 to 1", same_words=False),
    "unknown class": Case("digit-finder", [SEVEN], {"classes": "cat"}, 400, "has no class 'cat'"),
    "image for a table": Case("iris", [SEVEN], status=400, says="iris is a model for rows (tabular): got images"),
    "rows for images": Case("digits", [SETOSA], status=400, says="digits", same_words=False),
    "short row": Case("iris", [SETOSA[:3]], status=400, says="row 0: got 3 values, expected 4: sepal length"),
}  # fmt: skip


class Rejected(Exception):
    """A rejection: status or code, and the message."""


def http_json(response: httpx.Response) -> Any:
    if not response.is_success:
        raise Rejected(response.status_code, response.json()["error"])
    return response.json()


def infer_predict(stack: Stack, case: Case) -> Any:
    url = f"/predict/{case.model}"
    if case.is_table:
        return http_json(stack.http.post(url, params=dict(case.parameters), json=list(case.items)))["predictions"]
    files = [("image", item) for item in case.items]
    response = http_json(stack.http.post(url, params=dict(case.parameters), files=files))
    return response if len(files) > 1 else [response]


def v1_document(case: Case) -> Any:
    images = [{"image": {"b64": base64.b64encode(item).decode()}} for item in case.items if not case.is_table]
    return {"instances": images or case.items, "parameters": case.parameters}


def infer_v1(stack: Stack, case: Case) -> Any:
    return http_json(stack.http.post(f"/v1/models/{case.model}:predict", json=v1_document(case)))["predictions"]


def infer_v1_gzip(stack: Stack, case: Case) -> Any:
    body = gzip.compress(json.dumps(v1_document(case)).encode(), 1)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    return http_json(stack.http.post(f"/v1/models/{case.model}:predict", content=body, headers=headers))["predictions"]


def v2_document(case: Case) -> Any:
    if case.is_table:
        tensor = {"name": "features", "datatype": "FP32", "shape": np.shape(case.items), "data": case.items}
    else:
        texts = [base64.b64encode(item).decode() for item in case.items]
        tensor = {"name": "image", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    return {"id": "the-id", "inputs": [tensor], "parameters": case.parameters}


def infer_v2(stack: Stack, case: Case, *, path: str = "") -> Any:
    response = http_json(stack.http.post(f"/v2/models/{case.model}{path}/infer", json=v2_document(case)))
    assert (response["model_name"], response["id"]) == (case.model, "the-id")
    outputs = {output["name"]: output for output in response["outputs"]}
    arrays = {
        name: np.array(output["data"], object if output["datatype"] == "BYTES" else None).reshape(output["shape"])
        for name, output in outputs.items()
    }
    return read_tensors(arrays.get, case)


def infer_v2_version(stack: Stack, case: Case) -> Any:
    metadata = stack.http.get(f"/v2/models/{case.model}").json()
    return infer_v2(stack, case, path=f"/versions/{metadata.get('versions', ['1'])[-1]}")


def infer_v2_binary(stack: Stack, case: Case) -> Any:
    return infer_with_tritonclient(tritonclient.http, stack.http_port, case)


def infer_grpc(stack: Stack, case: Case) -> Any:
    return infer_with_tritonclient(tritonclient.grpc, stack.grpc_port, case)


def infer_with_tritonclient(library: Any, port: int, case: Case) -> Any:
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        if case.is_table:
            tensor = library.InferInput("features", np.shape(case.items), "FP64")
            tensor.set_data_from_numpy(np.array(case.items, np.float64))
        else:
            tensor = library.InferInput("image", [len(case.items)], "BYTES")
            tensor.set_data_from_numpy(np.array(case.items, object))
        try:
            result = client.infer(case.model, [tensor], request_id="the-id", parameters=dict(case.parameters))
        except InferenceServerException as exc:
            status = exc.status().removeprefix("StatusCode.")
            raise Rejected(int(status) if status.isdecimal() else status, exc.message()) from exc
        return read_tensors(result.as_numpy, case)


def infer_grpc_typed(stack: Stack, case: Case) -> Any:
    request = service_pb2.ModelInferRequest(model_name=case.model, id="the-id")
    if case.is_table:
        tensor = request.inputs.add(name="features", datatype="FP32", shape=np.shape(case.items))
        tensor.contents.fp32_contents.extend(number for row in case.items for number in row)
    else:
        tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(case.items)])
        tensor.contents.bytes_contents.extend(case.items)
    for name, value in case.parameters.items():
        request.parameters[name].string_param = str(value)
    with grpc.insecure_channel(f"127.0.0.1:{stack.grpc_port}") as channel:
        try:
            response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
        except grpc.RpcError as exc:
            raise Rejected(exc.code().name, exc.details()) from exc
    assert (response.id, len(response.raw_output_contents)) == ("the-id", 0)
    arrays = {}
    for output in response.outputs:
        field = {"BYTES": "bytes", "INT32": "int", "FP32": "fp32"}[output.datatype] + "_contents"
        dtype = object if output.datatype == "BYTES" else None
        arrays[output.name] = np.array(getattr(output.contents, field), dtype).reshape(list(output.shape))
    return read_tensors(arrays.get, case)


def read_tensors(tensor: Callable[[str], Any], case: Case) -> Any:
    """The JSON of each item, and that the numeric tensors say the same."""
    texts = tensor("detections" if case.model == "digit-finder" else "predictions")
    assert texts.shape == (len(case.items),)
    responses = [json.loads(text) for text in texts]
    if case.model != "digit-finder":
        best = [response if case.is_table else response["predictions"][0] for response in responses]
        assert tensor("class_id").tolist() == [prediction["class_id"] for prediction in best]
        assert tensor("probabilities").max(axis=1) == pytest.approx([p["confidence"] for p in best], abs=1e-5)
        return responses
    assert tensor("num_detections").tolist() == [len(response["predictions"]) for response in responses]
    longest = max(tensor("num_detections"))
    assert tensor("boxes").shape == (len(responses), longest, 4)
    for index, response in enumerate(responses):
        found, count = response["predictions"], len(response["predictions"])
        np.testing.assert_allclose(
            tensor("boxes")[index, :count], np.reshape([list(p["box"].values()) for p in found], (-1, 4)), atol=1e-3
        )
        assert tensor("scores")[index, :count] == pytest.approx([p["confidence"] for p in found], abs=1e-6)
        assert tensor("class_ids")[index].tolist() == [p["class_id"] for p in found] + [-1] * (longest - count)
        assert not tensor("boxes")[index, count:].any()
        assert not tensor("scores")[index, count:].any()
        if "then" in case.parameters:
            tops = [p["classification"]["predictions"][0] for p in found]
            assert tensor("then_class_ids")[index].tolist() == [p["class_id"] for p in tops] + [-1] * (longest - count)
            assert tensor("then_scores")[index, :count] == pytest.approx([p["confidence"] for p in tops], abs=1e-6)
            assert not tensor("then_scores")[index, count:].any()
    return responses


PROTOCOLS = {
    "v1": infer_v1,
    "v1 gzip": infer_v1_gzip,
    "v2 JSON": infer_v2,
    "v2 version": infer_v2_version,
    "v2 binary": infer_v2_binary,
    "gRPC raw": infer_grpc,
    "gRPC typed": infer_grpc_typed,
}


@pytest.fixture(scope="module")
def references(stack: Stack) -> Mapping[str, Any]:
    """The response of `/predict` to each case, or its rejection."""
    responses: dict[str, Any] = {}
    for name, case in CASES.items():
        try:
            responses[name] = infer_predict(stack, case)
        except Rejected as exc:
            responses[name] = exc
    return responses


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", CASES)
def test_every_protocol_gives_the_same_result(
    stack: Stack, references: Mapping[str, Any], name: str, protocol: str
) -> None:
    case, expected = CASES[name], references[name]
    send: Callable[[Stack, Case], Any] = PROTOCOLS[protocol]
    if case.status == 200:
        texts, numbers = split(send(stack, case))
        assert texts == split(expected)[0]
        assert numbers == close(split(expected)[1])
        return
    assert isinstance(expected, Rejected)
    assert (expected.args[0], case.says in expected.args[1]) == (case.status, True), expected
    with pytest.raises(Rejected) as rejected:
        send(stack, case)
    status, words = rejected.value.args
    assert status == (CODES[case.status] if protocol.startswith("gRPC") else case.status)
    assert case.says in words
    assert words == expected.args[1] or not case.same_words


def test_every_good_case_finds_something(references: Mapping[str, Any]) -> None:
    counts = {name: len(list(flatten(references[name]))) for name, case in CASES.items() if case.status == 200}
    assert len(counts) == 12
    assert min(counts.values()) > 4
    assert counts["detect, then classify"] > counts["detect"]
    assert counts["detect many"] > counts["detect"] > counts["detect few"] > counts["detect nothing"]


def split(response: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """The values that must be equal, and the numbers that may differ by rounding."""
    leaves = dict(flatten(response))
    numbers = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, float)}
    return {path: leaf for path, leaf in leaves.items() if path not in numbers}, numbers


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and text of a response with its path; without ids and times, which differ each time."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key not in {"inference_id", "detection_id", "time", "timing_ms"}:
                yield from flatten(entry, f"{path}/{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from flatten(entry, f"{path}/{index}")
    else:
        yield path, value
