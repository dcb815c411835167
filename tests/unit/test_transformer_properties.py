"""Properties of any input: decoders return a result or reject it, arrays are as their definition says."""

import base64
import gzip
import io
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc import service_pb2

from tests.fuzz.inputs import images, mutated
from tests.support.described import CLASSIFIER, DETECTOR, FUSED, TABLE
from tests.support.multipart import FORM, form
from transformer.admission import Deadline
from transformer.errors import InvalidRequest, ServingError, excerpt
from transformer.grpc.message_limits import check_message
from transformer.grpc.v2_codec import read_request
from transformer.grpc.v2_codec import write_response as write_message
from transformer.imaging.decoding import decode
from transformer.imaging.letterbox import fit, letterbox, unletterbox
from transformer.imaging.nms import cxcywh_to_xyxy, nms
from transformer.protocol.v2_messages import InferResponse
from transformer.rest.body import decompress, read_instances, read_items
from transformer.rest.multipart import read_parts
from transformer.rest.v2_codec import Document, read_document, read_header_length, write_response
from transformer.tasks.classify import fill
from transformer.tasks.detect import DETECT
from transformer.tasks.detection_options import Selection
from transformer.tasks.tabular import TABULAR
from transformer.triton.tensors import DTYPES, Tensor, check, from_array, from_elements, to_array, to_elements

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)

SIDES = st.integers(1, 9000)
SIZES = st.tuples(SIDES, SIDES)
# Of models: multiples of every stride.
TARGETS = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda tiles: (tiles[0] * 64, tiles[1] * 64))
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def result_of(function: Callable[[], Any]) -> Any:
    """What the function returns; None where it rejects its input with a 4xx status."""
    error: ServingError
    try:
        return function()
    except ServingError as exc:
        error = exc
    assert error.status < 500
    assert str(error)
    return None


def passes(check_: Callable[[], None]) -> bool:
    """Whether the check rejects nothing."""
    return result_of(lambda: (check_(), True)) is not None  # type: ignore[func-returns-value]


# Images


@settings(max_examples=300)
@given(images(), st.sampled_from([None, (1, 1), (20, 20)]))
def test_decode_returns_an_image_or_rejects_the_bytes(data: bytes, enough_wh: tuple[int, int] | None) -> None:
    decoded = result_of(
        lambda: decode(
            data, max_bytes=2**20, max_pixels=2**20, smallest_wh=(lambda _: enough_wh or (1, 1)) if enough_wh else None
        )
    )
    if decoded is not None:
        image = decoded.image_hwc
        assert (image.ndim, image.shape[2], image.dtype, image.flags.c_contiguous) == (3, 3, np.uint8, True)
        assert 0 < decoded.size_wh[0] * decoded.size_wh[1] <= 2**20
        assert decoded.is_whole or enough_wh


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_lossless_images_are_decoded_unchanged(image_hwc: NDArray[np.uint8]) -> None:
    for name, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        buffer = io.BytesIO()
        Image.fromarray(image_hwc).save(buffer, name, **options)
        np.testing.assert_array_equal(decode(buffer.getvalue(), max_bytes=2**20, max_pixels=2**20).image_hwc, image_hwc)


# Arrays


@given(SIZES, TARGETS, st.sampled_from([None, 8, 32, 64]))
def test_letterbox_contains_the_whole_image(
    image_wh: tuple[int, int], target_wh: tuple[int, int], stride: int | None
) -> None:
    plan = fit(image_wh, target_wh, stride=stride)
    for side in (0, 1):
        left, right = plan.pad_xy[side], plan.input_wh[side] - plan.resized_wh[side] - plan.pad_xy[side]
        assert min(left, right) >= 0
        assert abs(left - right) <= 1
        assert plan.resized_wh[side] >= 1
        assert plan.input_wh[side] % stride == 0 if stride else plan.input_wh == target_wh
    corners = np.array([[0, 0, *image_wh]], np.float32)
    scale = np.array(plan.resized_wh * 2, np.float32) / np.array(image_wh * 2, np.float32)
    inside = (corners * scale + np.array(plan.pad_xy * 2, np.float32)).astype(np.float32)
    np.testing.assert_allclose(unletterbox(inside, plan), corners, rtol=1e-4, atol=1e-2)


@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.sampled_from([None, 32]))
def test_letterbox_has_the_size_it_plans(image_wh: tuple[int, int], stride: int | None) -> None:
    plan = fit(image_wh, (64, 96), stride=stride)
    boxed = letterbox(np.zeros((image_wh[1], image_wh[0], 3), np.uint8), plan)
    assert boxed.shape == (plan.input_wh[1], plan.input_wh[0], 3)
    left, top = plan.pad_xy
    assert not boxed[top : top + plan.resized_wh[1], left : left + plan.resized_wh[0]].any()


