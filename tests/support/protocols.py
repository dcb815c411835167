"""One request to a model of a task over every protocol, and whether two responses say the same."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
import supervision as sv
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray

from tests.support.stack import Stack
from tests.support.tolerances import BOX_PX, SCORE

_PER_REQUEST = {"inference_id", "detection_id", "time", "timing_ms"}
SIDES = ("x1", "y1", "x2", "y2")
_BOX = ("x", "y", "width", "height")


@dataclass(frozen=True)
class Shipped:
    """A shipped model, and what its task adds to boxes.

    Attributes:
        tensors: of v2, beside those of every task that finds objects: datatype, and the dims of one object.
        parameters: of every request, so that JSON has what the tensors have.
    """

    model: str
    schema: str
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finds_objects(self) -> bool:
        """Whether it gives boxes, else classes."""
        return self.schema != "Classification"

    @property
    def json_output(self) -> str:
        """The tensor that holds the JSON."""
        return "detections" if self.finds_objects else "predictions"


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def predict(stack: Stack, task: Shipped, *images: bytes, **parameters: Any) -> list[Any]:
    files = [("image", image) for image in images]
    response = ok(
        stack.http.post(f"/predict/{task.model}", params={**task.parameters, **parameters}, files=files),
    )
    return response if len(images) > 1 else [response]


def predict_raw(stack: Stack, task: Shipped, *images: bytes, **parameters: Any) -> list[Any]:
    (image,) = images
    query, headers = {**task.parameters, **parameters}, {"Content-Type": "image/png"}
    return [ok(stack.http.post(f"/predict/{task.model}", params=query, content=image, headers=headers))]


def predict_v1(stack: Stack, task: Shipped, *images: bytes, **parameters: Any) -> list[Any]:
    instances = [{"image": {"b64": base64.b64encode(image).decode()}} for image in images]
    body = {"instances": instances, "parameters": {**task.parameters, **parameters}}
    found: list[Any] = ok(stack.http.post(f"/v1/models/{task.model}:predict", json=body))["predictions"]
    return found


def infer_json(stack: Stack, task: Shipped, *images: bytes, **parameters: Any) -> dict[str, tuple[str, NDArray[Any]]]:
    """Datatype and values of each output."""
    texts = [base64.b64encode(image).decode() for image in images]
    body = {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(texts)], "data": texts}],
        "parameters": {**task.parameters, **parameters},
    }
    outputs = ok(stack.http.post(f"/v2/models/{task.model}/infer", json=body))["outputs"]
    return {
        each["name"]: (
            each["datatype"],
            np.array(each["data"], object if each["datatype"] == "BYTES" else None).reshape(each["shape"]),
        )
        for each in outputs
    }


def infer_with(
    library: Any, stack: Stack, task: Shipped, *images: bytes, **parameters: Any
) -> dict[str, tuple[str, NDArray[Any]]]:
    """As `infer_json`, by Triton's own client: binary data, or gRPC."""
    port = stack.grpc_port if library is tritonclient.grpc else stack.http_port
    tensor = library.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, object))
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        result = client.infer(task.model, [tensor], parameters={**task.parameters, **parameters})
    response = result.get_response(as_json=True) if library is tritonclient.grpc else result.get_response()
    return {each["name"]: (each["datatype"], result.as_numpy(each["name"])) for each in response["outputs"]}


def infer_binary(stack: Stack, task: Shipped, *images: bytes, **parameters: Any) -> Any:
    return infer_with(tritonclient.http, stack, task, *images, **parameters)


def infer_grpc(stack: Stack, task: Shipped, *images: bytes, **parameters: Any) -> Any:
    return infer_with(tritonclient.grpc, stack, task, *images, **parameters)


