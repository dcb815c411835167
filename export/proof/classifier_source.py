"""A classifier's own ONNX file as a program: Pillow, NumPy and ONNX Runtime, and nothing that serves it.

What is served is compared with it, so it shares no code with that: whole images go through Pillow's own calls, in the
steps of torchvision's Resize, CenterCrop and Normalize.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from export.proof.session import Session
from export.sources.classifier_description import Description

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


def make_program(
    session: Session, description: Description, *, output: str, softmax: bool
) -> Callable[[Image], Floats]:
    """A function from an image, RGB `(height, width, 3)`, to probabilities `(classes,)`.

    Args:
        session: the file itself.
        description: how its input is made of an image.
        output: name of the tensor with a number for each class.
        softmax: whether these are logits.
    """

    def run(image_hwc: Image) -> Floats:
        numbers = session.infer(make_input(image_hwc, description, session))[output]
        return to_probabilities(np.asarray(numbers).reshape(-1), classes=len(description.names), softmax=softmax)

    return run


def make_input(image_hwc: Image, description: Description, session: Session) -> NDArray[np.generic]:
    """The file's input for an image, with a batch dimension of one."""
    image = Pillow.fromarray(np.ascontiguousarray(image_hwc))
    if description.channels == "grey":
        image = image.convert("L")
    pixels = np.asarray(_crop(_resize(image, description), description.size_hw)).reshape(*description.size_hw, -1)
    if description.channels == "bgr":
        pixels = pixels[..., ::-1]
    own = session.inputs[session.input].datatype
    if own in {"TYPE_FP32", "TYPE_FP16"}:
        scaled = pixels.astype(np.float64) * description.pixels.scale
        numbers = (scaled - description.pixels.mean) / description.pixels.std
    else:
        numbers = pixels
    if description.layout == "nchw":
        numbers = numbers.transpose(2, 0, 1)
    datatype = {"TYPE_FP16": np.float16, "TYPE_UINT8": np.uint8, "TYPE_INT32": np.int32, "TYPE_INT64": np.int64}
    return np.ascontiguousarray(numbers[None]).astype(datatype.get(own, np.float32))


def to_probabilities(numbers: NDArray[np.generic], *, classes: int, softmax: bool) -> Floats:
    """Probabilities `(classes,)` of what a graph returns for an image."""
    values = numbers.astype(np.float64)
    if softmax and len(values) == 1:
        values = 1 / (1 + np.exp(-values))
    elif softmax:
        shares = np.exp(values - values.max())
        values = shares / shares.sum()
    if len(values) == 1 and classes == 2:
        values = np.concatenate([1 - values, values])
    return values.astype(np.float32)


def _resize(image: Pillow.Image, description: Description) -> Pillow.Image:
    resize = description.resize
    height, width = description.size_hw
    resampling = Pillow.Resampling[str(resize.get("interpolation", "bilinear")).upper()]
    if resize["fit"] == "stretch":
        size = resize.get("size", [height, width])
        tall, wide = (size, size) if isinstance(size, int) else size
        return image.resize((wide, tall), resampling)
    short = resize.get("size", max(height, width))
    if image.width <= image.height:
        return image.resize((short, int(short * image.height / image.width)), resampling)
    return image.resize((int(short * image.width / image.height), short), resampling)


def _crop(image: Pillow.Image, size_hw: tuple[int, int]) -> Pillow.Image:
    top, left = (round((have - want) / 2.0) for have, want in zip((image.height, image.width), size_hw, strict=True))
    return image.crop((left, top, left + size_hw[1], top + size_hw[0]))
