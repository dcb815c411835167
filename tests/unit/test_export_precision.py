"""int8 and the gate of precisions on a small detector, with images whose boxes are known.

What they cost the detectors that people have is gated at each export: `make models`, tests/integration/test_examples.py
and tests/export.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.__main__ import main
from export.errors import ExportError
from export.graph.compatibility import check
from export.graph.dfl import split
from export.proof.calibration import ENOUGH, Folder, Sample
from export.proof.drawn_images import NamedImage
from export.proof.precision import find_truth, measure
from export.sources.choice import Choice
from export.sources.exported_detector import read_detector
from export.sources.ultralytics import prepare
from export.writer.versions import read_complete
from tests.support.detectors import SQUARES_PX, build_finder, draw_squares, pass_over, save
from transformer.tasks import describe
from transformer.triton.model import Model


@pytest.fixture
def finder(tmp_path: Path) -> Path:
    """The finder of squares as Ultralytics would have written it."""
    path = tmp_path / "weights"
    path.mkdir()
    return save(path, build_finder(), imgsz=f"[{SQUARES_PX}, {SQUARES_PX}]")


def pass_on(items: Iterable[int], _: str) -> Iterable[int]:
    return items


def write_squares(folder: Path, *, count: int, labels: bool) -> Path:
    """A data set in YOLO's layout, or a folder of images."""
    images = folder / "images" / "val" if labels else folder
    images.mkdir(parents=True)
    for index in range(count):
        image_hwc, boxes_xyxy, class_ids = draw_squares(index)
        cv2.imwrite(str(images / f"{index}.png"), cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR))
        if labels:
            path = folder / "labels" / "val" / f"{index}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            x1, y1, x2, y2 = boxes_xyxy.T / SQUARES_PX
            rows = zip(class_ids, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, strict=True)
            path.write_text("".join(f"{c} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for c, x, y, w, h in rows))
    return folder


@pytest.mark.parametrize("labels", [True, False])
def test_int8_is_calibrated_measured_and_published(
    tmp_path: Path, finder: Path, capsys: pytest.CaptureFixture[str], labels: bool
) -> None:
    images = write_squares(tmp_path / "squares", count=12, labels=labels)
    repository = tmp_path / "repository"
    command = ["ultralytics", "finder", str(finder), "--precision", "bf16", "int8", "--calibration", str(images)]
    assert main([*command, "--repository", str(repository)]) == 0
    out = capsys.readouterr().out
    assert f"warning: --calibration {images}: got 12 images, expected {ENOUGH} or more" in out
    folder = repository / "finder" / "1"
    manifest = read_complete(folder)
    assert manifest is not None
    costs = manifest["precisions"]
    for precision in ("bf16", "int8"):
        assert costs[precision]["truth"] == ("labels" if labels else "fp32")
        assert costs[precision]["pictures"] == 12
        assert costs[precision]["change"] == pytest.approx(
            costs[precision]["map50_95"] - costs[precision]["fp32"], abs=2e-4
        )
        assert f"{precision} {costs[precision]['map50_95']:.4f}" in out
    assert costs["int8"]["fp32"] > (0.8 if labels else 0.95)
    # Profile int8 has golden outputs of its own; profiles of model.onnx have those of FP32.
    goldens = {path.name for path in folder.glob("golden*")}
    assert goldens == {"golden.npz", "golden.int8.npz"}
    assert goldens <= manifest["files"].keys()
    quantised = onnx.load(folder / "model.int8.onnx")
    check(quantised)
    plain, _, _ = split(onnx.load(folder / "model.onnx").graph)
    weights = {initializer.name: initializer.data_type for initializer in quantised.graph.initializer}
    types = [weights[node.input[0]] for node in quantised.graph.node if node.input and node.input[0] in weights]
    convolutions = sum(node.op_type == "Conv" for node in plain)
    assert types.count(onnx.TensorProto.INT8) == convolutions
    # Right on every CPU, see quantise().
    kernels = [
        numpy_helper.to_array(i) for i in quantised.graph.initializer if i.data_type == i.INT8 and len(i.dims) > 1
    ]
    assert len(kernels) == convolutions
    assert max(np.abs(kernel).max() for kernel in kernels) <= 64
    points = {node.input[2] for node in quantised.graph.node if node.op_type == "QuantizeLinear"}
    assert {weights[point] for point in points} == {onnx.TensorProto.UINT8}
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in quantised.graph.node}
    assert quantised.ByteSize() < 0.4 * (folder / "model.onnx").stat().st_size


def test_bf16_is_measured_on_the_drawn_images_by_default(tmp_path: Path, finder: Path) -> None:
    assert main(["ultralytics", "finder", str(finder), "--precision", "bf16", "--repository", str(tmp_path)]) == 0
    costs = json.loads((tmp_path / "finder" / "1" / "manifest.json").read_bytes())["precisions"]
    assert costs.keys() == {"bf16"}
    assert (costs["bf16"]["truth"], costs["bf16"]["pictures"]) == ("fp32", 6)


def test_int8_without_images_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(save(tmp_path))
    with pytest.raises(ExportError, match="--precision int8: got no --calibration"):
        prepare("tiny", path, choice=Choice(precisions=["int8"]), say=pass_over)
    command = ["ultralytics", "tiny", path, "--precision", "int8", "--calibration", str(tmp_path)]
    assert main([*command, "--repository", str(tmp_path / "repository")]) == 1
    assert f"--calibration {tmp_path}: got no image, expected {ENOUGH} or more" in capsys.readouterr().err


class Moved:
    """A detector that finds every box of a scene, so far away from where it is."""

    def __init__(self, boxes_cxcywh: Any, *, px: float) -> None:
        self._boxes = np.asarray(boxes_cxcywh, np.float32) + np.array([px, 0, 0, 0], np.float32)

    def infer(self, batch: Any) -> dict[str, Any]:
        count = len(self._boxes)
        scores = np.linspace(0.9, 0.5, count, dtype=np.float32)
        return {"boxes": self._boxes[None], "scores": scores[None], "classes": np.zeros((len(batch), count), np.int32)}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    detector = read_detector(save(tmp_path, imgsz="[320, 320]"))
    from export.sources.ultralytics_objects import make_config  # noqa: PLC0415

    return describe(make_config("tiny", detector, interface="fused", size_hw=None), version="0")


BOXES = [[60, 60, 40, 40], [160, 60, 40, 40], [60, 160, 40, 40]]


@pytest.mark.parametrize("labels", [True, False])
def test_precision_that_moves_boxes_is_rejected(model: Model, labels: bool) -> None:
    rows = [[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, 0] for cx, cy, w, h in BOXES]
    samples = [Sample(NamedImage("one", np.zeros((320, 320, 3), np.uint8)), rows if labels else None)]
    truth = find_truth(Moved(BOXES, px=0), model, samples, track=pass_on)
    assert truth.kind == ("labels" if labels else "fp32")
    assert truth.map50_95 == pytest.approx(1.0)
    assert measure("int8", Moved(BOXES, px=0.5), model, samples, truth, track=pass_on)["change"] == 0
    words = "the labels" if labels else "what FP32 finds"
    expected = rf"int8: mAP50-95 \(box\) against {words}: got 0\.[0-9]+, expected at most 0.02 below FP32's 1.0000 "
    with pytest.raises(ExportError, match=expected):
        measure("int8", Moved(BOXES, px=6), model, samples, truth, track=pass_on)


def test_images_without_anything_to_find_are_rejected(model: Model) -> None:
    samples = [Sample(NamedImage("one", np.zeros((320, 320, 3), np.uint8)), None)]
    with pytest.raises(ExportError, match="FP32 finds nothing on 1 images"):
        find_truth(Moved(np.zeros((0, 4)), px=0), model, samples, track=pass_on)


def test_folder_reads_labels_beside_images_and_rejects_what_is_broken(tmp_path: Path) -> None:
    write_squares(tmp_path, count=2, labels=True)
    samples = Folder(tmp_path)
    assert len(samples) == 2
    image_hwc, boxes_xyxy, class_ids = draw_squares(0)
    np.testing.assert_array_equal(samples[0].image.image_hwc, image_hwc)
    assert samples[0].labels is not None
    expected = np.column_stack([boxes_xyxy, class_ids])
    np.testing.assert_allclose(samples[0].labels, expected, atol=1e-3)
    (tmp_path / "labels" / "val" / "1.txt").write_text("0 0.5\n")
    with pytest.raises(ExportError, match=r"1\.txt: got no labels"):
        samples[1]
    (tmp_path / "images" / "val" / "0.png").write_bytes(b"no image")
    with pytest.raises(ExportError, match=r"0\.png: got no image that can be read"):
        samples[0]
