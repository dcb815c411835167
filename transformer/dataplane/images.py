"""One image of a request: decoded, preprocessed, inferred, postprocessed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from numpy.typing import NDArray

from transformer.dataplane.results import ObjectClasses
from transformer.dataplane.second_step import SecondStep
from transformer.imaging.decoding import DecodedImage, decode
from transformer.imaging.letterbox import Image
from transformer.observability.request_record import current_request
from transformer.observability.stage_timer import StageTimer
from transformer.offload import ALWAYS, offload
from transformer.settings import TransformerSettings
from transformer.tasks import image_task
from transformer.tasks.detection_options import Selection
from transformer.tasks.task import ImagePrediction
from transformer.triton.client import TritonClient
from transformer.triton.infer_options import InferOptions
from transformer.triton.model import Model

T = TypeVar("T")

Outputs = Mapping[str, NDArray[Any]]


class TaskOptions:
    """The task's options of a request; class names in them are those of the version that responds."""

    def __init__(self, parameters: Mapping[str, Any], model: Model) -> None:
        """Check the parameters.

        Raises:
            InvalidRequest: see `Task.read_options`.
        """
        self._parameters = parameters
        self._model = model
        self._options = image_task(model).read_options(parameters, model)

    @property
    def then(self) -> str:
        """Name of the model that classifies the objects; "" where there is none."""
        return self._options.then if isinstance(self._options, Selection) else ""

    def of(self, model: Model) -> Any:
        """The options for a version: read again where it is not the version that they were checked for."""
        if model is self._model:
            return self._options
        return image_task(model).read_options(self._parameters, model)


@dataclass
class ImageInference:
    """An image on its way through the model; `infer` may be repeated.

    Attributes:
        data: encoded.
        settings: limits of an image.
        keep_image: whether every pixel is needed afterwards.
        second: classifies the objects, which takes every pixel too; None where nothing does.
        decoded: the decoded image, once there is one.
        stages: where the time goes.
    """

    data: bytes
    settings: TransformerSettings
    keep_image: bool
    second: SecondStep | None = None
    decoded: DecodedImage | None = None
    stages: StageTimer = field(default_factory=lambda: StageTimer(current_request().trace))

    async def infer(
        self, triton: TritonClient, options: InferOptions, model: Model
    ) -> tuple[tuple[Outputs, Any], set[str]]:
        """Outputs without batch dimension with the plan of preprocessing, and the version that responded."""
        self.decoded, tensor, plan = await self._offload(partial(self._prepare, model), cost=ALWAYS)
        with self.stages.time("infer"):
            options.deadline.check("the model was called")
            outputs, responded = await triton.infer(model, options, {model.input.name: tensor[None]})
        return ({name: output[0] for name, output in outputs.items()}, plan), {responded}

    def release(self) -> tuple[tuple[int, int], Image | None]:
        """Size of the image, and its pixels where they are needed: from now on nothing else holds it or can infer it.

        What postprocessing needs, masks above all, then takes the place of the pixels.
        """
        assert self.decoded is not None, "it was inferred"  # noqa: S101
        decoded, self.decoded = self.decoded, None
        return decoded.size_wh, decoded.image_hwc if self._needs_pixels else None

    async def postprocess(self, model: Model, inferred: tuple[Outputs, Any], options: TaskOptions) -> ImagePrediction:
        """Read the outputs of the version that responded."""
        cost = image_task(model).postprocess_cost(inferred[0])
        return await self._offload(partial(self._postprocess, model, inferred, options), cost=cost)

    async def classify_objects(self, image_hwc: Image | None, prediction: ImagePrediction) -> ObjectClasses | None:
        """What the second model says of the objects; None where there is no second model.

        Args:
            image_hwc: from `release`.
            prediction: from `postprocess`.
        """
        if self.second is None:
            return None
        assert image_hwc is not None, "its pixels are needed"  # noqa: S101
        with self.stages.time("then"):
            return await self.second.classify(image_hwc, prediction)

    @property
    def _needs_pixels(self) -> bool:
        return self.keep_image or self.second is not None

    def _prepare(self, model: Model) -> tuple[DecodedImage, NDArray[Any], Any]:
        """Image, model input without batch dimension, plan."""
        task = image_task(model)
        decoded = self.decoded
        if decoded is None or not decoded.is_whole:
            with self.stages.time("decode"):
                decoded = decode(
                    self.data,
                    max_bytes=self.settings.max_image_bytes,
                    max_pixels=self.settings.max_image_pixels,
                    smallest_wh=None if self._needs_pixels else lambda size_wh: task.smallest_wh(size_wh, model),
                )
        with self.stages.time("preprocess"):
            return decoded, *task.preprocess(decoded.image_hwc, model, size_wh=decoded.size_wh)

    def _postprocess(self, model: Model, inferred: tuple[Outputs, Any], options: TaskOptions) -> ImagePrediction:
        outputs, plan = inferred
        with self.stages.time("postprocess"):
            prediction: ImagePrediction = image_task(model).postprocess(
                outputs, model, plan=plan, options=options.of(model)
            )
            return prediction

    async def _offload(self, function: Callable[[], T], *, cost: float) -> T:
        """Array work: OpenCV and libjpeg release the interpreter lock."""
        queued = time.perf_counter()

        def run() -> T:
            self.stages.add("queue", queued)
            return function()

        return await offload(run, cost=cost)
