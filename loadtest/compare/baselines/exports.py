"""`python -m loadtest.compare.baselines.exports`: Ultralytics' exports of one .pt file, the fastest of each format.

Each format is exported in every way that its documentation offers without changing the network; each is timed in turn,
as the baselines call it. The detections of Ultralytics with the .pt file itself are written beside them.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ultralytics
from ultralytics import YOLO
from ultralytics.utils.downloads import attempt_download_asset

from export.sources.trusted_checkpoints import CheckpointError, admit
from loadtest.compare.baselines.detector import Detector

CONFIDENCE = 0.25
WAYS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "onnx": {"fixed": {}, "dynamic": {"dynamic": True}},
    "openvino": {
        "fixed": {},
        "dynamic": {"dynamic": True},
        "fixed-half": {"quantize": 16},
        "dynamic-half": {"dynamic": True, "quantize": 16},
    },
}
_ROUNDS, _EACH, _WARM_UP = 5, 8, 4


def main() -> int:
    """Write exports.json; exports of the same weights and image stay."""
    options = _parser().parse_args()
    image = options.picture.read_bytes()
    images = {path.name: path.read_bytes() for path in options.pictures}
    given = Path(options.weights)
    given = given.resolve() if given.exists() else given
    options.output.mkdir(parents=True, exist_ok=True)
    os.chdir(options.output)  # an official name is downloaded into the current folder
    try:
        weights = Path(attempt_download_asset(given, retry=1)).resolve()
        with admit(weights, allowed=options.allow_unpickling) as checkpoint:
            write(weights, checkpoint, image, images)
    except CheckpointError as exc:
        print(f"error: {exc}", file=sys.stderr)
    # Unpickling may raise anything that the code of a pickle raises.
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, EOFError, ImportError, OSError) as exc:
        reason = str(exc).partition("\n")[0] or type(exc).__name__
        print(f"error: {options.weights}: {reason}", file=sys.stderr)
    else:
        return 0
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.compare.baselines.exports")
    parser.add_argument("--weights", required=True, help="a .pt file, or an official name")
    parser.add_argument("--allow-unpickling", action="store_true", help="run the code that a .pt file may contain")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--picture", type=Path, required=True, help="image that the exports are timed with")
    parser.add_argument("pictures", nargs="*", type=Path, help="images of the reference detections")
    return parser


def write(weights: Path, checkpoint: Path, image: bytes, images: Mapping[str, bytes]) -> None:
    """Write exports.json, in the current folder.

    Args:
        weights: as the user named them, for the file.
        checkpoint: an admitted copy of them.
        image: that the exports are timed with, encoded.
        images: of the reference detections, encoded, by name.
    """
    model = YOLO(checkpoint, task="detect")
    digest = hashlib.sha256(ultralytics.__version__.encode())
    for content in (checkpoint.read_bytes(), image, *images.values()):
        digest.update(hashlib.sha256(content).digest())
    written = Path("exports.json")
    if written.exists() and json.loads(written.read_bytes())["key"] == digest.hexdigest():
        return
    chosen = {name: choose(name, checkpoint, image) for name in WAYS}
    detector = Detector(str(checkpoint), allowed=True)  # it was admitted
    result = {
        "key": digest.hexdigest(),
        "weights": str(weights),
        "names": {str(index): name for index, name in model.names.items()},
        "reference": {name: detector.detect(content, CONFIDENCE) for name, content in images.items()},
        **chosen,
    }
    written.write_text(json.dumps(result, indent=1) + "\n")


def choose(name: str, weights: Path, image: bytes) -> dict[str, Any]:
    """Export one format in every way.

    Returns:
        Which way is fastest, its path, and of each way the path and milliseconds.
    """
    paths = {way: export(name, way, weights) for way in WAYS[name]}
    detectors = {way: Detector(path) for way, path in paths.items()}
    times: dict[str, list[float]] = {way: [] for way in paths}
    for _ in range(_ROUNDS):
        for way, detector in detectors.items():
            for index in range(_WARM_UP + _EACH):
                started = time.perf_counter()
                detector.detect(image, CONFIDENCE)
                if index >= _WARM_UP:
                    times[way].append((time.perf_counter() - started) * 1000)
    median_ms = {way: statistics.median(each) for way, each in times.items()}
    way = min(median_ms, key=lambda way: median_ms[way])
    return {"way": way, "path": paths[way], "paths": paths, "median_ms": median_ms}


def export(name: str, way: str, weights: Path) -> str:
    """Ultralytics' export, in a folder of its own: it writes beside the weights."""
    folder = Path(f"{name}-{way}").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    copy = Path(shutil.copy(weights, folder))
    return str(YOLO(copy, task="detect").export(format=name, device="cpu", verbose=False, **WAYS[name][way]))


if __name__ == "__main__":
    sys.exit(main())
