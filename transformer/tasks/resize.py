"""How a classifier's image becomes its input: `resize` in `parameters.metadata`, which training fixed.

    {"fit": "shortest", "size": 256, "interpolation": "bilinear"}

    fit            shortest: the shorter side becomes `size`, proportions stay; stretch: the image becomes `size`
    size           of the resized image, one number or [height, width]; that of the model's input where it is absent
    interpolation  one of Pillow's filters, bilinear where it is absent
    antialias      whether pixels that become one are averaged, as Pillow does; false (TensorFlow) only with stretch

Then the centre is cut out in the model's size, `imgsz`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformer.imaging.letterbox import Image
from transformer.imaging.resampling import FILTERS, Resampling, resize_window, resize_without_antialias
from transformer.triton.model import MAX_SIDE_PX, Model, ModelConfigError

KEYS = ("fit", "size", "interpolation", "antialias")


@dataclass(frozen=True)
class Placement:
    """How an image lies in the model's input; sizes are `(width, height)` in pixels.

    Attributes:
        image_wh: size of the original image.
        resized_wh: size of the whole image when it is resized.
        window_xywh: the part of the resized image that is the model's input.
    """

    image_wh: tuple[int, int]
    resized_wh: tuple[int, int]
    window_xywh: tuple[int, int, int, int]

    @property
    def crop_xyxy(self) -> tuple[float, float, float, float]:
        """The part of the original image that the model sees, in pixels."""
        x, y, width, height = self.window_xywh
        scale_x, scale_y = (image / resized for image, resized in zip(self.image_wh, self.resized_wh, strict=True))
        return x * scale_x, y * scale_y, (x + width) * scale_x, (y + height) * scale_y


@dataclass(frozen=True)
class Resize:
    """The description, read.

    Attributes:
        is_stretched: whether both sides get the size, else the shorter one.
        size_hw: of the resized image; both the same where only the shorter side gets it.
        input_wh: of the model's input.
        interpolation: Pillow's filter.
        is_antialiased: whether it averages over the pixels that become one.
    """

    is_stretched: bool
    size_hw: tuple[int, int]
    input_wh: tuple[int, int]
    interpolation: Resampling
    is_antialiased: bool

    def place(self, image_wh: tuple[int, int]) -> Placement:
        """The placement of an image, as `Resize` and `CenterCrop` of torchvision compute it."""
        if self.is_stretched:
            resized_wh = self.size_hw[1], self.size_hw[0]
        else:
            short, long = sorted(image_wh)
            resized_long = int(self.size_hw[0] * long / short)
            is_high = image_wh[0] <= image_wh[1]
            resized_wh = (self.size_hw[0], resized_long) if is_high else (resized_long, self.size_hw[0])
        x, y = (round((size - kept) / 2) for size, kept in zip(resized_wh, self.input_wh, strict=True))
        return Placement(image_wh, resized_wh, (x, y, *self.input_wh))

    def apply(self, image_hwc: Image, placement: Placement, *, channels: int) -> Image:
        """The model's input, `(height, width, channels)`; grey where there is one channel."""
        is_grey = channels == 1
        if self.is_antialiased:
            return resize_window(
                image_hwc,
                placement.resized_wh,
                window_xywh=placement.window_xywh,
                interpolation=self.interpolation,
                is_grey=is_grey,
            )
        x, y, width, height = placement.window_xywh
        resized = resize_without_antialias(image_hwc, placement.resized_wh, is_grey=is_grey)
        return resized[y : y + height, x : x + width]


def read_resize(model: Model) -> Resize | None:
    """The description of a model; None where it has none.

    Raises:
        ModelConfigError: it is invalid.
    """
    described = model.facts.get("resize")
    if described is None:
        return None
    assert model.input_wh is not None, "describe() rejects a classifier without imgsz"  # noqa: S101
    if not isinstance(described, Mapping) or not set(described) <= set(KEYS):
        raise _invalid(model, "", described, f"a dict with keys of {', '.join(KEYS)}")
    fit = described.get("fit")
    if fit not in ("shortest", "stretch"):
        raise _invalid(model, ".fit", fit, "'shortest' or 'stretch'")
    if model.channels not in (1, 3):
        raise ModelConfigError(f"{model.name}: channels: got {model.channels}, expected 1 or 3 beside resize")
    interpolation = described.get("interpolation", "bilinear")
    if not isinstance(interpolation, str) or interpolation not in FILTERS:
        raise _invalid(model, ".interpolation", interpolation, f"one of {', '.join(FILTERS)}")
    antialias = described.get("antialias", True)
    if not isinstance(antialias, bool) or not (antialias or (fit == "stretch" and interpolation == "bilinear")):
        raise _invalid(model, ".antialias", antialias, "True, or False with fit 'stretch' and interpolation 'bilinear'")
    is_stretched = fit == "stretch"
    size_hw = _read_size(model, described.get("size"), is_stretched=is_stretched)
    return Resize(is_stretched, size_hw, model.input_wh, FILTERS[interpolation], antialias)


def _read_size(model: Model, size: Any, *, is_stretched: bool) -> tuple[int, int]:
    """Height and width of the resized image, no smaller than the model's input."""
    width, height = model.input_wh or (1, 1)
    if size is None:
        size = [height, width] if is_stretched else max(height, width)
    sides = list(size) if isinstance(size, list | tuple) and is_stretched else [size, size]
    if len(sides) != 2 or not all(
        isinstance(side, int) and not isinstance(side, bool) and least <= side <= MAX_SIDE_PX
        for side, least in zip(sides, (height, width), strict=True)
    ):
        form = "a whole number or [height, width]" if is_stretched else "a whole number"
        least = f"no smaller than imgsz [{height}, {width}]"
        raise _invalid(model, ".size", size, f"{form}, {least} and at most {MAX_SIDE_PX}")
    return sides[0], sides[1]


def _invalid(model: Model, key: str, got: Any, expected: str) -> ModelConfigError:
    return ModelConfigError(f"{model.name}: resize{key} in parameters.metadata: got {got!r:.80}, expected {expected}")
