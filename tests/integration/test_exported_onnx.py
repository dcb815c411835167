"""Every kind of ONNX file is exported, verified, and served by the real embedded Triton."""

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
from PIL import Image
from tritonclient.utils import triton_to_np_dtype

from export.__main__ import main
from export.proof.session import Session
from export.writer.config import read_config
from export.writer.versions import judge
from registry.golden import read_golden
from tests.support.classifiers import LABELS, SIDE, build_classifier, build_tensors
from tests.support.transformer import Transformer, start_transformer
from tests.support.triton import Triton, start_triton
from transformer.tasks import describe

MEAN = ["--mean", "imagenet", "--std", "imagenet"]
CLASSIFIERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nchw": ({}, MEAN),
    "nhwc": ({"layout": "nhwc"}, ["--mean", "0.5", "--std", "0.5"]),
    "caffe": (
        {"layout": "nhwc"},
        ["--scale", "1", "--mean", "103.939,116.779,123.68", "--std", "1", "--channels", "bgr"],
    ),
    "grey": ({"channels": 1}, ["--mean", "0.1307", "--std", "0.3081"]),
    "grey-nhwc": ({"channels": 1, "layout": "nhwc"}, ["--mean", "0", "--std", "1"]),
    "fp16": ({"datatype": "fp16"}, MEAN),
    "uint8": ({"datatype": "uint8"}, []),
    "uint8-bgr": ({"datatype": "uint8", "layout": "nhwc"}, ["--channels", "bgr"]),
    "batch-of-one": ({"batch": 1}, MEAN),
    "free-sides": ({"sides": ("h", "w")}, [*MEAN, "--crop", str(SIDE)]),
    "free-stretch": ({"sides": ("h", "w")}, [*MEAN, "--size", str(SIDE), "--fit", "stretch"]),
    "two-sides": ({}, [*MEAN, "--size", "48x40"]),
    "softmax": ({"end": "softmax"}, MEAN),
    "sigmoid": ({"end": "sigmoid"}, [*MEAN, "--softmax", "no"]),
    "map": ({"end": "map"}, MEAN),
    "further": ({"further": True}, MEAN),
    "named-output": ({"further": True}, [*MEAN, "--output", "result"]),
}
# max_batch_size, dims of the first input and output, whether golden outputs verify it
TENSORS: dict[str, tuple[int, list[int], list[int], bool]] = {
    "several": (8, [-1], [-1], True),
    "fixed batch": (0, [1, 4], [1, 4], True),
    "batch of numbers": (8, [1], [1], True),
    "first dim is no batch": (0, [-1, 3], [-1, 3], True),
    "scalars": (0, [1], [1], True),
    "strings": (8, [2], [2], True),
    "bools": (8, [2], [2], True),
    "no rank": (0, [2, 3], [3, 2], True),
    "chance": (0, [-1, 3], [-1, 3], False),
    "none runs": (0, [-1, 3], [-1, 7], False),
    "of Microsoft": (8, [3], [3], True),
}


def name_of(kind: str) -> str:
    return kind.lower().replace(" ", "-")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    to = ["--repository", str(folder / "repository")]
    for name, (build, options) in CLASSIFIERS.items():
        onnx.save(build_classifier(**build), folder / f"{name}.onnx")
        arguments = ["onnx", name, str(folder / f"{name}.onnx"), "--task", "classify", "--labels", ",".join(LABELS)]
        assert main([*arguments, *options, *to]) == 0, name
    for kind in TENSORS:
        onnx.save(build_tensors(kind), folder / f"{name_of(kind)}.onnx")
        assert main(["onnx", name_of(kind), str(folder / f"{name_of(kind)}.onnx"), *to]) == 0, kind
    return folder / "repository"


