"""Names the format of a file by its first bytes, for the error when it is not one of `decoding.FORMATS`."""

import re

# Brands of ISO's base media format (ISO/IEC 14496-12, 23008-12).
_BRANDS = {
    **dict.fromkeys(("heic", "heix", "heim", "heis"), "HEIC"),
    **dict.fromkeys(("hevc", "hevx", "hevm", "hevs"), "HEIC sequence"),
    **dict.fromkeys(("mif1", "mif2", "miaf", "1pic", "MiHB", "MiHA", "MiHE", "MiPr"), "HEIF"),
    **dict.fromkeys(("msf1",), "HEIF sequence"),
    **dict.fromkeys(("avci", "avcs"), "HEIF of H.264"),
    **dict.fromkeys(("vvic", "vvis"), "HEIF of H.266"),
    **dict.fromkeys(("jpeg", "jpgs"), "HEIF of JPEG"),
    **dict.fromkeys(("j2ki", "j2is"), "HEIF of JPEG 2000"),
    **dict.fromkeys(("avis", "avio"), "AVIF sequence"),
    **dict.fromkeys(("avif", "MA1A", "MA1B"), "AVIF"),
    **dict.fromkeys(("crx ",), "Canon CR3 (camera raw)"),
    **dict.fromkeys(("jp2 ", "jpx ", "jpm ", "mjp2"), "JPEG 2000"),
    **dict.fromkeys(("M4A ", "M4B ", "M4P "), "MPEG-4 audio"),
    **dict.fromkeys(("qt  ",), "QuickTime video"),
    **dict.fromkeys(("avc1", "M4V ", "f4v ", "dash", "MSNV"), "MP4 video"),
}
_FAMILIES = (("iso", "MP4 video"), ("mp4", "MP4 video"), ("3g", "3GPP video"))
_GENERAL = ("HEIF", "HEIF sequence")  # the compatible brands say which codec
# Offset, what stands there, name. The first that fits counts.
_SIGNATURES = (
    (0, rb"\xff\xd8\xff", "JPEG"),
    (0, rb"\x89PNG\r\n\x1a\n", "PNG"),
    (0, rb"RIFF.{4}WEBP", "WEBP"),
    (0, rb"GIF8[79]a", "GIF"),
    (0, rb"BM", "BMP"),
    (0, rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
    (0, rb"\0\0\0\x0cjP(  |\x1a\x1a)|\xffO\xffQ", "JPEG 2000"),
    (0, rb"II\xbc", "JPEG XR"),
    (0, rb"II\*\0.{4}CR", "Canon CR2 (camera raw)"),
    (0, rb"II\x1a\0.{4}HEAPCCDR", "Canon CRW (camera raw)"),
    (0, rb"IIR[OS]|MMOR", "Olympus ORF (camera raw)"),
    (0, rb"IIU\0", "Panasonic RW2 (camera raw)"),
    (0, rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (0, rb"FUJIFILMCCD-RAW", "Fujifilm RAF (camera raw)"),
    (0, rb"\0MRM", "Minolta MRW (camera raw)"),
    (0, rb"FOVb", "Sigma X3F (camera raw)"),
    (0, rb"%PDF", "PDF"),
    (0, rb"BA.{12}(BM|CI|CP|IC|PT)", "OS/2 bitmap array"),
    (0, rb"8BPS", "Photoshop"),
    (0, rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (0, rb"data:|iVBORw0KGg|/9j/|R0lGOD|UklGR", "base64 instead of the file that it encodes"),
    (-18, rb"TRUEVISION-XFILE", "TGA"),
    (0, rb"\0\0[\x02\x03\x0a\x0b]\0{5}", "TGA"),
    (0, rb"\0\0[\x01\x02]\0", "ICO"),
    (0, rb"icns", "ICNS"),
    (0, rb"DDS ", "DDS"),
    (0, rb"\xabKTX ", "KTX"),
    (0, rb"\x01\xda[\0\x01][\x01\x02]", "SGI"),
    (0, rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]", "PCX"),
    (0, rb"\x59\xa6\x6a\x95", "Sun raster"),
    (0, rb"P[14][\s#]", "PBM"),
    (0, rb"P[25][\s#]", "PGM"),
    (0, rb"P[36][\s#]", "PPM"),
    (0, rb"P7[\s#]", "PAM"),
    (0, rb"P[Ff]4?\s", "PFM"),
    (0, rb"qoif", "QOI"),
    (0, rb"farbfeld", "farbfeld"),
    (0, rb"v/1\x01", "OpenEXR"),
    (0, rb"#\?(RADIANCE|RGBE)", "Radiance HDR"),
    (0, rb"gimp xcf", "XCF"),
    (0, rb"/\* XPM \*/", "XPM"),
    (0, rb"#define \S+_width", "XBM"),
    (0, rb"BPG\xfb", "BPG"),
    (0, rb"FLIF", "FLIF"),
    (0, rb"AT&TFORM", "DjVu"),
    (0, rb"\x8aMNG", "MNG"),
    (0, rb"\x8bJNG", "JNG"),
    (0, rb"\x97JB2\r\n\x1a\n", "JBIG2"),
    (0, rb"SIMPLE  =", "FITS"),
    (0, rb"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, rb"\x93NUMPY", "NumPy array"),
    (0, rb"\xd7\xcd\xc6\x9a|\x01\0\x09\0\0\x03", "WMF"),
    (0, rb"\x01\0\0\0.{36} EMF", "EMF"),
    (128, rb"DICM", "DICOM"),
    (0, rb"RIFF.{4}AVI ", "AVI video"),
    (0, rb"RIFF.{4}ACON", "ANI"),
    (0, rb"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (0, rb"\0\0\x01[\xb3\xba]|G.{187}G.{187}G", "MPEG video"),
    (0, rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media video"),
    (0, rb"FLV\x01", "Flash video"),
    (0, rb"OggS", "Ogg"),
    (4, rb"moov|mdat|wide|free|skip|pnot", "QuickTime video"),
    (0, rb"PK\x03\x04", "ZIP"),
    (0, rb"\x1f\x8b\x08", "gzip"),
    (0, rb"7z\xbc\xaf\x27\x1c", "7z"),
    (0, rb"Rar!\x1a\x07", "RAR"),
    (0, rb"\xfd7zXZ\0", "xz"),
    (0, rb"BZh[1-9]1AY", "bzip2"),
    (0, rb"\x28\xb5\x2f\xfd", "Zstandard"),
    (257, rb"ustar", "tar"),
    (0, rb"(?i)(\xef\xbb\xbf)?\s*<(svg|[?!].*<svg)[\s>]", "SVG"),
    (0, rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)", "HTML"),
    (0, rb"(\xef\xbb\xbf)?\s*<\?xml", "XML"),
)
_COMPILED = tuple((offset, re.compile(b"(?s)" + form), name) for offset, form, name in _SIGNATURES)
_LOOKED_AT = 2**11


def name_format(data: bytes) -> str | None:
    """The name of the format that a file begins like; None for an unknown one."""
    begin = data[:_LOOKED_AT]
    if len(begin) >= 12 and begin[4:8] == b"ftyp" and begin[8:12].isascii():
        return _name_brand(begin)
    for offset, form, name in _COMPILED:
        if form.match(data[offset:] if offset < 0 else begin[offset:]):
            return name
    return None


def _name_brand(begin: bytes) -> str:
    length = min(int.from_bytes(begin[:4]), len(begin))
    major, *others = (begin[at : at + 4].decode("latin-1") for at in (8, *range(16, length - 3, 4)))
    name = _BRANDS.get(major) or next((name for start, name in _FAMILIES if major.startswith(start)), None)
    if name in _GENERAL:
        name = next((_BRANDS[brand] for brand in others if _BRANDS.get(brand, name) not in _GENERAL), name)
    return name or f"a file of ISO's base media format, brand {major!r}"
