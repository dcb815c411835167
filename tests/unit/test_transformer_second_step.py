"""The second step of a request: batches of crops, swaps, deadlines; Triton is a server at the wire."""

import asyncio
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.two_models import GREYS, SIDE, TwoModels, finder, reader, serve
from transformer.admission import Deadline
from transformer.dataplane.dataplane import DataPlane
from transformer.dataplane.results import ImageResult
from transformer.errors import DeadlineExceeded, InvalidRequest, ModelNotFound, PredictorTimeout, VersionsChanging
from transformer.imaging.crops import cut
from transformer.offload import set_threads
from transformer.tasks.classify import fill
from transformer.triton.infer_options import InferOptions

CELL = 16
CELLS = SIDE // CELL


def box_of(cell: int) -> tuple[float, float, float, float]:
    x, y = cell % CELLS * CELL, cell // CELLS * CELL
    return (x, y, x + CELL, y + CELL)


def draw(shift: int = 0) -> NDArray[np.uint8]:
    """Cells of different greys: cell n has the class (n + shift) % GREYS."""
    cells = ((np.arange(CELLS**2).reshape(CELLS, CELLS) + shift) % GREYS * 16 + 8).astype(np.uint8)
    return np.repeat(np.kron(cells, np.ones((CELL, CELL), np.uint8))[..., None], 3, axis=2)


def encode(image: NDArray[Any], form: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, form, **options)
    return content.getvalue()


PNG = encode(draw())


def options(timeout_s: float = 20, **parameters: Any) -> InferOptions:
    return InferOptions(Deadline.after(timeout_s), parameters={"then": "reader", "max_detections": 1000} | parameters)


async def infer(dataplane: DataPlane, *images: bytes, timeout_s: float = 20, **parameters: Any) -> list[ImageResult]:
    model = await dataplane.model("finder")
    return await dataplane.infer_images(model, options(timeout_s, **parameters), images)


def run(triton: TwoModels, *images: bytes, timeout_s: float = 20, **settings: Any) -> list[ImageResult]:
    async def main() -> list[ImageResult]:
        async with serve(triton, **settings) as dataplane:
            return await infer(dataplane, *images, timeout_s=timeout_s)

    return asyncio.run(main())


def class_ids(result: ImageResult) -> list[int | None]:
    assert result.then is not None
    return [each.class_id if each else None for each in result.then.classes]


def sizes(triton: TwoModels) -> list[int]:
    return [len(batch) for batch in triton.inputs]


def test_each_object_gets_the_class_of_its_crop() -> None:
    cells = [3, 47, 200, 399]
    triton = TwoModels([box_of(cell) for cell in cells])
    (result,) = run(triton, PNG)
    assert result.prediction.objects == len(cells)
    assert class_ids(result) == [cell % GREYS for cell in cells]
    assert result.then
    assert (result.then.model.name, result.then.model.version) == ("reader", "1")
    first = result.then.classes[0]
    assert first
    assert json.loads(first.text)["predictions"][0] == {"class": "grey 3", "class_id": 3, "confidence": 1.0}
    assert first.score == 1
    assert sizes(triton) == [4]
    expected = [fill(cut(draw(), np.array(box_of(cell), np.float32)), result.then.model) for cell in cells]
    np.testing.assert_array_equal(triton.inputs[0], np.stack(expected))
    assert result.stages.ms["then"] > 0


def test_an_object_without_pixels_has_no_class() -> None:
    # Sides are rounded: 101 to 101, 100 to 102, 100 to 100; the last one is outside of the image.
    triton = TwoModels([(100.6, 20, 101.4, 60), (100.4, 20, 101.6, 60), (SIDE + 5, 0, SIDE + 9, 8), box_of(5)])
    (result,) = run(triton, PNG)
    assert [class_id is None for class_id in class_ids(result)] == [True, False, True, False]
    assert sizes(triton) == [2]


def test_boxes_of_a_broken_model_have_no_pixels() -> None:
    triton = TwoModels([[float("nan")] * 4, box_of(5)])
    (result,) = run(triton, PNG)
    assert class_ids(result) == [None, 5]


def test_nothing_found_calls_no_second_model() -> None:
    triton = TwoModels([])
    (result,) = run(triton, PNG)
    assert result.then
    assert (result.then.model.version, list(result.then.classes)) == ("1", [])
    assert triton.calls == {"finder": 1}


@pytest.mark.parametrize(("count", "batches"), [(1, [1]), (8, [8]), (20, [8, 8, 4]), (300, [8] * 37 + [4])])
def test_crops_fill_batches(count: int, batches: list[int]) -> None:
    triton = TwoModels([box_of(cell) for cell in range(count)], delay_s=0.1)
    (result,) = run(triton, PNG)
    assert class_ids(result) == [cell % GREYS for cell in range(count)]
    assert sorted(sizes(triton), reverse=True) == batches
    # Several at once where there are several, but not all.
    assert triton.most_at_once == min(len(batches), 4)


