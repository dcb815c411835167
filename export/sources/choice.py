"""What a user chose for an export of Ultralytics' files, and how steps reach the user."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from export.proof.calibration import Sample
from export.proof.precision import Precision, Track
from export.sources.tensorrt import Builder
from export.writer.manifest import Interface

Letterbox = Literal["rectangle", "square"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Reporter:
    """Shows steps, progress through many images, and warnings."""

    say: Say
    track: Track
    warn: Say


@dataclass(frozen=True)
class Choice:
    """The options of a user.

    Attributes:
        interface: tensors of the graph, see `export.writer.config.describe_detector`.
        letterbox: `rectangle` leaves height and width free, `square` fixes them; None takes what the file allows.
        imgsz: input size of a checkpoint's export; None for what it was trained with.
        precisions: besides FP32.
        calibration: images for int8 and to measure precisions on; None for the drawn ones, which cannot calibrate.
        builder: of a TensorRT plan, where one is wanted.
        unpickling: whether a checkpoint may be loaded that is not on the list, which runs the code that it holds.
        nms_free: of a checkpoint with two heads, the one that needs no NMS; an ONNX file has one.
        predict: whether an ONNX file is compared with Ultralytics' own predict, as a checkpoint always is.
    """

    interface: Interface = "fused"
    letterbox: Letterbox | None = None
    imgsz: int | None = None
    precisions: Collection[Precision] = ()
    calibration: Sequence[Sample] | None = None
    builder: Builder | None = None
    unpickling: bool = False
    nms_free: bool = False
    predict: bool = False
