"""Encoded bytes to RGB, and what is rejected."""

import io
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from transformer.errors import InvalidImage, PayloadTooLarge, ServingError, UnsupportedMedia
from transformer.imaging.decoding import decode

LIMITS: dict[str, Any] = {"max_bytes": 2**20, "max_pixels": 10_000}
# Four quadrants: red, green, blue, white; 60 wide, 40 high.
IMAGE_HWC = np.zeros((40, 60, 3), np.uint8)
IMAGE_HWC[:20, :30, 0] = IMAGE_HWC[:20, 30:, 1] = IMAGE_HWC[20:, :30, 2] = 255
IMAGE_HWC[20:, 30:] = 255


def encoded(format_name: str, *, mode: str = "RGB", orientation: int = 1, **options: object) -> bytes:
    image = Image.fromarray(IMAGE_HWC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, format_name, exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encoded("JPEG", quality=95),
        encoded("JPEG", quality=95, progressive=True),
        encoded("JPEG", mode="CMYK", quality=95),
        encoded("PNG"),
        encoded("PNG", mode="RGBA"),
        encoded("PNG", mode="P"),
        encoded("WEBP", lossless=True),
        encoded("BMP"),
        encoded("TIFF"),
        encoded("GIF"),
        encoded("AVIF", quality=95),
    ],
)
def test_decode_gives_rgb_of_every_format(data: bytes) -> None:
    image = decode(data, **LIMITS).image_hwc
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    # Lossy formats and CMYK without a profile shift colours a little; the middle of each quadrant tells.
    for row, column in ((10, 15), (10, 45), (30, 15), (30, 45)):
        np.testing.assert_allclose(image[row, column].astype(int), IMAGE_HWC[row, column].astype(int), atol=20)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_decode_of_grey_repeats_the_plane(mode: str) -> None:
    image = decode(encoded("PNG", mode=mode), **LIMITS).image_hwc
    assert image.shape == (40, 60, 3)
    assert (image[..., 0] == image[..., 2]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_decode_turns_the_image_upright_as_exif_says(format_name: str, orientation: int) -> None:
    data = encoded(format_name, orientation=orientation, quality=100)
    with Image.open(io.BytesIO(data)) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    np.testing.assert_allclose(decode(data, **LIMITS).image_hwc.astype(int), upright.astype(int), atol=6)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", InvalidImage, "0 bytes"),
        (b"hello, I am no image", InvalidImage, "20 bytes that begin with b'hello, I'"),
        (encoded("JPEG")[:-200], InvalidImage, "ends before its last row"),
        (encoded("PNG")[:-60], InvalidImage, "broken PNG"),
        (encoded("PNG")[:40], InvalidImage, "PNG"),
        (b"\x89PNG\r\n\x1a\n" + encoded("PNG")[8:33] + b"\xff\xff\xff\xf0IDATxxxx", InvalidImage, "PNG"),
        (b"\x00\x00\x00\x20ftypavif" + bytes(24), InvalidImage, "36 bytes|broken AVIF"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(40), UnsupportedMedia, "got HEIC, expected one of JPEG"),
        (b"%PDF-1.7 ...", UnsupportedMedia, "got PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedMedia, "got SVG"),
    ],
)
def test_decode_rejects_broken_images(data: bytes, error: type[ServingError], says: str) -> None:
    with pytest.raises(error, match=says):
        decode(data, **LIMITS)


def test_decode_checks_bytes_and_pixels_first() -> None:
    with pytest.raises(PayloadTooLarge, match=r"is over the limit of 10$"):
        decode(encoded("PNG"), max_bytes=10, max_pixels=10_000)
    with pytest.raises(PayloadTooLarge, match="60x40 pixels is over the limit of 2399"):
        decode(encoded("PNG"), max_bytes=2**20, max_pixels=2399)


def test_decode_of_sixteen_bits_keeps_the_high_byte() -> None:
    grey = (np.arange(256, dtype=np.uint16).reshape(16, 16) << 8) | 0x7F
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    assert (decode(buffer.getvalue(), **LIMITS).image_hwc[..., 0] == np.arange(256).reshape(16, 16)).all()


def test_read_header_of_a_huge_image_decodes_nothing(tmp_path: Path) -> None:
    # Limits come after the header: it must cost nothing, whatever the header promises.
    buffer = io.BytesIO()
    Image.fromarray(IMAGE_HWC).save(buffer, "PNG")
    ordinary = buffer.getvalue()
    header = b"IHDR" + (60_000).to_bytes(4) * 2 + ordinary[24:29]
    bomb = ordinary[:12] + header + zlib.crc32(header).to_bytes(4) + ordinary[33:]
    (tmp_path / "bomb.png").write_bytes(bomb)
    script = (
        "import pathlib, resource, sys\n"
        "from transformer.imaging.decoding import read_header\n"
        "used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, -1))\n"
        "print(read_header(pathlib.Path(sys.argv[1]).read_bytes()).size_wh)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "bomb.png")],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "(60000, 60000)\n", done.stderr


def test_decode_takes_a_png_with_a_long_text() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "a cat " * 500_000, zip=True)
    buffer = io.BytesIO()
    Image.fromarray(IMAGE_HWC).save(buffer, "PNG", pnginfo=text)
    assert decode(buffer.getvalue(), **LIMITS).image_hwc.shape == (40, 60, 3)


def turned(wh: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (wh[1], wh[0]) if orientation >= 5 else wh


@pytest.mark.parametrize(
    ("enough_wh", "reduced_wh"), [((60, 40), (60, 40)), ((31, 20), (60, 40)), ((30, 20), (30, 20)), ((1, 1), (8, 5))]
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_reduced_as_far_as_is_enough(
    enough_wh: tuple[int, int], reduced_wh: tuple[int, int], orientation: int
) -> None:
    data = encoded("JPEG", orientation=orientation, quality=100)
    sizes: list[tuple[int, int]] = []

    def enough(size_wh: tuple[int, int]) -> tuple[int, int]:
        sizes.append(size_wh)
        return turned(enough_wh, orientation)

    image = decode(data, **LIMITS, smallest_wh=enough)
    assert sizes == [image.size_wh] == [turned((60, 40), orientation)]
    width, height = turned(reduced_wh, orientation)
    assert image.image_hwc.shape == (height, width, 3)
    assert image.is_whole == (reduced_wh == (60, 40))
    whole = decode(data, **LIMITS).image_hwc
    for row, column in ((0.2, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8)):
        expected = whole[int(row * len(whole)), int(column * len(whole[0]))]
        got = image.image_hwc[int(row * height), int(column * width)]
        np.testing.assert_allclose(got.astype(int), expected.astype(int), atol=12)


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_other_formats_are_decoded_whole(format_name: str, orientation: int) -> None:
    image = decode(encoded(format_name, orientation=orientation), **LIMITS, smallest_wh=lambda _: (1, 1))
    assert image.is_whole
    assert image.size_wh == ((40, 60) if orientation == 6 else (60, 40))
