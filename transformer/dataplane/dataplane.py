"""What the server does, whatever the protocol: items in, results out.

REST and gRPC are thin skins over `DataPlane`, so that they cannot differ.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from transformer import offload as work
from transformer.admission import Admission, Deadline
from transformer.dataplane.parameters import read_selection
from transformer.errors import (
    InvalidRequest,
    ModelNotFound,
    PayloadTooLarge,
    PredictorError,
    ServingError,
    VersionsChanging,
)
from transformer.imaging.decoding import Picture, decode
from transformer.imaging.letterbox import Image, Letterbox
from transformer.observability import metrics
from transformer.observability.request_record import current
from transformer.observability.stage_timer import Stages
from transformer.settings import TransformerSettings
from transformer.tasks import classify, detect, tabular
from transformer.tasks.detect import Detections, Selection
from transformer.triton import batches
from transformer.triton.batches import SWAP_TRIES
from transformer.triton.catalogue import DESCRIBED, Catalogue
from transformer.triton.client import Predictor, TensorRefused
from transformer.triton.infer_options import Asked
from transformer.triton.model import Model
from transformer.triton.synchroniser_client import Synchroniser
from transformer.triton.tensors import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class ImageResult:
    """What a model says of one picture: `detections` or `probabilities`, by its task.

    Attributes:
        model: the version that answered.
        image_wh: size of the picture, upright.
        image_hwc: the picture itself, RGB, where the caller wanted to keep it.
        detections: of a detector.
        probabilities: `(classes,)`, of a classifier.
        stages: where the time went.
        total_ms: all of it.
    """

    model: Model
    image_wh: tuple[int, int]
    image_hwc: Image | None
    detections: Detections | None
    probabilities: NDArray[np.float32] | None
    stages: Stages
    total_ms: float

    @property
    def count(self) -> int:
        """How many predictions a reply has at most."""
        if self.detections is not None:
            return len(self.detections.scores)
        return 0 if self.probabilities is None else len(self.probabilities)


@dataclass(frozen=True)
class TableResult:
    """What a model says of rows.

    Attributes:
        model: the version that answered.
        values: `(rows, classes)` probabilities, or `(rows, 1)` of a regressor.
        stages: where the time went.
        total_ms: all of it.
    """

    model: Model
    values: NDArray[np.float32]
    stages: Stages
    total_ms: float


class DataPlane(Catalogue):
    """Every model of the repository, each under its own name: what it is, and what it says of items."""

    def __init__(self, predictor: Predictor, synchroniser: Synchroniser, settings: TransformerSettings) -> None:
        super().__init__(predictor, synchroniser)
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="pictures")
        self.admission = Admission(
            max_in_flight=settings.max_in_flight,
            max_waiting=settings.max_waiting,
            max_bodies_bytes=settings.max_bodies_bytes,
        )
        # A decoded picture is large: so many are in memory at once, whatever the number of requests.
        self._places = asyncio.Semaphore(settings.max_in_flight)

    async def close(self) -> None:
        """Let go of threads and channels."""
        self._threads.shutdown(cancel_futures=True)
        await super().close()

    def deadline(self, timeout_s: float | None) -> Deadline:
        """Until when a request must be answered: the time it names, but no more than the settings allow."""
        longest_s = self._settings.request_timeout_s
        return Deadline.after(longest_s if timeout_s is None else min(timeout_s, longest_s))

    async def infer_images(
        self, asked: Asked, images: Sequence[bytes], *, keep_images: bool = False
    ) -> list[ImageResult]:
        """Ask a model about encoded pictures; one result for each, in their order.

        Args:
            asked: which model, and how.
            images: encoded.
            keep_images: whether the results hold the pictures.

        Raises:
            ServingError: the first error of any picture; the rest is not waited for.
        """
        model = await self.model(asked.model, asked.version, asked.deadline)
        _check_task(model, "pictures")
        self.check_count(len(images))
        # Class names are those of the version that answers: read again only where it is another one.
        selection = read_selection(asked.parameters, model)

        def select(answered: Model) -> Selection:
            return selection if answered is model else read_selection(asked.parameters, answered)

        # The pictures of a request stand in line a few at a time: those of others come in between.
        own = asyncio.Semaphore(self._settings.max_in_flight)

        async def one(index: int, data: bytes) -> ImageResult:
            try:
                async with own:
                    return await self._infer_image(asked, data, select, keep_image=keep_images)
            except ServingError as exc:
                if len(images) > 1 and exc.phrase is None:
                    raise type(exc)(f"picture {index} of {len(images)}: {exc}") from exc
                raise

        for _ in range(SWAP_TRIES):
            results = await _all_or_first_error([one(index, data) for index, data in enumerate(images)])
            # A request has one answer, of one version: a swap that falls into it makes it start again.
            if len({result.model.version for result in results}) == 1:
                current().found(results[0].model.name, results[0].model.version)
                for result in results:
                    _count(result)
                return results
        raise VersionsChanging(asked.model, SWAP_TRIES)

    async def infer_rows(self, asked: Asked, rows: tabular.Rows) -> TableResult:
        """Ask a model about rows of a table, in as few runs as its batch size allows."""
        stages = Stages()
        model = await self.model(asked.model, asked.version, asked.deadline)
        _check_task(model, "rows")
        self.check_count(tabular.count(rows))
        read_selection(asked.parameters, model)

        async def ask(model: Model) -> tuple[list[dict[str, NDArray[Any]]], set[str]]:
            with stages.time("preprocess"):
                arrays = await work.run(lambda: tabular.preprocess(rows, model), little=tabular.is_little(rows))
            size = model.max_batch_size
            parts = [
                {name: array[first : first + size] for name, array in arrays.items()}
                for first in range(0, tabular.count(arrays), size)
            ]
            own = asyncio.Semaphore(self._settings.max_in_flight)

            async def one(part: Mapping[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], str]:
                async with own, self._place(asked.deadline):
                    return await self._run(model, part, asked)

            with stages.time("infer"):
                answers = await _all_or_first_error([one(part) for part in parts])
            return [outputs for outputs, _ in answers], {answered for _, answered in answers}

        model, parts = await self._ask(asked, ask)
        with stages.time("postprocess"):
            values = np.concatenate([tabular.postprocess(outputs, model) for outputs in parts])
        current().found(model.name, model.version)
        metrics.count_item(model.name, model.version, stages.ms)
        return TableResult(model, values, stages, stages.total_ms())

    async def infer_tensors(
        self, asked: Asked, inputs: Sequence[Tensor], *, outputs: Sequence[str], classes: Mapping[str, int]
    ) -> tuple[list[Tensor], str]:
        """Run a model on tensors of its own; its outputs, and the version that gave them.

        Args:
            asked: which model, and how.
            inputs: checked; where they hold more items than Triton takes at once they are sent in parts.
            outputs: names of those that are wanted; all where there are none.
            classes: of outputs that are wanted as so many best classes.

        Raises:
            InvalidRequest: the model takes no such tensors, or has no such output; in Triton's words.
            PayloadTooLarge: the parts are too many, or their outputs too large together.
        """
        stages = Stages()

        async def infer(part: Sequence[Tensor]) -> tuple[list[Tensor], str]:
            asked.deadline.check("the model was asked")
            return await self._predictor.infer_tensors(asked, part, outputs, classes=classes)

        with stages.time("infer"):
            tensors, version = await self._infer_in_parts(asked, inputs, infer)
        current().found(asked.model, version)
        metrics.count_item(asked.model, version, {"infer": stages.ms["infer"]})
        return tensors, version

    async def _infer_in_parts(
        self, asked: Asked, inputs: Sequence[Tensor], infer: batches.Infer
    ) -> tuple[list[Tensor], str]:
        for _ in range(SWAP_TRIES):
            model = await self.model(asked.model, asked.version, asked.deadline)
            count = batches.count_items(inputs, model)
            if count:
                self.check_count(count)
            try:
                return await (batches.infer_in_parts(inputs, model, infer) if count else infer(inputs))
            except TensorRefused as exc:
                # A version that has taken over may take fewer items at once.
                if await self._is_current(asked, model):
                    raise InvalidRequest(exc.reason) from exc
                self._descriptions.forget(asked.model, asked.version)
        raise VersionsChanging(asked.model, SWAP_TRIES)

    async def _infer_image(
        self, asked: Asked, data: bytes, select: Callable[[Model], Selection], *, keep_image: bool
    ) -> ImageResult:
        stages = Stages()
        picture: Picture | None = None

        async def ask(model: Model) -> tuple[tuple[dict[str, NDArray[Any]], Letterbox | None], set[str]]:
            nonlocal picture
            known = picture if picture is not None and picture.is_whole else None
            reduces = model.reduces_pictures and not keep_image
            prepare = partial(self._prepare, data, known, model, stages, reduces=reduces)
            picture, tensor, plan = await self._in_thread(stages, prepare)
            with stages.time("infer"):
                outputs, answered = await self._run(model, {model.input.name: tensor[None]}, asked)
            return ({key: output[0] for key, output in outputs.items()}, plan), {answered}

        arrived = time.perf_counter()
        async with self._place(asked.deadline):
            stages.add("queue", arrived)
            asked.deadline.check("the picture was decoded")
            model, (outputs, plan) = await self._ask(asked, ask)
            assert picture is not None, "an answer had a picture"  # noqa: S101
            choose = partial(_choose, outputs, model, plan, select, stages)
            detections, probabilities = await self._in_thread(stages, choose)
        kept = picture.image_hwc if keep_image else None
        return ImageResult(model, picture.size_wh, kept, detections, probabilities, stages, stages.total_ms())

    @asynccontextmanager
    async def _place(self, deadline: Deadline) -> AsyncIterator[None]:
        """One of the pictures, or parts of a table, that are worked at."""
        async with deadline.limit("it was worked at"):
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    async def _run(
        self, model: Model, arrays: Mapping[str, NDArray[Any]], asked: Asked
    ) -> tuple[dict[str, NDArray[Any]], str]:
        asked.deadline.check("the model was asked")
        return await self._predictor.infer(asked, model, arrays)

    async def _ask(self, asked: Asked, ask: Callable[[Model], Awaitable[tuple[T, set[str]]]]) -> tuple[Model, T]:
        """Ask until the version that answers is one that the tensors were made for; its description, and the answer.

        Labels, sizes and interface belong to a version: while a swap is under way the description may be of the old
        one and the answer of the new one. Its own labels are fetched then; where it takes other tensors, it is asked
        again.
        """
        for _ in range(SWAP_TRIES):
            model = await self.model(asked.model, asked.version, asked.deadline)
            try:
                answer, answered = await ask(model)
            except (PredictorError, ModelNotFound) as exc:
                # The model may have changed or gone: look again.
                self._descriptions.forget(asked.model, asked.version)
                if not isinstance(exc, TensorRefused) or await self._is_current(asked, model):
                    raise
                continue
            if answered == {model.version}:
                return model, answer
            self._descriptions.forget(asked.model, asked.version)
            if len(answered) == 1:
                with suppress(ModelNotFound):  # the next swap has come
                    async with asked.deadline.limit(DESCRIBED):
                        swapped = await self._descriptions.get_answered(
                            asked.model, asked.version, answered=min(answered)
                        )
                    if swapped.takes_the_same_as(model):
                        return swapped, answer
        raise VersionsChanging(asked.model, SWAP_TRIES)

    async def _is_current(self, asked: Asked, model: Model) -> bool:
        """Whether the version that was described still serves, with as many items at once.

        A whole description of a model with many labels would be too much work for each request that is refused.
        """
        *_, served = await self.versions(asked.model, asked.version)
        config = await self._predictor.config(asked.model, served)
        return (served, max(config.max_batch_size, 1)) == (model.version, model.max_batch_size)

    def _prepare(
        self, data: bytes, known: Picture | None, model: Model, stages: Stages, *, reduces: bool
    ) -> tuple[Picture, NDArray[Any], Letterbox | None]:
        """Picture, model input without batch dimension, and the letterbox of a detector."""
        picture = known
        if picture is None:
            with stages.time("decode"):
                picture = decode(
                    data,
                    max_bytes=self._settings.max_image_bytes,
                    max_pixels=self._settings.max_image_pixels,
                    enough=(lambda size_wh: detect.place(size_wh, model).resized_wh) if reduces else None,
                )
        with stages.time("preprocess"):
            if model.task == "classify":
                return picture, classify.preprocess(picture.image_hwc, model), None
            return picture, *detect.preprocess(picture.image_hwc, model, size_wh=picture.size_wh)

    async def _in_thread(self, stages: Stages, function: Callable[[], T]) -> T:
        """Run array work off the event loop; OpenCV and libjpeg release the interpreter lock."""
        asked = time.perf_counter()

        def run() -> T:
            stages.add("queue", asked)
            return function()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    @property
    def max_image_bytes(self) -> int:
        """Limit of an encoded picture."""
        return self._settings.max_image_bytes

    def check_count(self, count: int) -> None:
        """Refuse a request of no items, or of too many.

        Raises:
            InvalidRequest: there are none.
            PayloadTooLarge: there are more than the limit.
        """
        if not 0 < count <= self._settings.max_items:
            limit = self._settings.max_items
            error = PayloadTooLarge if count else InvalidRequest
            raise error(f"got {count} pictures or rows in one request, expected 1 to {limit}")


async def _all_or_first_error(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in their order, or the first error alone; what is left undone then is cancelled.

    The error is raised where nothing refers to it any more: a group or a task that it can be reached from makes a
    circle of error, frames and pictures, and that stays in memory until Python looks for such.
    """
    error: BaseException | None = None
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(coroutine) for coroutine in works)
    except ExceptionGroup as errors:
        error = errors.exceptions[0]
    if error is None:
        return [task.result() for task in tasks]
    try:
        raise error
    finally:
        del error, tasks, works, group


def _check_task(model: Model, got: Literal["pictures", "rows"]) -> None:
    expected = {"tabular": "rows", "detect": "pictures", "classify": "pictures", None: "its own tensors"}[model.task]
    if got != expected:
        task = f"for {expected} ({model.task})" if model.task else "without a task in its config: it takes its tensors"
        example = '; expected image files, or in JSON {"image": {"b64": "<base64>"}}' if expected == "pictures" else ""
        raise InvalidRequest(f"{model.name} is a model {task}: got {got}{example}")


def _count(result: ImageResult) -> None:
    width, height = result.image_wh
    detections = None if result.detections is None else len(result.detections.scores)
    metrics.count_image(result.model, result.stages.ms, pixels=width * height, detections=detections)


def _choose(
    outputs: dict[str, NDArray[Any]],
    model: Model,
    plan: Letterbox | None,
    select: Callable[[Model], Selection],
    stages: Stages,
) -> tuple[Detections | None, NDArray[np.float32] | None]:
    """Detections of a detector, or probabilities of a classifier."""
    with stages.time("postprocess"):
        if plan is None:
            return None, classify.postprocess(outputs, model)
        return detect.postprocess(outputs, model, plan=plan, selection=select(model)), None
