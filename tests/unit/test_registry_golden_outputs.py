"""Golden outputs: as far apart as precision explains, and no further."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.writer.config import describe_detector
from export.writer.manifest import Interface
from registry.errors import VersionRejected
from registry.golden import read_golden
from registry.golden_outputs import check_golden_outputs
from registry.judgement.version import Terms, complete_version, judge_version, read_texts
from tests.support.models import build_identity

METADATA = {"task": "detect", "imgsz": [64, 64], "stride": 32, "names": {0: "a", 1: "b"}}


def config(interface: Interface, backend: str, **metadata: Any) -> Any:
    described = describe_detector("m", interface=interface, size_hw=None, classes=2, metadata=METADATA | metadata)
    described.backend = backend
    return described


def head(scores: list[float], *, moved_px: float = 0) -> dict[str, np.ndarray[Any, Any]]:
    """A plain head of so many boxes, and noise of low scores that is never twice the same."""
    rng = np.random.default_rng(int(moved_px * 10 + sum(scores) * 1000))
    noise = np.concatenate([rng.uniform(0, 60, (4, 50)), rng.uniform(0, 0.01, (2, 50))])
    rows = np.array([[10.0 * n + 5, 20, 8, 8, score, 0.001] for n, score in enumerate(scores)]).T
    rows[0] += moved_px
    return {"output0": np.concatenate([noise, rows], axis=1)[None].astype(np.float32)}


@pytest.mark.parametrize(
    ("got", "moved_px", "exact", "lower"),
    [
        ([0.35, 0.9], 0, True, True),
        ([0.58, 0.9], 0, False, True),
        ([0.13, 0.9], 0, False, True),
        ([0.35, 0.7], 0, False, True),
        ([0.35, 0.5], 0, False, False),
        ([0.02, 0.9], 0, False, False),
        ([0.35, 0.9], 2, True, True),
        ([0.35, 0.9], 6, False, False),
        ([0.35, 0.999], 0, False, False),
    ],
)
def test_scores_may_differ_by_the_noise_of_logits(got: list[float], moved_px: float, exact: bool, lower: bool) -> None:
    for backend, fits in (("onnxruntime", exact), ("openvino", lower), ("tensorrt", lower)):
        described = config("ultralytics", backend)
        if fits:
            check_golden_outputs(head(got, moved_px=moved_px), head([0.35, 0.9]), described)
        else:
            with pytest.raises(VersionRejected, match="golden input"):
                check_golden_outputs(head(got, moved_px=moved_px), head([0.35, 0.9]), described)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_confident_detection_without_a_golden_one_is_rejected(backend: str) -> None:
    described = config("ultralytics", backend)
    expected = head([0.35, 0.9, 0.04])  # of what is that weak anything may come
    check_golden_outputs(head([0.35, 0.9, 0.3]), expected, described)
    with pytest.raises(VersionRejected, match=r"got a score of 0\.999, expected at most 0\.900"):
        check_golden_outputs(head([0.35, 0.9, 0.999]), expected, described)


def test_outputs_of_other_tasks_are_compared_number_by_number() -> None:
    described = config("ultralytics", "onnxruntime", task="classify")
    with pytest.raises(VersionRejected, match="output 'output0'"):
        check_golden_outputs(head([0.9], moved_px=2), head([0.9]), described)


def test_version_serves_a_profile_with_golden_outputs_of_its_own(tmp_path: Path) -> None:
    text = (
        'backend: "onnxruntime" max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 2 } '
        'output { name: "y" data_type: TYPE_FP32 dims: 2 } instance_group { count: 1 kind: KIND_CPU }'
    )
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(text)
    (folder / "int8.pbtxt").write_text(
        text.replace("onnxruntime", "openvino") + ' default_model_filename: "model.onnx"'
    )
    (folder / "model.onnx").write_bytes(build_identity())
    one = np.ones((1, 2), np.float32)
    np.savez(folder / "golden.npz", x=one, y=one)
    np.savez(folder / "golden.int8.npz", x=one, y=one * 2)
    texts = read_texts(folder)
    judge_version(folder, texts, Terms())
    for profile, expected in (("fp32", 1), ("fast", 1), ("int8", 2)):
        complete_version(folder, texts, Terms(profile))
        assert read_golden(folder / "golden.npz")["y"].tolist() == [[expected] * 2], profile
    np.savez(folder / "golden.int8.npz", x=one)
    with pytest.raises(VersionRejected, match="expected the model's inputs and outputs"):
        judge_version(folder, texts, Terms())


def test_profile_that_a_bucket_names_leads_to_no_other_file(tmp_path: Path) -> None:
    parsed = ModelConfig(name="m")
    parsed.parameters["profile"].string_value = "x/../../secret"
    from registry.judgement.version import find_golden  # noqa: PLC0415 - what is not reached otherwise

    assert find_golden(tmp_path, parsed, "int8") == tmp_path / "golden.npz"