@pytest.fixture(scope="module")
def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with start_triton(repository, tmp_path_factory.mktemp("triton") / "log") as running:
        yield running


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_kind_of_classifier_is_verified(repository: Path, name: str) -> None:
    version, build = repository / name / "1", CLASSIFIERS[name][0]
    parity = json.loads((version / "parity.json").read_text())
    assert parity["probabilities"] < (2e-3 if build.get("datatype") == "fp16" else 1e-5)
    assert parity["compared_with"] == "the file, run with Pillow and ONNX Runtime"
    config = read_config(version / "config.pbtxt")
    dims = [SIDE, SIDE, build.get("channels", 3)]
    assert (list(config.input[0].dims), list(config.output[0].dims)) == (dims, [3])
    assert describe(config, version="1").names == dict(enumerate(LABELS))
    judge(version, where="m")
    assert {"fast.pbtxt", "golden.npz"} <= {path.name for path in version.iterdir()}


@pytest.mark.parametrize("kind", TENSORS)
def test_any_file_has_the_config_that_triton_needs(repository: Path, kind: str) -> None:
    batch, source, result, verified = TENSORS[kind]
    version = repository / name_of(kind) / "1"
    config = read_config(version / "config.pbtxt")
    assert (config.max_batch_size, list(config.input[0].dims), list(config.output[0].dims)) == (batch, source, result)
    assert config.HasField("dynamic_batching") == bool(batch)
    assert "metadata" not in config.parameters
    assert json.loads((version / "manifest.json").read_text())["task"] == "tensors"
    judge(version, where="m")
    assert (version / "golden.npz").is_file() == verified
    if verified:
        golden = read_golden(version / "golden.npz")
        assert golden.keys() == {each.name for each in (*config.input, *config.output)}


@pytest.mark.parametrize("name", [*CLASSIFIERS, *map(name_of, TENSORS)])
def test_exported_file_loads_and_gives_its_golden_outputs(triton: Triton, repository: Path, name: str) -> None:
    url = f"127.0.0.1:{triton.http_port}"
    assert httpx.get(f"http://{url}/v2/models/{name}/ready").is_success, triton.log.read_text()[-3000:]
    if not (repository / name / "1" / "golden.npz").is_file():
        return
    golden = read_golden(repository / name / "1" / "golden.npz")
    described = httpx.get(f"http://{url}/v2/models/{name}").json()
    requests = []
    for tensor in described["inputs"]:
        array = golden[tensor["name"]]
        array = array.astype(object) if tensor["datatype"] == "BYTES" else array
        assert tensor["datatype"] == "BYTES" or array.dtype == triton_to_np_dtype(tensor["datatype"])
        requests.append(tritonclient.http.InferInput(tensor["name"], list(array.shape), tensor["datatype"]))
        requests[-1].set_data_from_numpy(array)
    with tritonclient.http.InferenceServerClient(url) as client:
        response = client.infer(name, requests)
    for tensor in described["outputs"]:
        got, expected = response.as_numpy(tensor["name"]), golden[tensor["name"]]
        if tensor["datatype"] == "BYTES":
            assert got.astype("S").tolist() == expected.tolist()
        else:
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def server(triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transformer]:
    log = tmp_path_factory.mktemp("transformer") / "log"
    with start_transformer(f"127.0.0.1:{triton.grpc_port}", log) as running:
        yield running


PIXELS = np.random.default_rng(3).integers(0, 256, (64, 128, 3), np.uint8)


def png(image_hwc: Any = PIXELS) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image_hwc).save(content, "PNG")
    return content.getvalue()


