"""The metadata of Ultralytics' ONNX files: what each decides, and invalid ones, with tiny files of that shape."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from export.errors import ExportError
from export.graph.compatibility import check
from export.sources.choice import Choice, Letterbox
from export.sources.exported_detector import read_detector
from export.sources.ultralytics import prepare
from tests.support.detectors import CLASSES, PLAIN, build_detector, build_finished, fix_size, pass_over, save
from transformer.tasks import describe

ROOT = Path(__file__).parents[2]
BROKEN = ROOT.parent / "shared" / "data" / "weights" / "broken-int8-yolov8n.onnx"


def test_detector_is_read_from_its_own_metadata(tmp_path: Path) -> None:
    detector = read_detector(save(tmp_path))
    assert detector.names == {0: "a", 1: "b", 2: "c"}
    assert (detector.imgsz_hw, detector.stride, detector.fixed_hw) == ((64, 96), 32, None)
    assert detector.layout == PLAIN


def _bytes(model: ModelProto) -> ModelProto:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model


def _channels_last() -> ModelProto:
    model = build_detector()
    model.graph.input[0].name = "x"
    _, second, third, last = model.graph.input[0].type.tensor_type.shape.dim
    second.dim_param, third.dim_param, last.dim_value = "h", "w", 3
    model.graph.node.insert(0, helper.make_node("Transpose", ["x"], ["images"], perm=[0, 3, 1, 2]))
    return model


def _old() -> ModelProto:
    model = build_detector()
    (split,) = (node for node in model.graph.node if node.op_type == "Split")
    del split.input[1:]
    split.attribute.append(helper.make_attribute("split", [4, CLASSES]))
    model.opset_import[0].version, model.ir_version = 9, 4
    return model


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (None, {"task": "segment"}, "got no prototypes of masks beside output"),
        (None, {"task": "classify"}, "task: got 'classify'"),
        (None, {"task": None, "names": None}, "got no task, names in its metadata"),
        (None, {"names": "{0: 'a'"}, "names in its metadata: got"),
        (None, {"names": "[]"}, "names in its metadata: got"),
        (None, {"args": "{'nms': True}"}, "got a graph with NMS inside"),
        (None, {"channels": "1"}, "channels: got"),
        (_bytes(build_detector()), {}, "images UINT8 .* expected .* in FP32 or FP16"),
        (fix_size(build_detector(), height=10**6), {}, "sides of at most 8192"),
        (build_finished(rows=0), {}, r"output: got \(1, 0, 6\)"),
        (_old(), {}, "opset: got 9, expected 10 or newer"),
        (_channels_last(), {}, r"channels: got x FLOAT \(batch, h, w, 3\).*expected \(batch, 3, height, width\)"),
    ],
)
def test_detector_of_another_kind_is_rejected(
    tmp_path: Path, model: ModelProto | None, changes: dict[str, str | None], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        read_detector(save(tmp_path, model, **changes))


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "0 bytes"), (b"hello, world", "no complete ONNX"), (None, "the file is missing")]
)
def test_something_else_is_rejected(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "some.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=message):
        read_detector(path)


def test_cut_off_file_is_rejected(tmp_path: Path) -> None:
    path = save(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ExportError, match="no complete ONNX file"):
        read_detector(path)


@pytest.mark.parametrize("interface", ["fused", "ultralytics"])
@pytest.mark.parametrize(
    ("letterbox", "height_width", "dynamic"),
    [(None, (-1, -1), True), ("rectangle", (-1, -1), True), ("square", (64, 96), False)],
)
def test_letterbox_decides_the_dims(
    tmp_path: Path, interface: Any, letterbox: Letterbox | None, height_width: tuple[int, int], dynamic: bool
) -> None:
    steps: list[str] = []
    choice = Choice(interface=interface, letterbox=letterbox)
    version = prepare("tiny", str(save(tmp_path)), choice=choice, say=steps.append)
    model = describe(version.config, version="1")
    dims = (*height_width, 3) if interface == "fused" else (3, *height_width)
    assert model.input.dims == dims
    assert model.input_wh == (96, 64)
    assert f"'dynamic': {dynamic}" in version.config.parameters["metadata"].string_value
    assert version.parity["boxes_px"] < 1e-3
    assert len(steps) == 4, steps


def test_rectangle_of_a_fixed_file_is_rejected(tmp_path: Path) -> None:
    model = build_detector(batch=1)
    for dim, value in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], (64, 96), strict=True):
        dim.dim_value = value
    path = str(save(tmp_path, model))
    with pytest.raises(ExportError, match="takes 64x96 pixels only"):
        prepare("tiny", path, choice=Choice(letterbox="rectangle"), say=pass_over)
    version = prepare("tiny", path, choice=Choice(), say=pass_over)
    assert list(version.config.input[0].dims) == [64, 96, 3]


def test_golden_input_gives_the_golden_outputs_of_either_head(tmp_path: Path) -> None:
    version = prepare("tiny", str(save(tmp_path)), choice=Choice(), say=pass_over)
    assert version.golden["image"].shape == (1, 128, 128, 3)
    assert version.golden["scores"].shape == (1, 128 * 128)
    assert describe(version.config, version="1").all_candidates
    assert np.ptp(version.golden["scores"]) > 0
    finished = prepare("tiny", str(save(tmp_path, build_finished(rows=300))), choice=Choice(), say=pass_over)
    described = describe(finished.config, version="1")
    assert (described.end2end, described.all_candidates) == (True, False)
    assert finished.golden["scores"].shape == (1, 300)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"opset": 22}, "opset of ai.onnx: got 22, expected at most 21"), ({"ir": 11}, "IR version: got 11")],
)
def test_model_that_is_too_new_for_the_oldest_triton_is_rejected(
    tmp_path: Path, change: dict[str, int], message: str
) -> None:
    model = build_detector(opset=change.get("opset", 17))
    model.ir_version = change.get("ir", 8)
    with pytest.raises(ExportError, match=message):
        check(model)
    with pytest.raises(ExportError, match=message):
        prepare("tiny", str(save(tmp_path, model)), choice=Choice(), say=pass_over)


@pytest.mark.skipif(not BROKEN.exists(), reason="needs ../shared/data/weights/broken-int8-yolov8n.onnx")
@pytest.mark.parametrize("interface", ["fused", "ultralytics"])
def test_badly_calibrated_int8_export_is_rejected_for_its_scores(interface: Any) -> None:
    with pytest.raises(ExportError, match=r"scores: got 0 to 1\.661, expected 0 to 1"):
        prepare("broken", str(BROKEN), choice=Choice(interface=interface), say=pass_over)


@pytest.mark.parametrize("build", [build_detector, build_finished])
@pytest.mark.parametrize("names", ["{0: 'a', 2: 'c'}", "{'2': 'c', '0': 'a'}"])
def test_names_with_gaps_are_those_of_as_many_classes_as_the_head_has(
    tmp_path: Path, names: str, build: Callable[[], ModelProto]
) -> None:
    path = str(save(tmp_path, build(), names=names))
    model = describe(prepare("tiny", path, choice=Choice(), say=pass_over).config, version="1")
    assert (model.names, model.classes) == ({0: "a", 2: "c"}, CLASSES)