def through_v2(infer: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The JSON in a response of tensors, which say the same."""

    def send(stack: Stack, task: Shipped, *images: bytes, **parameters: Any) -> list[Any]:
        tensors = {name: values for name, (_, values) in infer(stack, task, *images, **parameters).items()}
        responses = [json.loads(text) for text in tensors[task.json_output]]
        assert len(responses) == len(images)
        check_tensors(task, tensors, responses)
        return responses

    return send


V2 = {"v2 JSON": infer_json, "v2 binary": infer_binary, "gRPC": infer_grpc}
PROTOCOLS = {
    "raw body": predict_raw,
    "v1": predict_v1,
    **{name: through_v2(infer) for name, infer in V2.items()},
}
BATCHES = {"predict": predict, **{name: send for name, send in PROTOCOLS.items() if name != "raw body"}}


def check_tensors(task: Shipped, tensors: Mapping[str, Any], responses: Sequence[Any]) -> None:
    """That numeric tensors have what the JSON of each image has, and that the rest of each row is padding."""
    if not task.finds_objects:
        best = [response["predictions"][0] for response in responses]
        assert tensors["class_id"].tolist() == [each["class_id"] for each in best]
        assert tensors["probabilities"].sum(axis=1) == pytest.approx(np.ones(len(best)), abs=SCORE)
        assert tensors["probabilities"].max(axis=1) == pytest.approx([p["confidence"] for p in best], abs=1e-6)
        return
    counts = [len(response["predictions"]) for response in responses]
    assert tensors["num_detections"].tolist() == counts
    for name, (_, tail) in {**task.tensors, "boxes": ("FP32", (4,)), "scores": ("FP32", ())}.items():
        assert tensors[name].shape == (len(responses), max(counts), *tail), name
    for index, (response, count) in enumerate(zip(responses, counts, strict=True)):
        rows = {name: values[index, :count] for name, values in tensors.items() if values.ndim > 1}
        rests = {name: values[index, count:] for name, values in tensors.items() if values.ndim > 1}
        assert rests.pop("class_ids").tolist() == [-1] * (max(counts) - count)
        assert all(not rest.any() for rest in rests.values())
        check_rows(rows, response["predictions"])


def check_rows(rows: Mapping[str, Any], found: Sequence[Any]) -> None:
    """That the rows of one image have what its JSON has, which rounds to 0.001 pixels."""
    assert rows["class_ids"].tolist() == [each["class_id"] for each in found]
    assert rows["scores"] == pytest.approx([each["confidence"] for each in found], abs=1e-6)
    same(rows["boxes"], [[each["box"][side] for side in SIDES] for each in found])
    if "masks" in rows:
        assert [json.loads(text) for text in rows["masks"]] == [each["rle"] for each in found]
    if "keypoints" in rows:
        points = [[[p["x"], p["y"], p["confidence"]] for p in each["keypoints"]] for each in found]
        same(rows["keypoints"], points)
    if "rotated_boxes" in rows:
        names = (*_BOX, "rotation")
        same(rows["rotated_boxes"], [[each["rotated_box"][name] for name in names] for each in found])


def same(values: NDArray[Any], expected: Any, *, within: float = 1e-3) -> None:
    np.testing.assert_allclose(values, np.reshape(expected, values.shape), rtol=0, atol=within)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and text of a response with its path, without what is new in each."""
    if isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in _PER_REQUEST:
                yield from leaves(entry, f"{path}/{key}")
    else:
        yield path, value


def check_same(found: Any, expected: Any) -> None:
    """That two responses have the same objects, to what the order of additions in a network makes of them."""
    ones, others = dict(leaves(found)), dict(leaves(expected))
    masks = {path for path in ones if path.endswith("/rle/counts")}
    assert ones.keys() == others.keys()
    for path in ones.keys() - masks:
        value, other = ones[path], others[path]
        within = SCORE if path.endswith("confidence") else BOX_PX
        assert value == (pytest.approx(other, rel=0, abs=within) if isinstance(other, float) else other), path
    if any(ones[path] != others[path] for path in masks):
        check_same_masks(found, expected)


def check_same_masks(found: Any, expected: Any) -> None:
    """That masks in RLE share all but a hundredth of their pixels."""
    one, other = (np.asarray(sv.Detections.from_inference(response).mask, bool) for response in (found, expected))
    shared, either = (one & other).sum(axis=(1, 2)), (one | other).sum(axis=(1, 2))
    assert (shared / either).min() > 0.99
