"""Export of real checkpoints: torch and ultralytics."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export.__main__ import main
from export.sources.trusted_checkpoints import OFFICIAL
from export.writer.config import read_config
from export.writer.manifest import digest
from export.writer.versions import read_complete
from tests.support.stack import ROOT, start_stack

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
def test_official_checkpoint_is_exported_and_verified(tmp_path: Path, interface: str) -> None:
    arguments = ["ultralytics", "yolov8n", str(WEIGHTS / "yolov8n.pt"), "--interface", interface]
    assert main([*arguments, "--repository", str(tmp_path)]) == 0
    folder = tmp_path / "yolov8n" / "1"
    manifest = read_complete(folder)
    assert manifest is not None
    assert manifest["interface"] == interface
    assert manifest["source"] == {"name": "yolov8n.pt", "sha256": OFFICIAL["yolov8n.pt"]}
    parity = json.loads((folder / "parity.json").read_bytes())
    assert parity["boxes_px"] < 0.05
    assert parity["scores"] < 1e-4
    assert parity["classes"] == 0
    assert parity["compared_with"] == "Ultralytics' predict"
    assert parity["detections"]["found"] > 50
    assert parity["detections"]["boxes_px"] < 0.05
    assert parity["detections"]["scores"] < 1e-4
    # The images show what it knows: the comparison is of detections, not of noise.
    assert max(row["best_score"] for row in parity["pictures"]) > 0.85
    config: Any = read_config(folder / "config.pbtxt")
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
    print(costs)  # for docs/benchmarks.md
    assert {precision: cost["truth"] for precision, cost in costs.items()} == {"bf16": "labels", "int8": "labels"}
    assert costs["bf16"]["fp32"] > 0.4
    assert costs["bf16"]["change"] >= -0.005
    assert costs["int8"]["change"] >= -0.02
    # The measured precision serves, on this machine at least: its responses differ from FP32's.
    with start_stack(tmp_path, tmp_path / "log", variables={"PROFILE": "int8"}) as stack:
        (version,) = stack.http.get("/status").json()["models"]["yolov8n"]["versions"].values()
        assert version["state"] == "serving", version
        assert stack.http.get("/v2/models/yolov8n/config").json()["default_model_filename"] == "model.int8.onnx"


@needs_weights
@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo11n-seg"])
def test_official_segmenter_is_exported_and_verified(tmp_path: Path, name: str) -> None:
    arguments = ["ultralytics", name, str(WEIGHTS / f"{name}.pt"), "--repository", str(tmp_path)]
    assert main(arguments) == 0
    folder = tmp_path / name / "1"
    manifest = read_complete(folder)
    assert manifest is not None
    assert (manifest["task"], manifest["interface"]) == ("segment", "fused")
    parity = json.loads((folder / "parity.json").read_bytes())
    assert parity["masks"] < 0.005
    assert parity["detections"]["found"] > 50
    assert parity["detections"]["mask_iou"] < 0.01
    assert parity["detections"]["boxes_px"] < 0.05
    config: Any = read_config(folder / "config.pbtxt")
    tensors = {output.name: list(output.dims) for output in config.output}
    assert tensors["coefficients"] == [-1, 32]
    assert tensors["prototypes"] == [32, -1, -1]


def test_checkpoint_of_something_else_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`

    torch.save({"no": "model"}, tmp_path / "weights.pt")
    repository = tmp_path / "repository"
    arguments = ["ultralytics", "other", str(tmp_path / "weights.pt"), "--allow-unpickling"]
    assert main([*arguments, "--repository", str(repository)]) == 1
    assert "got no checkpoint of Ultralytics" in capsys.readouterr().err
    assert not repository.exists()


def test_network_that_cannot_run_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`
    from ultralytics import YOLO  # noqa: PLC0415

    yolo = YOLO("yolov8n.yaml")
    misfit: Any = torch.nn.Conv2d(1, 1, 1)  # the layer before it has 16 channels
    misfit.f, misfit.i, misfit.type = -1, 1, "misfit"
    network: Any = yolo.model
    network.model[1] = misfit
    yolo.save(tmp_path / "misfit.pt")
    arguments = ["ultralytics", "misfit", str(tmp_path / "misfit.pt"), "--allow-unpickling"]
    assert main([*arguments, "--repository", str(tmp_path / "to")]) == 1
    error = capsys.readouterr().err
    assert "misfit.pt: Ultralytics does not export it: " in error
    assert "channels" in error
    assert not (tmp_path / "to").exists()


# In a process of its own: what a checkpoint may do is chosen before ultralytics is imported.
ENTRANCES = {
    "export": ["export", "ultralytics", "made", "{}", "--repository", "repository"],
    "exports": ["loadtest.compare.baselines.exports", "--weights", "{}", "--output", "output", "--picture", "{}"],
    "fastapi": ["loadtest.compare.baselines.fastapi", "--port", "1", "--weights", "{}"],
    "kserve": ["loadtest.compare.baselines.kserve", "--port", "1", "--weights", "{}"],
    "litserve": ["loadtest.compare.baselines.litserve", "--port", "1", "--weights", "{}"],
}


# A name does not say what a file is; each program decides in the same way, so one test shows it for all.
CASES = [*((entrance, "best.pt") for entrance in ENTRANCES), *(("fastapi", name) for name in ("best.pt.onnx", "best"))]


@pytest.mark.parametrize(("entrance", "name"), CASES)
def test_nothing_is_unpickled_without_permission(tmp_path: Path, entrance: str, name: str) -> None:
    run, path = run_trap(tmp_path, entrance, name)
    assert run.returncode == 1, run.stderr
    assert f"got SHA-256 {digest(path)}" in run.stderr
    assert "--allow-unpickling" in run.stderr
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("entrance", ["export", "exports", "fastapi"])
def test_checkpoint_is_unpickled_with_permission(tmp_path: Path, entrance: str) -> None:
    run, _ = run_trap(tmp_path, entrance, "best.pt", "--allow-unpickling")
    assert run.returncode == 1
    assert (tmp_path / "mark").exists(), run.stderr


def run_trap(folder: Path, entrance: str, name: str, *options: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Give a checkpoint that leaves `mark` when it is unpickled to a program; what it says, and the checkpoint."""
    import torch  # noqa: PLC0415 - only in the environment of `make test-export`

    path = folder / name
    torch.save({"model": Trap(folder / "mark")}, path)
    module, *arguments = (word.format(path) for word in ENTRANCES[entrance])
    command = [sys.executable, "-m", module, *arguments, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return run, path


class Trap:
    """Unpickling this leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)
