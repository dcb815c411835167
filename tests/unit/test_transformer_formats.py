"""Every format that is taken, against Pillow's pixels: depths, palettes, alpha, profiles, frames, orientations."""

import io
import struct
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from transformer.errors import InvalidImage, UnsupportedMedia
from transformer.imaging.decoding import FORMATS, decode, read_header

WIDTH, HEIGHT = 64, 48
_ROWS, _COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
RAMP = np.stack([_COLUMNS * 4, _ROWS * 5, _ROWS + 2 * _COLUMNS], -1).astype(np.uint8)
RGB = Image.fromarray(RAMP)
ALPHA = Image.fromarray(np.where(_COLUMNS < 20, 0, np.where(_COLUMNS < 40, 128, 255)).astype(np.uint8))
RGBA = Image.merge("RGBA", [*RGB.split(), ALPHA])
DEEP = (_ROWS * 1300 + _COLUMNS * 7).astype(np.uint16)

MODES: dict[str, Image.Image] = {
    "RGB": RGB,
    "RGBA": RGBA,
    "L": RGB.convert("L"),
    "LA": Image.merge("LA", [RGB.convert("L"), ALPHA]),
    "P": RGB.quantize(64),
    "P with alpha": RGBA.quantize(64),
    "1": RGB.convert("1"),
    "I;16": Image.fromarray(DEEP),
    "CMYK": RGB.convert("CMYK"),
    "YCbCr": RGB.convert("YCbCr"),
}
COLOUR, GREY, PALETTES = ("RGB", "RGBA"), ("L", "1"), ("P", "P with alpha")
EXACT = {"lossless": True, "exact": True}
# Format, how it is saved, and which of the modes above it can hold.
KINDS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("JPEG", {"quality": 90}, ("RGB", "L", "CMYK", "YCbCr")),
    ("JPEG", {"quality": 100, "subsampling": 0, "progressive": True}, ("RGB", "L", "CMYK")),
    ("PNG", {}, (*COLOUR, *GREY, *PALETTES, "LA", "I;16")),
    ("PNG", {"transparency": 3}, ("P", "L")),
    ("WEBP", EXACT, (*COLOUR, "L", "LA", *PALETTES)),
    ("WEBP", {"quality": 90}, COLOUR),
    ("BMP", {}, (*COLOUR, *GREY, "P")),
    ("TIFF", {}, (*COLOUR, *GREY, *PALETTES, "LA", "I;16", "CMYK", "YCbCr")),
    *(("TIFF", {"compression": name}, (*COLOUR, "L", "I;16", "P")) for name in ("tiff_lzw", "tiff_adobe_deflate")),
    ("TIFF", {"compression": "packbits"}, (*COLOUR, "1", "CMYK")),
    ("TIFF", {"compression": "group4"}, ("1",)),
    ("TIFF", {"compression": "jpeg"}, ("RGB", "L")),
    ("GIF", {}, (*COLOUR, *GREY, "P")),
    ("AVIF", {"quality": 90}, (*COLOUR, "L", "LA")),
    ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, COLOUR),
]


def encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> NDArray[np.uint8]:
    return decode(data, max_bytes=2**24, max_pixels=2**24).image_hwc


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    """RGB, upright, the first frame, without alpha; of 16 bits the upper 8."""
    # Pillow would rather make RGBA of a palette with alpha.
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored)
        if upright.mode.startswith("I;16"):
            return np.repeat((np.asarray(upright) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(upright.convert("RGB"))


def assert_alike(data: bytes, *, tolerance: int = 1) -> None:
    """Equal to Pillow's within one step of 255: CMYK and YCbCr are rounded otherwise, everything else is equal."""
    got, expected = decoded(data), by_pillow(data)
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= tolerance


@pytest.mark.parametrize(
    ("format_name", "options", "mode"),
    [(name, options, mode) for name, options, modes in KINDS for mode in modes],
)
def test_pixels_are_pillows(format_name: str, options: dict[str, Any], mode: str) -> None:
    exact = mode not in {"CMYK", "YCbCr"}
    assert_alike(encoded(MODES[mode], format_name, **options), tolerance=0 if exact else 1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_of_every_depth(bits: int) -> None:
    assert_alike(encoded(RGB.quantize(2**bits), "PNG", bits=bits), tolerance=0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("name", "mode"),
    [("JPEG", "RGB"), *((name, mode) for name in ("PNG", "WEBP", "TIFF", "AVIF") for mode in COLOUR)],
)
def test_image_is_turned_as_exif_says(name: str, mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_alike(encoded(MODES[mode], name, exif=exif, **(EXACT if name == "WEBP" else {})), tolerance=0)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_profile_is_left_out_as_pillow_and_ultralytics_leave_it_out(name: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with_profile = encoded(RGB, name, icc_profile=profile)
    assert len(with_profile) > len(encoded(RGB, name))
    assert_alike(with_profile, tolerance=0)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_first_frame_counts(name: str) -> None:
    frames = [Image.new("RGB", (32, 16), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:])
    assert decoded(data)[8, 16].argmax() == 0
    assert_alike(data, tolerance=0)


def test_background_that_is_no_colour_of_a_gif_is_passed_over() -> None:
    image = RGB.quantize(16)
    data = bytearray(encoded(image, "GIF"))
    assert data[10] & 0x87 == 0x83  # 16 colours for all frames
    data[11] = 200
    np.testing.assert_array_equal(
        decode(bytes(data), max_bytes=2**20, max_pixels=2**20).image_hwc, np.asarray(image.convert("RGB"))
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_image_that_is_hidden_from_an_animation_counts(mode: str) -> None:
    # Readers of PNG without animations, libpng among them, see this image.
    frames = [Image.new("RGB", (32, 16), colour).convert(mode) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True)
    assert decoded(data)[8, 16].tolist() == [255, 0, 0]
    assert_alike(data, tolerance=0)


def bmp(bits: int, pixels: NDArray[Any], *masks: int) -> bytes:
    """A BMP of so many bits, from its lowest row up."""
    height, width = pixels.shape
    offset = 14 + 40 + 4 * len(masks)
    head = struct.pack("<2sIHHI", b"BM", offset + pixels.nbytes, 0, 0, offset)
    sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 3 if masks else 0, pixels.nbytes, 0, 0, 0, 0)
    return head + sizes + struct.pack(f"<{len(masks)}I", *masks) + pixels.tobytes()


@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, ()),  # 5, 5 and 5 bits
        (16, (0xF800, 0x07E0, 0x001F)),
        (32, (0xFF0000, 0xFF00, 0xFF)),
        (32, (0xFF000000, 0xFF0000, 0xFF00)),  # OpenCV took the bytes in its own order
    ],
)
def test_bmp_of_other_bits_is_scaled_to_255(bits: int, masks: tuple[int, ...]) -> None:
    pixels = (np.arange(48 * 64, dtype=np.uint64).reshape(48, 64) * 1_234_577 % 2**bits).astype(f"<u{bits // 8}")
    channels = []
    for mask in masks or (0x7C00, 0x03E0, 0x001F):
        lowest = mask & -mask
        channels.append((pixels & mask) // lowest * 255 // (mask // lowest))
    np.testing.assert_allclose(decoded(bmp(bits, pixels, *masks)), np.stack(channels, -1)[::-1].astype(int), atol=1)


@pytest.mark.parametrize(("bits", "masks"), [(16, (0xF00, 0xF0, 0xF)), (64, ())])
def test_bmp_of_a_rare_kind_is_rejected(bits: int, masks: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedMedia, match=r"a BMP of a kind that is not read .*convert it"):
        decoded(bmp(bits, np.zeros((4, 4), f"<u{bits // 8}"), *masks))


@pytest.mark.parametrize("name", ["PNG", "WEBP", "BMP", "GIF", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "P", "1"])
def test_part_of_a_file_is_never_an_image(name: str, mode: str) -> None:
    data = encoded(MODES[mode], name)
    whole = decoded(data)
    for size in range(len(data) - 1, 1, -max(1, len(data) // 60)):
        try:
            part = decoded(data[:size])
        except InvalidImage:
            continue
        np.testing.assert_array_equal(part, whole)  # what lacked was padding


def test_more_images_behind_a_jpeg_are_left_alone() -> None:
    frames = [Image.new("RGB", (32, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert read_header(data).format == "JPEG"
    assert_alike(data)


# Texts as long as the format, or its encoder, allows.
LONGEST = {"WEBP": 16_383, "JPEG": 65_500, "AVIF": 32_768}


@pytest.mark.parametrize("name", FORMATS)
def test_thin_images_are_decoded(name: str) -> None:
    longest = LONGEST.get(name, 65_535)
    for size_wh in ((1, 1), (1, 8000), (8000, 1), (longest, 1), (1, longest)):
        assert_alike(encoded(Image.new("RGB", size_wh, (200, 30, 60)), name), tolerance=0)


@pytest.mark.parametrize("make", [lambda: np.zeros((4, 4), np.float32), lambda: np.zeros((4, 4), np.int32)])
def test_thirty_two_bits_are_rejected(make: Callable[[], NDArray[Any]]) -> None:
    with pytest.raises(UnsupportedMedia, match="got a TIFF of 32 bits for each value, expected 8 or 16"):
        decoded(encoded(Image.fromarray(make()), "TIFF"))


@pytest.mark.parametrize("name", ["JPEG2000", "ICO", "PPM", "PCX", "DDS", "SGI", "ICNS", "PDF", "EPS", "QOI"])
def test_other_formats_are_rejected_and_the_list_is_named(name: str) -> None:
    data = encoded(RGB.resize((64, 64)), name)
    with pytest.raises(UnsupportedMedia, match="expected one of JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF"):
        decoded(data)
