"""Frigate's own detector on images: what `make e2e-frigate` runs with Frigate's packages, in place of Frigate itself.

    python detect.py <config.yml> <image>...

The configuration is read by Frigate's own model of it. Prints JSON: for each image the rows of the detector, class,
score, y_min, x_min, y_max, x_max from 0 to 1, its labels, and the seconds that it took.
"""

import importlib
import json
import sys
import time
import types
from pathlib import Path

import numpy as np
from PIL import Image


def main(config: str, *images: str) -> None:
    """Detect on each image, scaled to the size that the configuration says; the first one twice, to connect."""
    # Its build writes this module.
    sys.modules["frigate.version"] = types.ModuleType("frigate.version")
    sys.modules["frigate.version"].VERSION = ""  # type: ignore[attr-defined]
    frigate = importlib.import_module("frigate.config").FrigateConfig.parse_yaml(Path(config).read_text())
    (detector,) = frigate.detectors.values()
    # As its create_detector does, which needs the packages of its CPU detector for a warning.
    api = importlib.import_module("frigate.detectors").api_types[detector.type](detector)
    size = (detector.model.width, detector.model.height)
    results = []
    for path in (images[0], *images):
        tensor = np.asarray(Image.open(path).convert("RGB").resize(size))[np.newaxis]
        started = time.perf_counter()
        rows = api.detect_raw(tensor)
        results.append({"seconds": time.perf_counter() - started, "rows": rows[rows[:, 1] > 0].tolist()})
    print(json.dumps({"labels": detector.model.merged_labelmap, "plugin": type(api).__name__, "results": results[1:]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
