"""Draw boxes, masks and labels on an image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from transformer.imaging import lettering
from transformer.imaging.letterbox import Image
from transformer.imaging.masks import Bits, Mask, find_outlines
from transformer.imaging.nms import Floats

# Twelve hues that stay apart on light and dark images (RGB).
COLOURS = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (0, 128, 128),
    (240, 50, 230), (128, 128, 0), (170, 110, 40), (128, 0, 0), (0, 0, 128), (90, 90, 90),
)  # fmt: skip
_SHADES = 3  # of each of them, for the classes of a map
_WHITE = np.array((255, 255, 255), np.uint16)
_SMALLEST_PX, _LARGEST_PX = 13, 120  # height of letters
_CACHED_TEXTS = 128  # of one image: scores and names repeat
_MARGIN_PX = 2
_FILL = 0.45  # of the colour, in a mask
_STRIP_PX = 2**18  # coloured at once
_UNSEEN = 1 / 8  # of a line's thickness: as much as an outline may be off, which saves most of its points
_FARTHEST_PX = 2**20  # of a corner outside of the image


@dataclass(frozen=True)
class Label:
    """The text beside an object.

    Attributes:
        name: of its class; where no font has all of its letters, `class_id` is drawn.
        class_id: chooses the colour too.
        score: in 0 to 1.
    """

    name: str
    class_id: int
    score: float

    @property
    def colour(self) -> tuple[int, ...]:
        """RGB, the same for all objects of a class."""
        return COLOURS[self.class_id % len(COLOURS)]


def draw_boxes(image_hwc: Image, boxes_xyxy: Floats, labels: Sequence[Label]) -> Image:
    """A copy of the image with a box and a label for each object.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        boxes_xyxy: `(N, 4)`, pixels of `image_hwc`, best first.
        labels: one for each box.
    """
    drawn = image_hwc.copy()
    thickness = line_thickness(drawn)
    draw = _lettering(drawn)
    # The weakest first, so that the strongest lies on top.
    for box, label in reversed(list(zip(boxes_xyxy, labels, strict=True))):
        if not np.isfinite(box).all():  # of a broken model
            continue
        x1, y1, x2, y2 = (int(value) for value in box.round())
        cv2.rectangle(drawn, (x1, y1), (x2, y2), label.colour, thickness, cv2.LINE_AA)
        _write(drawn, [draw(text) for text in _texts(label)], at_xy=(x1, y1), colour=label.colour)
    return drawn


def draw_masks(image_hwc: Image, masks: Sequence[Mask], boxes_xyxy: Floats, labels: Sequence[Label]) -> Image:
    """A copy of the image with a mask, filled and outlined, and a label for each object.

    Args:
        image_hwc: RGB, `(height, width, 3)`, of the size that the masks are made for.
        masks: best first.
        boxes_xyxy: `(N, 4)`, pixels of `image_hwc`: where the labels are.
        labels: one for each mask.
    """
    drawn = image_hwc.copy()
    thickness = line_thickness(drawn)
    draw = _lettering(drawn)
    for mask, box, label in reversed(list(zip(masks, boxes_xyxy, labels, strict=True))):
        bits, corner_xy = mask.crop()
        _colour(drawn, bits, corner_xy, label.colour)
        parts = mask.outlines or find_outlines(bits, corner_xy)
        outlines = [cv2.approxPolyDP(part, thickness * _UNSEEN, closed=True) for part in parts]
        cv2.drawContours(drawn, outlines, -1, label.colour, thickness, cv2.LINE_AA)
        x1, y1 = (int(value) for value in box[:2].round())
        _write(drawn, [draw(text) for text in _texts(label)], at_xy=(x1, y1), colour=label.colour)
    return drawn


def _colour(drawn: Image, bits: Bits, corner_xy: tuple[int, int], colour: tuple[int, ...]) -> None:
    """Mix a colour into the pixels of a mask whose corner is at `corner_xy`; `drawn` is changed."""
    levels = np.arange(256)[:, None] * (1 - _FILL) + np.array(colour) * _FILL
    mixed = levels.round().astype(np.uint8)[None]
    x, y = corner_xy
    strip = max(_STRIP_PX // bits.shape[1], 1)
    for top in range(0, len(bits), strip):
        wanted = bits[top : top + strip]
        place = drawn[y + top : y + top + len(wanted), x : x + wanted.shape[1]]
        cv2.copyTo(cv2.LUT(place, mixed), wanted, place)


def draw_rotated_boxes(image_hwc: Image, corners: Floats, labels: Sequence[Label]) -> Image:
    """A copy of the image with a rotated box, and a label at its highest corner, for each object.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        corners: `(N, 4, 2)`, pixels of `image_hwc`, which they may leave; best first. Those of a broken model, which
            are no numbers, are left out.
        labels: one for each box.
    """
    drawn = image_hwc.copy()
    thickness = line_thickness(drawn)
    draw = _lettering(drawn)
    inside = np.array(drawn.shape[1::-1]) - 1
    for box, label in reversed(list(zip(corners, labels, strict=True))):
        if not np.isfinite(box).all():
            continue
        line = np.clip(box, -_FARTHEST_PX, _FARTHEST_PX).round().astype(np.int32)
        cv2.polylines(drawn, [line], True, label.colour, thickness, cv2.LINE_AA)
        x, y = np.clip(line[line[:, 1].argmin()], 0, inside).tolist()
        _write(drawn, [draw(text) for text in _texts(label)], at_xy=(x, y), colour=label.colour)
    return drawn


def draw_captions(image_hwc: Image, boxes_xyxy: Floats, labels: Sequence[Label | None]) -> Image:
    """A copy of the image with a second label below each box, beside those of `draw_boxes` above.

    Args:
        image_hwc: RGB, `(height, width, 3)`.
        boxes_xyxy: `(N, 4)`, pixels of `image_hwc`, best first.
        labels: one for each box; None: it has no second one.
    """
    drawn = image_hwc.copy()
    draw = _lettering(drawn)
    for box, label in reversed(list(zip(np.nan_to_num(boxes_xyxy).round().astype(int), labels, strict=True))):
        if label:
            at_xy = int(box[0]), int(box[3])
            _write(drawn, [draw(text) for text in _texts(label)], at_xy=at_xy, colour=label.colour, below=True)
    return drawn


def draw_label(image_hwc: Image, label: Label) -> Image:
    """A copy of the image with a label in its upper left corner, enlarged where it is too small to read."""
    height, width = image_hwc.shape[:2]
    factor = max(min(-(-200 // min(height, width)), 2000 // max(height, width)), 1)
    drawn = np.ascontiguousarray(image_hwc.repeat(factor, axis=0).repeat(factor, axis=1))
    draw = _lettering(drawn)
    _write(drawn, [draw(text) for text in _texts(label)], at_xy=(0, 0), colour=COLOURS[2])
    return drawn


def draw_region(image_hwc: Image, region_xyxy: tuple[float, float, float, float]) -> Image:
    """A copy of the image with a frame around a region, in pixels."""
    drawn = image_hwc.copy()
    x1, y1, x2, y2 = (round(value) for value in region_xyxy)
    cv2.rectangle(drawn, (x1, y1), (x2 - 1, y2 - 1), COLOURS[2], line_thickness(drawn), cv2.LINE_AA)
    return drawn


def shade(image_hwc: Image, values: NDArray[Any], *, shown: NDArray[np.bool_]) -> None:
    """Lay the colour of its value over each pixel that is `shown`; the image is changed.

    Args:
        image_hwc: RGB, `(height, width, 3)`, or some rows of it.
        values: `(height, width)`, whole numbers.
        shown: `(height, width)`.
    """
    colours = _PALETTE[values % len(_PALETTE)]
    blend = cv2.addWeighted(np.ascontiguousarray(image_hwc), 0.5, colours, 0.5, 0)
    np.copyto(image_hwc, np.asarray(blend, np.uint8), where=shown[..., None])


def draw_legend(image_hwc: Image, entries: Sequence[tuple[int, str, float]]) -> None:
    """Write a line for each entry, value, name and share, in the upper left corner, as many as half of the image holds.

    The image is changed.
    """
    draw = _lettering(image_hwc)
    y = 0
    for value, name, share in entries:
        line = lettering.tidy(name)
        text = line if lettering.is_drawable(line) else f"class {value}"
        texts = [draw(text), draw(f"{share:.0%}")]
        height = texts[0].shape[0] + 2 * _MARGIN_PX
        if y and y + height > image_hwc.shape[0] // 2:
            break
        # The tab of a text lies above the place where it is written.
        _write(image_hwc, texts, at_xy=(0, y + height), colour=tuple(_PALETTE[value % len(_PALETTE)].tolist()))
        y += height


def paint(values: NDArray[np.uint8]) -> Image:
    """Each value, 0 to 255, in a colour from blue to red, `(height, width, 3)` RGB."""
    return _rainbow()[values]


def draw_range(image_hwc: Image, ends: tuple[str, str]) -> None:
    """Write what the ends of `paint` stand for, 255 first, with the colours between; the image is changed."""
    draw = _lettering(image_hwc)
    one, other = (np.pad(draw(text), _MARGIN_PX)[..., None].repeat(3, axis=2) for text in ends)
    width = min(max(image_hwc.shape[1] // 4, 16), 256)
    bar = _rainbow()[np.linspace(255, 0, width).astype(np.uint8)][None].repeat(one.shape[0], axis=0)
    legend = np.hstack([one, bar, other])[-image_hwc.shape[0] :, : image_hwc.shape[1]]
    image_hwc[-legend.shape[0] :, : legend.shape[1]] = legend


def _palette() -> NDArray[np.uint8]:
    """Colours of 36 values, those of the first round as `COLOURS` has them, the others lighter."""
    colours = np.array(COLOURS, np.float32)
    return np.concatenate([colours + (255 - colours) * each / _SHADES for each in range(_SHADES)]).astype(np.uint8)


_PALETTE = _palette()


@cache
def _rainbow() -> NDArray[np.uint8]:
    """256 colours, RGB."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)
    return np.ascontiguousarray(np.asarray(table, np.uint8)[:, 0, ::-1])