FLOATS = st.floats(-1e4, 1e4, width=32)


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(4)), elements=FLOATS), SIZES)
def test_boxes_end_inside_the_image(boxes: NDArray[np.float32], image_wh: tuple[int, int]) -> None:
    plan = fit(image_wh, (640, 640), stride=32)
    result = unletterbox(boxes, plan)
    assert result.shape == boxes.shape
    assert (result >= 0).all()
    assert (result <= np.array(image_wh * 2, np.float32)).all()


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(4)), elements=FLOATS))
def test_corners_are_half_a_size_from_the_centre(boxes: NDArray[np.float32]) -> None:
    corners = cxcywh_to_xyxy(boxes)
    np.testing.assert_allclose(corners[:, 2:] - corners[:, :2], boxes[:, 2:], atol=0.01)
    np.testing.assert_allclose((corners[:, 2:] + corners[:, :2]) / 2, boxes[:, :2], atol=0.01)


def plain_suppress(boxes: NDArray[Any], scores: NDArray[Any], class_ids: NDArray[Any], iou: float) -> list[int]:
    """Non-maximum suppression: best first; a box that overlaps a better one of its class is dropped."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        x1, y1, x2, y2 = (int(value) for value in boxes[index])
        for other in kept:
            u1, v1, u2, v2 = (int(value) for value in boxes[other])
            common = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
            union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - common
            if class_ids[other] == class_ids[index] and common > iou * union:
                break
        else:
            kept.append(int(index))
    return kept


@st.composite
def candidates(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Boxes with whole corners (exact in FP32 at any class), scores that differ, classes."""
    corner, size, count = st.integers(0, 60), st.integers(1, 40), draw(st.integers(0, 12))
    rows = draw(st.lists(st.tuples(corner, corner, size, size), min_size=count, max_size=count))
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32).reshape(-1, 4)
    order = draw(st.permutations(range(count)))
    ids = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    return boxes, (np.array(order, np.float32) + 1) / np.float32(16), np.array(ids, np.int64)


# Halfway between what overlaps of such boxes can be, so that no rounding decides.
@given(candidates(), st.sampled_from([0.30001, 0.50001, 0.70001]), st.integers(1, 12))
def test_nms_agrees_with_its_definition(found: Any, iou: float, most: int) -> None:
    boxes, scores, class_ids = found
    result = nms(boxes, scores, class_ids=class_ids, iou=iou, max_detections=most)
    assert result.tolist() == plain_suppress(boxes, scores, class_ids, iou)[:most]


@given(st.integers(0, 20), st.data())
def test_any_outputs_of_a_detector_give_boxes_inside_the_image(count: int, data: st.DataObject) -> None:
    outputs: dict[str, NDArray[Any]] = {
        "boxes": data.draw(arrays.arrays(np.float32, (count, 4), elements=FLOATS)),
        "scores": data.draw(arrays.arrays(np.float32, count, elements=st.floats(0, 1, width=32))),
        "classes": data.draw(arrays.arrays(np.int32, count, elements=st.integers(0, 1))),
    }
    plan = fit((100, 50), (64, 64), stride=32)
    found = DETECT.postprocess(outputs, FUSED, plan=plan, options=Selection())
    assert len(found.boxes_xyxy) == len(found.scores) == len(found.class_ids) <= min(count, 300)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores > 0.25).all()
    assert ((found.boxes_xyxy >= 0) & (found.boxes_xyxy <= (100, 50, 100, 50))).all()


@given(st.tuples(st.integers(1, 200), st.integers(1, 200), st.just(3)), st.integers(0, 255))
def test_image_of_one_colour_keeps_it_for_a_classifier(shape: tuple[int, int, int], value: int) -> None:
    assert (fill(np.full(shape, value, np.uint8), CLASSIFIER) == value).all()


@given(st.lists(JSON, max_size=4))
def test_any_rows_are_read_as_numbers_or_rejected(rows: list[Any]) -> None:
    table = result_of(lambda: TABULAR.preprocess(rows, TABLE))
    if table is not None:
        assert table["features"].shape == (len(rows), 2)
        assert np.isfinite(table["features"]).all()


@given(arrays.arrays(st.sampled_from([np.float32, np.float64]), SHAPES))
def test_any_table_is_finite_or_rejected(rows: NDArray[Any]) -> None:
    if rows.ndim:
        table = result_of(lambda: TABULAR.preprocess(rows, TABLE))
        if table is not None:
            assert np.isfinite(table["features"]).all()
            assert table["features"].shape == rows.shape


# Tensors


