"""The layout of a head: metadata and shape together, and what contradicts itself."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.__main__ import main
from export.errors import ExportError
from export.graph.head import check_head, is_finished
from tests.support.detectors import METADATA

CASES = Path(__file__).parents[3] / "shared" / "cases"


def facts(classes: int, **metadata: Any) -> dict[str, Any]:
    return {"names": dict.fromkeys(range(classes), "thing"), **metadata}


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
        ((7, 8400), {"names": {0: "a", 2: "c"}, "head": "Detect", "end2end": False}, False),
        ((7, 8400), {"names": {0: "a", 2: "c"}}, False),
        ((300, 6), {"names": {0: "a", 2: "c"}, "end2end": True}, True),
    ],
)
def test_shape_and_metadata_decide_the_layout(shape: tuple[int, int], metadata: dict[str, Any], finished: bool) -> None:
    assert is_finished(shape, metadata, where="f.onnx") is finished


@pytest.mark.parametrize(
    ("shape", "metadata", "message"),
    [
        ((300, 6), facts(80, head="Detect", end2end=False), r"contradict each other: expected \(84, N\)"),
        ((84, 8400), facts(80, head="Detect", end2end=True), r"contradict each other: expected \(N, 6\)"),
        ((84, 8400), facts(79), r"got output \(84, 8400\), 79 names.*1 rows more than its names explain"),
        ((8400, 84), facts(80), "transposed"),
        ((6, 8400), {"names": {0: "a", 2: "c"}}, "its names go beyond the 2 classes that it has"),
        ((7, 8400), {"names": {1: "a", 2: "b", 3: "c"}}, "3 names up to index 3.* beyond the 3 classes"),
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
        is_finished(shape, metadata, where="f.onnx")
    assert "f.onnx" in str(rejected.value)
    assert "next:" in str(rejected.value)


@pytest.mark.parametrize("head", ["Detect", "v10Detect", "WorldDetect", "YOLOEDetect", None])
def test_heads_of_detectors_are_taken(head: str | None) -> None:
    check_head({"task": "detect", **({"head": head} if head else {})}, where="f.onnx")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"task": "detect", "head": "RTDETRDecoder"}, "RT-DETR is not served yet"),
        ({"task": "detect", "description": "Ultralytics rtdetr-l model"}, "RT-DETR is not served yet"),
        ({"task": "detect", "head": "Segment26"}, "that of the task 'segment'"),
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


@pytest.mark.parametrize(("classes", "rows"), [(2, 300), (296, 300), (80, 300)])
def test_rtdetr_is_rejected_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: int, rows: int
) -> None:
    head = np.random.default_rng(0).uniform(0, 1, (rows, 4 + classes))
    names = repr({number: f"c{number}" for number in range(classes)})
    onnx.save(build_constant(head, head="RTDETRDecoder", end2end="False", names=names), tmp_path / "f.onnx")
    assert main(["ultralytics", "f", str(tmp_path / "f.onnx"), "--repository", str(tmp_path / "r")]) == 1
    assert "head: got 'RTDETRDecoder'" in capsys.readouterr().err


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
@pytest.mark.parametrize("name", ["detr2.onnx", "detr296.onnx"])
def test_case_of_rtdetr_is_rejected_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = CASES / "rtdetr-two-classes" / name
    assert main(["ultralytics", "f", str(path), "--repository", str(tmp_path)]) == 1
    assert "head: got 'RTDETRDecoder'" in capsys.readouterr().err
