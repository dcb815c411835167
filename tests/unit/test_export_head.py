"""The layout of a head: metadata and shape together, and what contradicts itself."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.__main__ import main
from export.errors import ExportError
from export.graph.head import Layout, check_head, read_layout
from export.proof.session import Session
from export.writer.config import read_config
from tests.support.detectors import METADATA
from transformer.tasks import describe
from transformer.tasks.detect import DETECT
from transformer.tasks.detection_options import Selection

CASES = Path(__file__).parents[3] / "shared" / "cases"


def facts(classes: int, **metadata: Any) -> dict[str, Any]:
    return {"task": "detect", "names": dict.fromkeys(range(classes), "thing"), **metadata}


@pytest.mark.parametrize(
    ("shape", "metadata", "finished"),
    [
        # Metadata as Ultralytics 8.4.190 writes them.
        ((84, 8400), facts(80, head="Detect", end2end=False), False),
        ((300, 6), facts(80, head="Detect", end2end=True), True),
        ((300, 6), facts(2, head="v10Detect", end2end=True), True),
        ((6, 8400), facts(2, head="Detect", end2end=False), False),
        ((300, 300), facts(296, head="Detect", end2end=False), False),
        ((300, 6), facts(296, head="v10Detect", end2end=True), True),
        ((6, 6), facts(2, head="Detect", end2end=True), True),
        # Older ones say neither.
        ((84, 8400), facts(80), False),
        ((300, 6), facts(80), True),
        ((6, 8400), facts(2), False),
        ((300, 6), facts(2), True),
        ((300, 8400), facts(296), False),
        # Names with gaps: the last one is that of the last class.
        ((7, 8400), {"task": "detect", "names": {0: "a", 2: "c"}, "head": "Detect", "end2end": False}, False),
        ((7, 8400), {"task": "detect", "names": {0: "a", 2: "c"}}, False),
        ((300, 6), {"task": "detect", "names": {0: "a", 2: "c"}, "end2end": True}, True),
    ],
)
def test_shape_and_metadata_decide_the_layout(shape: tuple[int, int], metadata: dict[str, Any], finished: bool) -> None:
    assert read_layout(shape, metadata, where="f.onnx").end2end is finished


@pytest.mark.parametrize(
    ("shape", "metadata", "message"),
    [
        ((300, 6), facts(80, head="Detect", end2end=False), r"contradict each other: expected \(84, N\)"),
        ((84, 8400), facts(80, head="Detect", end2end=True), r"contradict each other: expected \(N, 6\)"),
        ((84, 8400), facts(79), r"got output \(84, 8400\), 79 names.*1 rows more than its names explain"),
        ((8400, 84), facts(80), "transposed"),
        ((6, 8400), {"task": "detect", "names": {0: "a", 2: "c"}}, "its names go beyond the 2 classes that it has"),
        (
            (7, 8400),
            {"task": "detect", "names": {1: "a", 2: "b", 3: "c"}},
            "3 names up to index 3.* beyond the 3 classes",
        ),
        ((300, 84), facts(80), "looks like RT-DETR"),
        ((25200, 85), facts(80), "YOLOv5's own repository"),
        ((300, 300), facts(296), "may be a YOLO head or RT-DETR's"),
        ((300, 300), facts(296, end2end=False), "may be a YOLO head or RT-DETR's"),
        ((6, 6), facts(2), "may be a YOLO head or RT-DETR's"),
        ((116, 8400), facts(80, head="Detect", end2end=False), "contradict each other"),
    ],
)
def test_contradictions_are_rejected_with_what_was_seen(
    shape: tuple[int, int], metadata: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message) as rejected:
        read_layout(shape, metadata, where="f.onnx")
    assert "f.onnx" in str(rejected.value)
    assert "next:" in str(rejected.value)


@pytest.mark.parametrize(
    ("shape", "metadata", "prototypes", "layout"),
    [
        # Metadata and shapes as Ultralytics 8.4.190 writes them, and without head and end2end as older ones do.
        ((116, 8400), {"task": "segment", "head": "Segment", "end2end": False}, 32, ("segment", False, 32, 116)),
        ((300, 38), {"task": "segment", "head": "Segment26", "end2end": True}, 32, ("segment", True, 32, 38)),
        ((300, 38), {"task": "segment", "head": "YOLOESegment26", "end2end": True}, 32, ("segment", True, 32, 38)),
        ((116, 8400), {"task": "segment"}, 32, ("segment", False, 32, 116)),
        ((300, 38), {"task": "segment"}, 32, ("segment", True, 32, 38)),
        ((100, 8400), {"task": "segment", "head": "YOLOESegment"}, 16, ("segment", False, 16, 100)),
        ((135, 8400), {"task": "pose", "head": "Pose", "kpt_shape": [17, 3]}, None, ("pose", False, 51, 135)),
        ((300, 57), {"task": "pose", "end2end": True, "kpt_shape": (17, 3)}, None, ("pose", True, 51, 57)),
        ((92, 8400), {"task": "pose", "head": "Pose26", "kpt_shape": [4, 2]}, None, ("pose", False, 8, 92)),
        ((85, 8400), {"task": "obb", "head": "OBB", "end2end": False}, None, ("obb", False, 1, 85)),
        ((300, 7), {"task": "obb", "head": "OBB26", "end2end": True}, None, ("obb", True, 1, 7)),
        ((300, 7), {"task": "obb"}, None, ("obb", True, 1, 7)),
    ],
)
def test_layout_of_other_tasks_is_that_of_metadata_and_shapes(
    shape: tuple[int, int], metadata: dict[str, Any], prototypes: int | None, layout: tuple[str, bool, int, int]
) -> None:
    found = read_layout(shape, facts(80, **metadata), prototypes=prototypes, where="f.onnx")
    assert (found.task, found.end2end, found.rest, found.columns) == layout
    assert found.has_corners is (found.end2end and found.task != "obb")


@pytest.mark.parametrize(
    ("classes", "shape", "whole", "metadata", "class_scores"),
    [
        (80, (300, 6), True, {"head": "RTDETRDecoder", "end2end": False}, False),
        (80, (300, 84), False, {"head": "RTDETRDecoder", "end2end": False}, True),
        (80, (300, 84), False, {"description": "Ultralytics rtdetr-l model"}, True),
        (296, (300, 300), False, {"head": "RTDETRDecoder"}, True),
        # Six columns of two classes: whole numbers are classes.
        (2, (300, 6), True, {"head": "RTDETRDecoder"}, False),
        (2, (300, 6), False, {"head": "RTDETRDecoder"}, True),
    ],
)
def test_head_of_rtdetr_is_stretched_and_needs_no_nms(
    classes: int, shape: tuple[int, int], whole: bool, metadata: dict[str, Any], class_scores: bool
) -> None:
    found = read_layout(shape, facts(classes, **metadata), has_whole_classes=whole, where="f.onnx")
    assert found == Layout("detect", classes, end2end=True, stretch=True, class_scores=class_scores)
    assert (found.columns, found.has_corners) == (shape[1], False)


@pytest.mark.parametrize(
    ("shape", "metadata", "prototypes", "message"),
    [
        ((116, 8400), {"task": "segment"}, None, "got no prototypes of masks beside output .* expected them"),
        ((84, 8400), {"task": "detect"}, 32, "got 32 prototypes of masks .* task is 'detect': expected none"),
        ((116, 8400), {"task": "segment", "end2end": True}, 32, r"contradict each other: expected \(N, 38\)"),
        ((84, 8400), {"task": "segment"}, 32, r"expected \(116, N\) or \(N, 38\)"),
        ((116, 8400), {"task": "segment"}, 16, r"expected \(100, N\) or \(N, 22\)"),
        ((135, 8400), {"task": "pose"}, None, "kpt_shape in its metadata: got None"),
        ((135, 8400), {"task": "pose", "kpt_shape": [17, 4]}, None, "kpt_shape in its metadata: got .17, 4."),
        ((135, 8400), {"task": "pose", "kpt_shape": [17, True]}, None, "kpt_shape in its metadata"),
        ((135, 8400), {"task": "pose", "kpt_shape": "17x3"}, None, "kpt_shape in its metadata: got '17x3'"),
        ((135, 8400), {"task": "pose", "kpt_shape": [17, 2]}, None, r"kpt_shape .17, 2.*expected \(118, N\)"),
        ((300, 57), {"task": "pose", "kpt_shape": [17, 3], "end2end": False}, None, "contradict each other"),
        ((84, 8400), {"task": "obb"}, None, r"expected \(85, N\) or \(N, 7\)"),
        ((300, 6), {"task": "obb", "end2end": True}, None, r"contradict each other: expected \(N, 7\)"),
        ((84, 8400), {"task": "detect", "head": "RTDETRDecoder"}, None, r"expected \(N, 6\) or \(N, 84\)"),
    ],
)
def test_contradictions_of_other_tasks_are_rejected(
    shape: tuple[int, int], metadata: dict[str, Any], prototypes: int | None, message: str
) -> None:
    with pytest.raises(ExportError, match=message) as rejected:
        read_layout(shape, facts(80, **metadata), prototypes=prototypes, where="f.onnx")
    assert "f.onnx" in str(rejected.value)


def test_classes_of_rtdetr_that_are_no_whole_numbers_are_rejected() -> None:
    with pytest.raises(ExportError, match=r"expected \(N, 6\) with whole numbers as classes or \(N, 84\)"):
        read_layout((300, 6), facts(80, head="RTDETRDecoder"), has_whole_classes=False, where="f.onnx")


@pytest.mark.parametrize(
    ("task", "heads"),
    [
        ("detect", ["Detect", "v10Detect", "WorldDetect", "YOLOEDetect", "RTDETRDecoder", None]),
        ("segment", ["Segment", "Segment26", "YOLOESegment", "YOLOESegment26", None]),
        ("pose", ["Pose", "Pose26", None]),
        ("obb", ["OBB", "OBB26", None]),
    ],
)
def test_heads_of_detectors_are_taken(task: str, heads: list[str | None]) -> None:
    for head in heads:
        check_head({"task": task, **({"head": head} if head else {})}, where="f.onnx")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"task": "detect", "head": "Segment26"}, "that of the task 'segment'"),
        ({"task": "pose", "head": "RTDETRDecoder"}, "that of the task 'detect'.* expected one of Pose, Pose26"),
        ({"task": "segment", "head": "SemanticSegment"}, "that of the task 'semantic'"),
        ({"task": "detect", "head": "OBB"}, "that of the task 'obb'"),
        ({"task": "detect", "head": "Detect3000"}, "'Detect3000', which is unknown, expected one of Detect"),
        ({"task": "depth", "head": "Depth"}, "task: got 'depth'"),
        ({"task": "detect", "head": "Detect", "args": {"nms": True}}, "NMS inside"),
    ],
)
def test_other_heads_are_rejected_by_name(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check_head(metadata, where="f.onnx")


def build_constant(rows: np.ndarray[Any, Any], *, size_hw: Any = ("height", "width"), **metadata: str) -> ModelProto:
    """A file that gives one head, whatever the image."""
    constants = {"head": rows[None].astype(np.float32), "shape": np.array([-1, 1, 1]), "eps": np.float32(0)}
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["m", "shape"], ["m1"]),
        helper.make_node("Mul", ["m1", "eps"], ["me"]),
        helper.make_node("Add", ["head", "me"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, *size_hw])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", *rows.shape])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in (METADATA | {"imgsz": "[640, 640]"} | metadata).items():
        model.metadata_props.add(key=key, value=value)
    return model


SIZE_HW = (320, 640)


def draw_head(kind: str) -> np.ndarray[Any, Any]:
    """A head of three classes with small boxes all over the image, written by one contract or another."""
    rng = np.random.default_rng(0)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(4, 640, 8), np.arange(4, 320, 8)))
    plain = np.stack([x, y, *rng.uniform(8, 90, (2, x.size)), *rng.uniform(0, 0.9, (3, x.size))])
    if kind == "full":  # as of a detector of pages: each place sees the one that fills the image
        plain[:4] = np.array([[320], [160], [600], [290]]) + rng.uniform(-5, 5, (4, x.size))
    elif kind == "normalised":
        plain[:4] /= 640
    elif kind == "corners":
        plain[2:4] += plain[:2]
    elif kind == "sizes-first":
        plain[:4] = plain[[2, 3, 0, 1]]
    elif kind == "exchanged":
        plain[:4] = plain[[1, 0, 3, 2]]
    elif kind == "logits":
        plain[4:] = rng.normal(0, 3, (3, x.size))
    elif kind == "far":
        plain[:2] += 900
    return plain


@pytest.mark.parametrize("interface", ["fused", "ultralytics"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("right", None),
        ("full", None),
        ("normalised", "boxes: got none larger than"),
        ("corners", "as corners"),
        ("sizes-first", "or sizes before centres"),
        ("exchanged", "where x and y are exchanged"),
        ("logits", "returns logits"),
        ("far", "no part within 640 px"),
    ],
)
def test_plain_head_of_another_contract_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str | None, interface: str
) -> None:
    onnx.save(build_constant(draw_head(kind), size_hw=SIZE_HW), tmp_path / "f.onnx")
    command = ["ultralytics", "f", str(tmp_path / "f.onnx"), "--interface", interface]
    status = main([*command, "--repository", str(tmp_path / "r")])
    error = capsys.readouterr().err
    assert (status, "Traceback" in error) == (1 if message else 0, False)
    if message:
        assert message in error
        assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("right", None),
        ("centres", "x2 < x1 or y2 < y1"),
        ("normalised", "boxes: got none larger than"),
        ("scores", "classes: got"),
        ("unknown", "classes: got 0 to 7, expected whole numbers from 0 to 2"),
    ],
)
def test_finished_head_of_another_contract_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str | None
) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 500, (300, 2))
    head = np.column_stack(
        [corners, corners + rng.uniform(5, 99, (300, 2)), rng.uniform(0, 1, 300), np.arange(300) % 3]
    )
    if kind == "centres":
        head[:, 2:4] -= head[:, :2]
    elif kind == "normalised":
        head[:, :4] /= 640
    elif kind == "scores":  # RT-DETR of two classes
        head[:, 5] = rng.uniform(0, 1, 300)
    elif kind == "unknown":
        head[0, 5] = 7
    onnx.save(build_constant(head), tmp_path / "f.onnx")
    status = main(["ultralytics", "f", str(tmp_path / "f.onnx"), "--repository", str(tmp_path / "r")])
    assert status == (1 if message else 0)
    assert (message or "") in capsys.readouterr().err


def draw_queries(classes: int) -> np.ndarray[Any, Any]:
    """RT-DETR's older head: fractions of the image, and a score for each class."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0.3, 0.7, (300, 2)), rng.uniform(0.05, 0.5, (300, 2))], axis=1)
    return np.concatenate([boxes, rng.uniform(0, 0.9, (300, classes))], axis=1)