@given(st.sampled_from(sorted(DTYPES)).flatmap(lambda name: arrays.arrays(DTYPES[name], SHAPES)))
def test_numbers_survive_every_wire(array: NDArray[Any]) -> None:
    tensor = from_array("x", array)
    check(tensor)
    np.testing.assert_array_equal(to_array(tensor), array)
    response = InferResponse("m", "1", [tensor])
    body, length = write_response(response, Document(binary=True))
    assert length is not None
    head = json.loads(body[:length])
    head["inputs"] = head.pop("outputs")
    text = json.dumps(head).encode()
    (read,) = read_document(text + body[length:], len(text)).inputs
    assert read == tensor
    message = service_pb2.ModelInferRequest(raw_input_contents=[tensor.data])
    message.inputs.add(name="x", datatype=tensor.datatype, shape=tensor.shape)
    assert read_request(message, Deadline.after(1)).inputs == [tensor]
    written = write_message(response, message)
    assert list(written.raw_output_contents) == [tensor.data]


@given(st.sampled_from(sorted(set(DTYPES) - {"FP16"})).flatmap(lambda name: arrays.arrays(DTYPES[name], SHAPES)))
def test_finite_numbers_survive_json_and_typed_contents(array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return
    tensor = from_array("x", array)
    response = InferResponse("m", "1", [tensor])
    body, length = write_response(response, Document())
    assert length is None
    head = json.loads(body)
    head["inputs"] = head.pop("outputs")
    text = json.dumps(head).encode()
    assert to_array(read_document(text, len(text)).inputs[0]).tolist() == array.tolist()
    typed = write_message(response, service_pb2.ModelInferRequest())
    request = service_pb2.ModelInferRequest()
    request.inputs.add(name="x", datatype=tensor.datatype, shape=tensor.shape, contents=typed.outputs[0].contents)
    assert read_request(request, Deadline.after(1)).inputs == [tensor]


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_bytes_elements_are_read_as_they_were_written(elements: list[bytes]) -> None:
    tensor = from_elements("x", elements)
    check(tensor)
    assert to_elements(tensor) == elements


@given(
    st.sampled_from([*sorted(DTYPES), "BYTES", "BF16", "STRING", ""]),
    st.lists(st.integers(-2, 4) | st.sampled_from([2**31, 2**62, 2**63, 2**64, -(2**63)]), max_size=5),
    st.binary(max_size=64),
)
def test_tensor_that_passes_the_check_has_its_datatype_and_shape(datatype: str, shape: list[int], data: bytes) -> None:
    tensor = Tensor("x", datatype, tuple(shape), data)
    if passes(lambda: check(tensor)):
        assert math.prod(shape) >= 0
        if datatype == "BYTES":
            assert len(to_elements(tensor)) == math.prod(shape)
        elif datatype in DTYPES:
            assert to_array(tensor).nbytes == len(data)


# Bodies


@given(JSON, st.binary(max_size=20), st.none() | st.text(max_size=6) | st.integers(-5, 400).map(str))
def test_any_document_is_read_or_rejected(document: Any, blob: bytes, length: str | None) -> None:
    body = orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS) + blob
    result_of(lambda: read_document(body, read_header_length(length, body)))


ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=4) | JSON,
        "datatype": st.sampled_from([*sorted(DTYPES), "BYTES", "BF16"]) | JSON,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | JSON,
        "data": st.lists(JSON, max_size=5),
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 40) | JSON}) | JSON,
    },
)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(ENTRIES, max_size=3)}, optional={"outputs": JSON, "parameters": JSON, "id": JSON}
    ),
    st.binary(max_size=40),
)
def test_almost_valid_documents_are_read_or_rejected(document: Any, blob: bytes) -> None:
    text = orjson.dumps(document)
    read = result_of(lambda: read_document(text + blob, len(text)))
    if read is not None:
        for tensor in read.inputs:
            passes(partial(check, tensor))


LATIN_1 = st.characters(max_codepoint=255)  # as headers come
CONTENT_TYPES = st.sampled_from(["application/json", "image/png", "multipart/form-data", FORM, ""]) | st.text(
    LATIN_1, max_size=60
)


@given(JSON.map(orjson.dumps) | st.binary(max_size=60), CONTENT_TYPES)
def test_any_body_is_read_or_rejected(body: bytes, content_type: str) -> None:
    for takes in (True, False):
        items = result_of(partial(read_items, body, content_type, max_items=8, images=takes, max_bytes=99))
        assert items is None or bool(items.images) != bool(items.rows)
        result_of(partial(read_instances, body, content_type, images=takes, max_bytes=99))


@given(st.lists(st.tuples(st.text("abc ", max_size=5), st.binary(max_size=60)), min_size=1, max_size=4))
def test_parts_of_a_form_are_read_as_they_were_written(parts: list[tuple[str, bytes]]) -> None:
    if not any(b"--XX" in data for _, data in parts):
        assert read_parts(form(*parts), FORM, max_parts=4) == [(*part, True) for part in parts]


