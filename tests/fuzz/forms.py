"""The form of what a model responds: each check finds a problem, or nothing."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferResponse

from tests.fuzz.parameters import Parameters

Tensors = Mapping[str, NDArray[Any]]

_PX = 0.01  # JSON has three digits
_DTYPES = {"INT32": "<i4", "FP32": "<f4"}
_POINTS = ("x", "y")
_MOST_TENSORS = {"segment": "masks", "pose": "keypoints", "obb": "rotated_boxes"}
_TAILS: Mapping[str, tuple[int, ...]] = {"boxes": (4,), "keypoints": (2, 3), "rotated_boxes": (5,)}


def read_json(body: bytes) -> Any:
    """A document of numbers that are finite.

    Raises:
        ValueError: it is not JSON, or has others.
    """

    def reject(word: str) -> float:
        raise ValueError(f"got {word} in JSON")

    return json.loads(body, parse_constant=reject)


def read_tensors(body: bytes) -> Tensors:
    """Outputs of a JSON response of v2, by name."""
    return {
        output["name"]: np.array(output["data"], _DTYPES.get(output["datatype"], object)).reshape(output["shape"])
        for output in read_json(body)["outputs"]
    }


def read_message(body: bytes) -> Tensors:
    """Outputs of a response of gRPC, by name."""
    message = ModelInferResponse.FromString(body)
    return {
        output.name: _read_raw(output.datatype, content).reshape(tuple(output.shape))
        for output, content in zip(message.outputs, message.raw_output_contents, strict=True)
    }


def _read_raw(datatype: str, content: bytes) -> NDArray[Any]:
    if datatype in _DTYPES:
        return np.frombuffer(content, _DTYPES[datatype])
    elements = []
    while content:
        size = int.from_bytes(content[:4], "little")
        elements.append(content[4 : 4 + size])
        content = content[4 + size :]
    texts = np.empty(len(elements), object)
    texts[:] = elements
    return texts


def find_tensor_problems(tensors: Tensors, model: str, given: Parameters) -> Iterator[str]:
    """Problems of the outputs of v2: of the JSON of each image, and of tensors that do not fit it."""
    texts = next((tensors[name] for name in ("detections", "predictions") if name in tensors), None)
    if texts is None:  # other outputs were requested
        return
    documents = [read_json(text) for text in texts]
    for document in documents:
        yield from find_problems(document, model, given)
    counts = [len(document["predictions"]) for document in documents]
    task = documents[0]["model"]["task"]
    if task == "classify":
        return
    for name in ("boxes", "scores", "class_ids", _MOST_TENSORS.get(task, "boxes")):
        expected = (len(counts), max(counts), *_TAILS.get(name, ()))
        if name in tensors and tensors[name].shape != expected:
            yield f"{name}: {tensors[name].shape}, expected {expected}"
    if "num_detections" in tensors and tensors["num_detections"].tolist() != counts:
        yield f"num_detections: {tensors['num_detections']}, expected {counts}"
    if "masks" in tensors:
        written = [sum(map(bool, row)) for row in tensors["masks"]]
        if written != ([0] * len(counts) if given.get("mask") == "none" else counts):
            yield f"masks: {written} of {counts}"


def find_problems(document: Any, model: str, given: Parameters) -> Iterator[str]:
    """Problems of the JSON of an image.

    Args:
        document: read.
        model: that was named.
        given: parameters of the request, which it has accepted.
    """
    task, image = document["model"]["task"], document["image"]
    if document["model"]["name"] != model:
        yield f"model {document['model']['name']}"
    size = image["width"], image["height"]
    scores = [each["confidence"] for each in document["predictions"]]
    if scores != sorted(scores, reverse=True) or not all(0 <= score <= 1 for score in scores):
        yield f"scores {scores[:9]}"
    if any(each["class"] != str(each["class_id"]) for each in document["predictions"]):
        yield "a class with the name of another"
    if task == "classify":
        yield from _classification(document, size, given)
        return
    if len(scores) > int(given.get("max_detections", 300)):
        yield f"{len(scores)} objects"
    for each in document["predictions"]:
        yield from _box(each, size)
        yield from _CHECKS[task](each, size, given)
        if "then" in given and "classification" not in each:
            yield "an object without classification"


def _classification(document: Any, size: tuple[int, int], given: Parameters) -> Iterator[str]:
    found, crop = document["predictions"], document["crop"]
    if len(found) > int(given.get("top_k", 5)):
        yield f"{len(found)} classes"
    if found and (document["top"], document["confidence"]) != (found[0]["class"], found[0]["confidence"]):
        yield f"top {document['top']!r} is not the first"
    if not (0 <= crop["x1"] < crop["x2"] <= size[0] + _PX and 0 <= crop["y1"] < crop["y2"] <= size[1] + _PX):
        yield f"crop {crop}"


def _box(each: Any, size: tuple[int, int]) -> Iterator[str]:
    box = each["box"]
    if not (0 <= box["x1"] <= box["x2"] <= size[0] and 0 <= box["y1"] <= box["y2"] <= size[1]):
        yield f"box {box} of an image {size}"
    around = [each["x"] - each["width"] / 2, each["x"] + each["width"] / 2]
    if not np.allclose(around, [box["x1"], box["x2"]], atol=_PX):
        yield f"box {box}, centre and width {each['x'], each['width']}"


def _detection(each: Any, _size: tuple[int, int], _given: Parameters) -> Iterator[str]:
    if extra := each.keys() & {"points", "rle", "keypoints", "rotated_box", "corners"}:
        yield f"a detection with {sorted(extra)}"


def _segment(each: Any, size: tuple[int, int], given: Parameters) -> Iterator[str]:
    form = given.get("mask", "polygon")
    if each.get("mask_format", "none") != form:
        yield f"mask_format {each.get('mask_format')!r}, expected {form!r}"
    elif form == "rle":
        if each["rle"]["size"] != [size[1], size[0]] or _count_pixels(each["rle"]["counts"]) != size[0] * size[1]:
            yield f"rle {each['rle']} of an image {size}"
    elif form == "polygon":
        parts = each.get("parts", [each["points"]])
        if parts[0] != each["points"] or ("parts" in each and len(parts) < 2):
            yield "parts do not begin with points"
        for points in parts:
            if len(points) < 3 or not all(_is_inside(point, size) and _is_whole(point) for point in points):
                yield f"points {points[:9]} of an image {size}"


def _count_pixels(counts: str) -> int:
    """The pixels of all runs of COCO's compressed RLE: numbers of 5 bits a letter, from the third on differences."""
    runs: list[int] = []
    value = shift = 0
    for letter in counts.encode():
        bits = letter - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (bits & 0x10) << shift - 4
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return sum(runs) if min(runs, default=-1) >= 0 else -1


