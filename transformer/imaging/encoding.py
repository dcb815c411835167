"""An image back to an encoded file."""

from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from transformer.errors import PayloadTooLarge
from transformer.imaging.letterbox import Image

ImageType = Literal["image/jpeg", "image/png"]

# libjpeg's JPEG_MAX_DIMENSION, libpng's PNG_USER_WIDTH_MAX.
_LONGEST_SIDES: Mapping[ImageType, int] = {"image/jpeg": 65_500, "image/png": 1_000_000}


def check_size(image_hwc: Image, media_type: ImageType) -> None:
    """Reject an image that a format cannot hold, before it is drawn on.

    Raises:
        PayloadTooLarge: a side is longer than the format allows.
    """
    height, width = image_hwc.shape[:2]
    longest = _LONGEST_SIDES[media_type]
    if max(height, width) > longest:
        others = [name for name, side in _LONGEST_SIDES.items() if max(height, width) <= side]
        name = media_type.removeprefix("image/").upper()
        raise PayloadTooLarge(
            f"Accept: {media_type}: {width}x{height} is over {name}'s {longest} a side;"
            f" request {' or '.join([*others, 'application/json'])}"
        )


def encode(image_hwc: Image, media_type: ImageType) -> bytes:
    """RGB array, of a size that `check_size` lets pass, to an encoded image."""
    if media_type == "image/jpeg":
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image_hwc), quality=90, colorspace="RGB"))
    _, data = cv2.imencode(".png", cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def encode_grey(values: NDArray[np.uint8] | NDArray[np.uint16], *, otherwise: str) -> bytes:
    """Whole numbers `(height, width)` as a PNG of one channel, of 8 or of 16 bits.

    Args:
        values: to encode.
        otherwise: what a client can do where a PNG cannot hold them, for the message.

    Raises:
        PayloadTooLarge: a side is longer than a PNG allows.
    """
    height, width = values.shape
    longest = _LONGEST_SIDES["image/png"]
    if max(height, width) > longest:
        raise PayloadTooLarge(f"{width}x{height} is over PNG's {longest} a side; {otherwise}")
    _, data = cv2.imencode(".png", values)
    return data.tobytes()
