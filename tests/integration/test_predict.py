"""`/predict`, v1 and v2 of the running stack over the shipped models: correct responses."""

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

import cv2
import httpx
import jsonschema
import numpy as np
import pytest
import tritonclient.http
from PIL import Image

from export.__main__ import main as export
from export.examples.scenes import compose, load_split
from export.proof.average_precision import mean_average_precision
from tests.reference.detections import compare, read_reference
from tests.reference.scenes import SCENES, cut_scene
from tests.support.stack import ROOT, Stack, start_stack
from tests.support.tolerances import SCORE, same_detections

IMAGES = ROOT / "loadtest" / "pictures"
DIGITS = (IMAGES / "digits.jpg").read_bytes()
SEVEN = (IMAGES / "seven.png").read_bytes()
VIRGINICA = [6.3, 3.3, 6.0, 2.5]
FOUR_WAYS = [(interface, letterbox) for interface in ("fused", "ultralytics") for letterbox in ("rectangle", "square")]
IRIS_NAMES = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def rows_of(response: dict[str, Any]) -> list[list[float]]:
    return [
        [p["box"]["x1"], p["box"]["y1"], p["box"]["x2"], p["box"]["y2"], p["confidence"], p["class_id"]]
        for p in response["predictions"]
    ]


@pytest.fixture(scope="module")
def validators(stack: Stack) -> dict[str, jsonschema.Draft202012Validator]:
    """A validator for each schema of the served OpenAPI document."""
    document = ok(stack.http.get("/openapi.json"))
    return {
        name: jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", **document})
        for name in document["components"]["schemas"]
    }


