"""Segments, poses, oriented boxes and classes: the shipped model of each task says the same over every protocol."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from PIL import Image

from export.examples.scenes import compose, compose_single
from tests.support.protocols import BATCHES, PROTOCOLS, SIDES, V2, Shipped, check_same, ok, predict
from tests.support.stack import Stack

# supervision decodes RLE with what was written for NumPy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Pixels = NDArray[np.uint8]
OBJECTS = {
    "segment": Shipped("digit-outlines", "Segments", {"masks": ("BYTES", ())}, {"mask": "rle"}),
    "pose": Shipped("digit-strokes", "Poses", {"keypoints": ("FP32", (2, 3))}),
    "obb": Shipped("tilted-digits", "OrientedBoxes", {"rotated_boxes": ("FP32", (5,))}),
}
TASKS = {**OBJECTS, "classify": Shipped("digit-classes", "Classification", {})}
EVERY = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
EVERY_OF_OBJECTS = pytest.mark.parametrize("task", OBJECTS.values(), ids=OBJECTS)


def png(image: Pixels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def draw_all() -> tuple[list[Pixels], list[Pixels]]:
    """Scenes, and single digits, of digits that no model was trained on; two of one size, the others of their own."""
    first, second, third, fourth = (scene.image_hwc for scene in compose("held-out", count=4, seed=43))
    enlarged = np.asarray(cv2.resize(third, (800, 480), interpolation=cv2.INTER_CUBIC), np.uint8)
    scenes = [first, second, enlarged, np.ascontiguousarray(fourth[:, 40:240])]
    return scenes, [image for image, _ in compose_single("held-out", count=4, seed=43)]


SCENES, SINGLES = (list(map(png, images)) for images in draw_all())
PAPER = png(np.full((200, 300, 3), 200, np.uint8))


def images_of(task: Shipped) -> list[bytes]:
    return SCENES if task.finds_objects else SINGLES


@pytest.fixture(scope="module")
def references(stack: Stack) -> Mapping[str, list[Any]]:
    """The response of `/predict` to each image of each model, sent alone."""
    return {task.model: [predict(stack, task, image)[0] for image in images_of(task)] for task in TASKS.values()}


@EVERY
def test_the_images_show_something(references: Mapping[str, list[Any]], task: Shipped) -> None:
    counts = [len(response["predictions"]) for response in references[task.model]]
    assert min(counts) > 0
    assert not task.finds_objects or len(set(counts)) > 1  # so that tensors are padded


@EVERY
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_gives_the_same(
    stack: Stack, references: Mapping[str, list[Any]], task: Shipped, protocol: str
) -> None:
    for image, expected in zip(images_of(task), references[task.model], strict=True):
        (found,) = PROTOCOLS[protocol](stack, task, image)
        check_same(found, expected)


@EVERY
@pytest.mark.parametrize("protocol", BATCHES)
def test_a_batch_of_mixed_sizes_is_its_images(
    stack: Stack, references: Mapping[str, list[Any]], task: Shipped, protocol: str
) -> None:
    responses = BATCHES[protocol](stack, task, *images_of(task))
    for found, expected in zip(responses, references[task.model], strict=True):
        check_same(found, expected)


@EVERY_OF_OBJECTS
@pytest.mark.parametrize("count", [1, 2])
def test_nothing_on_an_image_is_an_empty_result(stack: Stack, task: Shipped, count: int) -> None:
    images = [PAPER] * count
    for send in BATCHES.values():
        for response in send(stack, task, *images):
            assert (response["predictions"], response["limits_reached"]) == ([], {})
            assert response["image"] == {"width": 300, "height": 200}
    tails: dict[str, tuple[int, ...]] = {"boxes": (4,), "scores": (), "class_ids": ()}
    tails |= {name: tail for name, (_, tail) in task.tensors.items()}
    for infer in V2.values():
        tensors = infer(stack, task, *images)
        assert {name: tensors[name][1].shape for name in tails} == {
            name: (count, 0, *tail) for name, tail in tails.items()
        }


def test_a_classifier_may_be_sure_of_nothing(stack: Stack) -> None:
    task = TASKS["classify"]
    (response,) = predict(stack, task, PAPER, confidence=1)
    assert response["predictions"] == []
    assert 0 < response["confidence"] < 1
    assert response["crop"] == {"x1": 50, "y1": 0, "x2": 250, "y2": 200}
    for infer in V2.values():
        tensors = infer(stack, task, PAPER, confidence=1)
        assert json.loads(tensors["predictions"][1][0])["predictions"] == []
        assert tensors["probabilities"][1].shape == (1, 10)


def objects(response: Any, wanted: Callable[[Any], bool] = lambda _: True) -> Any:
    """What was found, as far as it is wanted, without what is said about it."""
    return {"image": response["image"], "predictions": list(filter(wanted, response["predictions"]))}


@EVERY
def test_classes_and_confidence_leave_the_others_out(stack: Stack, task: Shipped) -> None:
    images = images_of(task)
    # A classifier gives five classes by default: the others may be among those that are requested.
    everything = predict(stack, task, *images, **({} if task.finds_objects else {"top_k": 10}))
    name = everything[0]["predictions"][0]["class"]
    filters: list[tuple[dict[str, Any], Callable[[Any], bool]]] = [
        ({"classes": name}, lambda each: each["class"] == name),
        ({"classes": f"{name},7"}, lambda each: each["class"] in {name, "7"}),
        ({"confidence": 0.6}, lambda each: each["confidence"] >= 0.6),
    ]
    for parameters, wanted in filters:
        expected = [objects(response, wanted) for response in everything]
        assert sum(len(each["predictions"]) for each in expected) > 0
        for found, kept in zip(predict(stack, task, *images, **parameters), expected, strict=True):
            check_same(objects(found), kept)


@EVERY
def test_the_best_ones_come_first_and_can_be_limited(
    stack: Stack, references: Mapping[str, list[Any]], task: Shipped
) -> None:
    limit = "max_detections" if task.finds_objects else "top_k"
    for send in BATCHES.values():
        responses = send(stack, task, *images_of(task), **{limit: 1})
        for found, expected in zip(responses, references[task.model], strict=True):
            scores = [each["confidence"] for each in expected["predictions"]]
            assert scores == sorted(scores, reverse=True)
            check_same(objects(found), {**objects(expected), "predictions": expected["predictions"][:1]})
            if task.finds_objects:
                assert found["limits_reached"] == ({limit: 1} if len(scores) > 1 else {})


def draw(stack: Stack, task: Shipped, image: bytes, **parameters: Any) -> Pixels:
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    response = stack.http.post(f"/predict/{task.model}", params=parameters, content=image, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png"), response.text
    return np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB"))


@EVERY
def test_what_was_found_is_drawn(stack: Stack, references: Mapping[str, list[Any]], task: Shipped) -> None:
    for image, response in zip(images_of(task), references[task.model], strict=True):
        original, drawn = np.asarray(Image.open(io.BytesIO(image))), draw(stack, task, image)
        # A classified image is enlarged where a label would not fit.
        factor = 1 if task.finds_objects else len(drawn) // len(original)
        changed = (drawn != original.repeat(factor, axis=0).repeat(factor, axis=1)).any(axis=2)
        for each in response["predictions"] if task.finds_objects else [{"box": response["crop"]}]:
            x1, y1, x2, y2 = (int(each["box"][side] * factor) for side in SIDES)
            assert changed[y1 : y2 + 1, x1 : x2 + 1].any()
    if task.finds_objects:
        assert np.array_equal(draw(stack, task, PAPER), np.asarray(Image.open(io.BytesIO(PAPER))))


@EVERY
def test_responses_are_as_described(stack: Stack, task: Shipped) -> None:
    document = ok(stack.http.get("/openapi.json"))
    validator = jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{task.schema}", **document})
    forms = [{"mask": form} for form in ("polygon", "rle", "none")] if "mask" in task.parameters else [{}]
    for form in forms:
        for response in predict(stack, task, *images_of(task), PAPER, **form):
            validator.validate(response)
    wrong = predict(stack, task, images_of(task)[0])[0]
    del wrong["predictions"][0]["class"]
    assert not validator.is_valid(wrong)


@EVERY
def test_metadata_names_each_tensor_of_a_response(stack: Stack, task: Shipped) -> None:
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{stack.http_port}") as client:
        outputs = client.get_model_metadata(task.model)["outputs"]
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{stack.grpc_port}") as client:
        over_grpc = client.get_model_metadata(task.model, as_json=True)["outputs"]
    assert [{**each, "shape": list(map(int, each["shape"]))} for each in over_grpc] == outputs
    described = {each["name"]: (each["datatype"], each["shape"]) for each in outputs}
    for name, (datatype, tail) in task.tensors.items():
        assert described[name] == (datatype, [-1, -1, *tail])
    for infer in V2.values():
        tensors = infer(stack, task, *images_of(task))
        assert list(tensors) == list(described)
        for name, (datatype, values) in tensors.items():
            assert datatype == described[name][0]
            assert len(values.shape) == len(described[name][1])
            assert all(said in {-1, dim} for said, dim in zip(described[name][1], values.shape, strict=True))


@EVERY_OF_OBJECTS
@pytest.mark.parametrize("classifier", ["digit-classes", "digits"])
def test_each_object_can_be_classified(stack: Stack, task: Shipped, classifier: str) -> None:
    scenes = [png(scene.image_hwc) for scene in compose("held-out", count=8, seed=44)]
    parameters = {"confidence": 0.5, "then": classifier}
    responses = predict(stack, task, *scenes, **parameters)
    found = [each for response in responses for each in response["predictions"]]
    tops = [each["classification"]["top"] for each in found]
    agree = [each["class"] == top for each, top in zip(found, tops, strict=True)]
    print(f"{task.model}, then {classifier}: {sum(agree)} of {len(agree)} agree")
    assert len(tops) > 20
    # Both networks are small and err; crops of other places, or in another order, agree in one of ten.
    assert sum(agree) / len(agree) > 0.6
    schema = {"$ref": f"#/components/schemas/{task.schema}", **ok(stack.http.get("/openapi.json"))}
    for response in responses:
        assert response["then"]["name"] == classifier
        jsonschema.Draft202012Validator(schema).validate(response)
    few = sum(len(response["predictions"]) for response in responses[:3])
    for infer in V2.values():
        _, ids = infer(stack, task, *scenes[:3], **parameters)["then_class_ids"]
        assert ids[ids >= 0].tolist() == list(map(int, tops[:few]))
