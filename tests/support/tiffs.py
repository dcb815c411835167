"""TIFF files with any tags, written by TIFF 6.0: valid ones that no available encoder writes, and invalid ones."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, ORIENTATION = 256, 257, 258, 259, 262, 273, 274
SAMPLES, ROWS, STRIP_BYTES, PLANAR, TILE_WIDTH, TILE_HEIGHT = 277, 278, 279, 284, 322, 323
TILES, TILE_BYTES, EXTRA, FORMAT = 324, 325, 338, 339


def write_tiff(tags: Mapping[int, int | Sequence[int]], parts: Sequence[bytes], *, order: str = "<") -> bytes:
    """A TIFF with one image: its tags, then its pixels.

    Args:
        tags: numbers, written as LONG above 65535 and as SHORT below; offsets and lengths of the strips, or of the
            tiles where their width is among the tags, are added where they are missing.
        parts: strips or tiles.
        order: of bytes, `<` or `>`.
    """
    where, lengths = (TILES, TILE_BYTES) if TILE_WIDTH in tags else (STRIPS, STRIP_BYTES)
    sizes = [len(part) for part in parts]

    def write(begin: int) -> bytes:
        starts = [begin + sum(sizes[:index]) for index in range(len(parts))]
        return _write_tags({where: starts, lengths: sizes} | dict(tags), {where, lengths}, order)

    return write(len(write(0))) + b"".join(parts)


def _write_tags(tags: Mapping[int, int | Sequence[int]], long: set[int], order: str) -> bytes:
    at, entries, values = 8 + 2 + 12 * len(tags) + 4, b"", b""
    for tag, value in sorted(tags.items()):
        numbers = [value] if isinstance(value, int) else list(value)
        kind, form = (4, "I") if max(numbers) > 0xFFFF or tag in long else (3, "H")
        packed = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        inside = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", at + len(values))
        values += packed if len(packed) > 4 else b""
        entries += struct.pack(order + "HHI", tag, kind, len(numbers)) + inside
    begin = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return begin + entries + bytes(4) + values


def describe_array(samples: NDArray[Any], photometric: int) -> dict[int, Any]:
    """Tags of an image of `(height, width)` or `(height, width, samples)`, with the bits of its dtype."""
    height, width, count = (*samples.shape, 1)[:3]
    bits = [samples.dtype.itemsize * 8] * count
    return {WIDTH: width, HEIGHT: height, BITS: bits, COMPRESSION: 1, PHOTOMETRIC: photometric, SAMPLES: count}
