"""Almost valid inputs: requests with a few bytes changed, removed, repeated or inserted."""

import base64
import io
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.support import tiffs
from tests.support.tiffs import describe_array, write_tiff

BOUNDARY = b"XX"
# Values that break parsers: limits of the ranges of lengths, signs and markers.
_EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1]
_WORDS = [
    *(struct.pack(form, value) for value in _EDGES for form in ("<I", ">I")),
    *(struct.pack(form, value) for value in _EDGES[:8] for form in ("<H", ">H")),
    *(bytes((0xFF, marker)) for marker in (0xC0, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xE1)),
    *(b"IHDR", b"IDAT", b"PLTE", b"acTL", b"fcTL", b"iCCP", b"eXIf", b"VP8X", b"ANMF", b"ispe", b"irot"),
    *(b"\r\n", b"--XX", b"--XX--", b"\0", b"\xff", b'"', b"[", b"{", b"-1", b"NaN", b"1e999", b"null"),
]


# Most edits keep the length, so that the parser reaches what follows.
_EDITS = ["flip", "flip", "word", "word", "put", "cut", "drop", "double"]


def _images() -> list[bytes]:
    ramp = np.indices((24, 32)).sum(0).astype(np.uint8) * 4
    colour = Image.fromarray(np.dstack([ramp, 255 - ramp, ramp // 2]))
    alpha = Image.merge("RGBA", [*colour.split(), Image.fromarray(ramp)])
    exif = Image.Exif()
    exif[0x0112] = 6
    frames: dict[str, Any] = {"save_all": True, "append_images": [alpha.convert("RGB").rotate(90)]}
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colour, "JPEG", {"exif": exif}),
        (colour, "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour, "PNG", {}),
        (alpha, "PNG", {"exif": exif}),
        (colour.quantize(16), "PNG", {"bits": 4, "transparency": 2}),
        (colour, "PNG", frames),
        (alpha, "WEBP", {"exif": exif}),
        (colour, "WEBP", {"lossless": True}),
        (colour, "WEBP", frames),
        (colour, "BMP", {}),
        (colour.quantize(16), "BMP", {}),
        (alpha, "TIFF", {"exif": exif}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (colour.convert("1"), "TIFF", {"compression": "group4"}),
        (colour, "TIFF", {"compression": "jpeg"}),
        (colour, "GIF", frames),
        (alpha, "AVIF", {"exif": exif}),
        (colour, "AVIF", frames),
    ]
    encoded = []
    for image, name, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, name, **options)
        encoded.append(buffer.getvalue())
    return encoded + _tiffs(np.stack([ramp, 255 - ramp, ramp // 2, ramp], axis=-1).astype(np.uint16) * 257)


def _tiffs(samples: NDArray[np.uint16]) -> list[bytes]:
    """Kinds that Pillow does not write: planes of 16 bits, grey with alpha, CMYK, 10 bits with white as zero."""
    (grey, rgb, cmyk), planes = (samples[..., :count] for count in (1, 3, 4)), np.moveaxis(samples[..., :3], -1, 0)
    negative = np.packbits(grey[..., None] >> np.arange(6, 16)[::-1] & 1)  # 24 x 32 x 10
    kinds: list[tuple[dict[int, Any], list[bytes]]] = [
        (describe_array(rgb, 2) | {tiffs.PLANAR: 2}, [plane.tobytes() for plane in planes]),
        (describe_array(samples[..., :2], 1) | {tiffs.EXTRA: 2}, [samples[..., :2].tobytes()]),
        (describe_array(cmyk, 5), [cmyk.tobytes()]),
        (describe_array(grey, 0) | {tiffs.BITS: 10}, [negative.tobytes()]),
    ]
    return [write_tiff(tags, parts) for tags, parts in kinds]


IMAGES = _images()


def examples(number: int, size: int) -> Callable[[Any], Any]:
    """Decorate a property: run it with so many inputs of a seed, and report the smallest that fails."""
    chosen = settings(
        max_examples=size,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    return lambda judge: seed(number)(chosen(judge))


@st.composite
def mutated(draw: st.DrawFn, originals: st.SearchStrategy[bytes], words: Sequence[bytes] = _WORDS) -> bytes:
    """One of the originals with one to three edits, some with these words; most near the beginning, in the headers."""
    data = draw(originals)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, min(len(data), 128)) | st.integers(0, len(data)))
        kind, size = draw(st.sampled_from(_EDITS)), draw(st.integers(1, 64))
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes((data[at] ^ 1 << size % 8,)) + data[at + 1 :]
        elif kind == "word":
            word = draw(st.sampled_from(words))
            data = data[:at] + word + data[at + len(word) :]
        elif kind == "put":
            data = data[:at] + draw(st.sampled_from(words) | st.binary(max_size=8)) + data[at:]
        elif kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = data[:at] + data[at + size :]
        else:
            data = data[: at + size] + data[at:]
    return data


def images() -> st.SearchStrategy[bytes]:
    """Images of every format, mutated."""
    return mutated(st.sampled_from(IMAGES))


def form(*parts: bytes) -> bytes:
    """A body of `multipart/form-data`."""
    head = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' % BOUNDARY
    return b"".join(head + part + b"\r\n" for part in parts) + b"--%s--\r\n" % BOUNDARY


def _v1() -> list[bytes]:
    """Bodies of v1 requests: images in each of their forms."""
    text = base64.b64encode(IMAGES[0]).decode()
    uri, lines = f"data:image/jpeg;base64,{text}", base64.encodebytes(IMAGES[3]).decode()
    entries = [text, uri, {"b64": lines}, {"image": {"b64": text}, "key": None}, {"image_bytes": text}]
    documents = [{"instances": [entry]} for entry in entries]
    columns = {"inputs": {"image": [{"b64": text}, {"b64": uri}]}, "parameters": None, "signature_name": None}
    return [json.dumps(document).encode() for document in (*documents, columns)]


V1 = _v1()


def v2(name: str, datatype: str, shape: list[int], blob: bytes, **more: Any) -> tuple[bytes, bytes]:
    """The JSON of a v2 request, with its binary data."""
    entry = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(blob)}}
    return json.dumps({"inputs": [entry], **more}).encode(), blob
