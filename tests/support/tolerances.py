"""How far two correct results for the same input may differ.

The order of float additions may differ. Triton batches concurrent requests, and a batch of another size uses other
kernels; so does a CPU with other instructions (AVX2, AVX-512, bf16, AMX) or another number of threads.
FP32 has 24 bits: of a coordinate of 300 pixels the last one is 3e-5, and a detector adds up thousands of products for
each. Seen with digit-finder: 6e-5 pixels and 9e-7 of a score, between one image and two in a batch, and between
AVX-512 and AVX2 (QEMU's Haswell). The JSON rounds boxes to 0.001 pixels and scores to 0.000001: two of them may differ
by a step more.

The number of objects, their classes, and results that one program computes twice from one tensor must be equal.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

BOX_PX = 0.01
SCORE = 1e-4


def same_detections(found: Any, expected: Any) -> bool:
    """Whether two lists of rows `x1, y1, x2, y2, score, class` are the same objects in the same order."""
    a, b = (np.asarray(rows, np.float64).reshape(-1, 6) for rows in (found, expected))
    return a.shape == b.shape and bool(
        (np.abs(a[:, :4] - b[:, :4]) <= BOX_PX).all()
        and (np.abs(a[:, 4] - b[:, 4]) <= SCORE).all()
        and (a[:, 5] == b[:, 5]).all()
    )


def close(numbers: Mapping[str, float]) -> dict[str, Any]:
    """An object that equals a response whose numbers are close, by their path in it: `/predictions/0/box/x1`."""
    return {
        path: pytest.approx(value, rel=0, abs=BOX_PX if "/box/" in path else SCORE) for path, value in numbers.items()
    }
