"""Reference detections: their file, and the comparison with it."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.proof.average_precision import Rows

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Reference:
    """Detections of Ultralytics.

    Attributes:
        made_by: program, versions and settings.
        map50_95, map50: on the labels, best class for each box, confidence 0.001.
        detections: by image name, confidence 0.25.
    """

    made_by: str
    map50_95: float
    map50: float
    detections: Mapping[str, Rows]

    def write(self, name: str) -> None:
        """Write `<name>.json.gz`, the same bytes for the same content."""
        text = json.dumps(vars(self), indent=None, separators=(",", ":"))
        (FOLDER / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def read_reference(name: str) -> Reference:
    """Read `<name>.json.gz`."""
    return Reference(**json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes())))


def compare(found: Rows, expected: Rows, *, box_px: float, score: float) -> list[str]:
    """Differences between two lists of detections, as sentences.

    Each expected detection is compared with the nearest unmatched one of its class.
    """
    left = [list(row) for row in found]
    differences = []
    for row in expected:
        rivals = [other for other in left if int(other[5]) == int(row[5])]
        nearest = min(rivals, key=lambda other: _distance(other, row), default=None)
        if nearest is None:
            differences.append(f"missing {row}")
            continue
        left.remove(nearest)
        if _distance(nearest, row) > box_px or abs(nearest[4] - row[4]) > score:
            differences.append(f"got {nearest}, expected {row}")
    return differences + [f"unexpected {row}" for row in left]


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    corners: NDArray[np.float64] = np.abs(np.subtract(a[:4], b[:4]))
    return float(corners.max())