@pytest.mark.parametrize("interface", ["fused", "ultralytics"])
@pytest.mark.parametrize("has_class_scores", [True, False])
@pytest.mark.parametrize("classes", [2, 3, 296])
def test_rtdetr_is_exported_with_boxes_of_a_stretched_image(
    tmp_path: Path, classes: int, has_class_scores: bool, interface: str
) -> None:
    head = draw_queries(classes)
    scores, class_ids = head[:, 4:].max(axis=1), head[:, 4:].argmax(axis=1)
    if not has_class_scores:
        head = np.column_stack([head[:, :4], scores, class_ids])
    names = repr({number: f"c{number}" for number in range(classes)})
    file = build_constant(head, head="RTDETRDecoder", end2end="False", names=names, imgsz="[320, 640]")
    onnx.save(file, tmp_path / "f.onnx")
    command = ["ultralytics", "f", str(tmp_path / "f.onnx"), "--interface", interface]
    assert main([*command, "--repository", str(tmp_path / "r")]) == 0
    check_stretched(tmp_path / "r" / "f", head[:, :4] * [640, 320, 640, 320], scores, class_ids)


def check_stretched(folder: Path, boxes_px: Any, scores: Any, class_ids: Any) -> None:
    """What is served of a version: boxes of the input of 640 x 320, in an image of another shape."""
    model = describe(read_config(folder / "config.pbtxt"), version="1")
    session = Session(folder / "1" / "model.onnx", name="f")
    pixels, plan = DETECT.preprocess(np.zeros((500, 160, 3), np.uint8), model)
    assert pixels.shape == ((320, 640, 3) if model.input.datatype == "UINT8" else (3, 320, 640))
    outputs = {name: output[0] for name, output in session.infer(pixels[None]).items()}
    found = DETECT.postprocess(outputs, model, plan=plan, options=Selection(confidence=0.5, max_detections=1000))
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > 0.5]
    centre, half = boxes_px[order, :2], boxes_px[order, 2:] / 2
    corners = np.concatenate([centre - half, centre + half], axis=1) * ([160 / 640, 500 / 320] * 2)
    expected = corners.clip(0, [160, 500, 160, 500])
    np.testing.assert_allclose(found.boxes_xyxy, expected, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores[order], atol=1e-6)
    np.testing.assert_array_equal(found.class_ids, class_ids[order])


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
@pytest.mark.parametrize(("name", "classes"), [("detr2.onnx", 2), ("detr296.onnx", 296)])
def test_case_of_rtdetr_is_read_by_its_own_contract(tmp_path: Path, name: str, classes: int) -> None:
    path = CASES / "rtdetr-two-classes" / name
    assert main(["ultralytics", "f", str(path), "--repository", str(tmp_path)]) == 0
    source = Session(path, name=name).infer(np.zeros((1, 3, 640, 640), np.float32))["output0"][0]
    outputs = Session(tmp_path / "f" / "1" / "model.onnx", name=name).infer(np.zeros((1, 640, 640, 3), np.uint8))
    assert source.shape == (300, 4 + classes)
    np.testing.assert_allclose(outputs["boxes"][0], source[:, :4] * 640, atol=1e-3)
    np.testing.assert_allclose(outputs["scores"][0], source[:, 4:].max(axis=1), atol=1e-6)
    np.testing.assert_array_equal(outputs["classes"][0], source[:, 4:].argmax(axis=1))
    metadata = read_config(tmp_path / "f" / "config.pbtxt").parameters["metadata"].string_value
    assert "'end2end': True" in metadata
    assert "'resize': 'stretch'" in metadata


def test_rtdetr_has_no_rectangle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(build_constant(draw_queries(3), head="RTDETRDecoder"), tmp_path / "f.onnx")
    command = ["ultralytics", "f", str(tmp_path / "f.onnx"), "--letterbox", "rectangle"]
    assert main([*command, "--repository", str(tmp_path / "r")]) == 1
    assert "RT-DETR takes images that are stretched to one size" in capsys.readouterr().err
