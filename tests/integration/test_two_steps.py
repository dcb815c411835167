"""Two steps in one request: the shipped detector finds digits, and with `then=` the shipped classifier reads each."""

import io
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
import supervision as sv
import tritonclient.grpc
import tritonclient.http
from PIL import Image

from export.examples.scenes import Scene, compose
from tests.support.collector import start_collector
from tests.support.metrics import scrape, value
from tests.support.pages import all_blocks
from tests.support.stack import ROOT, Stack, wait_until
from tests.support.transformer import start_transformer

PATH = "/predict/digit-finder"
DIGITS = (ROOT / "loadtest" / "pictures" / "digits.jpg").read_bytes()
THEN = {"then": "digits"}
BATCH = 8  # of the shipped classifier


def png(image: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def post(stack: Stack, *images: bytes, path: str = PATH, **parameters: Any) -> list[Any]:
    response = ok(stack.http.post(path, params=parameters, files=[("image", image) for image in images]))
    return response if isinstance(response, list) else [response]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Digits that neither model was trained on."""
    return list(compose("held-out", count=30, seed=20))


@pytest.fixture(scope="module")
def results(stack: Stack, scenes: Sequence[Scene]) -> list[Any]:
    # What it finds with less confidence is mostly another digit than the detector says.
    return post(stack, *(png(scene.image_hwc) for scene in scenes), confidence=0.5, **THEN)


def test_digits_that_are_found_are_read_again(results: Sequence[Any]) -> None:
    found = [prediction for result in results for prediction in result["predictions"]]
    agree = sum(prediction["classification"]["top"] == prediction["class"] for prediction in found)
    print(f"{agree} of {len(found)} are read as what they were found as")
    assert len(found) > 100
    assert agree / len(found) > 0.9


def test_a_crop_is_classified_as_if_it_had_been_sent(
    stack: Stack, scenes: Sequence[Scene], results: Sequence[Any]
) -> None:
    crops, classifications = [], []
    for scene, result in zip(scenes, results, strict=True):
        for prediction in result["predictions"]:
            x1, y1, x2, y2 = (round(prediction["box"][side]) for side in ("x1", "y1", "x2", "y2"))
            crops.append(png(scene.image_hwc[y1:y2, x1:x2]))
            classifications.append(prediction["classification"])
    for sent, classification in zip(post(stack, *crops, path="/predict/digits"), classifications, strict=True):
        alone = {name: sent[name] for name in classification}
        assert alone["top"] == classification["top"]
        by_class = [{p["class_id"]: p["confidence"] for p in each["predictions"]} for each in (alone, classification)]
        assert by_class[0] == pytest.approx(by_class[1], abs=2e-6)


def calls_to_triton(stack: Stack, model: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{stack.triton_metrics_port}/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("nv_inference_request_success{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if f'model="{model}"' in line)


def test_crops_of_all_images_go_to_triton_in_few_batches(stack: Stack, scenes: Sequence[Scene]) -> None:
    images = [png(scene.image_hwc) for scene in scenes[:5]]
    before, counted = calls_to_triton(stack, "digits"), scrape(stack.http)
    objects = sum(len(result["predictions"]) for result in post(stack, *images, **THEN))
    wait_until(lambda: calls_to_triton(stack, "digits") > before, log=stack.log)  # its metrics come a little later
    assert objects > 2 * BATCH
    assert calls_to_triton(stack, "digits") - before == math.ceil(objects / BATCH)
    after = scrape(stack.http)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(counted, name, **labels)

    assert more("nereid_items_total", model="digits") == objects
    assert more("nereid_items_total", model="digit-finder") == len(images)
    assert more("nereid_stage_seconds_count", model="digit-finder", stage="then") == len(images)
    assert more("nereid_stage_seconds_count", model="digits", stage="infer") == 1
    assert more("nereid_requests_total", model="digit-finder", status="200") == 1
    assert more("nereid_requests_total", model="digits") == 0


def test_nothing_found_calls_no_classifier(stack: Stack) -> None:
    before = calls_to_triton(stack, "digits")
    (result,) = post(stack, DIGITS, confidence=1, **THEN)
    assert (result["predictions"], result["then"]["name"]) == ([], "digits")
    assert calls_to_triton(stack, "digits") == before


def test_max_detections_limits_the_crops(stack: Stack) -> None:
    (result,) = post(stack, DIGITS, max_detections=2, **THEN)
    assert len(result["predictions"]) == 2
    assert all(prediction["classification"] for prediction in result["predictions"])


def test_the_response_is_as_described(stack: Stack) -> None:
    document = ok(stack.http.get("/openapi.json"))
    validator = jsonschema.Draft202012Validator({"$ref": "#/components/schemas/Detections", **document})
    (two,), (one,) = post(stack, DIGITS, **THEN), post(stack, DIGITS)
    validator.validate(two)
    validator.validate(one)
    version = ok(stack.http.get("/v2/models/digits"))["versions"][-1]
    assert two["then"] == {"name": "digits", "version": version, "task": "classify"}
    assert two["timing_ms"]["total"] >= two["timing_ms"]["then"] > 0
    assert two.keys() - one.keys() == {"then"}
    assert two["timing_ms"].keys() - one["timing_ms"].keys() == {"then"}
    assert two["predictions"][0].keys() - one["predictions"][0].keys() == {"classification"}
    two["predictions"][0]["classification"] = None  # of an object without pixels
    validator.validate(two)
    for path in ("/predict/{model}", "/v1/models/{model}:predict", "/v2/models/{model}/infer"):
        assert "then" in {each["name"] for each in document["paths"][path]["post"]["parameters"]}


def test_the_parameter_may_be_a_field_of_a_form(stack: Stack) -> None:
    result = ok(stack.http.post(PATH, data=THEN, files={"image": DIGITS}))
    assert result["predictions"][0]["classification"]["top"] == "2"


def test_supervision_reads_the_detectors_classes_and_the_classifiers_beside_them(stack: Stack) -> None:
    (result,) = post(stack, DIGITS, **THEN)
    detections = sv.Detections.from_inference(result)
    assert list(detections.data["class_name"]) == [each["class"] for each in result["predictions"]]
    detections.data["then"] = np.array([(each["classification"] or {}).get("top") for each in result["predictions"]])
    chosen = detections[detections.data["then"] == "7"]
    assert isinstance(chosen, sv.Detections)
    assert 0 < len(chosen) < len(detections)


def test_the_annotated_image_has_both_classes(stack: Stack) -> None:
    def draw(**parameters: Any) -> Any:
        headers = {"Accept": "image/png", "Content-Type": "image/jpeg"}
        response = stack.http.post(PATH, params=parameters, content=DIGITS, headers=headers)
        assert response.headers["content-type"] == "image/png", response.text
        return np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB"), int)

    (result,) = post(stack, DIGITS, max_detections=1, **THEN)
    rows, columns = np.nonzero(np.abs(draw(max_detections=1) - draw(max_detections=1, **THEN)).sum(axis=2))
    box = result["predictions"][0]["box"]
    assert abs(rows.min() - box["y2"]) <= 2
    assert abs(columns.min() - box["x1"]) <= 2
    assert rows.max() - rows.min() < 40


def test_the_page_prints_what_it_says(stack: Stack) -> None:
    command, program, output = (block.text for block in all_blocks() if block.heading == "Two steps")
    here = f"localhost:{stack.http_port}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program.replace("localhost:8080", here)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, output), done.stderr
    if shutil.which("curl"):
        shell = ["sh", "-c", command.replace("localhost:8080", here)]
        printed = subprocess.run(shell, cwd=ROOT, capture_output=True, timeout=60, check=True).stdout
        assert [each["classification"]["top"] for each in json.loads(printed)["predictions"]] == ["2", "7", "0"]


def test_metadata_names_the_further_outputs(stack: Stack) -> None:
    finder, digits = (ok(stack.http.get(f"/v2/models/{model}")) for model in ("digit-finder", "digits"))
    names = ["then_class_ids", "then_scores"]
    assert [each["name"] for each in finder["parameters"]["then_outputs"]] == names
    assert not {each["name"] for each in finder["outputs"]} & set(names)
    assert digits["parameters"]["then_outputs"] == []


@pytest.mark.parametrize("library", [tritonclient.http, tritonclient.grpc])
def test_further_outputs_can_be_requested(stack: Stack, library: Any) -> None:
    port = stack.grpc_port if library is tritonclient.grpc else stack.http_port
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        tensor = library.InferInput("image", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([DIGITS], object))
        wanted = [library.InferRequestedOutput(name) for name in ("then_class_ids", "class_ids")]
        result = client.infer("digit-finder", [tensor], outputs=wanted, parameters=dict(THEN))
        assert result.as_numpy("scores") is None
        assert (result.as_numpy("then_class_ids") == result.as_numpy("class_ids")).mean() > 0.5
        response = result.get_response()
        if library is tritonclient.grpc:
            parameters = {name: each.string_param for name, each in response.parameters.items()}
        else:
            parameters = response["parameters"]
        assert parameters["then_model_name"] == "digits"
        assert parameters["then_model_version"].isdecimal()
        with pytest.raises(tritonclient.utils.InferenceServerException, match=r"output 'then_class_ids' is unknown"):
            client.infer("digit-finder", [tensor], outputs=wanted)


def test_the_second_step_is_a_span_and_the_request_is_the_detectors(stack: Stack, tmp_path: Any) -> None:
    with start_collector() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "LOG_FORMAT": "json",
        }
        triton = f"127.0.0.1:{stack.triton_grpc_port}"
        with start_transformer(triton, tmp_path / "log", variables=variables) as transformer:
            ok(transformer.http.post(PATH, params=THEN, files={"image": DIGITS}))
            assert transformer.http.post(PATH, params={"then": "none"}, files={"image": DIGITS}).status_code == 404
            wait_until(lambda: sum("POST" in span.name for span in collector.spans) == 2, log=transformer.log)
        first = next(span for span in collector.spans if span.name == "then")
        request = next(span for span in collector.spans if span.span_id == first.parent_id)
        assert str(request.attributes["nereid.model"]) == "digit-finder"
        inside = [
            span.name for span in collector.spans if first.start_ns <= span.start_ns <= span.end_ns <= first.end_ns
        ]
        assert sorted(inside) == ["infer", "then"]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if '"/predict' in line]
    assert [line["model"] for line in lines if "model" in line] == ["digit-finder"] * 2