def test_crops_of_all_images_share_batches() -> None:
    triton = TwoModels([box_of(cell) for cell in range(5)])
    results = run(triton, *(encode(draw(shift)) for shift in range(7)), max_in_flight=3)
    assert [class_ids(result) for result in results] == [
        [(cell + shift) % GREYS for cell in range(5)] for shift in range(7)
    ]
    assert sorted(sizes(triton)) == [3, 8, 8, 8, 8]


def test_a_model_that_takes_one_item_gets_one() -> None:
    triton = TwoModels([box_of(cell) for cell in range(6)])
    triton.configs["reader"] = reader(batch=1)
    (result,) = run(triton, PNG)
    assert class_ids(result) == list(range(6))
    assert sizes(triton) == [1] * 6


def test_large_inputs_make_small_batches() -> None:
    triton = TwoModels([box_of(cell) for cell in range(9)])
    triton.configs["reader"] = reader(side=1024, batch=64, channels=3)
    (result,) = run(triton, PNG)
    assert class_ids(result) == list(range(9))
    assert max(sizes(triton)) * 3 * 2**20 <= 2**23


class Threads(ThreadPoolExecutor):
    """Counts what runs in them."""

    runs = 0

    def submit(self, *arguments: Any, **named: Any) -> Any:
        self.runs += 1
        return super().submit(*arguments, **named)


def count_threads(image: NDArray[Any]) -> int:
    """How often a request leaves the event loop for a thread."""
    boxes = [(0, 0, 160, SIDE), (160, 0, SIDE, SIDE), (0, 0, SIDE, 160), (0, 160, SIDE, SIDE)]

    async def main() -> int:
        async with serve(TwoModels(boxes)) as dataplane:
            threads = Threads(1)
            set_threads(threads)
            await infer(dataplane, encode(image))
            return threads.runs

    return asyncio.run(main())


def test_many_large_objects_are_cropped_in_parts() -> None:
    large = cv2.resize(draw(), (3000, 3000), interpolation=cv2.INTER_NEAREST)  # each has 4.5 megapixels
    assert count_threads(large) == count_threads(draw()) + 1


def test_crops_have_every_pixel_of_an_image_that_the_detector_would_get_reduced() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4 * SIDE, 4 * SIDE, 3), np.uint8)
    jpeg = encode(noise, "JPEG", quality=95, subsampling=0)
    triton = TwoModels([(8, 8, 12, 12), (100, 100, 300, 310)])
    triton.configs["finder"] = finder(reduces_pictures="true")
    (result,) = run(triton, jpeg)
    assert result.then
    whole = np.asarray(Image.open(io.BytesIO(jpeg)))
    boxes = np.array([(32, 32, 48, 48), (400, 400, 1200, 1240)], np.float32)
    expected = np.stack([fill(cut(whole, box), result.then.model) for box in boxes]).astype(int)
    assert np.abs(triton.inputs[0] - expected).max() <= 2  # two builds of libjpeg-turbo


@pytest.mark.parametrize("count", [5, 20])
def test_a_swap_to_a_version_that_takes_the_same_gives_its_names(count: int) -> None:
    triton = TwoModels([box_of(cell) for cell in range(count)], swap_after=1, swapped=reader(names="shade"))
    (result,) = run(triton, PNG)
    assert class_ids(result) == [cell % GREYS for cell in range(count)]
    assert result.then
    texts = [json.loads(each.text)["top"] for each in result.then.classes if each]
    version = result.then.model.version
    assert {text.partition(" ")[0] for text in texts} == {"grey" if version == "1" else "shade"}
    # Several batches, of which the first was of the version before: the request started again.
    assert version == ("1" if count == 5 else "2")
    assert triton.calls["finder"] == (1 if count == 5 else 2)


def test_a_swap_to_a_version_that_takes_other_inputs_starts_the_request_again() -> None:
    triton = TwoModels([box_of(cell) for cell in range(40)], swap_after=1, swapped=reader(side=12, batch=16))
    (result,) = run(triton, PNG)
    assert class_ids(result) == [cell % GREYS for cell in range(40)]
    assert result.then
    assert (result.then.model.version, result.then.model.input_wh) == ("2", (12, 12))
    assert triton.calls["finder"] == 2
    assert {batch.shape[1:] for batch in triton.inputs[-3:]} == {(12, 12, 1)}


def test_a_swap_to_another_task_is_a_rejection() -> None:
    triton = TwoModels([box_of(cell) for cell in range(40)], swap_after=1)
    triton.swapped = finder()
    with pytest.raises(InvalidRequest, match=r"^parameter 'then' \(expected a classifier\): got 'finder', a model for"):
        run(triton, PNG)


