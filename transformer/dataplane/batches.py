"""A request of more items than Triton takes at once: divided along the batch dimension, and the outputs joined."""

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from transformer.dataplane.results import check_size
from transformer.dataplane.swap import SWAP_TRIES
from transformer.errors import InvalidRequest, VersionsChanging
from transformer.offload import ALWAYS, offload
from transformer.triton.model import Model
from transformer.triton.tensors import Tensor, item_size, spans

Infer = Callable[[Sequence[Tensor]], Awaitable[tuple[list[Tensor], str]]]


def count_items(inputs: Sequence[Tensor], model: Model) -> int:
    """Number of items of a request that has to be divided, else 0: Triton checks what cannot be divided."""
    counts = {tensor.shape[0] if tensor.shape else 0 for tensor in inputs}
    (count, *others) = counts or {0}
    return count if model.cuts_batches and not others and count > model.max_batch_size else 0


async def infer_in_parts(inputs: Sequence[Tensor], model: Model, infer: Infer) -> tuple[list[Tensor], str]:
    """The outputs of a request that has to be divided, and the version that responded.

    The parts are sent one after the other: other requests come in between, and one part is copied at a time.

    Args:
        inputs: checked, and `count_items` is not 0.
        model: for the number of items of a part.
        infer: sends one part to Triton.

    Raises:
        ServingError: of `infer`, `check_size` and `join`.
        VersionsChanging: swaps followed each other too quickly.
    """
    count = inputs[0].shape[0]
    cost = ALWAYS if any(tensor.datatype == "BYTES" for tensor in inputs) else 0
    for _ in range(SWAP_TRIES):
        parts = cut(inputs, model.max_batch_size)
        results: list[list[Tensor]] = []
        versions: set[str] = set()
        while len(versions) < 2 and (part := await offload(partial(next, parts, None), cost=cost)):
            tensors, version = await infer(part)
            results.append(tensors)
            versions.add(version)
            check_size(sum(len(output.data) for outputs in results for output in outputs), count)
        if len(versions) == 1:
            return await offload(partial(join, results, count, model), cost=ALWAYS), min(versions)
    raise VersionsChanging(model.name, SWAP_TRIES)


def cut(inputs: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Parts of at most `size` items, as views of the request's bytes.

    Args:
        inputs: checked, of the same number of items.
        size: of a part.
    """
    yield from map(list, zip(*(_cut(tensor, size) for tensor in inputs), strict=True))


def _cut(tensor: Tensor, size: int) -> Iterator[Tensor]:
    data, count = memoryview(tensor.data), tensor.shape[0]
    # Elements of BYTES differ in length.
    ends = (end for _, end in spans(tensor)) if tensor.datatype == "BYTES" else None
    start = 0
    for first in range(0, count, size):
        shape = (min(size, count - first), *tensor.shape[1:])
        elements = math.prod(shape)
        if ends is None:
            end = start + elements * item_size(tensor.datatype)
        else:
            end = max(islice(ends, elements), default=start)
        yield replace(tensor, shape=shape, data=data[start:end])
        start = end


def join(results: Sequence[Sequence[Tensor]], count: int, model: Model) -> list[Tensor]:
    """Concatenate the results of the parts, whose outputs are in the same order.

    Raises:
        InvalidRequest: outputs of the parts do not fit each other: such a model takes no more items than Triton does.
    """
    return [_join(outputs, count, model) for outputs in zip(*results, strict=True)]


def _join(outputs: Sequence[Tensor], count: int, model: Model) -> Tensor:
    first = outputs[0]
    forms = {(output.name, output.datatype, output.shape[1:]) for output in outputs}
    if len(forms) > 1 or sum(output.shape[0] if output.shape else 0 for output in outputs) != count:
        shapes = ", ".join(str(list(output.shape)) for output in outputs[:2])
        raise InvalidRequest(
            f"batch of {count}: got outputs {first.name!r} of {shapes}, ... for its parts; expected at most"
            f" {model.max_batch_size} items in one request of {model.name}"
        )
    return replace(first, shape=(count, *first.shape[1:]), data=b"".join(output.data for output in outputs))