def line_thickness(image_hwc: Image) -> int:
    """In proportion to the image, but no more than its shorter side: OpenCV draws no line over 32767."""
    height, width = image_hwc.shape[:2]
    thickness: int = max(min(round((height + width) / 700), height, width), 1)
    return thickness


def _texts(label: Label) -> tuple[str, str]:
    """Name, or index where the name cannot be drawn, and score."""
    line = lettering.tidy(label.name)
    return line if lettering.is_drawable(line) else f"class {label.class_id}", f"{label.score:.2f}"


def _lettering(image_hwc: Image) -> Callable[[str], lettering.Mask]:
    """Draws a text in a size that fits the image."""
    size_px = min(max(12 * line_thickness(image_hwc), _SMALLEST_PX), _LARGEST_PX)
    return lru_cache(maxsize=_CACHED_TEXTS)(partial(lettering.draw, size_px=size_px))


def _write(
    drawn: Image,
    texts: Sequence[lettering.Mask],
    *,
    at_xy: tuple[int, int],
    colour: tuple[int, ...],
    below: bool = False,
) -> None:
    """Write texts on a filled tab above `at_xy` or below, on the other side where there is no room.

    `drawn` is changed.
    """
    height = texts[0].shape[0]
    space = np.zeros((height, height // 4), np.uint8)
    line = np.pad(np.hstack([texts[0], space, *texts[1:]]), _MARGIN_PX)[..., None].astype(np.uint16)
    tab = (line * _WHITE + (255 - line) * np.array(colour, np.uint16)) // 255
    x = max(min(at_xy[0], drawn.shape[1] - tab.shape[1]), 0)
    fits = at_xy[1] + tab.shape[0] <= drawn.shape[0] if below else at_xy[1] >= tab.shape[0]
    y = at_xy[1] if below is fits else max(at_xy[1] - tab.shape[0], 0)
    place = drawn[y : y + tab.shape[0], x : x + tab.shape[1]]
    place[:] = tab[: place.shape[0], : place.shape[1]]
