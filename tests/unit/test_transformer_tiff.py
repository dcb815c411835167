"""Kinds of TIFF: read as the samples say that were written into them, or rejected in words that name the kind.

The files are written by the letter of TIFF 6.0, so that no library has a part on both sides. Where the letter leaves
something open (CMYK without a profile, colours multiplied by alpha, old palettes), what is right is our own choice: of
that docs/image-formats.md says what other decoders do.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support import tiffs
from tests.support.tiffs import describe_array, write_tiff
from transformer.errors import InvalidImage, PayloadTooLarge, UnsupportedMedia
from transformer.imaging.decoding import decode

WIDTH, HEIGHT = 53, 37
GREY_OF_WHITE_0, GREY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
ALPHA, MULTIPLIED = 2, 1
_ROWS, _COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
# Four samples that differ, and that use all bits: a value and its high byte say different things.
DEEP = np.stack(
    [_COLUMNS * 1237, _ROWS * 1763 + 11, (_ROWS * 97 + _COLUMNS * 311), 65535 - _COLUMNS * 900 - _ROWS], axis=-1
).astype(np.uint16)
PLAIN = (DEEP >> 8).astype(np.uint8)


def decoded(data: bytes) -> NDArray[np.int64]:
    return decode(data, max_bytes=2**24, max_pixels=2**24).image_hwc.astype(np.int64)


def grey(plane: NDArray[Any]) -> NDArray[np.int64]:
    return np.repeat(plane[..., None], 3, axis=2).astype(np.int64)


def samples_of(bits: int, order: str, count: int) -> NDArray[Any]:
    chosen = (DEEP if bits == 16 else PLAIN)[..., :count].astype(f"{order}u{bits // 8}")
    return chosen if count > 1 else chosen[..., 0]


def laid_out(samples: NDArray[Any], layout: str, tags: dict[int, Any]) -> tuple[dict[int, Any], list[bytes]]:
    """In strips of 10 rows, or in tiles of 16 x 32, of all samples together or of each by itself."""
    planes = np.moveaxis(samples, -1, 0) if "planes" in layout else [samples]
    if "planes" in layout:
        tags = tags | {tiffs.PLANAR: 2}
    if "tiles" not in layout:
        return tags | {tiffs.ROWS: 10}, [
            plane[at : at + 10].tobytes() for plane in planes for at in range(0, HEIGHT, 10)
        ]
    parts = []
    for plane in planes:
        for top in range(0, HEIGHT, 16):
            for left in range(0, WIDTH, 32):
                tile = np.zeros((16, 32, *plane.shape[2:]), plane.dtype)
                part = plane[top : top + 16, left : left + 32]
                tile[: part.shape[0], : part.shape[1]] = part
                parts.append(tile.tobytes())
    return tags | {tiffs.TILE_WIDTH: 32, tiffs.TILE_HEIGHT: 16}, parts


def expected(samples: NDArray[Any], photometric: int, extra: list[int]) -> NDArray[np.int64]:
    """RGB by the rules of docs/image-formats.md."""
    high = (samples >> 8 if samples.dtype.itemsize == 2 else samples).astype(np.int64)
    if photometric == CMYK:
        return np.rint((255 - high[..., :3]) * (255 - high[..., 3:4]) / 255).astype(np.int64)
    if photometric == RGB:
        colour, alpha = high[..., :3], high[..., 3:4]
        return np.minimum(255, colour * 255 // np.maximum(alpha, 1)) * (alpha > 0) if extra == [MULTIPLIED] else colour
    plane = high if high.ndim == 2 else high[..., 0]
    return grey(255 - plane if photometric == GREY_OF_WHITE_0 else plane)


READ: list[tuple[int, int, list[int], str]] = [
    *((photometric, 1, [], layout) for photometric in (GREY, GREY_OF_WHITE_0) for layout in ("strips", "tiles")),
    *((GREY, 2, [extra], "strips") for extra in (0, ALPHA)),
    *((RGB, 3, [], layout) for layout in ("strips", "tiles", "planes", "planes and tiles")),
    *(
        (RGB, 4, [extra], layout)
        for extra in (0, ALPHA)
        for layout in ("strips", "tiles", "planes", "planes and tiles")
    ),
    *((RGB, 4, [MULTIPLIED], layout) for layout in ("strips", "tiles")),
    *((CMYK, 4, [], layout) for layout in ("strips", "tiles", "planes", "planes and tiles")),
]


def kind_of(photometric: int, count: int, extra: list[int], layout: str, bits: int, order: str) -> tuple[bytes, Any]:
    samples = samples_of(bits, order, count)
    if extra == [MULTIPLIED]:
        samples[..., :3] = np.minimum(samples[..., :3], samples[..., 3:])
    tags = describe_array(samples, photometric) | ({tiffs.EXTRA: extra} if extra else {})
    return write_tiff(*laid_out(samples, layout, tags), order=order), expected(samples, photometric, extra)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("photometric", "count", "extra", "layout"), READ)
def test_samples_are_those_of_the_file(
    photometric: int, count: int, extra: list[int], layout: str, bits: int, order: str
) -> None:
    data, rgb = kind_of(photometric, count, extra, layout, bits, order)
    np.testing.assert_array_equal(decoded(data), rgb)


@pytest.mark.parametrize("layout", ["strips", "planes"])
def test_sixteen_bits_are_opencvs_within_their_rounding(layout: str) -> None:
    data, _ = kind_of(RGB, 3, [], layout, 16, "<")
    opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert opencv is not None
    assert np.abs(decoded(data) - opencv).max() == 1


def packed(samples: NDArray[Any], bits: int) -> bytes:
    """Each row from a byte of its own, the highest bit first."""
    spread = (samples[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(spread.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [GREY, GREY_OF_WHITE_0])
@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
def test_grey_of_other_bits(bits: int, photometric: int, order: str) -> None:
    samples = DEEP[..., 0] >> (16 - bits)
    data = write_tiff(
        describe_array(PLAIN[..., 0], photometric) | {tiffs.BITS: bits}, [packed(samples, bits)], order=order
    )
    plane = samples >> (bits - 8) if bits > 8 else samples.astype(np.int64) * 255 // (2**bits - 1)
    np.testing.assert_array_equal(decoded(data), grey(255 - plane if photometric == GREY_OF_WHITE_0 else plane))


@pytest.mark.parametrize("orientation", [1, 2, 6, 7])
@pytest.mark.parametrize("layout", ["strips", "tiles"])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_that_fill_no_byte(bits: int, colours: int, layout: str, orientation: int) -> None:
    samples = DEEP[..., :colours] >> (16 - bits)
    tags = describe_array(PLAIN[..., :colours], RGB if colours == 3 else GREY) | {tiffs.BITS: [bits] * colours}
    tags |= {tiffs.ORIENTATION: orientation, tiffs.COMPRESSION: 8}
    tiles = layout == "tiles"
    tags |= {tiffs.TILE_WIDTH: 32, tiffs.TILE_HEIGHT: 16} if tiles else {tiffs.ROWS: 10}
    high, wide = (16, 32) if tiles else (10, WIDTH)
    filled = np.pad(samples, [(0, -HEIGHT % high if tiles else 0), (0, -WIDTH % wide), (0, 0)])
    parts = [
        zlib.compress(packed(filled[top : top + high, left : left + wide].reshape(-1, wide * colours), bits))
        for top in range(0, len(filled), high)
        for left in range(0, filled.shape[1], wide)
    ]
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2),
    }
    expected_hwc = np.broadcast_to(samples >> (bits - 8), (HEIGHT, WIDTH, 3))
    np.testing.assert_array_equal(decoded(write_tiff(tags, parts)), upright[orientation](expected_hwc))


def test_bits_that_fill_no_byte_are_not_filled_up() -> None:
    tags = describe_array(PLAIN[..., 0], GREY) | {tiffs.BITS: 10}
    data = write_tiff(tags, [packed(DEEP[..., 0] >> 6, 10)[:-1]])
    with pytest.raises(InvalidImage, match="fewer bytes than its rows have"):
        decoded(data)


@pytest.mark.parametrize("most", [65535, 255])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_has_sixteen_bits_or_where_all_are_small_eight(bits: int, most: int) -> None:
    colours = (np.arange(3 * 2**bits) * 7919 % (most + 1)).reshape(3, -1)
    colours[0, 0] = most
    samples = PLAIN[..., 0] >> (8 - bits)
    tags = describe_array(PLAIN[..., 0], PALETTE) | {tiffs.BITS: bits, 320: colours.ravel().tolist()}
    data = write_tiff(tags, [packed(samples, bits)])
    np.testing.assert_array_equal(decoded(data), (colours >> 8 if most > 255 else colours).T[samples])


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2)])
def test_ycbcr_is_bt_601(subsampling: tuple[int, int]) -> None:
    across, down = subsampling
    rgb = np.kron(PLAIN[:5, :7, :3], np.ones((4, 4, 1))).astype(int)  # blocks of one colour each
    red, green, blue = np.moveaxis(rgb, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = np.stack([(blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128], -1)
    luma, chroma = np.rint(luma).astype(np.uint8), np.rint(chroma).clip(0, 255).astype(np.uint8)
    blob = b"".join(
        luma[top : top + down, left : left + across].tobytes() + chroma[top, left].tobytes()
        for top in range(0, 20, down)
        for left in range(0, 28, across)
    )
    data = write_tiff(describe_array(rgb.astype(np.uint8), YCBCR) | {530: subsampling}, [blob])
    np.testing.assert_allclose(decoded(data), rgb, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("photometric", "count", "extra", "layout"),
    [
        (GREY, 1, [], "tiles"),
        (GREY, 2, [ALPHA], "strips"),
        (RGB, 3, [], "planes"),
        (RGB, 4, [ALPHA], "planes and tiles"),
    ],
)
def test_sixteen_bits_are_turned(photometric: int, count: int, extra: list[int], layout: str, orientation: int) -> None:
    samples = samples_of(16, "<", count)
    tags = (
        describe_array(samples, photometric)
        | {tiffs.ORIENTATION: orientation}
        | ({tiffs.EXTRA: extra} if extra else {})
    )
    stored = expected(samples, photometric, extra)
    # Orientations of TIFF 6.0: where row 0 and column 0 are.
    upright = {
        **{1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1]},
        **{5: stored.swapaxes(0, 1), 6: stored[::-1].swapaxes(0, 1)},
        **{7: stored[::-1, ::-1].swapaxes(0, 1), 8: stored[:, ::-1].swapaxes(0, 1)},
    }
    np.testing.assert_array_equal(decoded(write_tiff(*laid_out(samples, layout, tags))), upright[orientation])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("mode", ["I;16", "RGB", "L", "P", "CMYK"])
def test_lossless_compression_loses_nothing(mode: str, compression: str) -> None:
    image = Image.fromarray(DEEP[..., 0]) if mode == "I;16" else Image.fromarray(PLAIN[..., :3].copy()).convert(mode)
    data = io.BytesIO()
    image.save(data, "TIFF", compression=compression)
    rgb = grey(PLAIN[..., 0]) if mode == "I;16" else np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decoded(data.getvalue()), rgb)


def differences(samples: NDArray[Any]) -> NDArray[Any]:
    """Predictor 2: of each sample to the same one of the pixel to its left, without carry."""
    left = np.zeros_like(samples)
    left[:, 1:] = samples[:, :-1]
    return np.asarray(samples - left, samples.dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("layout", ["strips", "planes"])
def test_predictor_is_undone(layout: str, bits: int, order: str) -> None:
    samples = samples_of(bits, order, 3)
    tags, parts = laid_out(differences(samples), layout, describe_array(samples, RGB) | {tiffs.COMPRESSION: 8, 317: 2})
    data = write_tiff(tags, [zlib.compress(part) for part in parts], order=order)
    np.testing.assert_array_equal(decoded(data), expected(samples, RGB, []))


def test_first_page_counts_and_not_what_hangs_from_it() -> None:
    pages = [Image.fromarray(PLAIN[..., :3].copy()), Image.new("RGB", (5, 5))]
    data = io.BytesIO()
    pages[0].save(data, "TIFF", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(decoded(data.getvalue()), PLAIN[..., :3])


FLOAT = DEEP.astype(np.float32) / 65535
PLANES = DEEP[..., :2]
REJECTED: dict[str, tuple[NDArray[Any], int, dict[int, Any], str]] = {
    "five bands": (np.dstack([DEEP, DEEP[..., 0]]), GREY, {tiffs.EXTRA: [0] * 4}, "5 x 16 bits, .*grey"),
    "bands without a word": (DEEP[..., :3], GREY, {}, "3 x 16 bits"),
    "floating point": (FLOAT[..., :3], RGB, {tiffs.FORMAT: [3] * 3}, "3 x 32 bits, .*floating-point"),
    "floating point of 16": (DEEP[..., :3], RGB, {tiffs.FORMAT: [3] * 3}, "3 x 16 bits, .*floating-point"),
    "floating point of 64": (FLOAT[..., 0].astype(float), GREY, {tiffs.FORMAT: 3}, "64 bits for each .*floating-point"),
    "signed": (DEEP[..., 0], GREY, {tiffs.FORMAT: 2}, "16 bits for each value, .*signed"),
    "signed bytes": (PLAIN[..., 0], GREY, {tiffs.FORMAT: 2}, "8 bits for each value, .*signed"),
    "32 bits": (DEEP[..., 0].astype(np.uint32), GREY, {}, "32 bits for each value"),
    "11 bits": (DEEP[..., 0], GREY, {tiffs.BITS: 11}, "11 bits for each value"),
    "12 bits of four": (DEEP, RGB, {tiffs.BITS: [12] * 4}, "4 x 12 bits"),
    "12 bits in planes": (DEEP[..., :3], RGB, {tiffs.BITS: [12] * 3, tiffs.PLANAR: 2}, "3 x 12 bits"),
    "5, 6, 5 bits": (PLAIN[..., :3], RGB, {tiffs.BITS: [5, 6, 5]}, "3 x 5/6/5 bits"),
    "L*a*b*": (PLAIN[..., :3], 8, {}, r"CIE L\*a\*b\*"),
    "mask": (PLAIN[..., 0], 4, {}, "mask"),
    "camera raw": (DEEP[..., 0], 32803, {}, "camera raw"),
    "DNG": (PLAIN[..., :3], RGB, {50706: [1, 4, 0, 0]}, r"camera raw \(DNG\)"),
    "a thumbnail first": (PLAIN[..., :3], RGB, {254: 1}, "a thumbnail before the image"),
    "other inks": (PLAIN, CMYK, {332: 2}, "other inks than CMYK"),
    "grey and alpha in planes": (PLANES, GREY, {tiffs.PLANAR: 2, tiffs.EXTRA: 2}, "2 x 16 bits, .*planes"),
    "multiplied grey": (PLAIN[..., :2], GREY, {tiffs.EXTRA: MULTIPLIED}, "2 x 8 bits, .*multiplied by alpha"),
    "multiplied planes": (PLAIN, RGB, {tiffs.PLANAR: 2, tiffs.EXTRA: 1}, "planes, colours multiplied by alpha"),
    "chroma of 4 x 4": (PLAIN[..., :3], YCBCR, {530: [4, 4]}, "chroma 4 x 4"),
    "bits in reverse": (PLAIN, RGB, {266: 2, tiffs.EXTRA: 2}, "bits in reverse"),
    "predictor of nothing": (PLAIN[..., :3], RGB, {317: 2}, "predictor 2"),
    "predictor of floats": (PLAIN[..., :3], RGB, {317: 3, tiffs.COMPRESSION: 8}, "predictor 3"),
    **{
        name: (PLAIN[..., :3], RGB, {tiffs.COMPRESSION: number}, f"compression {name}")
        for number, name in (
            (6, "old JPEG"),
            (34712, "JPEG 2000"),
            (34887, "LERC"),
            (50001, "WebP"),
            (50002, "JPEG XL"),
        )
    },
    "an unknown compression": (PLAIN[..., :3], RGB, {tiffs.COMPRESSION: 999}, "compression 999"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_kind_that_is_not_read_is_named(name: str) -> None:
    samples, photometric, tags, says = REJECTED[name]
    with pytest.raises(UnsupportedMedia, match=f"image: got a TIFF of .*{says}.* is not read: convert it to 8-bit RGB"):
        decoded(write_tiff(describe_array(samples, photometric) | tags, [samples.tobytes()]))


def test_tiles_of_grey_with_alpha_are_rejected() -> None:
    samples = DEEP[..., :2]
    tags = describe_array(samples, GREY) | {tiffs.EXTRA: ALPHA}
    with pytest.raises(UnsupportedMedia, match=r"2 x 16 bits, .*tiles"):
        decoded(write_tiff(*laid_out(samples, "tiles", tags)))


def big_endian_bigtiff() -> bytes:
    entries = {256: 2, 257: 2, 258: 8, 259: 1, 262: 1, 273: 16, 277: 1, 278: 2, 279: 4}
    directory = struct.pack(">Q", len(entries)) + b"".join(
        struct.pack(">HHQHHI", tag, 3, 1, value, 0, 0) for tag, value in entries.items()
    )
    return b"MM\0+" + struct.pack(">HHQ", 8, 0, 24) + bytes(8) + directory + bytes(8)


def test_big_endian_bigtiff_is_rejected() -> None:
    with pytest.raises(UnsupportedMedia, match="big-endian BigTIFF"):
        decoded(big_endian_bigtiff())


BASE = describe_array(PLAIN[..., 0], GREY) | {tiffs.ROWS: 20}
STRIPS = [PLAIN[:20, :, 0].tobytes(), PLAIN[20:, :, 0].tobytes()]
BROKEN: dict[str, tuple[dict[int, Any], str]] = {
    "a strip less than rows": (
        {tiffs.STRIPS: 8, tiffs.STRIP_BYTES: 1060},
        "of 1 strips or tiles and 1 lengths, expected 2",
    ),
    "a strip that is left out": ({tiffs.STRIPS: [8, 0], tiffs.STRIP_BYTES: [1060, 0]}, "lacks a strip"),
    "a strip behind the end": ({tiffs.STRIPS: [8, 10**6]}, "lacks a strip"),
    "a short strip": ({tiffs.STRIP_BYTES: [1060, 10]}, "fewer bytes than its rows have"),
    "a first strip that is short": ({tiffs.STRIP_BYTES: [1059, 901]}, "fewer bytes than its rows have"),
    "no rows in a strip": ({tiffs.ROWS: 0}, "expected 0"),
    "no width": ({tiffs.WIDTH: 0}, "expected 0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_part_that_is_not_there_is_rejected(name: str) -> None:
    tags, says = BROKEN[name]
    np.testing.assert_array_equal(decoded(write_tiff(BASE, STRIPS)), grey(PLAIN[..., 0]))
    with pytest.raises(InvalidImage, match=says):
        decoded(write_tiff(BASE | tags, STRIPS))


def test_kind_that_the_tags_leave_open_is_rejected() -> None:
    with pytest.raises(InvalidImage, match="a TIFF without PHOTOMETRIC"):
        decoded(write_tiff({tag: value for tag, value in BASE.items() if tag != tiffs.PHOTOMETRIC}, STRIPS))
    # Two readers might take one width each.
    twice = write_tiff(BASE, STRIPS).replace(struct.pack("<HHI", 257, 3, 1), struct.pack("<HHI", 256, 3, 1))
    with pytest.raises(InvalidImage, match="broken TIFF"):
        decoded(twice)


def test_tiff_over_a_limit_of_time_or_memory_is_rejected() -> None:
    tile = {tiffs.TILE_WIDTH: 60_000, tiffs.TILE_HEIGHT: 60_000}
    with pytest.raises(PayloadTooLarge, match="tiles of 60000x60000 pixels"):
        decoded(write_tiff(describe_array(PLAIN[..., 0], GREY) | tile, STRIPS))
    with pytest.raises(InvalidImage, match="200000 strips or tiles is over the limit of 131072"):
        decoded(write_tiff(BASE | {tiffs.STRIPS: [8] * 200_000}, STRIPS))
    with pytest.raises(InvalidImage, match="3009 tags is over the limit of 1000"):
        decoded(write_tiff(BASE | {1000 + tag: 1 for tag in range(3000)}, STRIPS))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("photometric", "count", "extra", "layout"), READ)
def test_part_of_a_file_is_never_an_image(
    photometric: int, count: int, extra: list[int], layout: str, bits: int
) -> None:
    data, _ = kind_of(photometric, count, extra, layout, bits, "<")
    for size in range(len(data) - 1, 8, -97):
        with pytest.raises(InvalidImage):
            decoded(data[:size])


@pytest.fixture(scope="module")
def cases(shared: Path) -> Path:
    folder = shared.parent / "cases" / "tiff"
    if not folder.is_dir():
        pytest.skip("../shared/cases/tiff is absent: images that are no part of the project")
    return folder


@pytest.mark.parametrize("name", ["rgb16-planar.tif", "rgba16-planar.tif", "gray-alpha16.tif"])
def test_case_is_as_opencv_reads_it(cases: Path, name: str) -> None:
    data = (cases / name).read_bytes()
    opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded(data), opencv)


def test_case_of_twelve_bits_is_the_image_that_others_hold_too(cases: Path) -> None:
    image = decoded((cases / "gray12-packed.tif").read_bytes())
    assert round(float(image.mean()), 1) == 112.1
    np.testing.assert_array_equal(image, decoded((cases / "gray-alpha16.tif").read_bytes()))


@pytest.mark.parametrize(
    ("name", "says"),
    [("ms16-5band.tif", "TIFF of 5 x 16 bits"), ("rgb-float.tif", "TIFF of 3 x 32 bits.*floating-point")],
)
def test_case_is_rejected_by_its_kind(cases: Path, name: str, says: str) -> None:
    with pytest.raises(UnsupportedMedia, match=says):
        decoded((cases / name).read_bytes())
