"""Small files that would take much memory or time: rejected at once, or decoded within the limits."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from transformer.errors import InvalidImage, PayloadTooLarge, ServingError
from transformer.imaging.decoding import decode

MAX_BYTES, MAX_PIXELS = 20 * 2**20, 50_000_000  # the defaults
SIDE = 60_000
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"
MILLIONS = MAX_BYTES - 2**16


def encoded(format_name: str, *, size_wh: tuple[int, int] = (16, 16), mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size_wh).save(buffer, format_name, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes((16 * 3 + 1) * 16)))
    return PNG_SIGNATURE + header + b"".join(chunks) + rows + END


def tiff(width: int, height: int, *, first: tuple[int, int] | None = None) -> bytes:
    """Grey; with `first`, width and height stand there twice."""
    sizes = [*([(256, first[0]), (257, first[1])] if first else []), (256, width), (257, height)]
    tags = sorted([*sizes, (258, 8), (259, 1), (262, 1), (273, 256), (277, 1), (278, height), (279, 256)])
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)).ljust(256, b"\0") + bytes(256)


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def canvas(data: bytes) -> bytes:
    """A WebP that says it is huge, around one that is not."""
    # VP8X has 24 bits for each side, less one.
    extended = b"VP8X\x0a\0\0\0" + bytes(4) + struct.pack("<I", SIDE - 1)[:3] * 2
    return b"RIFF" + struct.pack("<I", len(data) - 8 + len(extended)) + b"WEBP" + extended + data[12:]


JPEG, AVIF = encoded("JPEG"), encoded("AVIF")
CLAIMS = {
    "JPEG": patched(JPEG, JPEG.index(b"\xff\xc0") + 5, struct.pack(">HH", SIDE, SIDE)),
    "PNG": png(SIDE, SIDE),
    "WEBP": canvas(encoded("WEBP")),
    "BMP": patched(encoded("BMP"), 18, struct.pack("<ii", SIDE, SIDE)),
    "TIFF": tiff(SIDE, SIDE),
    "GIF": patched(encoded("GIF"), 6, struct.pack("<HH", SIDE, SIDE)),
    "AVIF": patched(AVIF, AVIF.index(b"ispe") + 8, struct.pack(">II", SIDE, SIDE)),
}


@pytest.mark.parametrize("format_name", CLAIMS)
def test_file_that_claims_to_be_huge_is_rejected(format_name: str) -> None:
    with pytest.raises(ServingError) as raised:
        decode(CLAIMS[format_name], max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    # libwebp and libavif see that the parts of the file differ before they say how large it is.
    expected = PayloadTooLarge if format_name not in {"WEBP", "AVIF"} else (PayloadTooLarge, InvalidImage)
    assert isinstance(raised.value, expected)


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("PNG", {"mode": "1"}),
        ("GIF", {"mode": "1"}),
        ("TIFF", {"mode": "1", "compression": "group4"}),
        ("TIFF", {"mode": "L", "compression": "tiff_adobe_deflate"}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"mode": "L", "progressive": True}),
        ("AVIF", {"speed": 10}),
    ],
)
def test_truly_compressed_bomb_is_rejected_above_the_limit_and_decoded_below(
    format_name: str, options: dict[str, Any]
) -> None:
    data = encoded(format_name, size_wh=(4000, 3000), **options)
    assert len(data) < 4000 * 3000 / 50
    with pytest.raises(PayloadTooLarge, match="4000x3000 pixels is over the limit of 11999999"):
        decode(data, max_bytes=MAX_BYTES, max_pixels=11_999_999)
    assert decode(data, max_bytes=MAX_BYTES, max_pixels=12_000_000).size_wh == (4000, 3000)


# Functions, for what they make takes seconds.
TWO_SIZES: dict[str, Callable[[], bytes]] = {
    "PNG, the small one last": lambda: PNG_SIGNATURE + png(30_000, 30_000)[8:33] + png(16, 16)[8:],
    "PNG, the small one first": lambda: PNG_SIGNATURE + png(16, 16)[8:33] + png(30_000, 30_000)[8:],
    "TIFF, the small one last": lambda: tiff(16, 16, first=(30_000, 30_000)),
    "TIFF, the small one first": lambda: tiff(30_000, 30_000, first=(16, 16)),
    "PNG, a huge frame": lambda: png(
        16,
        16,
        chunk(b"acTL", struct.pack(">II", 2, 0)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 30_000, 30_000, 0, 0, 1, 1, 0, 0)),
    ),
    "PNG, a text of 256 MiB": lambda: png(16, 16, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**28)))),
    "PNG, a profile of 256 MiB": lambda: png(16, 16, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**28)))),
    "PNG, many texts": lambda: png(16, 16, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**23))) * 500),
    "TIFF, strips of 4 GB": lambda: patched(tiff(16, 16), 8 + 2 + 12 * 8 + 8, struct.pack("<I", 2**32 - 1)),
}


def test_file_of_two_sizes_takes_no_memory(tmp_path: Path) -> None:
    # Whatever the two readers make of it: the limit that was checked is the limit that holds.
    for index, make in enumerate(TWO_SIZES.values()):
        (tmp_path / str(index)).write_bytes(make())
    script = (
        "import pathlib, resource, sys\n"
        "from transformer.imaging.decoding import decode\n"
        "from transformer.errors import ServingError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        decode(path.read_bytes(), max_bytes=20 * 2**20, max_pixels=50_000_000)\n"
        "    except ServingError:\n"
        "        pass\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert int(done.stdout) < 200, done.stderr  # MiB; the file of many texts itself, and libraries that are loaded


def with_segments(data: bytes, segment: bytes) -> bytes:
    """A JPEG with as many of these as fit behind its first marker."""
    return data[:2] + segment * (MILLIONS // len(segment)) + data[2:]


GIF = encoded("GIF", mode="P")
GIF_HEAD, GIF_FRAME = GIF[: GIF.index(b",\0\0\0\0")], GIF[GIF.index(b",\0\0\0\0") :]


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_segments(encoded("JPEG"), b"\xff\xe5\0\2"),
        lambda: with_segments(encoded("JPEG"), b"\xff\xfe\0\2"),
        lambda: with_segments(encoded("JPEG"), b"\xff"),
        lambda: png(16, 16, chunk(b"abCd") * (MILLIONS // 12)),
        lambda: png(16, 16, chunk(b"tEXt", b"k\0v") * (MILLIONS // 16)),
        lambda: GIF_HEAD + b"!\xfe\0" * (MILLIONS // 3) + GIF_FRAME,
        lambda: GIF_HEAD + bytes(MILLIONS) + GIF_FRAME,
    ],
    ids=["JPEG APP5", "JPEG comments", "JPEG filling", "PNG unknown", "PNG texts", "GIF comments", "GIF nothing"],
)
def test_header_of_millions_of_parts_is_rejected(make: Callable[[], bytes]) -> None:
    # Each took 2 to 7 s of the interpreter, and so of everybody.
    with pytest.raises(InvalidImage, match="a header that takes more than 10000 reads"):
        decode(make(), max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)


def progressive(scans: int, *, between: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded("JPEG", mode="L", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + (between + last) * (scans - data.count(b"\xff\xda")) + data[-2:]


def test_jpeg_of_many_scans_is_rejected() -> None:
    assert decode(progressive(50), max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS).size_wh == (16, 16)
    for bomb in (
        progressive(51),
        progressive(100_000),
        progressive(60, between=b"\xff\xfe\0\4\xff\xd9"),  # a comment that looks like the end
        progressive(60, between=b"\xff" * 9),
    ):
        with pytest.raises(InvalidImage, match="more than 50 scans"):
            decode(bomb, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)


def test_data_behind_a_jpeg_may_look_like_scans() -> None:
    video = b"\xff\xda" * 1000  # phones put one behind the image
    assert decode(progressive(10) + video, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS).size_wh == (16, 16)
    comment = b"\xff\xfe" + (2 + len(video)).to_bytes(2) + video
    image = encoded("JPEG")
    assert decode(image[:2] + comment + image[2:], max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS).is_whole


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize(
    "tail", [b"PK\x03\x04" + bytes(100), b"<script>alert(1)</script>", b"%PDF-1.7", b"#!/bin/sh\n"]
)
def test_polyglot_is_the_image_that_it_begins_with(format_name: str, tail: bytes) -> None:
    # Nothing but pixels leaves the decoder, so what else the file might be does not matter.
    data = encoded(format_name) + tail
    assert decode(data, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS).size_wh == (16, 16)


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"<script>", b"%PDF-1.7\n", b"GIF89a", b"BM", b"II*\0", b"RIFF"])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_image_behind_something_else_is_not_an_image(head: bytes, format_name: str) -> None:
    with pytest.raises(ServingError):
        decode(head + encoded(format_name), max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
