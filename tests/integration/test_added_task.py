"""A task in one file of its own is exported, served over every protocol, drawn and described by the unchanged code."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from export.errors import ExportError
from export.sources.task_graph import prepare
from export.writer.config import describe_model
from export.writer.manifest import Source
from export.writer.repository import Version, write_version
from tests.support.colour_task import COLOURS_TASK, Colours
from tests.support.transformer import Transformer, start_transformer
from tests.support.triton import start_triton
from transformer.tasks import TASKS, describe

SIDE = 32
NAMES = {0: "dark", 1: "red", 2: "blue"}
# Classes of a pixel: background, more red than blue, more blue than red.
WEIGHTS = np.array([[0, 0, 0], [1, 0, -1], [-1, 0, 1]], np.float32)
BIAS = np.array([40, 0, 0], np.float32)


def build_graph(weights: NDArray[np.float32] = WEIGHTS) -> onnx.ModelProto:
    """`image` UINT8 height x width x 3 to `class_map` UINT8 height x width."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["float", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["best"], axis=-1, keepdims=0),
        helper.make_node("Cast", ["best"], ["class_map"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("class_map", TensorProto.UINT8, ["batch", SIDE, SIDE])],
        [numpy_helper.from_array(weights.T.copy(), "weights"), numpy_helper.from_array(BIAS, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


CONFIG = describe_model(
    "regions",
    ("image", "TYPE_UINT8", (SIDE, SIDE, 3)),
    outputs=[("class_map", "TYPE_UINT8", (SIDE, SIDE))],
    max_batch_size=8,
    metadata={"task": "colours", "imgsz": [SIDE, SIDE], "names": NAMES, "ignored": [0]},
)


def halves(height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """Red on the left, blue on the right, a dark stripe below."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 200
    image[:, width // 2 :, 2] = 200
    image[height * 3 // 4 :] = 0
    return image


def predict(image: NDArray[np.uint8]) -> Colours:
    """The source program: of each pixel, in its own words."""
    red, blue = image[..., 0].astype(int), image[..., 2].astype(int)
    class_map = np.where(abs(red - blue) < 40, 0, np.where(red > blue, 1, 2)).astype(np.uint8)
    ratios = (np.bincount(class_map.reshape(-1), minlength=3) / class_map.size).astype(np.float32)
    return Colours(class_map, ratios)


def export(graph: onnx.ModelProto) -> Version:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, COLOURS_TASK.name, COLOURS_TASK)
        source = Source("regions.py", "0" * 64)
        return prepare(graph, CONFIG, predict=predict, items=[halves(), halves()[:, ::-1].copy()], source=source)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transformer]:
    folder = tmp_path_factory.mktemp("added")
    write_version(folder / "repository", export(build_graph()))
    with (
        start_triton(folder / "repository", folder / "triton.log") as triton,
        start_transformer(
            f"127.0.0.1:{triton.grpc_port}", folder / "transformer.log", module="tests.support.colour_task"
        ) as transformer,
    ):
        yield transformer


def png(image: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


IMAGE = halves(64, 96)  # is reduced, and padded above and below
RATIOS = {"red": 0.375, "blue": 0.375}


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def shares(response: Any) -> dict[str, float]:
    return {region["class"]: round(region["pixel_ratio"], 1) for region in response["predictions"]}


EXPECTED = {name: round(ratio, 1) for name, ratio in RATIOS.items()}


def test_predict_serves_an_added_task(server: Transformer) -> None:
    response = ok(server.http.post("/predict/regions", files={"image": png(IMAGE)}))
    assert (shares(response), response["mask_size"], response["model"]["task"]) == (EXPECTED, [64, 96], "colours")


def test_v1_serves_an_added_task(server: Transformer) -> None:
    headers = {"Content-Type": "image/png"}
    response = ok(server.http.post("/v1/models/regions:predict", content=png(IMAGE), headers=headers))
    assert [shares(each) for each in response["predictions"]] == [EXPECTED]


@pytest.mark.parametrize(
    ("library", "form"),
    [
        (tritonclient.http, {"binary_data": True}),
        (tritonclient.http, {"binary_data": False}),
        (tritonclient.grpc, {}),
    ],
)
def test_v2_serves_an_added_task_over_both_transports(server: Transformer, library: Any, form: dict[str, bool]) -> None:
    port = server.http_port if library is tritonclient.http else server.grpc_port
    tensor = library.InferInput("image", [2], "BYTES")
    images = np.array([png(IMAGE), png(halves())], np.object_)
    outputs = [library.InferRequestedOutput(name, **form) for name in ("class_map", "pixel_ratios", "predictions")]
    tensor.set_data_from_numpy(images)
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        result = client.infer("regions", [tensor], outputs=outputs, parameters={"min_ratio": 0.1})
    maps = result.as_numpy("class_map")
    assert maps.shape == (2, 64, 96)
    assert (maps[0, 10, 10], maps[0, 10, 80], maps[0, 60, 10]) == (1, 2, 0)
    assert (maps[1, 32:] == 255).all()  # the second is smaller
    np.testing.assert_allclose(result.as_numpy("pixel_ratios")[1], [0, 0.375, 0.375])


def test_v2_serves_an_added_task_in_json(server: Transformer) -> None:
    data = [base64.b64encode(png(IMAGE)).decode()]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": data}
    response = ok(server.http.post("/v2/models/regions/infer", json={"inputs": [tensor]}))
    outputs = {output["name"]: output for output in response["outputs"]}
    assert shares(json.loads(outputs["predictions"]["data"][0])) == EXPECTED
    assert outputs["class_map"]["shape"] == [1, 64, 96]


def test_parameters_of_an_added_task_are_read_from_every_place(server: Transformer) -> None:
    files = {"image": png(IMAGE)}
    only = {"red": EXPECTED["red"]}
    assert shares(ok(server.http.post("/predict/regions", files=files, params={"classes": "red"}))) == only
    assert shares(ok(server.http.post("/predict/regions", files=files, data={"classes": "red"}))) == only
    nothing = ok(server.http.post("/predict/regions", files=files, params={"min_ratio": 0.9}))
    assert nothing["predictions"] == []
    other = server.http.post("/predict/regions", files=files, params={"confidence": 0.5})
    assert (other.status_code, other.json()["code"]) == (400, "invalid_request")


def test_added_task_is_drawn(server: Transformer) -> None:
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    response = server.http.post("/predict/regions", content=png(IMAGE), headers=headers).raise_for_status()
    drawn = np.asarray(Image.open(io.BytesIO(response.content)))
    assert drawn.shape == IMAGE.shape
    assert len({tuple(drawn[10, 10]), tuple(drawn[10, 80]), tuple(drawn[60, 10])}) == 3


def test_added_task_is_described(server: Transformer) -> None:
    document = ok(server.http.get("/openapi.json"))
    schema = {"$ref": "#/components/schemas/Colours", **document}
    response = ok(server.http.post("/predict/regions", files={"image": png(IMAGE)}))
    jsonschema.Draft202012Validator(schema).validate(response)
    operation = document["paths"]["/predict/{model}"]["post"]
    assert {"min_ratio", "classes", "confidence"} <= {each["name"] for each in operation["parameters"]}
    metadata = ok(server.http.get("/v2/models/regions"))
    assert [each["name"] for each in metadata["outputs"]] == ["predictions", "pixel_ratios", "class_map"]
    assert (metadata["parameters"]["task"], metadata["parameters"]["ignored"]) == ("colours", [0])


def test_metrics_count_an_added_task_without_objects(server: Transformer) -> None:
    ok(server.http.post("/predict/regions", files={"image": png(IMAGE)}))
    lines = server.http.get("/metrics").text.splitlines()
    assert any(line.startswith('nereid_items_total{model="regions"') for line in lines)
    assert 'nereid_detections_count{model="regions"} 0.0' in lines


def test_graph_that_differs_from_its_source_is_not_exported() -> None:
    with pytest.raises(ExportError, match=r"pixels_apart: .* expected at most 0.001"):
        export(build_graph(WEIGHTS[[0, 2, 1]]))


def test_export_writes_parity_and_golden_tensors(tmp_path: Path) -> None:
    folder = write_version(tmp_path, export(build_graph()))
    assert '"pixels_apart": 0.0' in (folder / "parity.json").read_text()
    assert (folder / "golden.npz").exists()


def test_model_without_the_task_of_its_config_is_an_error() -> None:
    with pytest.raises(Exception, match=r"task in parameters\.metadata: got 'colours'"):
        describe(CONFIG, version="1")
