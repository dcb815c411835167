"""TIFF: only the kinds of it whose pixels were verified.

The tags of the first image say which of some thousand kinds it is, before anything is decoded. Pillow and OpenCV decode
some kinds to wrong colours without an error, so only the kinds listed below are read; each was compared with other
decoders, see docs/image-formats.md.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from transformer.errors import InvalidImage, PayloadTooLarge, UnsupportedMedia
from transformer.imaging.letterbox import Image as ImageArray

# Pillow's own reader of uncompressed files takes planes of 16 bits for planes of 8; libtiff does not.
TiffImagePlugin.READ_LIBTIFF = True
# Kinds that Pillow reads in little-endian files alone; negatives of 16 bits are inverted below.
TiffImagePlugin.OPEN_INFO[(b"MM", 0, (1,), 1, (16,), ())] = ("I;16B", "I;16B")
TiffImagePlugin.OPEN_INFO[(b"MM", 1, (1,), 1, (12,), ())] = ("I;16", "I;12")

# Byte order, and whether offsets have 64 bits (BigTIFF).
_BEGINS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
_MOST_TAGS = 1000  # a scanner or a satellite writes some fifty
_MOST_TILE_PIXELS = 2**24  # libtiff allocates a whole one
_MOST_PARTS = 2**17  # strips or tiles: Pillow looks at them one by one


class _Tag(IntEnum):
    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIPS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS = 278
    STRIP_BYTES = 279
    PLANAR = 284
    PREDICTOR = 317
    PALETTE = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILES = 324
    TILE_BYTES = 325
    INKS = 332
    EXTRA = 338
    FORMAT = 339
    SUBSAMPLING = 530
    DNG = 50706


_KNOWN = {*_Tag}
_TYPES = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}
_ONE = np.ones(1, np.uint8)

_WHITE_IS_0, _GREY, _RGB, _INDEX, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_0: 1, _GREY: 1, _RGB: 3, _INDEX: 1, _CMYK: 4, _YCBCR: 3}
_PHOTOMETRICS = {
    **{_WHITE_IS_0: "grey (white is 0)", _GREY: "grey", _RGB: "RGB", _INDEX: "palette", 4: "mask", _CMYK: "CMYK"},
    **{_YCBCR: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "camera raw", 32844: "LogL"},
    **{32845: "LogLuv", 34892: "camera raw, linear"},
}
_COMPRESSIONS = {
    **{1: "none", 2: "CCITT RLE", 3: "fax group 3", 4: "fax group 4", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate"},
    **{9: "JBIG", 10: "JBIG", 32773: "PackBits", 32809: "ThunderScan", 32946: "Deflate", 34661: "JBIG"},
    **{34712: "JPEG 2000", 34887: "LERC", 34892: "JPEG", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP"},
    **{50002: "JPEG XL", 52546: "JPEG XL"},
}
_FAX, _JPEG, _LOSSLESS, _PREDICTED = (2, 3, 4), 7, (1, 5, 8, 32773, 32946, 34925, 50000), (5, 8, 32946, 34925, 50000)
_IN_OPENCV = (1, 5, 8, 32773, 32946)
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}


class _Kind(NamedTuple):
    photometric: int
    bits: int  # of each sample
    extra: tuple[int, ...]  # what the samples beyond the colours are
    planes: bool  # whether each sample has a plane of its own


# Samples beyond the colours: unknown, alpha that the colours were multiplied by, alpha that they were not, Corel's.
_UNKNOWN, _MULTIPLIED, _ALPHA, _COREL = (0,), (1,), (2,), (999,)
_GREYS = (_WHITE_IS_0, _GREY)
_BY_PILLOW = {
    *(_Kind(grey, bits, (), False) for grey in _GREYS for bits in (1, 2, 4, 8, 16)),
    _Kind(_GREY, 12, (), False),
    *(_Kind(_GREY, 8, extra, False) for extra in (_UNKNOWN, _ALPHA)),
    *(_Kind(_RGB, bits, extra, False) for bits in (8, 16) for extra in ((), _UNKNOWN, _MULTIPLIED, _ALPHA)),
    *(_Kind(_RGB, bits, extra, True) for bits in (8, 16) for extra in ((), _UNKNOWN, _ALPHA)),
    *(_Kind(_RGB, 8, (first, *more), False) for first in (0, 1, 2) for more in ((0,), (0, 0))),
    _Kind(_RGB, 8, _COREL, False),
    *(_Kind(_INDEX, bits, (), False) for bits in (1, 2, 4, 8)),
    *(_Kind(_INDEX, 8, extra, False) for extra in (_UNKNOWN, _ALPHA)),
    *(_Kind(_CMYK, bits, (), planes) for bits in (8, 16) for planes in (False, True)),
    *(_Kind(_CMYK, 8, extra, False) for extra in (_UNKNOWN, (0, 0))),
    _Kind(_YCBCR, 8, (), False),
}
_PACKED = {_Kind(colour, bits, (), False) for colour in (*_GREYS, _RGB) for bits in (10, 12, 14)}
_WITH_ALPHA = {_Kind(_GREY, 16, extra, False) for extra in (_UNKNOWN, _ALPHA)}  # in strips; OpenCV mixes up tiles
_BY_JPEG = {_Kind(colour, 8, (), False) for colour in (_GREY, _RGB, _YCBCR)}
_IN_REVERSE = {*(_Kind(grey, bits, (), False) for grey in _GREYS for bits in (1, 2, 4, 8)), _Kind(_RGB, 8, (), False)}
_SUBSAMPLED = {(across, down) for across in (1, 2, 4) for down in (1, 2)}
_EXPECTED = "8 or 16 unsigned bits of grey, a palette, RGB(A), YCbCr or CMYK"


@dataclass(frozen=True)
class Tiff:
    """The first image, by its tags.

    Attributes:
        size_wh: as stored, before it is turned.
        bits: of each sample.
        white_is_0: whether it is a negative.
        palette: RGB `(2 ** bits, 3)`, where samples are indices.
        by_opencv: whether OpenCV decodes it, and not Pillow.
        is_whole: whether its strips or tiles are as long as their rows.
    """

    size_wh: tuple[int, int]
    bits: int
    white_is_0: bool
    palette: ImageArray | None
    by_opencv: bool
    is_whole: bool


def read_tiff(data: bytes) -> Tiff:
    """Size and kind of the first image, without decoding a pixel.

    Raises:
        InvalidImage: broken, or cut off.
        UnsupportedMedia: of a kind that is not on the lists.
        PayloadTooLarge: its tiles are larger than the limit.
    """
    try:
        return _read(data, _read_tags(data))
    except KeyError as exc:
        raise InvalidImage(f"image: a TIFF without {_Tag(exc.args[0]).name}, expected a whole one") from exc
    except (struct.error, ValueError, IndexError, OverflowError) as exc:
        raise InvalidImage(f"image: {len(data)} bytes of a broken TIFF, expected a whole one") from exc


def decode_tiff(file: io.BytesIO, tiff: Tiff) -> ImageArray:
    """RGB, upright.

    Args:
        file: of a kind that `read_tiff` let pass.
        tiff: what it said.

    Raises:
        InvalidImage: it lacks bytes.
        OSError: broken; and what else Pillow's parsers and OpenCV raise.
    """
    if not tiff.is_whole:
        raise InvalidImage("image: a TIFF with a strip or a tile of fewer bytes than its rows have; expected all of it")
    if tiff.by_opencv:
        return _decode_by_opencv(file, tiff)
    with warnings.catch_warnings(action="ignore"), Image.open(file, formats=["TIFF"]) as image:
        if sorted(image.size) != sorted(tiff.size_wh):
            raise OSError("two sizes")
        image.load()  # and rotates it
        if tiff.palette is not None:
            indices = np.asarray(image if image.mode == "P" else image.getchannel("P"))
            return np.asarray(tiff.palette[indices], np.uint8)
        if image.mode.startswith("I;16"):
            grey = (np.asarray(image) >> (tiff.bits - 8)).astype(np.uint8)
            return np.repeat((255 - grey if tiff.white_is_0 else grey)[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))


def _decode_by_opencv(file: io.BytesIO, tiff: Tiff) -> ImageArray:
    """Decode samples of 10 to 14 bits to 16 bits, whose upper 8 are used, and 16 bits with alpha to 8 bits."""
    # BGR: where RGB is requested, some come as BGR all the same.
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_ANYDEPTH if tiff.bits < 16 else 0)
    image = cv2.imdecode(np.frombuffer(file.getbuffer(), np.uint8), flags)
    if image is None:
        raise OSError("OpenCV does not decode it")
    bgr = image.astype("<u2", copy=False).view(np.uint8)[..., 1::2] if image.dtype == np.uint16 else image
    return np.ascontiguousarray(255 - bgr[..., ::-1] if tiff.white_is_0 else bgr[..., ::-1], np.uint8)


def _read(data: bytes, tags: dict[int, NDArray[Any]]) -> Tiff:
    tile_wh = (_one(tags, _Tag.TILE_WIDTH, 1), _one(tags, _Tag.TILE_HEIGHT, 1))
    if tile_wh[0] * tile_wh[1] > _MOST_TILE_PIXELS:
        raise PayloadTooLarge(
            f"image: tiles of {tile_wh[0]}x{tile_wh[1]} pixels are over the limit of {_MOST_TILE_PIXELS}"
        )
    size_wh, samples = (_one(tags, _Tag.WIDTH), _one(tags, _Tag.HEIGHT)), _one(tags, _Tag.SAMPLES, 1)
    photometric, bits = _one(tags, _Tag.PHOTOMETRIC), {*tags.get(_Tag.BITS, _ONE).tolist()}
    colours = _COLOURS.get(photometric, samples)
    # A fourth sample without a declared meaning may be anything.
    extra = tuple(tags[_Tag.EXTRA].tolist()) if _Tag.EXTRA in tags else (0,) * min(samples - colours, 9)
    planes = samples if samples > 1 and _one(tags, _Tag.PLANAR, 1) == 2 else 1
    kind = _Kind(photometric, min(bits), extra, planes > 1)
    by_opencv = _one(tags, _Tag.COMPRESSION, 1) in _IN_OPENCV and (
        kind in _PACKED or (kind in _WITH_ALPHA and _Tag.TILES not in tags)
    )
    unusual = _find_unusual(data, tags, kind)
    if unusual or not (kind in _BY_PILLOW or by_opencv) or (len(bits), samples) != (1, colours + len(extra)):
        raise UnsupportedMedia(_describe(tags, kind, unusual))
    is_whole = _check_parts(data, tags, size_wh, planes)
    palette = _read_palette(tags[_Tag.PALETTE], kind.bits) if photometric == _INDEX else None
    return Tiff(size_wh, kind.bits, photometric == _WHITE_IS_0, palette, by_opencv, is_whole)


def _one(tags: dict[int, NDArray[Any]], tag: int, default: int | None = None) -> int:
    return int(tags[tag][0]) if default is None or tag in tags else default


def _find_unusual(data: bytes, tags: dict[int, NDArray[Any]], kind: _Kind) -> list[str]:
    """Why an image of a known kind cannot be read."""
    compression, predictor = _one(tags, _Tag.COMPRESSION, 1), _one(tags, _Tag.PREDICTOR, 1)
    forms = {*tags.get(_Tag.FORMAT, _ONE).tolist()} - {1}
    across, down = (
        tags[_Tag.SUBSAMPLING].tolist() if _Tag.SUBSAMPLING in tags and kind.photometric == _YCBCR else (2, 2)
    )
    if compression in _FAX:
        is_packed = kind.photometric in (_WHITE_IS_0, _GREY) and kind.bits == 1
    else:
        is_packed = kind in _BY_JPEG if compression == _JPEG else compression in _LOSSLESS
    is_predicted = predictor == 2 and kind.bits in (8, 16) and compression in _PREDICTED
    found = {
        " and ".join(_FORMATS.get(form, "untyped") for form in sorted(forms)): bool(forms),
        f"compression {_COMPRESSIONS.get(compression, compression)}": not is_packed,
        f"predictor {predictor}": predictor != 1 and not is_predicted,
        f"chroma {across} x {down}": (across, down) not in _SUBSAMPLED,
        "bits in reverse": _one(tags, _Tag.FILL_ORDER, 1) != 1 and kind not in _IN_REVERSE,
        "other inks than CMYK": _one(tags, _Tag.INKS, 1) != 1,
        "a thumbnail before the image": bool(_one(tags, _Tag.SUBFILE, 0) & 1),
        "camera raw (DNG)": _Tag.DNG in tags,
        "big-endian BigTIFF": data.startswith(b"MM\0+"),
    }
    return [name for name, is_so in found.items() if is_so]


def _describe(tags: dict[int, NDArray[Any]], kind: _Kind, unusual: list[str]) -> str:
    samples, bits = _one(tags, _Tag.SAMPLES, 1), "/".join(map(str, tags.get(_Tag.BITS, _ONE)[:5]))
    bits = bits if len({*tags.get(_Tag.BITS, _ONE).tolist()}) > 1 else str(kind.bits)
    this = [
        _PHOTOMETRICS.get(kind.photometric, f"photometric {kind.photometric}"),
        *(["planes"] if kind.planes else []),
        *(["tiles"] if _Tag.TILES in tags else []),
        *(["colours multiplied by alpha"] if 1 in kind.extra else []),
        *unusual,
    ]
    return (
        f"image: got a TIFF of {f'{samples} x {bits} bits' if samples > 1 else f'{bits} bits for each value'}, "
        f"expected {_EXPECTED}; this kind ({', '.join(this)}) is not read: convert it to 8-bit RGB"
    )


def _read_tags(data: bytes) -> dict[int, NDArray[Any]]:
    """The known tags of the first image that have whole numbers."""
    order, big = _BEGINS[data[:4]]
    head, entry, size = ("Q", "HHQ8s", 8) if big else ("H", "HHI4s", 4)
    (first,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + head, data, first)
    if count > _MOST_TAGS:
        raise InvalidImage(f"image: a TIFF of {count} tags is over the limit of {_MOST_TAGS}")
    tags: dict[int, NDArray[Any]] = {}
    for index in range(count):
        at = first + struct.calcsize(order + head) + index * struct.calcsize(order + entry)
        tag, kind, length, value = struct.unpack_from(order + entry, data, at)
        if tag not in _KNOWN:
            continue
        if tag in tags or kind not in _TYPES or not length:
            raise ValueError
        if length > _MOST_PARTS:
            raise InvalidImage(f"image: a TIFF of {length} strips or tiles is over the limit of {_MOST_PARTS}")
        form = np.dtype(order + _TYPES[kind])
        inside = length * form.itemsize <= size
        where = 0 if inside else struct.unpack(order + ("Q" if big else "I"), value)[0]
        tags[tag] = np.frombuffer(value if inside else data, form, length, where)
    return tags


def _check_parts(data: bytes, tags: dict[int, NDArray[Any]], size_wh: tuple[int, int], planes: int) -> bool:
    """Check that every strip or tile is there: decoders would fill a missing one with black.

    Returns:
        Whether each has all bytes of its rows, as far as that is known: libtiff would read on behind a short one.
    """
    in_tiles = _Tag.TILES in tags
    where, lengths = (_Tag.TILES, _Tag.TILE_BYTES) if in_tiles else (_Tag.STRIPS, _Tag.STRIP_BYTES)
    if in_tiles:
        part_wh = (_one(tags, _Tag.TILE_WIDTH), _one(tags, _Tag.TILE_HEIGHT))
    else:
        part_wh = (size_wh[0], min(_one(tags, _Tag.ROWS, size_wh[1]), size_wh[1]))
    starts, sizes = tags[where].astype(np.uint64), tags[lengths].astype(np.uint64)
    down = -(-size_wh[1] // part_wh[1]) if all(part_wh) else 0
    expected = -(-size_wh[0] // part_wh[0]) * down * planes if down else 0
    if not 0 < expected <= min(len(starts), len(sizes)):
        raise InvalidImage(
            f"image: a TIFF of {len(starts)} strips or tiles and {len(sizes)} lengths, expected {expected}"
        )
    if not sizes.all() or not starts.all() or (starts > len(data)).any() or (sizes > len(data) - starts).any():
        raise InvalidImage(f"image: the TIFF of {len(data)} bytes lacks a strip or a tile; expected a whole one")
    if _one(tags, _Tag.COMPRESSION, 1) != 1 or _one(tags, _Tag.PHOTOMETRIC) == _YCBCR:  # which omits some samples
        return True
    bits = _one(tags, _Tag.BITS, 1) * _one(tags, _Tag.SAMPLES, 1) // planes
    heights = np.full(expected, part_wh[1])
    if not in_tiles:
        heights[down - 1 :: down] = size_wh[1] - (down - 1) * part_wh[1]
    return bool((sizes[:expected] >= heights * -(-part_wh[0] * bits // 8)).all())


def _read_palette(values: NDArray[Any], bits: int) -> ImageArray:
    """The palette, RGB `(2**bits, 3)`.

    Entries have 16 bits; if all are below 256, they are taken as 8-bit values, as old programs wrote them.
    """
    if values.size != 3 * 2**bits:
        raise ValueError
    return (values >> 8 if values.max() > 255 else values).astype(np.uint8).reshape(3, -1).T
