"""Every kind of ONNX file is exported, verified, and served by the real embedded Triton."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import tritonclient.http
from tritonclient.utils import triton_to_np_dtype

from export.__main__ import main
from export.writer.config import read_config
from export.writer.versions import judge
from registry.golden import read_golden
from tests.support.classifiers import LABELS, SIDE, build_classifier, build_tensors
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
