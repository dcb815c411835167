"""Encoded bytes to an RGB array.

Pillow reads the header only (format, size, orientation), so that limits hold before a pixel is decoded. JPEG goes to
libjpeg-turbo through simplejpeg; AVIF and TIFF, of which OpenCV makes wrong colours where they have alpha, to Pillow;
everything else to OpenCV, whose pixels Ultralytics sees as well.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from transformer.errors import InvalidImage, PayloadTooLarge, UnsupportedMedia
from transformer.letterbox import Image as ImageArray

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
_BY_PILLOW = ("AVIF", "TIFF")

# Of a header; Pillow reads each in Python, and 20 MB hold millions. A picture has some hundreds.
_MOST_READS = 10_000
# Encoders make 10 or so. Of 75 bytes each is enough to go over 50 megapixels once more, in a tenth of a second.
_MOST_SCANS = 50
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # neither a stuffed byte nor a restart nor filling
_EOI, _SOS = 0xD9, 0xDA

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
    (0, b"%!PS", "PostScript"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"icns", "ICNS"),
    (0, b"DDS ", "DDS"),
    (0, b"\x01\xda", "SGI"),
    (0, b"\x0a\x05\x01", "PCX"),
    (0, b"P5\n", "PGM"),
    (0, b"P6\n", "PPM"),
    (0, b"qoif", "QOI"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"PK\x03\x04", "ZIP"),
    (4, b"ftypiso", "MP4"),
    (4, b"ftypmp4", "MP4"),
    (4, b"ftypqt", "QuickTime"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML or SVG"),
    (-18, b"TRUEVISION-XFILE", "TGA"),
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

# What Pillow's parsers raise.
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
    """The bytes of a picture, for who reads its header in so many parts as a header has."""

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
    """What the first bytes say.

    Attributes:
        format: Pillow's name.
        size_wh: as stored, before it is turned.
        orientation: EXIF 1 to 8 of a JPEG; 1 for the others, which their decoders turn.
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
        with warnings.catch_warnings(action="ignore"), Image.open(_Head(data), formats=FORMATS) as image:
            # MPO is a JPEG with more pictures behind the first.
            name = "JPEG" if image.format == "MPO" else str(image.format)
            if name != "JPEG":
                # Their decoders turn them. And a PNG's getexif() would decode all of it.
                return Header(name, image.size, 1)
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            return Header(name, image.size, orientation if orientation in _UPRIGHT else 1)
    except _BROKEN as exc:
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
    if header.format != "JPEG":
        image = (_decode_by_pillow if header.format in _BY_PILLOW else _decode_by_opencv)(data, header)
        return Picture(image, (image.shape[1], image.shape[0]))
    sideways, upright = header.orientation in _SIDEWAYS, _UPRIGHT.get(header.orientation)
    size_wh = (height, width) if sideways else (width, height)
    smallest_wh = enough(size_wh) if enough else size_wh
    image = _decode_jpeg(data, smallest_wh[::-1] if sideways else smallest_wh)
    return Picture(np.ascontiguousarray(upright(image), np.uint8) if upright else image, size_wh)


def _decode_jpeg(data: bytes, smallest_wh: tuple[int, int]) -> ImageArray:
    _check_jpeg_scans(data)
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


def _check_jpeg_scans(data: bytes) -> None:
    """A progressive JPEG goes over all its pixels with each scan."""
    # Two bytes that may be anything in what follows the picture: a closer look only where there are many.
    if data.count(bytes((0xFF, _SOS))) <= _MOST_SCANS:
        return
    scans, found = 0, _MARKER.search(data, 2)
    while found and (kind := found[1][0]) != _EOI:
        scans += kind == _SOS
        if scans > _MOST_SCANS:
            raise InvalidImage(f"image: a JPEG of more than {_MOST_SCANS} scans; expected at most so many")
        length = int.from_bytes(data[found.end() : found.end() + 2]) if kind > 1 else 0
        found = _MARKER.search(data, found.end() + length)


def _decode_by_pillow(data: bytes, header: Header) -> ImageArray:
    name = header.format
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=[name]) as image:
            image.load()
            if image.mode in {"I", "F"}:
                raise UnsupportedMedia(f"image: got a {name} of 32 bits for each value, expected 8 or 16")
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I;16"):
                high = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(high[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except _BROKEN as exc:
        raise InvalidImage(f"image: broken {name} of {len(data)} bytes; expected a whole picture") from exc


def _decode_by_opencv(data: bytes, header: Header) -> ImageArray:
    name, (width, height) = header.format, header.size_wh
    if name == "PNG":
        _check_png_chunks(data)
    # Where there is no memory for it, NumPy says so; OpenCV would call the picture broken.
    np.empty((height, width, 3), np.uint8)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as exc:
        raise InvalidImage(f"image: broken {name}: {exc.err}") from exc
    if image is None:
        raise InvalidImage(f"image: broken {name} of {len(data)} bytes; expected a whole picture")
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
