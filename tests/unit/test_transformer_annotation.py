"""Drawing on pictures of any shape, and sending them back."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transformer.annotation import PictureType, check_size, draw_detections, draw_label, encode
from transformer.errors import PayloadTooLarge
from transformer.letterbox import Image
from transformer.tasks.detect import Detections

LONGEST: dict[PictureType, int] = {"image/jpeg": 65_500, "image/png": 1_000_000}
# One side is anything, so that the other is short.
SIDES = st.one_of(st.integers(1, 300), st.integers(1, 70_000), st.sampled_from([65_500, 65_501, 1_000_000, 1_000_001]))
SHAPES = st.tuples(SIDES, st.integers(1, 3)).flatmap(lambda sides: st.permutations(sides).map(tuple))


def blank(shape_hw: tuple[int, int]) -> Image:
    return np.zeros((*shape_hw, 3), np.uint8)


def detections_in(shape_hw: tuple[int, int]) -> Detections:
    """The whole picture, a corner of it, and nothing."""
    height, width = shape_hw
    boxes = np.array([[0, 0, width, height], [width - 1, height - 1, width, height], [0, 0, 0, 0]], np.float32)
    return Detections(boxes, np.ones(3, np.float32), np.arange(3, dtype=np.int32))


@settings(max_examples=30, deadline=None)
@given(SHAPES)
@example((1, 1))
@example((1, 2_000_000))
@example((2_000_000, 1))
@example((1, 23_000_000))  # a 700th of it is more than OpenCV draws
def test_any_shape_is_drawn_on(shape_hw: tuple[int, int]) -> None:
    image = blank(shape_hw)
    drawn = draw_detections(image, detections_in(shape_hw), labels=["a 0.50", "b 0.50", "ü"])
    assert drawn.shape == image.shape
    assert drawn.any()
    assert not image.any()
    assert draw_label(image, "a 0.50").any()


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.sampled_from(list(LONGEST)))
@example((1, 65_500), "image/jpeg")
@example((65_501, 1), "image/jpeg")
@example((1, 1_000_000), "image/png")
@example((1_000_001, 1), "image/png")
def test_any_shape_is_encoded_or_refused(shape_hw: tuple[int, int], media_type: PictureType) -> None:
    image = blank(shape_hw)
    if max(shape_hw) <= LONGEST[media_type]:
        check_size(image, media_type)
        decoded = cv2.imdecode(np.frombuffer(encode(image, media_type), np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        assert decoded.shape == image.shape
    else:
        with pytest.raises(PayloadTooLarge):
            check_size(image, media_type)


@pytest.mark.parametrize(
    ("width", "media_type", "says"),
    [
        (70_000, "image/jpeg", "70000x1 is over JPEG's 65500 a side; ask for image/png or application/json"),
        (2_000_000, "image/jpeg", "2000000x1 is over JPEG's 65500 a side; ask for application/json"),
        (2_000_000, "image/png", "2000000x1 is over PNG's 1000000 a side; ask for application/json"),
    ],
)
def test_refusal_names_a_format_that_is_long_enough(width: int, media_type: PictureType, says: str) -> None:
    with pytest.raises(PayloadTooLarge, match=f"^Accept: {media_type}: {says}$"):
        check_size(blank((1, width)), media_type)
