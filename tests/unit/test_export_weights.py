"""The kind of a .pt file without torch: from its name, and from names in its pickle, which is not run."""

import pickle
import sys
import zipfile
from pathlib import Path

import pytest

from export.__main__ import main
from export.errors import ExportError
from export.sources.ultralytics_checkpoint import open_onnx
from export.sources.weights_file import check_weights


def write(path: Path, *classes: str) -> Path:
    """A checkpoint that refers to classes, as torch.save writes it (protocol 2)."""
    pickled = b"\x80\x02]" + b"".join(b"c%s\na" % name.replace(":", "\n").encode() for name in classes) + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return path


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["ultralytics.nn.tasks:DetectionModel", "ultralytics.nn.modules.head:Detect"], None),
        (["ultralytics.nn.tasks:WorldModel", "ultralytics.nn.modules.head:WorldDetect"], None),
        (["ultralytics.nn.tasks:SegmentationModel"], None),
        (["ultralytics.nn.tasks:PoseModel"], None),
        (["ultralytics.nn.tasks:OBBModel"], None),
        (["ultralytics.nn.tasks:ClassificationModel", "ultralytics.nn.modules.head:Classify"], None),
        (["ultralytics.nn.tasks:SemanticSegmentationModel"], None),
        (["ultralytics.nn.tasks:DepthModel"], None),
        (["ultralytics.nn.tasks:YOLOESegModel"], None),
        (["ultralytics.nn.tasks:RTDETRDetectionModel", "ultralytics.nn.modules.head:RTDETRDecoder"], None),
        (["models.yolo:DetectionModel"], "YOLOv5's own repository"),
        (["models.yolo:Model"], "YOLOv5's own repository"),
    ],
)
def test_checkpoint_is_reported_by_its_classes(tmp_path: Path, classes: list[str], message: str | None) -> None:
    path = str(write(tmp_path / "best.pt", *classes))
    if message is None:
        check_weights(path)
        return
    with pytest.raises(ExportError, match=message):
        check_weights(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rtdetr-l.pt", None),
        ("yolo26n-seg.pt", None),
        ("yoloe-11s-seg-pf.pt", None),
        ("yolo11x-obb.pt", None),
        ("yolov8x-pose-p6.pt", None),
        ("yolov8n-cls.pt", None),
        ("yolo26n-depth.pt", None),
        ("best.pt", "the file is missing, and its name is not an official one"),
        ("weights/yolov8n.pt", "the file is missing, and its name is not an official one"),
        ("yolov8n.pt", None),
        ("yolov8s-worldv2.pt", None),
    ],
)
def test_official_name_is_reported_before_it_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, message: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["weights", name]) == (1 if message else 0)
    assert (message or "") in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", pickle.dumps({})])
def test_something_else_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(ExportError, match="expected a PyTorch checkpoint"):
        check_weights(str(tmp_path / "best.pt"))


def test_nothing_is_run_and_torch_is_not_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "mark"
    pickled = b"\x80\x02cpathlib\nPath\n(X%s%stRcmodels.yolo\nModel\n." % (
        len(str(mark)).to_bytes(4, "little"),
        str(mark).encode(),
    )
    with zipfile.ZipFile(tmp_path / "best.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    before = set(sys.modules)
    command = ["ultralytics", "m", str(tmp_path / "best.pt"), "--repository", str(tmp_path / "r")]
    assert main(command) == 1
    assert "YOLOv5's own repository" in capsys.readouterr().err
    assert "torch" not in set(sys.modules) - before
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "option"), [("f.onnx", ["--nms-free"]), ("f.engine", ["--nms-free"]), ("f.onnx", ["--imgsz", "640"])]
)
def test_options_of_a_checkpoint_are_rejected_for_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, option: list[str]
) -> None:
    command = ["ultralytics", "m", str(tmp_path / name), *option, "--repository", str(tmp_path / "r")]
    assert main(command) == 1
    assert f"{option[0]}: {name} fixes its size and its head" in capsys.readouterr().err


def test_predict_needs_ultralytics_and_an_onnx_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ExportError, match=r"f\.onnx: --predict needs torch and ultralytics.*PREDICT=1.*omit --predict"):
        open_onnx(tmp_path / "f.onnx", task="detect")
    command = ["ultralytics", "m", str(tmp_path / "f.engine"), "--predict", "--repository", str(tmp_path / "r")]
    assert main(command) == 1
    assert "--predict: got f.engine, and an engine is not compared" in capsys.readouterr().err


def test_pickle_that_does_not_unpack_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "best.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"a pickle that is long enough to be compressed" * 9)
    content = bytearray(path.read_bytes())
    start = content.index(b"data.pkl") + len("data.pkl")
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert main(["ultralytics", "m", str(path), "--repository", str(tmp_path / "r")]) == 1
    assert "expected a PyTorch checkpoint: is the file truncated, or of another kind?" in capsys.readouterr().err
