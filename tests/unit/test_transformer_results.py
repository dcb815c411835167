"""Results of a request: how large they may be together, and what is let go before they are made."""

import numpy as np
import pytest

from tests.support.described import FUSED
from transformer.dataplane.images import ImageInference
from transformer.dataplane.results import ImageResult, ResultSizes
from transformer.errors import PayloadTooLarge
from transformer.imaging.decoding import DecodedImage
from transformer.observability.stage_timer import StageTimer
from transformer.observability.trace_context import Trace
from transformer.settings import TransformerSettings
from transformer.tasks.objects import Detections


def result(detections: int) -> ImageResult:
    scores = np.zeros(detections, np.float32)
    found = Detections(np.zeros((detections, 4), np.float32), scores, scores.astype(np.int64))
    return ImageResult(FUSED, found, (8, 6), None, StageTimer(Trace({})), 0)


def test_results_are_limited_together_while_they_come() -> None:
    sizes = ResultSizes(9)
    half = result(2**27 // result(1).prediction.json_bytes)
    sizes.add(half)
    sizes.add(half)
    with pytest.raises(PayloadTooLarge, match="the result of 9 items is over the limit of 268435456 bytes"):
        sizes.add(result(2))


@pytest.mark.parametrize("keep", [False, True])
def test_pixels_are_let_go_before_outputs_are_read(keep: bool) -> None:
    image = ImageInference(b"", TransformerSettings(), keep, stages=StageTimer(Trace({})))
    image.decoded = DecodedImage(np.zeros((3, 4, 3), np.uint8), (8, 6))
    size_wh, kept = image.release()
    assert size_wh == (8, 6)
    assert vars(image)["decoded"] is None
    assert (kept is not None) == keep