@given(mutated(st.sampled_from([form(("image", b"1")), form(("image", bytes(99)), ("b", b"--XX"))])), CONTENT_TYPES)
def test_broken_forms_are_read_or_rejected(body: bytes, content_type: str) -> None:
    for header in (FORM, content_type):
        result_of(partial(read_parts, body, header, max_parts=3))


def instance(text: str) -> bytes:
    body = orjson.dumps({"instances": [{"image": {"b64": text}}]})
    (image,) = read_instances(body, "application/json", images=True, max_bytes=2**20).images
    return image


@given(st.binary(min_size=1, max_size=200))
def test_base64_is_read_in_every_form_and_invalid_base64_is_rejected(data: bytes) -> None:
    text, lines = base64.b64encode(data).decode(), base64.encodebytes(data).decode()
    in_url = base64.urlsafe_b64encode(data).decode()
    forms = (text, lines, lines.replace("\n", "\r\n"), in_url, text.rstrip("="), in_url.rstrip("="), f" {text}\n")
    uris = (*forms[:-1], quote(text, safe=""), quote(text, safe="").replace("%2F", "%2f"))
    for form_ in (*forms, *(f"data:image/png;base64,{form_}" for form_ in uris)):
        assert instance(form_) == data
    for broken in (
        f"{text[:1]} {text[1:]}",
        text + "\u00e9",
        f"{text[:1]}={text[1:]}",
        f"data:text/plain;base64,{text}",
        f"data:image/png;base64,{text[:1]}%41{text[1:]}",
    ):
        with pytest.raises(InvalidRequest, match=r"broken base64|data URI"):
            instance(broken)


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=3), st.integers(0, 300))
def test_gzip_is_decompressed_up_to_the_limit(members: list[bytes], limit: int) -> None:
    packed, whole = b"".join(gzip.compress(data) for data in members), b"".join(members)
    if len(whole) <= limit:
        assert b"".join(decompress(packed, max_bytes=limit)) == whole
    else:
        assert result_of(lambda: b"".join(decompress(packed, max_bytes=limit))) is None


@given(mutated(st.binary(max_size=60).map(gzip.compress)))
def test_broken_gzip_is_decompressed_or_rejected(data: bytes) -> None:
    result_of(lambda: b"".join(decompress(data, max_bytes=1000)))


# Parameters, messages


@given(st.dictionaries(st.sampled_from(["confidence", "iou", "max_detections", "classes", "other"]), JSON))
def test_any_parameters_are_read_or_rejected(parameters: dict[str, Any]) -> None:
    selection = result_of(lambda: DETECT.read_options(parameters, DETECTOR))
    if selection is not None:
        assert 0 <= selection.confidence <= 1
        assert 0 <= selection.iou <= 1
        assert 1 <= selection.max_detections <= 1000
        assert selection.class_ids is None or selection.class_ids <= {0, 1, 2}


@pytest.mark.parametrize("name", ["confidence", "iou", "max_detections", "classes"])
def test_deeply_nested_parameters_are_rejected(name: str) -> None:
    deep = orjson.loads(b"[" * 1000 + b"]" * 1000)
    with pytest.raises(InvalidRequest, match="parameter"):
        DETECT.read_options({name: deep}, DETECTOR)
    with pytest.raises(InvalidRequest, match=r"column 1: got \[\[\["):
        TABULAR.preprocess([[1, deep]], TABLE)


@given(JSON)
def test_excerpt_is_short(value: Any) -> None:
    assert len(excerpt(value)) <= 600


@settings(max_examples=300)
@given(
    mutated(
        st.builds(
            lambda name, data, shape: service_pb2.ModelInferRequest(
                model_name=name,
                raw_input_contents=data,
                inputs=[service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=shape)],
            ).SerializeToString(),
            st.text(max_size=5),
            st.lists(st.binary(max_size=9), max_size=2),
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        )
    )
)
def test_message_that_protobuf_parses_is_read_or_rejected(data: bytes) -> None:
    passed = passes(lambda: check_message(data, service_pb2.ModelInferRequest.DESCRIPTOR))
    try:
        message = service_pb2.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    if passed:
        request = result_of(lambda: read_request(message, Deadline.after(1)))
        for tensor in request.inputs if request else ():
            passes(partial(check, tensor))


@given(st.text(max_size=60) | st.text("AQg=-_+/\r\n ", max_size=12))
def test_text_is_valid_base64_or_rejected(text: str) -> None:
    image = result_of(lambda: instance(text))
    if image is not None:
        alphabet = text.strip().replace("-", "+").replace("_", "/").replace("\r", "").replace("\n", "").rstrip("=")
        assert base64.b64encode(image).decode().rstrip("=")[:-1] == alphabet[:-1]
