"""Base64 as clients write it: plain, in MIME's lines, in the URL-safe alphabet, without padding, or as a data URI."""

import binascii

from transformer.errors import InvalidRequest, PayloadTooLarge

_LINE_ENDS = b"\r\n"
_AT_THE_ENDS = b" \t\r\n"
_FROM_URL = bytes.maketrans(b"-_", b"+/")
_SCHEME = b"data:"
_LONGEST_HEAD = 200  # of a data URI: media type and its parameters
# Characters of base64 that a URI may escape. Not urllib's unquote: it makes an object of each.
_ESCAPED = {b"%2B": b"+", b"%2b": b"+", b"%2F": b"/", b"%2f": b"/", b"%3D": b"=", b"%3d": b"="}
_MEDIA_TYPES = (b"image/", b"application/octet-stream")


def read_image(text: str | bytes, *, what: str, max_bytes: int) -> bytes:
    """The image file that base64 holds.

    Args:
        text: base64 (RFC 4648, either alphabet, with or without padding, in lines or not), or a data URI of an image.
        what: names it in the message.
        max_bytes: of the file; a longer one is not decoded.

    Raises:
        InvalidRequest: it is neither base64 nor such a data URI.
        PayloadTooLarge: the file is longer.
    """
    if len(text) <= (max_bytes + 2) // 3 * 4:
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            pass  # not the plain form, the only one that needs no copy
    plain = _to_plain(text.encode() if isinstance(text, str) else text, what)
    size_bytes = len(plain) // 4 * 3 - plain[-2:].count(b"=")
    if size_bytes > max_bytes:
        raise PayloadTooLarge(f"image: {size_bytes} bytes is over the limit of {max_bytes}")
    try:
        return binascii.a2b_base64(plain, strict_mode=True)
    except ValueError as exc:
        raise InvalidRequest(
            f"{what}: broken base64: {exc}; expected the file's bytes as base64, or a data URI of an image"
        ) from exc


def _to_plain(text: bytes, what: str) -> bytes:
    """The standard alphabet with padding, if it is base64 at all."""
    plain = _without_head(text.strip(_AT_THE_ENDS), what).translate(None, _LINE_ENDS)
    # A text that mixes both alphabets is invalid.
    if b"+" not in plain and b"/" not in plain:
        plain = plain.translate(_FROM_URL)
    # One character left over holds less than a byte.
    return plain + b"=" * (-len(plain) % 4) if len(plain) % 4 > 1 else plain


def _without_head(text: bytes, what: str) -> bytes:
    """The content of a data URI (RFC 2397); other text unchanged."""
    if text[: len(_SCHEME)].lower() != _SCHEME:
        return text
    head, comma, _ = text[:_LONGEST_HEAD].partition(b",")
    form = head[len(_SCHEME) :].lower()
    if not comma or not form.startswith(_MEDIA_TYPES) or not form.endswith(b";base64"):
        got = head[:60].decode("ascii", "replace")
        raise InvalidRequest(f"{what}: data URI: got {got!r}, expected 'data:image/...;base64,' and the base64")
    held = text[len(head) + 1 :]
    if b"%" in held:
        for escaped, sign in _ESCAPED.items():
            held = held.replace(escaped, sign)
    return held
