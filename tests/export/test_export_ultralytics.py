"""Export of real checkpoints: torch and ultralytics."""

import json
from pathlib import Path
from typing import Any

import pytest

from export.__main__ import main
from export.config import parse
from export.versions import read_complete

pytestmark = [
    # Ultralytics 8.4 uses the exporter of torch that still makes height and width free.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ultralytics"),
]

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights"
COCO = WEIGHTS.parent / "coco128"
needs_weights = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="needs ../shared/data/weights")


@needs_weights
@pytest.mark.parametrize("interface", ["fused", "ultralytics"])
def test_official_checkpoint_is_exported_and_proven(tmp_path: Path, interface: str) -> None:
    arguments = ["ultralytics", "yolov8n", str(WEIGHTS / "yolov8n.pt"), "--interface", interface]
    assert main([*arguments, "--repository", str(tmp_path)]) == 0
    folder = tmp_path / "yolov8n" / "1"
    manifest = read_complete(folder)
    assert manifest is not None
    assert (manifest["interface"], manifest["source"]["name"]) == (interface, "yolov8n.pt")
    parity = json.loads((folder / "parity.json").read_bytes())
    assert parity["boxes_px"] < 0.05
    assert parity["scores"] < 1e-4
    assert parity["classes"] == 0
    # The pictures show what it knows: the comparison is of detections, not of noise.
    assert max(row["best_score"] for row in parity["pictures"]) > 0.85
    config: Any = parse((folder / "config.pbtxt").read_text(encoding="utf-8"))
    assert "79: 'toothbrush'" in config.parameters["metadata"].string_value


@needs_weights
@pytest.mark.skipif(not COCO.is_dir(), reason="needs ../shared/data/coco128")
def test_precisions_of_an_official_checkpoint_cost_little_on_photos(tmp_path: Path) -> None:
    command = ["ultralytics", "yolov8n", str(WEIGHTS / "yolov8n.pt"), "--precision", "bf16", "int8"]
    options = ["--calibration", str(COCO), "--repository", str(tmp_path)]
    assert main([*command, *options]) == 0
    manifest = read_complete(tmp_path / "yolov8n" / "1")
    assert manifest is not None
    costs = manifest["precisions"]
    print(costs)  # for the README
    assert {precision: cost["truth"] for precision, cost in costs.items()} == {"bf16": "labels", "int8": "labels"}
    assert costs["bf16"]["fp32"] > 0.4
    assert costs["bf16"]["change"] >= -0.005
    assert costs["int8"]["change"] >= -0.02


@needs_weights
@pytest.mark.parametrize("name", ["yolov8n-seg.pt", "yolo11n-seg.pt"])
def test_checkpoint_of_another_task_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["ultralytics", "seg", str(WEIGHTS / name), "--repository", str(tmp_path)]) == 1
    assert "task: got 'segment', expected 'detect'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`

    torch.save({"no": "model"}, tmp_path / "weights.pt")
    repository = tmp_path / "repository"
    assert main(["ultralytics", "other", str(tmp_path / "weights.pt"), "--repository", str(repository)]) == 1
    assert "got no checkpoint of Ultralytics" in capsys.readouterr().err
    assert not repository.exists()
