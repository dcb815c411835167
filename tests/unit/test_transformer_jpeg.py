"""JPEG: kinds that are rejected by their names, and damage that is never filled with grey."""

import io
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from transformer.errors import InvalidImage, UnsupportedMedia
from transformer.imaging.decoding import decode

_ROWS, _COLUMNS = np.mgrid[0:60, 0:80]
ORIGINAL = Image.fromarray(np.stack([_COLUMNS * 3, _ROWS * 4, (_COLUMNS * _ROWS) % 251], -1).astype(np.uint8))


def encoded(**options: Any) -> bytes:
    buffer = io.BytesIO()
    ORIGINAL.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


PLAIN, PROGRESSIVE = encoded(), encoded(progressive=True)
FRAME, SCAN = PLAIN.index(b"\xff\xc0"), PLAIN.index(b"\xff\xda")


def decoded(data: bytes) -> NDArray[np.uint8]:
    return decode(data, max_bytes=2**24, max_pixels=2**24).image_hwc


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed(PLAIN, FRAME + 4, b"\x0c"), "a JPEG of 12 bits and 3 colours, expected 8 bits"),
        (changed(PLAIN, FRAME + 1, b"\xc1\0\x11\x0c"), "a JPEG of 12 bits"),
        (changed(PLAIN, FRAME + 9, b"\2"), "a JPEG of 8 bits and 2 colours, expected 8 bits and 1, 3 or 4 colours"),
        (changed(PLAIN, FRAME + 1, b"\xc3"), "a lossless JPEG of 8 bits"),
        (changed(PLAIN, FRAME + 1, b"\xc3\0\x11\x10"), "a lossless JPEG of 16 bits"),
        (changed(PLAIN, FRAME + 1, b"\xcb"), "a lossless JPEG"),
        (changed(PLAIN, FRAME + 1, b"\xc5"), "a hierarchical JPEG"),
        (changed(PLAIN, FRAME + 1, b"\xf7"), "a JPEG-LS of 8 bits"),
    ],
)
def test_kind_that_is_not_read_is_named(data: bytes, says: str) -> None:
    with pytest.raises(UnsupportedMedia, match=re.escape(f"image: got {says}")):
        decoded(data)


def later_scan(data: bytes, number: int) -> int:
    """The offset of the tables of a later scan of a progressive JPEG."""
    scans = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    return data.rindex(b"\xff\xc4", scans[number - 1], scans[number])


STRAY = PLAIN[:-2] + b"\0\1\2" + PLAIN[-2:]
AT = later_scan(PROGRESSIVE, 2)
STRAY_BETWEEN_SCANS = PROGRESSIVE[:AT] + b"\0\1\2" + PROGRESSIVE[AT:]
# The last three bytes of a scan's header say what a sequential JPEG has no choice about.
PARAMETERS = SCAN + 2 + int.from_bytes(PLAIN[SCAN + 2 : SCAN + 4]) - 3
WITHOUT_PARAMETERS = changed(PLAIN, PARAMETERS, bytes(3))


@pytest.mark.parametrize(
    ("data", "original"),
    [(STRAY, PLAIN), (STRAY_BETWEEN_SCANS, PROGRESSIVE), (WITHOUT_PARAMETERS, PLAIN)],
    ids=["stray bytes", "stray bytes between scans", "scan without parameters"],
)
def test_defects_that_every_viewer_ignores_change_nothing(data: bytes, original: bytes) -> None:
    np.testing.assert_array_equal(decoded(data), decoded(original))
    # simplejpeg gives it out in another way than what it takes without a warning.
    np.testing.assert_array_equal(decoded(data), np.asarray(Image.open(io.BytesIO(original))))


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PROGRESSIVE,
        STRAY,
        STRAY_BETWEEN_SCANS,
        WITHOUT_PARAMETERS,
        encoded(subsampling=0, restart_marker_blocks=2),
    ],
    ids=["sequential", "progressive", "stray bytes", "stray bytes between scans", "no parameters", "restarts"],
)
def test_part_of_a_jpeg_is_never_an_image(data: bytes) -> None:
    # libjpeg takes what it has of a progressive one, and simplejpeg gave it out when the cut was within a table.
    for size in range(len(data) - 1, 2, -7):
        with pytest.raises(InvalidImage):
            decoded(data[:size])


def test_damage_in_the_middle_is_rejected() -> None:
    middle = (SCAN + len(PLAIN)) // 2
    for data in (PLAIN[:middle] + PLAIN[-2:], PLAIN[:middle] + b"\xff\xd3" + PLAIN[middle:]):
        with pytest.raises(InvalidImage, match=r"ends before its last row|broken JPEG"):
            decoded(data)


def test_a_million_segments_behind_the_first_row_are_rejected() -> None:
    scans = b"\xff\xda" * 60
    with pytest.raises(InvalidImage, match="more than 10000 segments"):
        decoded(PLAIN[:-2] + b"\xff\xfe\0\2" * 1_000_000 + scans + PLAIN[-2:])