@pytest.fixture(scope="module")
def four_ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack over digit-finder in both interfaces and both letterboxes."""
    repository = tmp_path_factory.mktemp("four-ways")
    for interface, letterbox in FOUR_WAYS:
        options = ["--interface", interface, "--letterbox", letterbox, "--repository", str(repository)]
        weights = str(ROOT / "export" / "weights" / "digit-finder.onnx")
        assert export(["ultralytics", f"df-{interface}-{letterbox}", weights, *options]) == 0
    with start_stack(repository, tmp_path_factory.mktemp("four-ways-log") / "log") as running:
        yield running


@pytest.mark.parametrize(("interface", "letterbox"), FOUR_WAYS)
def test_detections_are_those_of_ultralytics(four_ways: Stack, interface: str, letterbox: str) -> None:
    expected = read_reference(f"digit-finder-{letterbox}")
    images = {f"cut-{name}": cut_scene(image, int(name)) for name, image in scenes().items()}
    differences = {}
    for name, image in images.items():
        response = ok(four_ways.http.post(f"/predict/df-{interface}-{letterbox}", files={"image": png(image)}))
        differences[name] = compare(rows_of(response), expected.detections[name], box_px=1, score=0.005)
    assert not {name: words for name, words in differences.items() if words}
    assert sum(len(expected.detections[name]) for name in images) > 250


def test_mean_average_precision_is_that_of_ultralytics(stack: Stack) -> None:
    expected = read_reference("digit-finder-rectangle")
    query = {"confidence": "0.001", "max_detections": "300"}
    found = {
        name: rows_of(ok(stack.http.post("/predict/digit-finder", params=query, files={"image": png(image)})))
        for name, image in scenes().items()
    }
    labels = {
        f"{index:03}": np.column_stack([scene.boxes_xyxy, scene.class_ids]).tolist()
        for index, scene in enumerate(compose("held-out", **SCENES))
    }
    map50_95, map50 = mean_average_precision(found, labels, dict.fromkeys(labels, (320, 320)))
    assert map50_95 == pytest.approx(expected.map50_95, abs=0.003)
    assert map50 >= 0.95


def test_responses_fit_the_openapi_document(
    stack: Stack, validators: dict[str, jsonschema.Draft202012Validator]
) -> None:
    validators["Detections"].validate(ok(stack.http.post("/predict/digit-finder", files={"image": DIGITS})))
    validators["Classification"].validate(ok(stack.http.post("/predict/digits", files={"image": SEVEN})))
    validators["Table"].validate(ok(stack.http.post("/predict/iris", json=VIRGINICA)))
    two = ok(stack.http.post("/predict/digit-finder", files=[("image", DIGITS), ("image", SEVEN)]))
    for response in two:
        validators["Detections"].validate(response)
    for row in ok(stack.http.post("/v1/models/iris:predict", json={"instances": [VIRGINICA] * 2}))["predictions"]:
        validators["Row"].validate(row)
    tensor = {"name": "features", "datatype": "FP64", "shape": [2, 4], "data": [VIRGINICA, VIRGINICA]}
    v2 = {"id": "me", "inputs": [tensor], "outputs": [{"name": "class_id", "parameters": {"binary_data": False}}]}
    validators["InferResponse"].validate(ok(stack.http.post("/v2/models/iris/infer", json=v2)))
    validators["InferResponse"].validate(ok(stack.http.post("/v2/models/iris/infer", json={"inputs": [tensor]})))
    validators["Error"].validate(stack.http.post("/predict/none", files={"image": SEVEN}).json())


def test_image_is_the_same_over_every_form(stack: Stack) -> None:
    text = base64.b64encode(DIGITS).decode()
    responses = [
        ok(stack.http.post("/predict/digit-finder", files={"image": DIGITS})),
        ok(stack.http.post("/predict/digit-finder", content=DIGITS, headers={"Content-Type": "image/jpeg"})),
        *ok(stack.http.post("/predict/digit-finder", files=[("image", DIGITS), ("image", DIGITS)])),
        *ok(stack.http.post("/v1/models/digit-finder:predict", json={"instances": [{"image": {"b64": text}}] * 2}))[
            "predictions"
        ],
    ]
    assert len(responses) == 6
    assert len(rows_of(responses[0])) >= 5
    assert all(same_detections(rows_of(response), rows_of(responses[0])) for response in responses)
    assert len({response["inference_id"] for response in responses}) == 6


def test_parameters_choose_among_the_detections(stack: Stack) -> None:
    def classes(**query: str) -> list[str]:
        response = ok(stack.http.post("/predict/digit-finder", params=query, files={"image": DIGITS}))
        return [prediction["class"] for prediction in response["predictions"]]

    everything = classes()
    assert classes(max_detections="2") == everything[:2]
    assert set(classes(classes="7")) == {"7"}
    assert sorted(classes(classes="7,4")) == sorted(name for name in everything if name in {"4", "7"})
    assert classes(confidence="1") == []
    assert len(classes(confidence="0.001")) > len(everything)
    text = base64.b64encode(DIGITS).decode()
    body = {"instances": [{"image": {"b64": text}}], "parameters": {"max_detections": 2, "classes": ["7", 4]}}
    (response,) = ok(stack.http.post("/v1/models/digit-finder:predict", json=body))["predictions"]
    assert {prediction["class"] for prediction in response["predictions"]} <= {"4", "7"}


def test_boxes_are_in_the_upright_image(stack: Stack) -> None:
    upright = Image.open(io.BytesIO(DIGITS)).crop((0, 0, 320, 300))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a turn by 90 degrees clockwise
    stored = io.BytesIO()
    turned.save(stored, "PNG", exif=exif)
    plain = io.BytesIO()
    upright.save(plain, "PNG")
    by_exif = ok(stack.http.post("/predict/digit-finder", files={"image": stored.getvalue()}))
    assert by_exif["image"] == {"width": 320, "height": 300}
    by_plain = ok(stack.http.post("/predict/digit-finder", files={"image": plain.getvalue()}))
    assert same_detections(rows_of(by_exif), rows_of(by_plain))


@pytest.mark.parametrize(("accept", "format_name"), [("image/jpeg", "JPEG"), ("image/png", "PNG")])
def test_annotated_image_is_returned_if_accepted(stack: Stack, accept: str, format_name: str) -> None:
    response = stack.http.post("/predict/digit-finder", files={"image": DIGITS}, headers={"Accept": accept})
    assert response.headers["content-type"] == accept
    drawn = Image.open(io.BytesIO(response.content))
    assert (drawn.format, drawn.size) == (format_name, (320, 320))
    changed = np.abs(np.asarray(drawn).astype(int) - np.asarray(Image.open(io.BytesIO(DIGITS))).astype(int)) > 60
    best = ok(stack.http.post("/predict/digit-finder", files={"image": DIGITS}))["predictions"][0]["box"]
    top_edge = changed[round(best["y1"]), round(best["x1"]) + 3 : round(best["x2"]) - 3].any(axis=-1)
    assert top_edge.mean() > 0.9, "the best box has its edge drawn"


def test_digit_is_read_at_any_size_and_polarity(stack: Stack) -> None:
    inks, labels = load_split("held-out")
    right = 0
    for index in range(40):
        ink = inks[index] / 16 * 255
        page = np.pad(ink if index % 2 else 255 - ink, 1, mode="edge").astype(np.uint8)
        size = (8, 23, 64, 200)[index % 4]
        image = cv2.resize(page, (size, size), interpolation=cv2.INTER_CUBIC)
        response = ok(stack.http.post("/predict/digits", files={"image": png(image)}))
        right += response["top"] == str(labels[index])
        assert len(response["predictions"]) == 5
    assert right >= 38


def test_digits_were_held_out() -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - seconds

    assert len(load_split("train")[0]) + len(load_split("held-out")[0]) == len(load_digits().images)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (VIRGINICA, 1),
        ([VIRGINICA, VIRGINICA], 2),
        (dict(zip(IRIS_NAMES, VIRGINICA, strict=True)), 1),
        ([dict(zip(IRIS_NAMES, VIRGINICA, strict=True))] * 3, 3),
        ([VIRGINICA] * 1024, 1024),
    ],
)
def test_rows_get_a_class_each(stack: Stack, body: Any, count: int) -> None:
    predictions = ok(stack.http.post("/predict/iris", json=body))["predictions"]
    assert [prediction["class"] for prediction in predictions] == ["virginica"] * count
    assert sum(predictions[0]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    instances = body if isinstance(body, list) and isinstance(body[0], list | dict) else [body]
    v1 = ok(stack.http.post("/v1/models/iris:predict", json={"instances": instances}))
    assert [row["class"] for row in v1["predictions"]] == [row["class"] for row in predictions]
    for found, expected in zip(v1["predictions"], predictions, strict=True):
        assert found["probabilities"] == pytest.approx(expected["probabilities"], rel=0, abs=SCORE)


def test_transformer_responds_as_triton_does(stack: Stack) -> None:
    rows = np.random.default_rng(0).uniform(0, 8, (50, 4)).astype(np.float32)
    tensor = tritonclient.http.InferInput("features", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{stack.triton_http_port}")
    probabilities = client.infer("iris", [tensor]).as_numpy("probabilities")
    client.close()
    predictions = ok(stack.http.post("/predict/iris", json=rows.tolist()))["predictions"]
    found = [list(prediction["probabilities"].values()) for prediction in predictions]
    np.testing.assert_allclose(found, probabilities, atol=SCORE)


def test_health_metrics_and_docs_respond(stack: Stack) -> None:
    assert ok(stack.http.get("/v2/health/live")) == {"live": True}
    assert ok(stack.http.get("/v2/health/ready")) == {"ready": True}
    ok(stack.http.post("/predict/iris", json=VIRGINICA))
    metrics = stack.http.get("/metrics").text
    assert 'nereid_items_total{model="iris"' in metrics
    assert 'nereid_stage_seconds_bucket{le="0.001",model="iris",stage="infer"}' in metrics
    assert 'route="/predict/{model}",status="200"' in metrics
    assert "swagger" in stack.http.get("/docs").text.lower()
    paths = ok(stack.http.get("/openapi.json"))["paths"]
    routes = {"/predict/{model}", "/v1/models/{model}:predict", "/v2/health/ready", "/v2/models/{model}"}
    assert routes | {"/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"} <= set(paths)
    for path, operations in paths.items():
        for operation in operations.values():
            places = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
            assert places == set(re.findall(r"{(\w+)}", path))


def test_request_id_comes_back(stack: Stack) -> None:
    response = stack.http.get("/v2/health/live", headers={"X-Request-Id": "abc-123"})
    assert response.headers["X-Request-Id"] == "abc-123"
    assert len(stack.http.get("/v2/health/live").headers["X-Request-Id"]) == 32


def scenes() -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    """The images of the reference, BGR as OpenCV writes them."""
    return {
        f"{index:03}": np.asarray(cv2.cvtColor(scene.image_hwc, cv2.COLOR_RGB2BGR), np.uint8)
        for index, scene in enumerate(compose("held-out", **SCENES))
    }


def png(image: Any) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()
