"""Lines of text in the scripts of two fonts: FiraGO, with shaping, and OpenCV's own for those of the Far East."""

import threading
import unicodedata
from functools import cache, lru_cache
from io import BytesIO

import cv2
import numpy as np
import pymupdf_fonts
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

# How much of the colour of the text each pixel has, 0 to 255, `(height, width)`.
Mask = NDArray[np.uint8]

_MOST_LETTERS = 40
_SAMPLE_PX = 24
_NO_LETTER = "\uffff"  # no font has it
_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_FAR_EAST_LOCK = threading.Lock()  # OpenCV's font remembers what it drew


def tidy(text: str) -> str:
    """A text as one line that is not too long, its letters and accents composed."""
    composed = unicodedata.normalize("NFC", text[: 4 * _MOST_LETTERS])
    line = "".join(" " if unicodedata.category(letter) in {"Cc", "Zl", "Zp"} else letter for letter in composed)
    short = " ".join(line.split())
    return short if len(short) <= _MOST_LETTERS else f"{short[: _MOST_LETTERS - 1]}…"


def is_drawable(text: str) -> bool:
    """Whether there is something to draw, and one of the fonts has every letter of it."""
    return bool(text.strip()) and (_is_in_firago(text) or _is_in_far_east(text))


def measure(size_px: int) -> tuple[int, int]:
    """Pixels of a line above its baseline, and below."""
    above, below = _firago(size_px).getmetrics()
    return above, below


def draw(text: str, size_px: int) -> Mask:
    """A line of text, as high as `measure` says; letters that the fonts lack are drawn as the fonts draw them."""
    above, below = measure(size_px)
    if not _is_in_firago(text) and _is_in_far_east(text):
        return _draw_far_east(text, size_px, above=above, below=below)
    font = _firago(size_px)
    left, _, right, _ = font.getbbox(text, anchor="ls")
    line = Image.new("L", (max(int(right - left), 1), above + below))
    ImageDraw.Draw(line).text((-left, above), text, fill=255, font=font, anchor="ls")
    return np.asarray(line)


def _draw_far_east(text: str, size_px: int, *, above: int, below: int) -> Mask:
    with _FAR_EAST_LOCK:
        left, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _far_east(), size_px)
        line = np.zeros((above + below, max(width, 1) + 1, 3), np.uint8)
        cv2.putText(line, text, (-left, above), (255, 255, 255), _far_east(), size_px)
    return line[:, :, 0]


def _is_in_firago(text: str) -> bool:
    shaped = any(
        unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT or unicodedata.category(letter)[0] == "M" for letter in text
    )
    return all(map(_firago_has, text)) and (can_shape() or not shaped)


def _is_in_far_east(text: str) -> bool:
    return all(map(_far_east_has, text))


@lru_cache(maxsize=4096)
def _firago_has(letter: str) -> bool:
    font = _firago(_SAMPLE_PX)
    drawn, missing = font.getmask(letter), font.getmask(_NO_LETTER)
    return bool(drawn.size != missing.size or bytes(drawn) != bytes(missing))


@lru_cache(maxsize=4096)
def _far_east_has(letter: str) -> bool:
    """Whether OpenCV's font has a letter: it draws `?` for others, without shaping, from left to right."""
    if unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT or unicodedata.category(letter)[0] == "M":
        return False
    drawn, missing = (_draw_far_east(text, _SAMPLE_PX, above=_SAMPLE_PX, below=8) for text in (letter, "?"))
    return letter == "?" or not np.array_equal(drawn, missing)


@cache
def can_shape() -> bool:
    """Whether Pillow shapes text: its wheels do so with the system's libfribidi."""
    return bool(features.check("raqm"))


@lru_cache(maxsize=32)
def _firago(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(BytesIO(_firago_file()), size_px)


@cache
def _firago_file() -> bytes:
    return bytes(pymupdf_fonts.myfont("figo"))


@cache
def _far_east() -> cv2.FontFace:
    return cv2.FontFace("uni")
