"""Formats that are not read are rejected by their names, as far as they begin like one."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from transformer.errors import InvalidImage, ServingError, UnsupportedMedia
from transformer.imaging.decoding import FORMATS, decode

BASE64 = "base64 instead of the file that it encodes"


def error_of(data: bytes) -> ServingError:
    with pytest.raises(ServingError) as raised:
        decode(data, max_bytes=2**24, max_pixels=2**24)
    return raised.value


def container(brand: bytes, *others: bytes) -> bytes:
    """The beginning of a file of ISO's base media format."""
    content = brand + bytes(4) + b"".join(others)
    return (8 + len(content)).to_bytes(4) + b"ftyp" + content + bytes(64)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (container(b"heic", b"mif1", b"heic"), "HEIC"),
        (container(b"heix", b"mif1"), "HEIC"),
        (container(b"hevc", b"msf1", b"hevc"), "HEIC sequence"),
        (container(b"mif1", b"mif1", b"heic"), "HEIC"),
        (container(b"mif1", b"miaf"), "HEIF"),
        (container(b"miaf"), "HEIF"),
        (container(b"msf1", b"msf1", b"mif1"), "HEIF sequence"),
        (container(b"mif1", b"avci"), "HEIF of H.264"),
        (container(b"avis", b"msf1"), "AVIF sequence"),
        (container(b"crx ", b"isom"), "Canon CR3 (camera raw)"),
        (container(b"jp2 ", b"jp2 "), "JPEG 2000"),
        (container(b"isom", b"iso2", b"mp41"), "MP4 video"),
        (container(b"mp42"), "MP4 video"),
        (container(b"qt  "), "QuickTime video"),
        (container(b"3gp5"), "3GPP video"),
        (container(b"wxyz"), "a file of ISO's base media format, brand 'wxyz'"),
        (b"\xff\x4f\xff\x51\0\x2f" + bytes(64), "JPEG 2000"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64), "JPEG 2000"),
        (b"\xff\x0a" + bytes(64), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(64), "JPEG XL"),
        (b"II\xbc\1" + bytes(64), "JPEG XR"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(64), "Canon CR2 (camera raw)"),
        (b"IIRO\x08\0\0\0" + bytes(64), "Olympus ORF (camera raw)"),
        (b"IIU\0\x18\0\0\0" + bytes(64), "Panasonic RW2 (camera raw)"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(64), "Fujifilm RAF (camera raw)"),
        (b"P6 2 2 255\n" + bytes(12), "PPM"),
        (b"P5\n2 2\n255\n" + bytes(4), "PGM"),
        (b"P4\n# a comment\n2 2\n" + bytes(4), "PBM"),
        (b"P7\nWIDTH 2\n" + bytes(4), "PAM"),
        (b"Pf\n2 2\n-1.0\n" + bytes(16), "PFM"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance HDR"),
        (b"v/1\1\2\0\0\0", "OpenEXR"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0", "PostScript"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg >", "SVG"),
        (b"<?xml version='1.0'?><note/>", "XML"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"\x1f\x8b\x08\0" + bytes(16), "gzip"),
        (b"PK\3\4" + bytes(16), "ZIP"),
        (b"\x1aE\xdf\xa3" + bytes(16), "Matroska or WebM video"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI video"),
        (b"\0\0\1\xba" + bytes(16), "MPEG video"),
        ((b"G" + bytes(187)) * 4, "MPEG video"),
        (b"SIMPLE  =                    T", "FITS"),
        (bytes(128) + b"DICM" + bytes(16), "DICOM"),
        (b"\x93NUMPY\1\0", "NumPy array"),
        (bytes(64) + b"TRUEVISION-XFILE.\0", "TGA"),
        (b"\0\0\2" + bytes(64) + b"TRUEVISION-XFILE.\0", "TGA"),
        (b"\0\0\2" + bytes(64), "TGA"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n"), BASE64),
        (base64.b64encode(b"\xff\xd8\xff\xe0"), BASE64),
        (b"data:image/png;base64,iVBORw0KGg", BASE64),
    ],
)
def test_format_is_named(data: bytes, name: str) -> None:
    error = error_of(data)
    assert isinstance(error, UnsupportedMedia)
    assert str(error) == f"image: got {name}, expected one of {', '.join(FORMATS)}; convert it"


def by_pillow(name: str, *, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (32, 32), 1).save(file, name, **options)
    return file.getvalue()


def by_opencv(suffix: str, dtype: type[np.generic] = np.uint8) -> bytes:
    done, data = cv2.imencode(suffix, np.ones((32, 32, 3), dtype))
    assert done
    return data.tobytes()


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda: by_pillow("JPEG2000"), "JPEG 2000"),
        (lambda: by_pillow("JPEG2000", no_jp2=True), "JPEG 2000"),
        (lambda: by_pillow("PPM"), "PPM"),
        (lambda: by_pillow("PPM", mode="L"), "PGM"),
        (lambda: by_pillow("PPM", mode="1"), "PBM"),
        (lambda: by_pillow("ICO"), "ICO"),
        (lambda: by_pillow("PDF"), "PDF"),
        (lambda: by_pillow("EPS"), "PostScript"),
        (lambda: by_pillow("TGA"), "TGA"),
        (lambda: by_pillow("TGA", compression="tga_rle"), "TGA"),
        (lambda: by_opencv(".pam"), "PAM"),
        (lambda: by_opencv(".pfm", np.float32), "PFM"),
        (lambda: by_opencv(".hdr", np.float32), "Radiance HDR"),
    ],
)
def test_file_of_an_encoder_is_named(write: Callable[[], bytes], name: str) -> None:
    assert f"image: got {name}, expected one of" in str(error_of(write()))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(20), "JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "PNG"),
        (b"GIF89a" + bytes(3), "GIF"),
        (b"RIFF\x20\0\0\0WEBPVP8 " + bytes(20), "WEBP"),
        (b"BM" + bytes(20), "BMP"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (container(b"avif", b"avif", b"mif1"), "AVIF"),
        (container(b"mif1", b"avif"), "AVIF"),
    ],
)
def test_broken_file_of_a_format_that_is_read_is_no_other_format(data: bytes, name: str) -> None:
    error = error_of(data)
    assert isinstance(error, InvalidImage)
    assert str(error) == f"image: {len(data)} bytes of a broken {name}, expected a whole one"


@pytest.mark.parametrize("data", [b"hello", b"\0" * 500, b"RIFF", b"<" * 2000, b"<!----" * 400])
def test_unknown_bytes_are_quoted_in_the_error(data: bytes) -> None:
    error = error_of(data)
    assert isinstance(error, InvalidImage)
    assert f"{len(data)} bytes that begin with" in str(error)


@pytest.mark.parametrize(("case", "name"), [("heif-msf1", "HEIF sequence"), ("j2k.j2k", "JPEG 2000")])
def test_case_is_named(shared: Path, case: str, name: str) -> None:
    path = shared.parent / "cases" / "containers" / case
    if not path.is_file():
        pytest.skip("../shared/cases/containers is absent: files that are no part of the project")
    assert f"got {name}, expected one of JPEG" in str(error_of(path.read_bytes()))
