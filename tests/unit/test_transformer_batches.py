"""Requests of more items than Triton takes at once."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from tests.support.described import TABLE
from transformer.dataplane.batches import count_items, cut, infer_in_parts, join
from transformer.dataplane.results import check_size
from transformer.errors import InvalidRequest, PayloadTooLarge, PredictorUnavailable
from transformer.tasks import describe
from transformer.triton.model import Model
from transformer.triton.tensors import Tensor, check, from_array, from_elements, to_array, to_elements


def model(**changes: Any) -> Model:
    config = model_config_pb2.ModelConfig(name="m", max_batch_size=8, **changes)
    return describe(config, version="1")


def numbers(count: int) -> Tensor:
    return from_array("x", np.arange(count * 3, dtype=np.float32).reshape(count, 3))


@given(st.integers(1, 30), st.integers(1, 9))
def test_parts_are_the_items_in_their_order(count: int, size: int) -> None:
    texts = from_elements("t", [b"x" * (index % 5) for index in range(count * 2)], shape=[count, 2])
    parts = list(cut([numbers(count), texts, Tensor("h", "BF16", (count, 1), bytes(range(2 * count)))], size))
    for part in parts:
        assert len({tensor.shape[0] for tensor in part}) == 1
        assert part[0].shape[0] <= size
        for tensor in part:
            check(tensor)
    assert len(parts) == -(-count // size)
    found_numbers, found_texts, found_halves = join(parts, count, TABLE)
    np.testing.assert_array_equal(to_array(found_numbers), to_array(numbers(count)))
    assert to_elements(found_texts) == to_elements(texts)
    assert (found_texts.shape, found_halves.shape) == ((count, 2), (count, 1))
    assert found_halves.data == bytes(range(2 * count))


def test_parts_of_nothing_have_no_bytes() -> None:
    texts = from_elements("t", [], shape=[3, 0])
    assert [(part[0].shape, bytes(part[0].data)) for part in cut([texts], 2)] == [((2, 0), b""), ((1, 0), b"")]


def test_only_what_is_over_the_batch_of_a_batching_model_is_cut() -> None:
    batching = model()
    assert count_items([numbers(9)], batching) == 9
    assert count_items([numbers(9), numbers(9)], batching) == 9
    assert not count_items([numbers(8)], batching)
    assert not count_items([numbers(9), numbers(10)], batching)
    assert not count_items([from_array("x", np.array(1, np.float32))], batching)
    assert not count_items([], batching)
    assert not count_items([numbers(9)], describe(model_config_pb2.ModelConfig(name="m"), version="1"))


def test_items_that_belong_together_are_not_cut() -> None:
    sequence = model_config_pb2.ModelSequenceBatching()
    shape = model_config_pb2.ModelInput(name="x", is_shape_tensor=True)
    ragged = model_config_pb2.BatchInput(target_name=["x"])
    for alone in (model(sequence_batching=sequence), model(input=[shape]), model(batch_input=[ragged])):
        assert not count_items([numbers(9)], alone)


@pytest.mark.parametrize(
    "results",
    [
        [[numbers(2)], [from_array("x", np.zeros((1, 4), np.float32))]],
        [[numbers(2)], [from_array("x", np.zeros((1, 3), np.float64))]],
        [[numbers(2)], [numbers(2)]],
        [[numbers(2)], [from_array("x", np.array(1, np.float32))]],
    ],
)
def test_results_of_parts_that_do_not_fit_each_other_are_rejected(results: list[list[Tensor]]) -> None:
    with pytest.raises(InvalidRequest, match=r"batch of 3: got outputs 'x' of .*; expected at most \d+ items"):
        join(results, 3, TABLE)


def test_results_are_no_larger_together_than_one_may_be() -> None:
    check_size(2**28, 9)
    with pytest.raises(PayloadTooLarge, match="the result of 9 items is over the limit of 268435456 bytes"):
        check_size(2**28 + 1, 9)


class Triton:
    """Returns its inputs, as one version after the other."""

    def __init__(self, versions: Iterable[str]) -> None:
        self.versions = iter(versions)
        self.sizes: list[int] = []
        self.at_once = 0

    async def infer(self, part: Sequence[Tensor]) -> tuple[list[Tensor], str]:
        assert not self.at_once
        self.at_once += 1
        await asyncio.sleep(0)
        self.at_once -= 1
        self.sizes.append(part[0].shape[0])
        return list(part), next(self.versions)


def test_parts_are_sent_one_after_the_other() -> None:
    triton = Triton("777")
    (output,), version = asyncio.run(infer_in_parts([numbers(20)], model(), triton.infer))
    np.testing.assert_array_equal(to_array(output), to_array(numbers(20)))
    assert (version, triton.sizes) == ("7", [8, 8, 4])


@pytest.mark.parametrize(("before", "sizes"), [("12", [8, 8]), ("112", [8, 8, 4])], ids=["early", "at the last part"])
def test_parts_of_a_result_are_of_one_version(before: str, sizes: list[int]) -> None:
    triton = Triton(before + "222")  # a swap falls into it: it begins again
    (output,), version = asyncio.run(infer_in_parts([numbers(20)], model(), triton.infer))
    np.testing.assert_array_equal(to_array(output), to_array(numbers(20)))
    assert (version, triton.sizes) == ("2", [*sizes, 8, 8, 4])


def test_versions_that_never_stay_give_no_result() -> None:
    with pytest.raises(PredictorUnavailable, match="several versions responded to one request, 5 times"):
        asyncio.run(infer_in_parts([numbers(20)], model(), Triton("12" * 5).infer))