def test_swaps_without_end_are_an_error() -> None:
    class Restless(TwoModels):
        async def ModelInfer(self, request: Any, name: str) -> Any:  # noqa: N802
            response = await super().ModelInfer(request, name)
            self.versions[name] += name == "reader"
            return response

    with pytest.raises(VersionsChanging, match=r"^finder or reader: several versions"):
        run(Restless([box_of(cell) for cell in range(20)]), PNG)


@pytest.mark.parametrize("images", [1, 2])
def test_a_second_model_that_goes_is_named(images: int) -> None:
    triton = TwoModels([box_of(cell) for cell in range(40)], swap_after=1)
    with pytest.raises(ModelNotFound, match=r"parameter 'then' \(expected a classifier\): model 'reader' is unknown"):
        run(triton, *[PNG] * images)


def test_a_deadline_ends_the_second_step() -> None:
    async def main() -> None:
        triton = TwoModels([box_of(cell) for cell in range(40)])
        async with serve(triton, max_in_flight=1) as dataplane:
            await infer(dataplane, PNG)
            triton.may_respond.clear()
            with pytest.raises((PredictorTimeout, DeadlineExceeded)):
                await infer(dataplane, PNG, timeout_s=0.5)
            triton.may_respond.set()
            await infer(dataplane, PNG)  # its slot is free

    asyncio.run(main())


def test_a_client_that_goes_ends_the_second_step() -> None:
    async def main() -> None:
        triton = TwoModels([box_of(cell) for cell in range(40)])
        async with serve(triton, max_in_flight=1) as dataplane:
            await infer(dataplane, PNG)
            triton.may_respond.clear()
            triton.calls.clear()
            request = asyncio.create_task(infer(dataplane, PNG))
            await until(lambda: triton.calls["reader"] == 4)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            await until(lambda: triton.cancelled == 4)
            assert triton.calls["reader"] == 4
            triton.may_respond.set()
            await infer(dataplane, PNG)

    asyncio.run(main())


def test_many_objects_do_not_hold_up_another_request() -> None:
    async def main() -> None:
        triton = TwoModels([box_of(cell) for cell in range(400)], delay_s=0.02)
        async with serve(triton, max_in_flight=2) as dataplane:
            crowd = asyncio.create_task(infer(dataplane, PNG))
            await until(lambda: triton.calls["reader"] > 0)
            await infer(dataplane, PNG, max_detections=1)
            assert not crowd.done()
            assert triton.most_at_once <= 5
            (result,) = await crowd
            assert len(class_ids(result)) == 400

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_one_slot_is_enough_for_many_images() -> None:
    triton = TwoModels([box_of(cell) for cell in range(3)])
    results = run(triton, *[PNG] * 9, max_in_flight=1)
    assert [class_ids(result) for result in results] == [[0, 1, 2]] * 9
    assert sorted(sizes(triton)) == [3, 8, 8, 8]


@pytest.mark.parametrize(
    ("then", "error", "says"),
    [
        ("nope", ModelNotFound, r"^parameter 'then' \(expected a classifier\): model 'nope' is unknown$"),
        ("n" * 300, ModelNotFound, r"of 300 characters is unknown$"),
        ("finder", InvalidRequest, r"\(expected a classifier\): got 'finder', a model for detect$"),
        ("", InvalidRequest, "^parameter 'then': got '', expected the name of a model$"),
        (5, InvalidRequest, "^parameter 'then': got 5, expected"),
        (["reader"], InvalidRequest, r"^parameter 'then': got \['reader'\], expected"),
    ],
)
def test_what_is_no_classifier_is_rejected_before_anything_runs(then: Any, error: type[Exception], says: str) -> None:
    triton = TwoModels([box_of(0)])

    async def main() -> None:
        async with serve(triton) as dataplane:
            with pytest.raises(error, match=says):
                await infer(dataplane, PNG, then=then)

    asyncio.run(main())
    assert not triton.calls


def test_a_model_that_finds_nothing_takes_no_second_one() -> None:
    async def main() -> None:
        async with serve(TwoModels()) as dataplane:
            model = await dataplane.model("reader")
            with pytest.raises(InvalidRequest, match=r"^parameter 'then' is unknown; expected"):
                await dataplane.infer_images(
                    model, InferOptions(Deadline.after(20), parameters={"then": "reader"}), [PNG]
                )

    asyncio.run(main())


def test_a_box_is_rounded_and_clipped() -> None:
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    cases: Sequence[tuple[Sequence[float], tuple[slice, slice]]] = [
        ((1.4, 0.6, 4.6, 2.4), (slice(1, 2), slice(1, 5))),
        ((-3, -3, 100, 100), (slice(0, 6), slice(0, 8))),
        ((2, 2, 2.4, 5), (slice(2, 5), slice(2, 2))),
        ((5, 5, 2, 2), (slice(0, 0), slice(0, 0))),
    ]
    for box, (rows, columns) in cases:
        got = cut(image, np.array(box, np.float32))
        assert got.size == image[rows, columns].size
        if got.size:
            np.testing.assert_array_equal(got, image[rows, columns])
            assert got.base is not None
