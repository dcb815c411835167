"""Requests that are ready to be sent, one function for each protocol and encoding."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

GRPC_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),  # otherwise the channels of one process share a connection
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
_JSON: Mapping[str, str] = {"Content-Type": "application/json"}
_DECODER = json.JSONDecoder()


class Inference(NamedTuple):
    """The content of a successful response.

    Attributes:
        version: of the model; empty where the response does not name it.
        document: as `/predict` returns it: `predictions`, and `timing_ms` for an image.
    """

    version: str
    document: Mapping[str, Any]


class Request(NamedTuple):
    """A request whose body is encoded.

    Attributes:
        kind: its name in results.
        path: of HTTP, or the full name of a gRPC method.
        body: of HTTP, or a serialised gRPC message.
        headers: without Host, Content-Length and the API key.
        read: parses a successful response's body; None where only status and size matter.
        min_bytes: a successful response with a smaller body counts as failed.
        is_grpc: sent over gRPC, otherwise over HTTP.
    """

    kind: str
    path: str
    body: bytes
    headers: Mapping[str, str] = {}
    read: Callable[[bytes], Inference] | None = None
    min_bytes: int = 0
    is_grpc: bool = False


class Tensor(NamedTuple):
    """An input of v2; `content` is laid out as v2's binary extension and gRPC's raw contents want it."""

    name: str
    datatype: str
    shape: Sequence[int]
    content: bytes

    def describe(self) -> dict[str, Any]:
        """The members of an input, for JSON and gRPC."""
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}


def image_tensor(image: bytes, name: str = "image") -> Tensor:
    """An encoded image as a BYTES tensor of one element."""
    return Tensor(name, "BYTES", [1], len(image).to_bytes(4, "little") + image)


def row_tensor(row: Sequence[float] | NDArray[np.float32], name: str = "features") -> Tensor:
    """A row of a table model as an FP32 tensor `(1, columns)`."""
    return Tensor(name, "FP32", [1, len(row)], np.array([row], "<f4").tobytes())


def json_request(kind: str, path: str, document: Any, read: Callable[[bytes], Inference] | None = None) -> Request:
    """A JSON document to any path."""
    return Request(kind, path, orjson.dumps(document), _JSON, read)


def predict_image(model: str, image: bytes) -> Request:
    """The encoded image as the body of `/predict`."""
    headers = {"Content-Type": "application/octet-stream"}
    return Request("predict", f"/predict/{model}", image, headers, _read_predict)


def predict_rows(model: str, rows: Sequence[Any]) -> Request:
    """A row, or rows, as the JSON body of `/predict`."""
    return json_request("predict", f"/predict/{model}", rows, _read_predict)


def multipart(path: str, image: bytes, **fields: str) -> Request:
    """A form: the encoded image as `image`, and text fields."""
    form = httpx.Request("POST", "http://form", data=fields, files={"image": ("image.jpg", image, "image/jpeg")})
    return Request("predict", path, form.read(), {"Content-Type": form.headers["Content-Type"]}, _read_predict)


def v1_image(model: str, image: bytes, **members: Any) -> Request:
    """The image as base64 in v1's JSON, beside further members of the document."""
    document = {"instances": [{"image": {"b64": base64.b64encode(image).decode()}}], **members}
    return json_request("v1", f"/v1/models/{model}:predict", document, _read_v1)


def v2_json(model: str, tensor: Tensor, data: Sequence[Any]) -> Request:
    """A tensor whose data are JSON: numbers, or base64 of an image."""
    return json_request("v2", f"/v2/models/{model}/infer", {"inputs": [tensor.describe() | {"data": data}]}, _read_v2)


def v2_binary(model: str, tensor: Tensor, version: str = "", *, binary_output: bool = False) -> Request:
    """A tensor behind v2's JSON (the binary tensor data extension); the output is in JSON, or behind it too."""
    sized = tensor.describe() | {"parameters": {"binary_data_size": len(tensor.content)}}
    head = orjson.dumps({"inputs": [sized], **({"parameters": {"binary_data_output": True}} if binary_output else {})})
    path = f"/v2/models/{model}/versions/{version}/infer" if version else f"/v2/models/{model}/infer"
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Request("v2", path, head + tensor.content, headers, _read_v2_binary if binary_output else _read_v2)


def grpc_raw(model: str, tensor: Tensor, version: str = "") -> Request:
    """ModelInfer with raw contents."""
    message = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    message.inputs.add(**tensor.describe())
    message.raw_input_contents.append(tensor.content)
    return Request("grpc", MODEL_INFER, message.SerializeToString(), read=_read_grpc, is_grpc=True)


def _read_predict(body: bytes) -> Inference:
    document = orjson.loads(body)
    return Inference(document["model"]["version"], document)


def _read_v1(body: bytes) -> Inference:
    document = orjson.loads(body)["predictions"][0]
    return Inference(document["model"]["version"], document)


def _read_v2(body: bytes) -> Inference:
    response = orjson.loads(body)
    return Inference(response["model_version"], _complete(orjson.loads(response["outputs"][0]["data"][0])))


def _read_v2_binary(body: bytes) -> Inference:
    response, end = _DECODER.raw_decode(body.decode("latin-1"))  # the outputs follow the JSON, each in its order
    size_bytes = response["outputs"][0]["parameters"]["binary_data_size"]
    return Inference(response["model_version"], _complete(orjson.loads(body[end + 4 : end + size_bytes])))


def _read_grpc(body: bytes) -> Inference:
    response = service_pb2.ModelInferResponse.FromString(body)
    return Inference(response.model_version, _complete(orjson.loads(response.raw_output_contents[0][4:])))


def _complete(element: Mapping[str, Any]) -> Mapping[str, Any]:
    """An image's element is a document of `/predict`; a row's element is one prediction."""
    return element if "predictions" in element else {"predictions": [element]}
