"""What training fixed of an image classifier, beside its graph: the size, the pixels, the classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Layout = Literal["nchw", "nhwc"]
Channels = Literal["rgb", "bgr", "grey"]
Softmax = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class Pixels:
    """How pixels of 0 to 255 become the numbers that a graph takes: `(pixel * scale - mean) / std`.

    Attributes:
        scale: 1/255, or 1.
        mean: of each channel, in the order of the graph.
        std: likewise.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def factors(self) -> tuple[float, ...]:
        """Of each channel, or of all: what a pixel is multiplied by."""
        return tuple(self.scale / std for std in self.std)

    @property
    def offsets(self) -> tuple[float, ...]:
        """Of each channel, or of all: what is added then."""
        std = self.std * (len(self.mean) // len(self.std))
        mean = self.mean * (len(std) // len(self.mean))
        return tuple(-centre / spread for centre, spread in zip(mean, std, strict=True))


@dataclass(frozen=True)
class Description:
    """A classifier beside its graph.

    Attributes:
        size_hw: height and width of the graph's input.
        resize: as `transformer.tasks.resize` reads it.
        layout: whether channels come before height and width, or after them.
        channels: their order; one channel where it is `grey`.
        pixels: how they are normalised.
        names: class by index.
        softmax: whether the graph returns logits.
    """

    size_hw: tuple[int, int]
    resize: Mapping[str, Any]
    layout: Layout
    channels: Channels
    pixels: Pixels
    names: Mapping[int, str]
    softmax: Softmax = "auto"

    @property
    def depth(self) -> int:
        """Number of channels."""
        return 1 if self.channels == "grey" else 3

    @property
    def metadata(self) -> dict[str, Any]:
        """`parameters.metadata`."""
        return {
            "task": "classify",
            "imgsz": list(self.size_hw),
            "channels": self.depth,
            "resize": dict(self.resize),
            "names": dict(self.names),
        }
