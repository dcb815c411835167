"""Results of requests: what a model predicts, with the version that responded and where the time went."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformer.errors import PayloadTooLarge
from transformer.imaging.letterbox import Image
from transformer.observability.stage_timer import StageTimer
from transformer.tasks.task import ImagePrediction, RowsPrediction
from transformer.triton.client import MAX_RESPONSE_BYTES
from transformer.triton.model import Model


@dataclass(frozen=True)
class ObjectClass:
    """What the second model says of one object.

    Attributes:
        class_id: the best class.
        score: its score.
        text: the whole prediction, as JSON: small, however many classes the model has.
    """

    class_id: int
    score: float
    text: bytes


@dataclass(frozen=True)
class ObjectClasses:
    """What the second model says of the objects of one image.

    Attributes:
        model: the version that responded; the one that serves where the request has no objects.
        classes: one for each object; None for one without pixels.
    """

    model: Model
    classes: Sequence[ObjectClass | None]


@dataclass(frozen=True)
class ImageResult:
    """The result for one image.

    Attributes:
        model: the version that responded.
        prediction: by its task.
        image_wh: size of the image, upright.
        image_hwc: the image itself, RGB, where the caller keeps it.
        stages: where the time went.
        total_ms: all of it.
        then: what the second model says of the objects, where the request names one.
    """

    model: Model
    prediction: ImagePrediction
    image_wh: tuple[int, int]
    image_hwc: Image | None
    stages: StageTimer
    total_ms: float
    then: ObjectClasses | None = None


class ResultSizes:
    """Size of the results of one request together, as far as they are there."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._size_bytes = 0

    def add(self, result: ImageResult) -> None:
        """Account for the result of one of the images.

        Raises:
            PayloadTooLarge: those so far are too large together.
        """
        self._size_bytes += result.prediction.json_bytes
        check_size(self._size_bytes, self._count)


def check_size(size_bytes: int, count: int) -> None:
    """Limit the results of a request to what Triton's response to one may be.

    Raises:
        PayloadTooLarge: they are larger.
    """
    if size_bytes > MAX_RESPONSE_BYTES:
        raise PayloadTooLarge(
            f"the result of {count} items is over the limit of {MAX_RESPONSE_BYTES} bytes; send fewer in one request"
        )


@dataclass(frozen=True)
class RowsResult:
    """The result for all rows of a request.

    Attributes:
        model: the version that responded.
        prediction: by its task.
        stages: where the time went.
        total_ms: all of it.
    """

    model: Model
    prediction: RowsPrediction
    stages: StageTimer
    total_ms: float
