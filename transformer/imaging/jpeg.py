"""JPEG: which kind it is, and its pixels by libjpeg-turbo."""

import io
import re
import warnings
from collections.abc import Iterator
from itertools import islice

import numpy as np
import simplejpeg
from PIL import Image

from transformer.errors import InvalidImage, UnsupportedMedia
from transformer.imaging.letterbox import Image as ImageArray

# Encoders write about 10 scans. One of 75 bytes can cover 50 megapixels once more, which takes a tenth of a second.
_MOST_SCANS = 50
_MOST_SEGMENTS = 10_000
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # not a stuffed byte, a restart or fill bytes
_EOI, _SOS = 0xD9, 0xDA
# Markers of the supported frames (ISO/IEC 10918-1, table B.1): baseline, extended and progressive, by Huffman or
# arithmetic codes.
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_OTHER_FRAMES = {0xF7: "JPEG-LS", **dict.fromkeys((0xC3, 0xCB), "lossless JPEG")}
_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # tables, numbered among the frames
# Warnings of libjpeg about defects that every viewer ignores: stray bytes, incomplete or repeated scans.
_HARMLESS = re.compile("extraneous bytes|Invalid SOS parameters|Inconsistent progression")


def check_jpeg(data: bytes) -> None:
    """Reject a JPEG of an unsupported kind, by its header.

    Raises:
        UnsupportedMedia: lossless, hierarchical, JPEG-LS, of other than 8 bits, of other than 1, 3 or 4 colours.
    """
    for kind, end in _segments(data):
        if kind in _OTHER_FRAMES or (0xC0 <= kind <= 0xCF and kind not in _NO_FRAMES):
            if len(data) < end + 8:
                return
            name, bits, colours = _OTHER_FRAMES.get(kind, "hierarchical JPEG"), data[end + 2], data[end + 7]
            if kind not in _FRAMES:
                raise UnsupportedMedia(f"image: got a {name} of {bits} bits, expected a baseline or progressive JPEG")
            if bits != 8 or colours not in (1, 3, 4):
                raise UnsupportedMedia(
                    f"image: got a JPEG of {bits} bits and {colours} colours, expected 8 bits and 1, 3 or 4 colours"
                )
            return


def decode_jpeg(data: bytes, smallest_wh: tuple[int, int]) -> ImageArray:
    """RGB as stored; a half, a quarter or an eighth of it while that is no less than the smallest size.

    Raises:
        InvalidImage: broken, cut off, or of too many scans.
    """
    _check_scans(data)
    try:
        return _decode(data, smallest_wh)
    except ValueError as exc:
        warning = str(exc)
    # libjpeg only warns of an image that is damaged or ends early, and fills what it lacks with grey: not something to
    # detect in. Pillow ignores every warning, and rejects what ends early or cannot be continued.
    if _HARMLESS.search(warning):
        try:
            with (
                warnings.catch_warnings(action="ignore"),
                Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image,
            ):
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as exc:
            warning = str(exc)
    if "premature end" in warning.lower():
        raise InvalidImage("image: the JPEG ends before its last row; got a part, expected a whole image")
    raise InvalidImage(f"image: broken JPEG: {warning}")


def _decode(data: bytes, smallest_wh: tuple[int, int]) -> ImageArray:
    # libjpeg takes as long for a factor between 1 and 2 as for all of the pixels.
    reduced = {"min_width": smallest_wh[0], "min_height": smallest_wh[1], "min_factor": 2}
    return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True, **reduced), np.uint8)


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Number of each marker before the end of the image, and where it ends; segments are skipped by their length."""
    found, count = _MARKER.search(data, 2), 0
    while found and (kind := found[1][0]) != _EOI:
        end, count = found.end(), count + 1
        if count > _MOST_SEGMENTS:
            raise InvalidImage(f"image: a JPEG of more than {_MOST_SEGMENTS} segments; expected an ordinary one")
        yield kind, end
        length = int.from_bytes(data[end : end + 2]) if kind > 1 else 0
        found = _MARKER.search(data, end + length)


def _check_scans(data: bytes) -> None:
    """A progressive JPEG goes over all its pixels with each scan."""
    # Data behind the image may hold such two bytes too: counted exactly only where there are many.
    if data.count(bytes((0xFF, _SOS))) <= _MOST_SCANS:
        return
    scans = (kind for kind, _ in _segments(data) if kind == _SOS)
    if next(islice(scans, _MOST_SCANS, None), None):
        raise InvalidImage(f"image: a JPEG of more than {_MOST_SCANS} scans; expected at most so many")
