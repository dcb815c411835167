"""Encoded bytes to an RGB array.

Pillow reads the header only (format, size, orientation), so that limits hold before a pixel is decoded. JPEG goes to
libjpeg-turbo through simplejpeg, everything else to OpenCV, whose pixels Ultralytics sees as well.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, PngImagePlugin

from transformer.errors import InvalidImage, PayloadTooLarge, UnsupportedMedia
from transformer.letterbox import Image as ImageArray

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
# Nobody else turns these upright: OpenCV does so for its other formats, simplejpeg and OpenCV's AVIF do not.
_TURNED_BY_US = ("JPEG", "AVIF")

# Pillow's own limit warns and raises at numbers of its own; ours is checked below.
Image.MAX_IMAGE_PIXELS = None
# Image generators keep their prompts in PNG text chunks of more than Pillow's 1 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20

# Signatures of what people send and we do not take, to name it: (offset, bytes, name).
_OTHER_FORMATS = (
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML or SVG"),
)

# EXIF orientation -> what brings the picture upright (Exif 2.32, tag 0x0112).
_UPRIGHT: dict[int, Callable[[ImageArray], Any]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """What the first bytes say.

    Attributes:
        format: Pillow's name.
        size_wh: as stored, before it is turned.
        orientation: EXIF 1 to 8; 1 for what the decoder turns itself.
    """

    format: str
    size_wh: tuple[int, int]
    orientation: int


def read_header(data: bytes) -> Header:
    """Format, size and orientation without decoding a pixel.

    Raises:
        InvalidImage: empty, or no picture.
        UnsupportedMedia: a format that is not on the list.
    """
    if not data:
        raise InvalidImage("image: got 0 bytes, expected an encoded picture")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # MPO is a JPEG with more pictures behind the first.
            name = "JPEG" if image.format == "MPO" else str(image.format)
            if name not in _TURNED_BY_US:
                # And a PNG's getexif() would decode all of it.
                return Header(name, image.size, 1)
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            return Header(name, image.size, orientation if orientation in _UPRIGHT else 1)
    # What Pillow's parsers raise.
    except (OSError, ValueError, SyntaxError, TypeError, OverflowError, EOFError, RuntimeError) as exc:
        for offset, signature, name in _OTHER_FORMATS:
            if data[offset : offset + len(signature)] == signature:
                raise UnsupportedMedia(f"image: got {name}, expected one of {', '.join(FORMATS)}") from exc
        raise InvalidImage(
            f"image: {len(data)} bytes that begin with {data[:8]!r}, expected one of {', '.join(FORMATS)}"
        ) from exc


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        image_hwc: RGB `(height, width, 3)`, upright; smaller than the picture where that was enough.
        size_wh: of the picture itself, upright.
    """

    image_hwc: ImageArray
    size_wh: tuple[int, int]

    @property
    def is_whole(self) -> bool:
        """Whether every pixel of the picture is there."""
        return self.image_hwc.shape[1::-1] == self.size_wh


def decode(
    data: bytes, *, max_bytes: int, max_pixels: int, enough: Callable[[tuple[int, int]], tuple[int, int]] | None = None
) -> Picture:
    """Decode a picture, upright, alpha dropped, first frame.

    Args:
        data: the encoded picture.
        max_bytes: limit of `len(data)`.
        max_pixels: limit of width x height, checked before decoding.
        enough: of an upright size, the size below which it must not be reduced, both `(width, height)`; None: the whole
            picture. A JPEG is reduced to a half, a quarter or an eighth while it is decoded, in half the time for
            12 megapixels; its pixels are not quite those that reducing the whole picture gives.

    Raises:
        InvalidImage: no picture, or a broken one.
        UnsupportedMedia: a format that is not on the list.
        PayloadTooLarge: over a limit.
    """
    if len(data) > max_bytes:
        raise PayloadTooLarge(f"image: {len(data)} bytes is over the limit of {max_bytes}")
    header = read_header(data)
    width, height = header.size_wh
    if width * height > max_pixels:
        raise PayloadTooLarge(f"image: {width}x{height} pixels is over the limit of {max_pixels}")
    upright = _UPRIGHT.get(header.orientation)
    size_wh = (height, width) if header.orientation in _SIDEWAYS else (width, height)
    if header.format == "JPEG":
        smallest_wh = enough(size_wh) if enough else size_wh
        image = _decode_jpeg(data, smallest_wh[::-1] if header.orientation in _SIDEWAYS else smallest_wh)
    else:
        image = _decode_other(data, header)
        size_wh = size_wh if upright else (image.shape[1], image.shape[0])  # OpenCV has turned it
    return Picture(np.ascontiguousarray(upright(image), np.uint8) if upright else image, size_wh)


def _decode_jpeg(data: bytes, smallest_wh: tuple[int, int]) -> ImageArray:
    # Of the factors between 1 and 2 libjpeg makes none in less time than all of it.
    reduced = {"min_width": smallest_wh[0], "min_height": smallest_wh[1], "min_factor": 2}
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True, **reduced), np.uint8)
    except ValueError as exc:
        # libjpeg only warns of a picture that ends early and fills the rest with grey: not something to detect in.
        # Its other warnings are about stray bytes that every viewer skips.
        if "premature end" in str(exc).lower():
            raise InvalidImage(
                "image: the JPEG ends before its last row; got a part, expected a whole picture"
            ) from exc
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False, **reduced), np.uint8)
    except ValueError as exc:
        raise InvalidImage(f"image: broken JPEG: {exc}") from exc


def _decode_other(data: bytes, header: Header) -> ImageArray:
    if header.format == "PNG":
        _check_png_chunks(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as exc:
        raise InvalidImage(f"image: broken {header.format}: {exc.err}") from exc
    if image is None:
        raise InvalidImage(f"image: broken {header.format} of {len(data)} bytes; expected a whole picture")
    return np.asarray(image, np.uint8)


def _check_png_chunks(data: bytes) -> None:
    """OpenCV reserves the length that a chunk claims, up to 4 GiB, before it reads the chunk."""
    offset = 8
    while offset + 8 <= len(data):
        length, kind = int.from_bytes(data[offset : offset + 4]), data[offset + 4 : offset + 8]
        if length > len(data) - offset - 12:
            raise InvalidImage(f"image: broken PNG: chunk {kind!r} of {length} bytes, {len(data) - offset} are left")
        offset += length + 12
        if kind == b"IEND":
            return
