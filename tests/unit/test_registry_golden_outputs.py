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


@pytest.mark.parametrize(
    ("scores", "changed", "fits"),
    [
        ([0.9, 0.2, 0.1, 0.1], 1, True),
        ([0.9, 0.2, 0.1, 0.1], 2, False),
        ([0.9, *[0.1] * 11], 3, True),
        ([0.9, *[0.1] * 11], 4, False),
        ([0.9, 0.3], 1, False),  # of a score that is served by default the class counts
        ([0.1], 1, True),
    ],
)
def test_classes_of_some_weak_candidates_may_change_in_less_than_fp32(
    scores: list[float], changed: int, fits: bool
) -> None:
    count = len(scores)
    boxes = np.array([[10 * n + 5, 20, 8, 8] for n in range(count)], np.float32)
    classes = np.zeros(count, np.int32)
    expected = {"boxes": boxes[None], "scores": np.array([scores], np.float32), "classes": classes[None]}
    got = {**expected, "classes": np.where(np.arange(count) >= count - changed, 1, classes)[None]}
    lower = config("fused", "openvino")
    check_golden_outputs(expected, expected, lower)
    if fits:
        check_golden_outputs(got, expected, lower)
    else:
        with pytest.raises(VersionRejected, match="got nothing like class 0"):
            check_golden_outputs(got, expected, lower)
    with pytest.raises(VersionRejected, match="got nothing like class 0"):
        check_golden_outputs(got, expected, config("fused", "onnxruntime"))


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


CLASSES = {0: "a", 1: "b"}
FACTS: dict[str, dict[str, Any]] = {
    "segment": {},
    "pose": {"kpt_shape": [3, 3]},
    "obb": {},
}
REST = {"segment": 4, "pose": 9, "obb": 1}


def described(task: str, interface: Interface, backend: str, **metadata: Any) -> Any:
    facts = {"task": task, "imgsz": [64, 64], "names": CLASSES, **FACTS.get(task, {}), **metadata}
    config = describe_detector(
        "m", interface=interface, size_hw=None, classes=2, metadata=facts, rest=REST.get(task, 0)
    )
    config.backend = backend
    return config


def objects(task: str, interface: Interface, *, apart: float = 0, end2end: bool = False) -> dict[str, Any]:
    """Outputs with two confident objects among noise; what belongs to the first is `apart` from what it was."""
    rng = np.random.default_rng(0)
    count = 30
    boxes = np.concatenate([rng.uniform(8, 56, (count, 2)), rng.uniform(4, 9, (count, 2))], axis=1)
    scores, classes = np.full(count, 0.01), np.arange(count) % 2
    scores[:2] = 0.9, 0.6
    rest = rng.uniform(0.2, 0.9, (count, REST.get(task, 0)))
    rest[0, : 1 if task == "segment" else None] += apart
    prototypes = {} if task != "segment" else {"prototypes": rng.normal(0, 1, (1, 4, 16, 16)).astype(np.float32)}
    if interface == "fused":
        found = {"boxes": boxes[None].astype(np.float32), "scores": scores[None].astype(np.float32)}
        names = {"segment": "coefficients", "pose": "keypoints", "obb": "angles"}
        shape = {"pose": (1, count, 3, 3), "obb": (1, count)}.get(task, (1, count, REST.get(task, 0)))
        further = {names[task]: rest.reshape(shape).astype(np.float32)} if task in names else {}
        return {**found, "classes": classes[None].astype(np.int32), **further, **prototypes}
    if end2end:
        head = np.concatenate([boxes, scores[:, None], classes[:, None], rest], axis=1)
    else:
        by_class = np.where(np.arange(2) == classes[:, None], scores[:, None], 0.001)
        head = np.concatenate([boxes, by_class, rest], axis=1).T
    return {"output0": head[None].astype(np.float32)} | {f"output{1}": array for array in prototypes.values()}


@pytest.mark.parametrize(("interface", "end2end"), [("fused", False), ("ultralytics", False), ("ultralytics", True)])
@pytest.mark.parametrize(
    ("task", "little", "more", "words"),
    [("segment", 0.01, 0.8, "mask"), ("pose", 0.05, 0.3, "set of keypoints"), ("obb", 0.04, 0.1, "angle")],
)
def test_what_belongs_to_an_object_may_differ_as_precision_explains(
    task: str, little: float, more: float, words: str, interface: Interface, end2end: bool
) -> None:
    facts = {"end2end": True} if end2end else {}
    expected = objects(task, interface, end2end=end2end)
    exact, coarse = (described(task, interface, backend, **facts) for backend in ("onnxruntime", "openvino"))
    check_golden_outputs(objects(task, interface, apart=little, end2end=end2end), expected, exact)
    changed = objects(task, interface, apart=more, end2end=end2end)
    with pytest.raises(VersionRejected, match=f"golden input: got another {words} of class 0, score 0\\.900"):
        check_golden_outputs(changed, expected, exact)
    check_golden_outputs(changed, expected, coarse)
    with pytest.raises(VersionRejected, match=f"got another {words}"):
        check_golden_outputs(objects(task, interface, apart=40 * more, end2end=end2end), expected, coarse)


def test_boxes_of_rtdetr_are_compared_in_pixels() -> None:
    config = described("detect", "ultralytics", "onnxruntime", end2end=True, resize="stretch")
    expected = objects("detect", "ultralytics", end2end=True)
    expected["output0"][..., :4] /= 64
    moved = {"output0": expected["output0"].copy()}
    moved["output0"][0, 0, 0] += 2 / 64
    check_golden_outputs(moved, expected, config)
    moved["output0"][0, 0, 0] += 3 / 64
    with pytest.raises(VersionRejected, match="got nothing like class 0"):
        check_golden_outputs(moved, expected, config)
    by_class = described("detect", "ultralytics", "onnxruntime", end2end=True, resize="stretch", class_scores=True)
    older = np.array([[[0.5, 0.5, 0.2, 0.2, 0.1, 0.8], [0.2, 0.5, 0.2, 0.2, 0.3, 0.0]]], np.float32)
    check_golden_outputs({"output0": older[:, ::-1]}, {"output0": older}, by_class)
    with pytest.raises(VersionRejected, match=r"got nothing like class 1, score 0\.800"):
        check_golden_outputs({"output0": older[..., [0, 1, 2, 3, 5, 4]]}, {"output0": older}, by_class)


@pytest.mark.parametrize(
    "metadata",
    [
        {"task": "pose", "names": {}},
        {"task": "obb", "names": dict.fromkeys(range(99), "x")},
        {"task": "segment", "names": "abc"},
        {"task": "pose", "names": {"x": "a"}, "kpt_shape": "no"},
        {"task": "obb", "end2end": True},
    ],
)
def test_metadata_that_fit_no_layout_leave_a_comparison_number_by_number(metadata: dict[str, Any]) -> None:
    config = ModelConfig(backend="onnxruntime")
    config.parameters["metadata"].string_value = repr(metadata)
    output = {"output0": np.arange(40, dtype=np.float32).reshape(1, 8, 5)}
    check_golden_outputs(output, output, config)
    with pytest.raises(VersionRejected, match=r"output 'output0'"):
        check_golden_outputs({"output0": output["output0"] + 9}, output, config)
