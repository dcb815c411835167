"""The baselines of `make compare`, compared with Ultralytics."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from loadtest.compare.agreement import agree
from loadtest.compare.candidates import baselines, serve, to_detections
from loadtest.compare.measurement import infer
from tests.support.stack import ROOT


def test_baselines_find_what_ultralytics_finds(shared: Path, tmp_path: Path) -> None:
    exports = export_baselines(shared, tmp_path)
    expected = {name: to_detections(found) for name, found in exports["reference"].items()}
    assert sum(map(len, expected.values())) > 5
    # Whichever was faster: an export of fixed size is square, and its boxes differ from PyTorch's in the rectangle.
    exports["onnx"]["path"] = exports["onnx"]["paths"]["dynamic"]
    servers = {server.name: server for server in baselines(exports["weights"], exports)}
    for name in ("fastapi-onnx", "kserve-onnx", "litserve-onnx"):
        server = servers[name]
        with serve(server, tmp_path / f"{name}.log") as running:
            found = {
                path.name: server.read(infer(running.port, server.request(path.read_bytes(), 0.25))[0])
                for path in images(shared)
            }
        agreement = agree(found, expected)
        assert (agreement.share, agreement.expected) == (1.0, agreement.found), name
        assert agreement.score < 0.005
        assert agreement.box_px < 1


def images(shared: Path) -> list[Path]:
    return sorted((shared / "coco128" / "images").glob("*.jpg"))[:4]


def export_baselines(shared: Path, folder: Path) -> Any:
    paths = images(shared)
    options = ["--weights", str(shared / "weights" / "yolov8n.pt"), "--output", str(folder), "--picture", str(paths[0])]
    command = [sys.executable, "-m", "loadtest.compare.baselines.exports", *options, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    exports = json.loads((folder / "exports.json").read_bytes())
    for name in ("onnx", "openvino"):
        assert Path(exports[name]["path"]).exists()
        assert exports[name]["median_ms"][exports[name]["way"]] == min(exports[name]["median_ms"].values())
    return exports
