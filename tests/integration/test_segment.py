"""A segmenter is exported, served over every protocol, drawn, described and read by supervision."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
import supervision as sv
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from PIL import Image

from export.sources.task_graph import prepare
from export.writer.manifest import Source
from export.writer.repository import write_version
from tests.support.segmenter import CONFIG, build_segmenter, decode, draw_shapes, segment
from tests.support.transformer import Transformer, start_transformer
from tests.support.triton import start_triton

# supervision decodes RLE with what was written for NumPy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def png(image: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


IMAGE = draw_shapes()
PNG, BLACK = png(IMAGE), png(np.zeros_like(IMAGE))
EXPECTED = segment(IMAGE)
RLES = [mask.rle() for mask in EXPECTED.masks]
BITS = [decode(mask) for mask in EXPECTED.masks]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transformer]:
    folder = tmp_path_factory.mktemp("segment")
    version = prepare(
        build_segmenter(), CONFIG, predict=segment, items=[IMAGE, IMAGE[:, ::-1].copy()],
        source=Source("shapes.py", "0" * 64),
    )  # fmt: skip
    parity = json.loads(
        (write_version(folder / "repository", replace(version, interface="fused")) / "parity.json").read_bytes()
    )
    assert parity["mask_iou"] == 0
    with (
        start_triton(folder / "repository", folder / "triton.log") as triton,
        start_transformer(f"127.0.0.1:{triton.grpc_port}", folder / "transformer.log") as transformer,
    ):
        yield transformer


def predict(server: Transformer, **query: Any) -> Any:
    response = server.http.post("/predict/shapes", files={"image": PNG}, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_objects_have_their_masks_in_the_wanted_form(server: Transformer) -> None:
    by_rle = predict(server, mask="rle")["predictions"]
    assert [each["rle"] for each in by_rle] == RLES
    by_outline = predict(server)["predictions"]
    assert [(each["class"], len(each["points"]) >= 3) for each in by_outline] == [("red", True), ("blue", True)]
    assert [len(each.get("parts", [])) for each in by_outline] == [2, 0]
    assert by_outline[0]["parts"][0] == by_outline[0]["points"]
    bare = predict(server, mask="none")["predictions"]
    assert [each["confidence"] for each in bare] == [0.9, 0.8, 0.7]  # the last one has an empty mask
    assert not {key for each in bare for key in each} & {"points", "rle", "mask_format"}


@pytest.mark.parametrize("form", ["polygon", "rle"])
def test_supervision_reads_masks(server: Transformer, form: str) -> None:
    detections = sv.Detections.from_inference(predict(server, mask=form))
    assert detections.mask is not None
    red, blue = detections.mask
    assert np.array_equal(blue, BITS[1])
    # An outline is that of the largest part alone.
    assert np.array_equal(red[:34], BITS[0][:34])
    assert red[34:].any() == (form == "rle")


def test_v1_gives_masks(server: Transformer) -> None:
    instance = {"image": {"b64": base64.b64encode(PNG).decode()}}
    body = {"instances": [instance], "parameters": {"mask": "rle"}}
    response = server.http.post("/v1/models/shapes:predict", json=body).raise_for_status().json()
    assert [each["rle"] for each in response["predictions"][0]["predictions"]] == RLES


@pytest.mark.parametrize(
    ("library", "form"),
    [(tritonclient.http, {"binary_data": True}), (tritonclient.http, {"binary_data": False}), (tritonclient.grpc, {})],
)
def test_v2_gives_masks_over_both_transports(server: Transformer, library: Any, form: dict[str, bool]) -> None:
    port = server.http_port if library is tritonclient.http else server.grpc_port
    tensor = library.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([BLACK, PNG], np.object_))
    outputs = [library.InferRequestedOutput(name, **form) for name in ("masks", "num_detections", "boxes")]
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        result = client.infer("shapes", [tensor], outputs=outputs)
    masks = result.as_numpy("masks")
    texts = [mask.encode() if isinstance(mask, str) else mask for mask in masks.reshape(-1).tolist()]
    assert masks.shape == (2, 2)
    assert (result.as_numpy("num_detections").tolist(), texts[:2]) == ([0, 2], [b"", b""])
    assert [json.loads(text) for text in texts[2:]] == RLES


def test_masks_are_drawn(server: Transformer) -> None:
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    response = server.http.post("/predict/shapes", content=PNG, headers=headers).raise_for_status()
    drawn = np.asarray(Image.open(io.BytesIO(response.content)))
    assert drawn.shape == IMAGE.shape
    assert (drawn[BITS[1]] != IMAGE[BITS[1]]).any(axis=1).all()


def test_segmenter_is_described(server: Transformer) -> None:
    document = server.http.get("/openapi.json").raise_for_status().json()
    schema = {"$ref": "#/components/schemas/Segments", **document}
    for form in ("polygon", "rle", "none"):
        jsonschema.Draft202012Validator(schema).validate(predict(server, mask=form))
    parameters = {each["name"]: each for each in document["paths"]["/predict/{model}"]["post"]["parameters"]}
    assert parameters["mask"]["schema"]["enum"] == ["polygon", "rle", "none"]
    metadata = server.http.get("/v2/models/shapes").raise_for_status().json()
    assert [(each["name"], each["datatype"], each["shape"]) for each in metadata["outputs"]][-1] == (
        "masks", "BYTES", [-1, -1],
    )  # fmt: skip


def test_wrong_form_of_masks_is_the_clients_error(server: Transformer) -> None:
    response: httpx.Response = server.http.post("/predict/shapes", files={"image": PNG}, params={"mask": "outline"})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert "parameter 'mask': got 'outline', expected one of polygon, rle, none" in response.json()["error"]
