"""The second step of a request: each object that the first model found is classified by another model.

    image --first model--> objects --crop, preprocess--> inputs --batches over all images--> classes

Crops are views of the decoded image, and inputs are small, so an image keeps its slot until its objects are in a
batch: what is in memory is bounded by the number of slots. The last inputs of an image, which fill no batch, wait for
those of the other images of the request; the image that comes last sends them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from transformer.dataplane.gather import gather_or_raise
from transformer.dataplane.results import ImageResult, ObjectClass, ObjectClasses
from transformer.dataplane.swap import SwapSafeCall
from transformer.errors import InvalidRequest, ServingError
from transformer.imaging.letterbox import Image
from transformer.imaging.nms import Floats
from transformer.observability import metrics
from transformer.observability.request_record import current_request
from transformer.observability.stage_timer import StageTimer
from transformer.observability.trace_context import Trace
from transformer.offload import ALWAYS, CLASS, CROP, offload
from transformer.tasks import image_task, task_of
from transformer.tasks.task import ImagePrediction, ImageTask
from transformer.triton.client import TritonClient
from transformer.triton.model import Model
from transformer.triton.tensors import DTYPES

WHERE = "parameter 'then' (expected a classifier)"

# What one image has in memory beside itself: inputs of so many bytes, in at most so many batches at once.
_MAX_INPUT_BYTES = 2**25
_BATCHES_AT_ONCE = 4
# What a thread crops before the deadline is looked at again; one object may be larger.
_MAX_CROP_PIXELS = 2**24


class ModelSwapped(Exception):
    """The second model has a new version that takes other inputs: the request starts again."""


@dataclass(frozen=True)
class _Input:
    """An object on its way through the model.

    Attributes:
        tensor: without batch dimension.
        plan: of its preprocessing.
        classes: of the objects of its image, to which its own is added.
        index: in them.
    """

    tensor: NDArray[Any]
    plan: Any
    classes: list[ObjectClass | None]
    index: int


class SecondStep:
    """The objects of all images of one request, on their way through the model that classifies them."""

    def __init__(self, call: SwapSafeCall, triton: TritonClient, *, images: int) -> None:
        """Begin.

        Args:
            call: to the model.
            triton: runs it.
            images: how often `classify` will be called.

        Raises:
            InvalidRequest: the model does not classify images.
        """
        self._model = call.model
        self._call = call
        self._triton = triton
        self._images_to_come = images
        self._batch_size = _batch_size(check_classifies(call.model))
        self._waiting: list[_Input] = []
        self._responded: dict[str, Model] = {}
        self._stages = StageTimer(Trace({}), ms=dict.fromkeys(("preprocess", "infer", "postprocess"), 0.0))
        self._count = 0

    @property
    def is_of_one_version(self) -> bool:
        """Whether no swap came in between the calls."""
        return len(self._responded) < 2

    def finish(self, results: Sequence[ImageResult]) -> list[ImageResult]:
        """Count the objects; results with the version that responded, when all images are classified."""
        model = next(iter(self._responded.values()), self._model)
        if self._count:
            metrics.count_item(model.name, model.version, self._stages.ms, items=self._count)
        return [replace(result, then=replace(result.then, model=model)) for result in results if result.then]

    async def classify(self, image_hwc: Image, prediction: ImagePrediction) -> ObjectClasses:
        """Classify the objects of an image; the last few of them when the last image is classified.

        Raises:
            ModelSwapped: see there.
            ServingError: of the second model.
        """
        boxes = prediction.object_boxes
        assert boxes is not None, "the parameter is one of tasks that find objects"  # noqa: S101
        classes: list[ObjectClass | None] = [None] * len(boxes)
        *parts, last_part = [*self._parts(boxes)] or [[]]
        for part in parts:
            await self._prepare(image_hwc, prediction, part, classes)
            await self._infer_waiting(least=self._batch_size)
        await self._prepare(image_hwc, prediction, last_part, classes)
        self._images_to_come -= 1
        await self._infer_waiting(least=self._batch_size if self._images_to_come else 1)
        return ObjectClasses(self._model, classes)

    def _parts(self, boxes_xyxy: Floats) -> Iterator[list[int]]:
        """Indices of objects that a thread prepares in one go."""
        sizes_wh = np.nan_to_num(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])
        part: list[int] = []
        pixels = 0.0
        for index, area in enumerate(sizes_wh.prod(axis=1).tolist()):
            full = len(part) == self._batch_size * _BATCHES_AT_ONCE or pixels + area > _MAX_CROP_PIXELS
            if part and full:
                yield part
                part, pixels = [], 0.0
            part.append(index)
            pixels += area
        if part:
            yield part

    async def _prepare(
        self, image_hwc: Image, prediction: ImagePrediction, part: Sequence[int], classes: list[ObjectClass | None]
    ) -> None:
        """Add the inputs of some objects to those that wait."""
        model, task = self._model, image_task(self._model)

        def prepare() -> list[_Input]:
            inputs = []
            for index in part:
                crop = prediction.crop(image_hwc, index)
                if crop.size:
                    height, width = crop.shape[:2]
                    tensor, plan = task.preprocess(crop, model, size_wh=(width, height))
                    inputs.append(_Input(tensor, plan, classes, index))
            return inputs

        if part:
            self._call.options.deadline.check("its objects were cropped")
            with self._stages.time("preprocess"):
                inputs = await offload(prepare, cost=ALWAYS)
            self._waiting += inputs

    async def _infer_waiting(self, *, least: int) -> None:
        """Run the model on full batches, and on what is left if that is not less than `least`."""
        size = self._batch_size
        batches = []
        while len(self._waiting) >= least:
            batches.append(self._waiting[:size])
            self._waiting = self._waiting[size:]
        if batches:
            await gather_or_raise([self._infer(batch) for batch in batches])

    async def _infer(self, batch: Sequence[_Input]) -> None:
        try:
            with self._stages.time("infer"), current_request().keep_model():
                model, outputs = await self._call.run(partial(self._call_model, batch))
        except ServingError as exc:
            if exc.is_for_client:
                raise exc.at(WHERE) from exc
            raise
        self._responded[model.version] = model
        self._count += len(batch)
        with self._stages.time("postprocess"):
            await offload(partial(_read, model, outputs, batch), cost=len(batch) * (CROP + model.classes * CLASS))

    async def _call_model(self, batch: Sequence[_Input], model: Model) -> tuple[Mapping[str, NDArray[Any]], set[str]]:
        if not model.takes_the_same_as(self._model):
            raise ModelSwapped
        self._call.options.deadline.check("its objects were classified")
        arrays = {model.input.name: np.stack([each.tensor for each in batch])}
        outputs, responded = await self._triton.infer(model, self._call.options, arrays)
        return outputs, {responded}


def check_classifies(model: Model) -> Model:
    """A model that classifies images.

    Raises:
        InvalidRequest: it does something else.
    """
    task = task_of(model)
    if isinstance(task, ImageTask) and task.classifies:
        return model
    what = f"a model for {model.task}" if task else "a model without a task in its config"
    raise InvalidRequest(f"{WHERE}: got {model.name!r}, {what}")


def _batch_size(model: Model) -> int:
    assert model.input_wh is not None, "describe() rejects a model of images without imgsz"  # noqa: S101
    width, height = model.input_wh
    input_bytes = width * height * model.channels * DTYPES[model.input.datatype].itemsize
    return max(min(model.max_batch_size, _MAX_INPUT_BYTES // (_BATCHES_AT_ONCE * input_bytes)), 1)


def _read(model: Model, outputs: Mapping[str, NDArray[Any]], batch: Sequence[_Input]) -> None:
    """Add the class of each object to those of its image."""
    task = image_task(model)
    options = task.read_options({}, model)
    for row, each in enumerate(batch):
        own = {name: output[row] for name, output in outputs.items()}
        prediction: ImagePrediction = task.postprocess(own, model, plan=each.plan, options=options)
        assert prediction.best_class is not None, "its task classifies"  # noqa: S101
        class_id, score = prediction.best_class
        each.classes[each.index] = ObjectClass(class_id, score, orjson.dumps(prediction.to_json(model)))
