"""Inference, whatever the protocol: a model and items in, results out.

REST and gRPC are thin skins over `DataPlane`, so that they cannot differ.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from transformer.admission import Deadline, hold
from transformer.dataplane import batches
from transformer.dataplane.catalogue import Catalogue
from transformer.dataplane.gather import gather_or_raise
from transformer.dataplane.images import ImageInference, Outputs, TaskOptions
from transformer.dataplane.results import ImageResult, ResultSizes, RowsResult
from transformer.dataplane.second_step import WHERE, ModelSwapped, SecondStep, check_classifies
from transformer.dataplane.swap import SWAP_TRIES, SwapSafeCall
from transformer.errors import InvalidRequest, PayloadTooLarge, ServingError, VersionsChanging
from transformer.observability import metrics
from transformer.observability.request_record import current_request
from transformer.observability.stage_timer import StageTimer
from transformer.offload import offload
from transformer.settings import TransformerSettings
from transformer.tasks import rows_task
from transformer.triton.client import TritonClient
from transformer.triton.infer_options import InferOptions
from transformer.triton.model import Model
from transformer.triton.status import TensorRejected
from transformer.triton.synchroniser_client import SynchroniserClient
from transformer.triton.tensors import Tensor


class DataPlane(Catalogue):
    """Every model of the repository, each under its own name: its description, and its results for items."""

    def __init__(self, triton: TritonClient, synchroniser: SynchroniserClient, settings: TransformerSettings) -> None:
        super().__init__(triton, synchroniser)
        self._settings = settings
        # A decoded image is large: this many are in memory at once, whatever the number of requests.
        self._image_slots = asyncio.Semaphore(settings.max_in_flight)

    async def infer_images(
        self, model: Model, options: InferOptions, images: Sequence[bytes], *, keep_images: bool = False
    ) -> list[ImageResult]:
        """Run a model on encoded images; one result for each, in their order.

        Args:
            model: as the skin resolved it.
            options: of the request.
            images: encoded.
            keep_images: whether the results hold the images.

        Raises:
            ServingError: the first error of any image; the others are cancelled. Also where the results are too large
                together.
        """
        task_options = TaskOptions(options.parameters, model)
        self.check_count(len(images))
        call = SwapSafeCall(self, model, options)
        then = await self._second_call(task_options.then, options)
        # Only a few images of a request wait for a slot at once, so that large requests do not starve small ones.
        own_slots = asyncio.Semaphore(self._settings.max_in_flight)

        async def infer(index: int, data: bytes, sizes: ResultSizes, second: SecondStep | None) -> ImageResult:
            image = ImageInference(data, self._settings, keep_images, second)
            try:
                async with own_slots:
                    result = await self._infer_image(call, image, options, task_options)
            except ServingError as exc:
                if len(images) > 1 and exc.is_for_client:
                    raise exc.at(f"image {index} of {len(images)}") from exc
                raise
            sizes.add(result)
            return result

        for _ in range(SWAP_TRIES):
            second = SecondStep(then, self._triton, images=len(images)) if then else None
            sizes = ResultSizes(len(images))
            try:
                results = await gather_or_raise(
                    [infer(index, data, sizes, second) for index, data in enumerate(images)]
                )
            except ModelSwapped:
                continue
            # A response is of one version of each model: after a swap in between the request starts again.
            if len({result.model.version for result in results}) == 1 and (not second or second.is_of_one_version):
                current_request().set_model(results[0].model.name, results[0].model.version)
                for result in results:
                    _count(result)
                return second.finish(results) if second else results
        raise VersionsChanging(" or ".join(each.model.name for each in (call, then) if each), SWAP_TRIES)

    async def infer_rows(self, model: Model, options: InferOptions, rows: Any) -> RowsResult:
        """Run a model on rows of a table, in as few calls as its batch size allows.

        Args:
            model: as the skin resolved it.
            options: of the request.
            rows: as the model's task takes them.
        """
        stages = StageTimer(current_request().trace)
        task = rows_task(model)
        self.check_count(task.count(rows))
        task.read_options(options.parameters, model)
        call = SwapSafeCall(self, model, options)
        model, outputs = await call.run(partial(self._infer_rows, options, stages, rows))
        with stages.time("postprocess"):
            prediction = rows_task(model).postprocess(outputs, model)
        current_request().set_model(model.name, model.version)
        metrics.count_item(model.name, model.version, stages.ms)
        return RowsResult(model, prediction, stages, stages.total_ms())

    async def infer_tensors(
        self,
        model: Model,
        options: InferOptions,
        inputs: Sequence[Tensor],
        *,
        outputs: Sequence[str],
        classes: Mapping[str, int],
    ) -> tuple[list[Tensor], str]:
        """Run a model on its own tensors; its outputs, and the version that responded.

        Args:
            model: as the skin resolved it.
            options: of the request.
            inputs: checked; more items than Triton takes at once are sent in parts.
            outputs: names of the wanted ones; all where there are none.
            classes: how many best classes of an output are wanted in its place.

        Raises:
            InvalidRequest: the model takes no such tensors, or has no such output; in Triton's words.
            PayloadTooLarge: there are too many items, or their outputs are too large together.
        """
        stages = StageTimer(current_request().trace)

        async def infer(part: Sequence[Tensor]) -> tuple[list[Tensor], str]:
            options.deadline.check("the model was called")
            return await self._triton.infer_tensors(model.name, options, part, outputs=outputs, classes=classes)

        with stages.time("infer"):
            tensors, version = await self._infer_in_parts(model, options, inputs, infer)
        current_request().set_model(model.name, version)
        metrics.count_item(model.name, version, {"infer": stages.ms["infer"]})
        return tensors, version

    async def _infer_in_parts(
        self, model: Model, options: InferOptions, inputs: Sequence[Tensor], infer: batches.Infer
    ) -> tuple[list[Tensor], str]:
        for _ in range(SWAP_TRIES):
            count = batches.count_items(inputs, model)
            if count:
                self.check_count(count)
            try:
                return await (batches.infer_in_parts(inputs, model, infer) if count else infer(inputs))
            except TensorRejected as exc:
                # After a swap the model may take fewer items at once.
                if await self.is_current(model, options.version):
                    raise InvalidRequest(exc.reason) from exc
                self.forget(model, options.version)
            model = await self.model(model.name, options.version, options.deadline)
        raise VersionsChanging(model.name, SWAP_TRIES)

    async def _second_call(self, name: str, options: InferOptions) -> SwapSafeCall | None:
        """Calls to the second model of a request; None where it names none.

        Raises:
            InvalidRequest: the model does not classify images.
            ServingError: it does not serve.
        """
        if not name:
            return None
        try:
            with current_request().keep_model():
                second = await self.model(name, deadline=options.deadline)
        except ServingError as exc:
            if exc.is_for_client:
                raise exc.at(WHERE) from exc
            raise
        return SwapSafeCall(self, check_classifies(second), replace(options, version="", parameters={}))

    async def _infer_image(
        self, call: SwapSafeCall, image: ImageInference, options: InferOptions, task_options: TaskOptions
    ) -> ImageResult:
        queued = time.perf_counter()
        async with self._image_slot(options.deadline):
            image.stages.add("queue", queued)
            options.deadline.check("the image was decoded")
            model, inferred = await call.run(partial(image.infer, self._triton, options))
            size_wh, pixels = image.release()
            prediction = await image.postprocess(model, inferred, task_options)
            hold(prediction.held_bytes)
            then = await image.classify_objects(pixels, prediction)
        kept = pixels if image.keep_image else None
        total_ms = image.stages.total_ms()
        return ImageResult(model, prediction, size_wh, kept, image.stages, total_ms, then)

    async def _infer_rows(
        self, options: InferOptions, stages: StageTimer, rows: Any, model: Model
    ) -> tuple[list[Outputs], set[str]]:
        """Outputs of each call to Triton, and the versions that responded."""
        task = rows_task(model)
        with stages.time("preprocess"):
            arrays = await offload(partial(task.preprocess, rows, model), cost=task.cost(rows))
        size = model.max_batch_size
        parts = [
            {name: array[first : first + size] for name, array in arrays.items()}
            for first in range(0, task.count(arrays), size)
        ]
        own_slots = asyncio.Semaphore(self._settings.max_in_flight)

        async def infer(part: Mapping[str, NDArray[Any]]) -> tuple[Outputs, str]:
            async with own_slots, self._image_slot(options.deadline):
                options.deadline.check("the model was called")
                return await self._triton.infer(model, options, part)

        with stages.time("infer"):
            responses = await gather_or_raise([infer(part) for part in parts])
        return [outputs for outputs, _ in responses], {responded for _, responded in responses}

    @asynccontextmanager
    async def _image_slot(self, deadline: Deadline) -> AsyncIterator[None]:
        """The slot of an image, or of a part of a table."""
        async with deadline.limit("it was processed"):
            await self._image_slots.acquire()
        try:
            yield
        finally:
            self._image_slots.release()

    @property
    def max_image_bytes(self) -> int:
        """Limit of an encoded image."""
        return self._settings.max_image_bytes

    def check_count(self, count: int) -> None:
        """Reject a request of no items, or of too many.

        Raises:
            InvalidRequest: there are none.
            PayloadTooLarge: there are more than the limit.
        """
        if not 0 < count <= self._settings.max_items:
            limit = self._settings.max_items
            error = PayloadTooLarge if count else InvalidRequest
            raise error(f"got {count} images or rows in one request, expected 1 to {limit}")


def _count(result: ImageResult) -> None:
    width, height = result.image_wh
    metrics.count_image(
        result.model.name,
        result.model.version,
        result.stages.ms,
        pixels=width * height,
        detections=result.prediction.objects,
    )
