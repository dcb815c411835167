"""Proof that a version answers as it must, before anyone can reach it.

With golden.npz, which export writes: its input must give its outputs. Without: an input is made up, whose outputs
should be finite and fit their dims; that they are not says nothing of the model, which may know no such input.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from predictor.sync.triton import TooSlow, Triton
from registry.errors import Refused
from registry.golden import Arrays, read_golden, split_golden
from registry.golden_outputs import check_answer, check_form, read_metadata

log = logging.getLogger("sync")

Ask = Callable[[Arrays], Arrays]

# A request takes seven times its tensors: one large one at a time fits into the memory of the container.
_LARGE_BYTES = 4 * 2**20
_LARGE = threading.Lock()

_LARGEST_INPUTS_BYTES = 128 * 2**20  # made up, at eight bytes an element: a picture of 2,300 x 2,300 in FP32 and less
_SIZES = (1, 32, 224, 640)  # tried, in this order, for dims that are free


def prove(  # noqa: PLR0913 - what, how long, and how it must answer
    triton: Triton,
    candidate: str,
    *,
    golden: Path | None,
    version: str = "",
    queue_s: float | None = None,
    limit_s: float = math.inf,
) -> str | None:
    """Ask a candidate that is loaded, or a model that serves.

    Args:
        triton: where it is loaded.
        candidate: the name it is loaded under.
        golden: inputs and expected outputs by tensor name, each with its batch dimension.
        version: a certain one, or "" for the newest.
        queue_s: as `Triton.infer` takes it.
        limit_s: for all that it is asked.

    Returns:
        Why nothing is verified, where there is no golden input; None where its outputs are good.

    Raises:
        Refused: it fails with its golden input, or gives other outputs than it must.
        TooSlow: it did not answer in time.
        TritonError: Triton went away.
    """
    config = triton.config(candidate)
    left_s = limit_s

    def ask(inputs: Arrays) -> Arrays:
        nonlocal left_s
        if left_s <= 0:
            raise TooSlow(f"Triton: no answer to the trial within {limit_s:g} s")
        size = sum(array.nbytes for array in inputs.values())
        with _LARGE if size > _LARGE_BYTES else nullcontext():
            began = time.monotonic()  # it is no fault of a version that it waited for another one
            outputs = triton.infer(candidate, inputs, version, queue_s=queue_s, limit_s=left_s)
            left_s -= time.monotonic() - began
            return outputs

    if golden is None:
        try:
            if outputs := _infer_anything(ask, config):
                check_form(outputs, config)
        except Refused as exc:
            return f"not proven, for an input that was made up: {exc}"
        return None
    inputs, expected = split_golden(read_golden(golden), config)
    # One batch after the other, and none of their answers is kept.
    count = len(next(iter(inputs.values())))
    most = config.max_batch_size or count
    for start in range(0, count, most):
        part, want = inputs, expected
        if most < count:
            part, want = (
                {name: array[start : start + most] for name, array in arrays.items()} for arrays in (inputs, expected)
            )
        check_answer(ask(part), want, config)
    return None


def _infer_anything(ask: Ask, config: Any) -> Arrays:
    """Outputs for the first input that the model takes; none where every input is too large to make one up.

    Raises:
        Refused: it takes none.
    """
    refused = None
    for inputs in _make_inputs(config):
        try:
            return ask(inputs)
        except Refused as exc:
            refused = exc
    if refused:
        raise refused
    log.warning("%s: is not tried: its inputs take more than %d MiB", config.name, _LARGEST_INPUTS_BYTES >> 20)
    return {}


def _make_inputs(config: Any) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Inputs of the right form; free dims take the size of the metadata, or one after the other of `_SIZES`.

    One item, or as many as a batch has: OpenVINO takes no other number.
    """
    free = any(size < 0 for tensor in config.input for size in tensor.dims)
    for items in sorted({1, max(config.max_batch_size, 1)}):
        for size in _sizes(config) if free else (1,):
            elements = sum(math.prod(_sized(tensor, size)) for tensor in config.input)
            if 8 * items * elements <= _LARGEST_INPUTS_BYTES:
                yield {
                    tensor.name: _make_input(tensor, config, size, items=items)
                    for tensor in config.input
                    if not tensor.optional
                }


def _sized(tensor: Any, size: int) -> list[int]:
    return [dim if dim >= 0 else size for dim in tensor.dims]


def _sizes(config: Any) -> tuple[int, ...]:
    try:
        trained = read_metadata(config)["imgsz"]
        return (int(trained if isinstance(trained, int) else trained[0]), *_SIZES)
    except (ValueError, KeyError, TypeError, IndexError):
        return _SIZES


def _make_input(tensor: Any, config: Any, size: int, *, items: int) -> NDArray[Any]:
    datatype = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
    dtype = triton_to_np_dtype(datatype.removeprefix("TYPE_").replace("STRING", "BYTES"))
    batch = [items] if config.max_batch_size else []
    shape = [*batch, *_sized(tensor, size)]
    if dtype == np.object_:
        return np.full(shape, b"", np.object_)
    # Not all alike: what divides by a spread would give NaN, and be right.
    return np.resize(np.arange(3).astype(dtype), shape)
