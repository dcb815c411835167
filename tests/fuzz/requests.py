"""Requests of every protocol to the shipped models: with mutated bodies, or whole ones with any parameters."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from tritonclient.grpc.service_pb2 import ModelInferRequest

from tests.fuzz.inputs import IMAGES, V1, form, images, mutated, v2
from tests.fuzz.parameters import MODELS, Parameters, parameters, query
from tests.support.stack import ROOT

FORM = {"Content-Type": "multipart/form-data; boundary=XX"}
_DRAWN = [(ROOT / "loadtest" / "pictures" / name).read_bytes() for name in ("digits.jpg", "tilted-digits.jpg")]
_WHOLE = [*IMAGES, *_DRAWN * 5]


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        kind: the protocol and its form.
        model: that it names.
        path: of HTTP.
        body: of HTTP, or a serialised message of gRPC.
        headers: of HTTP.
        given: its parameters, by which the response is checked; None where they may be mutated.
    """

    kind: str
    model: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    given: Parameters | None = None


def _whole() -> st.SearchStrategy[bytes]:
    return st.sampled_from(_WHOLE)


@st.composite
def _raw(draw: st.DrawFn) -> Request:
    model = draw(st.sampled_from(MODELS))
    given = draw(parameters(model))
    body = draw(images() | _whole())
    return Request("image", model, f"/predict/{model}{query(given)}", body, {"Content-Type": "image/png"}, given)


@st.composite
def _multipart(draw: st.DrawFn) -> Request:
    model = draw(st.sampled_from(MODELS))
    given = draw(parameters(model))
    whole = st.lists(st.sampled_from(IMAGES), min_size=1, max_size=2).map(lambda parts: form(*parts))
    body, is_whole = draw(
        st.one_of(mutated(whole).map(lambda body: (body, False)), whole.map(lambda body: (body, True)))
    )
    known = given if is_whole else None  # a mutated form may have fields of its own
    return Request("multipart", model, f"/predict/{model}{query(given)}", body, FORM, known)


@st.composite
def _v1(draw: st.DrawFn) -> Request:
    model = draw(st.sampled_from(MODELS))
    path = f"/v1/models/{model}:predict"
    if draw(st.booleans()):
        return Request("v1", model, path + query(draw(parameters(model))), draw(mutated(st.sampled_from(V1))), {})
    given = draw(parameters(model))
    instances = [
        {"b64": base64.b64encode(image).decode()} for image in draw(st.lists(_whole(), min_size=1, max_size=2))
    ]
    return Request("v1", model, path, json.dumps({"instances": instances, "parameters": given}).encode(), {}, given)


_ROWS = [
    v2("features", "FP32", [1, 4], bytes(16)),
    v2("features", "FP32", [1, 4], bytes(16), outputs=[{"name": "class_id"}], id="a"),
]
_OUTPUTS = ["masks", "keypoints", "rotated_boxes", "then_scores", "boxes", "probabilities", "detections", "predictions"]


@st.composite
def _v2(draw: st.DrawFn) -> Request:
    model = draw(st.sampled_from([*MODELS, "iris"]))
    given: Parameters | None = {}
    if model == "iris":
        (head, blob), given = draw(st.sampled_from(_ROWS)), None
    else:
        given = draw(parameters(model))
        outputs = [{"name": name} for name in draw(st.lists(st.sampled_from(_OUTPUTS), max_size=1))]
        elements = [_element(image) for image in draw(st.lists(_whole(), min_size=1, max_size=2))]
        more: dict[str, Any] = {"parameters": given, **({"outputs": outputs} if outputs else {})}
        head, blob = v2("image", "BYTES", [len(elements)], b"".join(elements), **more)
    broken = draw(st.sampled_from(["head", "blob", "length", "", "", ""]))
    if broken == "head":
        head = draw(mutated(st.just(head)))
    elif broken == "blob":
        blob = draw(mutated(st.just(blob)))
    length = draw(st.integers(-1, len(head) + len(blob) + 1)) if broken == "length" else len(head)
    headers = {"Inference-Header-Content-Length": str(length)}
    known = None if broken else given
    return Request("v2 binary", model, f"/v2/models/{model}/infer", head + blob, headers, known)


@st.composite
def _grpc(draw: st.DrawFn) -> Request:
    model = draw(st.sampled_from(MODELS))
    given = draw(parameters(model))
    message = ModelInferRequest(model_name=model)
    elements = [_element(image) for image in draw(st.lists(_whole(), min_size=1, max_size=2))]
    message.inputs.add(name="image", datatype="BYTES", shape=[len(elements)])
    message.raw_input_contents.append(b"".join(elements))
    for name, value in given.items():
        parameter = message.parameters[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int) and abs(value) < 2**63:
            parameter.int64_param = value
        elif isinstance(value, float):
            parameter.double_param = value
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            parameter.string_param = text.encode("utf-8", "replace").decode()
    body = message.SerializeToString()
    if draw(st.integers(0, 2)):
        return Request("grpc", model, "", body, {}, given)
    return Request("grpc", model, "", draw(mutated(st.just(body))), {})


def _element(image: bytes) -> bytes:
    return len(image).to_bytes(4, "little") + image


REQUESTS = st.one_of(_raw(), _multipart(), _v1(), _v2(), _grpc())
