"""Encoded bytes to an RGB array.

Headers are read first (format, size, orientation), so that limits hold before a pixel is decoded. JPEG goes to
libjpeg-turbo through simplejpeg; AVIF, TIFF and BMP, of whose rarer kinds OpenCV makes wrong colours, to Pillow;
everything else to OpenCV, whose pixels Ultralytics sees as well. What is read and how is in docs/image-formats.md.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from transformer.errors import InvalidImage, PayloadTooLarge, UnsupportedMedia
from transformer.imaging.format_names import name_format
from transformer.imaging.jpeg import check_jpeg, decode_jpeg
from transformer.imaging.letterbox import Image as ImageArray
from transformer.imaging.tiff import Tiff, decode_tiff, read_tiff

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
_BY_PILLOW = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF")  # whose headers it reads

# Reads of a header, each in Python by Pillow: 20 MB can hold millions, and an image has some hundreds.
_MOST_READS = 10_000
_OF_24_BITS = bytes((24, 0, 0, 0, 0, 0))  # of a BMP: bits, compression; OpenCV makes these in half the time
_OTHER_BMP = re.compile("Unsupported BMP (pixel depth|bitfields layout|compression)")  # of Pillow
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")  # chunks of a PNG

# Pillow's own limit warns and raises at numbers of its own; ours is checked below.
Image.MAX_IMAGE_PIXELS = None
# Image generators keep their prompts in PNG text chunks of more than Pillow's 1 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20

# EXIF orientation -> the rotation that brings the image upright (Exif 2.32, tag 0x0112).
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

# Exceptions of Pillow's parsers.
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class _Head(io.BytesIO):
    """The bytes of an image, for parsers that read a header in many small parts."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise InvalidImage(f"image: a header that takes more than {_MOST_READS} reads; expected an ordinary one")
        return super().read(size)


@dataclass(frozen=True)
class Header:
    """Format, size and kind of an image, by its first bytes.

    Attributes:
        format: Pillow's name.
        size_wh: as stored, before it is turned.
        orientation: EXIF 1 to 8 of a JPEG; 1 for the others, whose decoders apply it.
        tiff: the kind of a TIFF.
    """

    format: str
    size_wh: tuple[int, int]
    orientation: int = 1
    tiff: Tiff | None = None


def read_header(data: bytes) -> Header:
    """Format, size and orientation without decoding a pixel.

    Raises:
        InvalidImage: empty, broken, or of an unknown format.
        UnsupportedMedia: a format, or a kind of one, that is not on the list.
        PayloadTooLarge: a TIFF of huge tiles.
    """
    if not data:
        raise InvalidImage("image: got 0 bytes, expected an encoded image")
    name = name_format(data)
    if name == "TIFF":
        tiff = read_tiff(data)
        return Header(name, tiff.size_wh, tiff=tiff)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(_Head(data), formats=_BY_PILLOW) as image:
            # MPO is a JPEG with more images behind the first.
            header = Header("JPEG" if image.format == "MPO" else str(image.format), image.size)
            if header.format == "JPEG":
                # The other decoders apply the orientation themselves. And a PNG's getexif() would decode all of it.
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                header = replace(header, orientation=orientation if orientation in _UPRIGHT else 1)
    except _BROKEN as exc:
        if name == "JPEG":
            check_jpeg(data)
        raise _rejection(data, name, exc) from exc
    if header.format == "JPEG":
        check_jpeg(data)
    return header