def expected() -> dict[str, float]:
    """Probabilities by name, of the file itself with Pillow's pixels: the shorter side becomes the size."""
    image = Image.fromarray(PIXELS).resize((2 * SIDE, SIDE), Image.Resampling.BILINEAR).crop((16, 0, 48, SIDE))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = ((np.asarray(image) / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    logits = Session(build_classifier(), name="source").infer(pixels)["result"][0]
    shares = np.exp(logits - logits.max())
    return dict(zip(LABELS, (shares / shares.sum()).tolist(), strict=True))


def shares_of(response: dict[str, Any]) -> dict[str, float]:
    return {each["class"]: each["confidence"] for each in response["predictions"]}


def test_predict_and_v1_serve_an_exported_classifier(server: Transformer) -> None:
    response = server.http.post("/predict/nchw", files={"image": png()}).raise_for_status().json()
    assert shares_of(response) == pytest.approx(expected(), abs=1e-4)
    assert response["crop"] == {"x1": 32, "y1": 0, "x2": 96, "y2": 64}  # what is left and right was cut off
    assert response["top"] == max(expected(), key=lambda name: expected()[name])
    body = {"instances": [{"b64": base64.b64encode(png()).decode()}] * 2, "parameters": {"top_k": 1}}
    predictions = server.http.post("/v1/models/nchw:predict", json=body).raise_for_status().json()["predictions"]
    assert [len(each["predictions"]) for each in predictions] == [1, 1]
    only = server.http.post("/predict/nchw", files={"image": png()}, params={"classes": "dog"}).json()
    assert (only["top"], list(shares_of(only))) == ("dog", ["dog"])
    wrong = server.http.post("/predict/nchw", files={"image": png()}, params={"top_k": 0})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("library", [tritonclient.http, tritonclient.grpc])
def test_v2_serves_an_exported_classifier_over_both_transports(server: Transformer, library: Any) -> None:
    port = server.http_port if library is tritonclient.http else server.grpc_port
    tensor = library.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([png(), png(PIXELS[:, :64])], np.object_))
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        result = client.infer("nchw", [tensor], parameters={"top_k": 2, "confidence": 0.0})
    probabilities = result.as_numpy("probabilities")
    np.testing.assert_allclose(probabilities[0], list(expected().values()), atol=1e-4)
    assert result.as_numpy("class_id").tolist() == probabilities.argmax(axis=1).tolist()
    described = [json.loads(text) for text in result.as_numpy("predictions")]
    assert [len(each["predictions"]) for each in described] == [2, 2]
    assert described[1]["crop"] == {"x1": 0, "y1": 0, "x2": 64, "y2": 64}


def test_annotated_image_has_a_frame_around_what_was_seen(server: Transformer) -> None:
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    white = png(np.full_like(PIXELS, 255))
    drawn = np.asarray(
        Image.open(io.BytesIO(server.http.post("/predict/nchw", content=white, headers=headers).content))
    )
    factor = drawn.shape[1] // 128
    assert (drawn[-1, 40 * factor] != 255).any()  # the lower edge of the frame
    assert (drawn[-1, -1] == 255).all()


def test_metadata_and_openapi_describe_an_exported_classifier(server: Transformer) -> None:
    metadata = server.http.get("/v2/models/nchw").raise_for_status().json()
    assert metadata["parameters"]["resize"] == {"fit": "shortest", "size": SIDE, "interpolation": "bilinear"}
    document = server.http.get("/openapi.json").json()
    parameters = {each["name"]: each for each in document["paths"]["/predict/{model}"]["post"]["parameters"]}
    assert "default: 5" in parameters["top_k"]["description"]
    assert not any("default" in each["schema"] for each in parameters.values())  # clients send what is there
    assert "classify: 0.0" in parameters["confidence"]["description"]
    schema = {"$ref": "#/components/schemas/Classification", **document}
    response = server.http.post("/predict/nchw", files={"image": png()}).json()
    jsonschema.Draft202012Validator(schema).validate(response)


def test_v2_serves_a_files_own_tensors(server: Transformer) -> None:
    tokens = {"name": "tokens", "datatype": "INT64", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}
    left = {"name": "left", "datatype": "FP32", "shape": [2, 3], "data": [0.5] * 6}
    response = server.http.post("/v2/models/several/infer", json={"inputs": [tokens, left]}).raise_for_status().json()
    outputs = {each["name"]: each for each in response["outputs"]}
    assert outputs["total"]["data"] == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert outputs["product"]["datatype"] == "FP16"
    rejected = server.http.post("/predict/several", files={"image": png()})
    assert (rejected.status_code, "without a task" in rejected.json()["error"]) == (400, True)
