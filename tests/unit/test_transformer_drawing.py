"""Drawing on images of any shape, and sending them back."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import features

from transformer.errors import PayloadTooLarge
from transformer.imaging import lettering
from transformer.imaging.drawing import Label, draw_boxes, draw_captions, draw_label
from transformer.imaging.encoding import ImageType, check_size, encode
from transformer.imaging.letterbox import Image

LONGEST: dict[ImageType, int] = {"image/jpeg": 65_500, "image/png": 1_000_000}
# One side is anything, so that the other is short.
SIDES = st.one_of(st.integers(1, 300), st.integers(1, 70_000), st.sampled_from([65_500, 65_501, 1_000_000, 1_000_001]))
SHAPES = st.tuples(SIDES, st.integers(1, 3)).flatmap(lambda sides: st.permutations(sides).map(tuple))


def blank(shape_hw: tuple[int, int]) -> Image:
    return np.zeros((*shape_hw, 3), np.uint8)


def labels(*names: str) -> list[Label]:
    return [Label(name, class_id=class_id, score=0.9) for class_id, name in enumerate(names)]


def boxes_in(shape_hw: tuple[int, int]) -> NDArray[np.float32]:
    """The whole image, a corner of it, and nothing."""
    height, width = shape_hw
    return np.array([[0, 0, width, height], [width - 1, height - 1, width, height], [0, 0, 0, 0]], np.float32)


@settings(max_examples=30, deadline=None)
@given(SHAPES)
@example((1, 1))
@example((1, 2_000_000))
@example((2_000_000, 1))
@example((1, 23_000_000))  # a 700th of it is more than OpenCV draws
def test_any_shape_is_drawn_on(shape_hw: tuple[int, int]) -> None:
    image = blank(shape_hw)
    drawn = draw_boxes(image, boxes_in(shape_hw), labels("a", "安全帽", "ü" * 1000))
    assert drawn.shape == image.shape
    assert drawn.any()
    assert not image.any()
    assert draw_label(image, Label("a", class_id=0, score=0.5)).any()
    captions = draw_captions(image, boxes_in(shape_hw), [None, *labels("a", "ü" * 1000)])
    assert captions.shape == image.shape
    assert captions.any()
    assert not image.any()


# With the system's libfribidi or without it: Latin, Cyrillic, Greek, Georgian, and the Far East.
PLAIN = [
    "person",
    "Straße ½ €",
    "Tiếng Việt",
    "Шлем Київ",
    "Κράνος ώ",
    "ქართული",
    "安全帽 頭盔",
    "ヘルメット",
    "안전모",
    "cafe\u0301",
]
SHAPED = ["خوذة", "قبعة 12", "हेलमेट क्षत्रिय", "หมวกกันน็อค", "קסדה"]
MISSING = ["🚗", "안전모🚗", "तமி", "বাংলা", "安全帽 خوذة", "\ue000", "", " ", "\n"]


def tab(name: str, *, class_id: int = 7) -> Image:
    return draw_label(np.zeros((200, 400, 3), np.uint8), Label(name, class_id=class_id, score=0.5))


@pytest.mark.parametrize("name", PLAIN)
def test_names_of_many_scripts_are_drawn(name: str) -> None:
    assert lettering.is_drawable(lettering.tidy(name))
    drawn = tab(name)
    assert not np.array_equal(drawn, tab("?" * len(name)))
    assert not np.array_equal(drawn, tab(""))
    assert len({tab(letter).tobytes() for letter in set(name) - {" ", "e", "\u0301"}}) == len(
        set(name) - {" ", "e", "\u0301"}
    )


@pytest.mark.parametrize("name", SHAPED)
def test_names_that_need_shaping_are_shaped_or_their_index_is_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tab("class 7")
    if features.check("raqm"):
        assert not np.array_equal(tab(name), index)
    monkeypatch.setattr(lettering, "can_shape", lambda: False)
    np.testing.assert_array_equal(tab(name), index)


@pytest.mark.skipif(not features.check("raqm"), reason="needs libfribidi")
def test_hebrew_is_written_from_right_to_left() -> None:
    word, first = lettering.draw("קסדה", 40), lettering.draw("ק", 40)
    np.testing.assert_array_equal(word[:, -first.shape[1] + 2 :], first[:, 2:])
    assert not np.array_equal(word[:, : first.shape[1]], first)


@pytest.mark.parametrize("name", MISSING)
def test_index_is_drawn_where_no_font_has_the_name(name: str) -> None:
    np.testing.assert_array_equal(tab(name), tab("class 7"))
    assert not np.array_equal(tab(name), tab(name, class_id=8))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("hard\nhat", "hard hat"),
        ("\ta\x00b ", "a b"),
        ("cafe\u0301", "caf\u00e9"),
        ("x" * 41, "x" * 39 + "…"),
        ("é" * 40, "é" * 40),
    ],
)
def test_a_name_becomes_one_short_line(name: str, line: str) -> None:
    assert lettering.tidy(name) == line


def test_the_weakest_lies_below_and_every_name_is_its_own() -> None:
    boxes = np.array([[100, 100, 180, 180], [100, 100, 180, 180]], np.float32)
    image = np.zeros((300, 300, 3), np.uint8)
    both = draw_boxes(image, boxes, labels("strong name", "x"))
    alone = draw_boxes(image, boxes[:1], labels("strong name"))
    above = slice(70, 98)
    np.testing.assert_array_equal(both[above, 100:160], alone[above, 100:160])


def test_a_caption_is_below_its_box_or_inside_where_there_is_no_room() -> None:
    boxes = np.array([[100, 100, 180, 180], [20, 200, 60, 300], [200, 100, 280, 180]], np.float32)
    image = np.zeros((300, 300, 3), np.uint8)
    drawn = draw_captions(image, boxes, [*labels("a", "b"), None])
    rows, columns = np.nonzero(drawn.any(axis=2))
    first = columns >= 100
    assert (rows[first].min(), columns[first].min(), rows[~first].max(), columns[~first].min()) == (180, 100, 299, 20)
    height = rows[first].max() - 180
    assert 10 < height < 40
    assert rows[~first].min() == 299 - height
    assert columns.max() < 200


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.sampled_from(list(LONGEST)))
@example((1, 65_500), "image/jpeg")
@example((65_501, 1), "image/jpeg")
@example((1, 1_000_000), "image/png")
@example((1_000_001, 1), "image/png")
def test_any_shape_is_encoded_or_rejected(shape_hw: tuple[int, int], media_type: ImageType) -> None:
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
        (70_000, "image/jpeg", "70000x1 is over JPEG's 65500 a side; request image/png or application/json"),
        (2_000_000, "image/jpeg", "2000000x1 is over JPEG's 65500 a side; request application/json"),
        (2_000_000, "image/png", "2000000x1 is over PNG's 1000000 a side; request application/json"),
    ],
)
def test_rejection_names_a_format_that_allows_the_side(width: int, media_type: ImageType, says: str) -> None:
    with pytest.raises(PayloadTooLarge, match=f"^Accept: {media_type}: {says}$"):
        check_size(blank((1, width)), media_type)