def _rejection(data: bytes, name: str | None, error: Exception) -> InvalidImage | UnsupportedMedia:
    """The error for a file of a format that is not read, with the name of the format."""
    expected = f"expected one of {', '.join(FORMATS)}"
    if name is None:
        return InvalidImage(f"image: {len(data)} bytes that begin with {data[:8]!r}, {expected}")
    if name not in FORMATS:
        return UnsupportedMedia(f"image: got {name}, {expected}; convert it")
    if name == "BMP" and _OTHER_BMP.match(str(error)):
        return UnsupportedMedia(f"image: got a BMP of a kind that is not read ({error}), {expected}; convert it")
    return InvalidImage(f"image: {len(data)} bytes of a broken {name}, expected a whole one")


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        image_hwc: RGB `(height, width, 3)`, upright; smaller than the image where it was reduced.
        size_wh: of the image itself, upright.
    """

    image_hwc: ImageArray
    size_wh: tuple[int, int]

    @property
    def is_whole(self) -> bool:
        """Whether it was not reduced."""
        return self.image_hwc.shape[1::-1] == self.size_wh


def decode(
    data: bytes,
    *,
    max_bytes: int,
    max_pixels: int,
    smallest_wh: Callable[[tuple[int, int]], tuple[int, int] | None] | None = None,
) -> DecodedImage:
    """Decode an image, upright, alpha dropped, first frame.

    Args:
        data: the encoded image.
        max_bytes: limit of `len(data)`.
        max_pixels: limit of width x height, checked before decoding.
        smallest_wh: of an upright size, the size below which it must not be reduced, both `(width, height)`; None: the
            whole image. A JPEG is reduced to a half, a quarter or an eighth while it is decoded, in half the time for
            12 megapixels; its pixels are not quite those of the whole image, reduced.

    Raises:
        InvalidImage: broken, or of an unknown format.
        UnsupportedMedia: a format that is not on the list.
        PayloadTooLarge: over a limit.
    """
    if len(data) > max_bytes:
        raise PayloadTooLarge(f"image: {len(data)} bytes is over the limit of {max_bytes}")
    header = read_header(data)
    width, height = header.size_wh
    if width * height > max_pixels:
        raise PayloadTooLarge(f"image: {width}x{height} pixels is over the limit of {max_pixels}")
    if header.format != "JPEG":
        image = _decode_whole(data, header)
        return DecodedImage(image, (image.shape[1], image.shape[0]))
    sideways, upright = header.orientation in _SIDEWAYS, _UPRIGHT.get(header.orientation)
    size_wh = (height, width) if sideways else (width, height)
    enough_wh = (smallest_wh(size_wh) if smallest_wh else None) or size_wh
    image = decode_jpeg(data, enough_wh[::-1] if sideways else enough_wh)
    return DecodedImage(np.ascontiguousarray(upright(image), np.uint8) if upright else image, size_wh)


def _decode_whole(data: bytes, header: Header) -> ImageArray:
    name, (width, height) = header.format, header.size_wh
    # NumPy raises MemoryError; decoders would report a broken image.
    np.empty((height, width, 3), np.uint8)
    try:
        if header.tiff:
            return decode_tiff(_Head(data), header.tiff)
        if name == "AVIF" or (name == "BMP" and data[28:34] != _OF_24_BITS):
            return _decode_by_pillow(data)
        seen = {"PNG": _still, "GIF": _with_background}.get(name)
        return _decode_by_opencv(seen(data) if seen else data)
    except (*_BROKEN, cv2.error) as exc:
        raise _rejection(data, name, exc) from exc


def _decode_by_pillow(data: bytes) -> ImageArray:
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=_BY_PILLOW) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(image.convert("RGB"))


def _decode_by_opencv(data: bytes) -> ImageArray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise OSError("OpenCV does not decode it")
    return np.asarray(image, np.uint8)


def _with_background(data: bytes) -> bytes:
    """A GIF whose background is one of its colours: OpenCV rejects any other, viewers ignore it."""
    flags, background = data[10], data[11]
    has_colours, count = flags & 0x80, 2 << (flags & 7)
    return data[:11] + b"\0" + data[12:] if has_colours and background >= count else data


def _still(data: bytes) -> bytes:
    """A PNG without its animation, whose first frame need not be the image that other decoders return.

    OpenCV reserves the length that a chunk claims, up to 4 GiB, before it reads the chunk.
    """
    offset, kind, animated, kept = 8, b"", False, [memoryview(data)[:8]]
    while offset + 8 <= len(data) and kind != b"IEND":
        length, kind = int.from_bytes(data[offset : offset + 4]), data[offset + 4 : offset + 8]
        if length > len(data) - offset - 12:
            raise InvalidImage(f"image: broken PNG: chunk {kind!r} of {length} bytes, {len(data) - offset} are left")
        end = offset + length + 12
        if kind in _ANIMATION:
            animated = True
        else:
            kept.append(memoryview(data)[offset:end])
        offset = end
    return b"".join(kept) if animated else data