def _pose(each: Any, size: tuple[int, int], given: Parameters) -> Iterator[str]:
    least, names = float(given.get("keypoint_confidence", 0)), ("upper end", "lower end")
    ids = [keypoint["class_id"] for keypoint in each["keypoints"]]
    if ids != sorted(set(ids)) or (least == 0 and len(ids) != len(names)):
        yield f"keypoints {ids}"
    for keypoint in each["keypoints"]:
        is_sure = least - 1e-6 <= keypoint["confidence"] <= 1
        if not _is_inside(keypoint, size) or not is_sure or keypoint["class"] != names[keypoint["class_id"]]:
            yield f"keypoint {keypoint} of an image {size}"


def _obb(each: Any, size: tuple[int, int], _given: Parameters) -> Iterator[str]:
    if not 0 <= each["rotated_box"]["rotation"] < math.pi / 2:
        yield f"rotation {each['rotated_box']['rotation']}"
    if len(each["corners"]) != 4:
        yield f"{len(each['corners'])} corners"
    for axis, length in zip(_POINTS, size, strict=True):
        along = np.clip([corner[axis] for corner in each["corners"]], 0, length)
        if not np.allclose([along.min(), along.max()], [each["box"][f"{axis}1"], each["box"][f"{axis}2"]], atol=_PX):
            yield f"box {each['box']}, corners {each['corners']}"


def _is_inside(point: Any, size: tuple[int, int]) -> bool:
    return all(0 <= point[axis] <= length for axis, length in zip(_POINTS, size, strict=True))


def _is_whole(point: Any) -> bool:
    return all(type(point[axis]) is int for axis in _POINTS)


_CHECKS: Mapping[str, Callable[[Any, tuple[int, int], Parameters], Iterator[str]]] = {
    "detect": _detection,
    "segment": _segment,
    "pose": _pose,
    "obb": _obb,
}
