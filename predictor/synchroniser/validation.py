"""Validates the outputs of a version before clients can reach it.

With golden.npz, which export writes, its inputs must give its outputs. Without it a generated input should give finite
outputs that fit their dims; a failure proves nothing then, because the model may not accept such an input.
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

from predictor.synchroniser.errors import TritonTimeout
from predictor.synchroniser.triton_client import TritonClient
from registry.errors import VersionRejected
from registry.golden import Arrays, read_golden, split_golden
from registry.golden_outputs import check_form, check_golden_outputs, read_metadata

log = logging.getLogger("synchroniser")

Infer = Callable[[Arrays], Arrays]

# A request takes seven times the memory of its tensors: one large request at a time fits into the container.
LARGE_BYTES = 4 * 2**20
LARGE_REQUESTS = threading.Lock()

MAX_GENERATED_BYTES = 128 * 2**20  # at eight bytes an element: an image of up to 2,300 x 2,300 in FP32
_SIZES = (1, 32, 224, 640)  # for variable dims, in this order


def validate(  # noqa: PLR0913 - model, version, expectation and three time limits
    triton: TritonClient,
    model: str,
    *,
    golden: Path | None,
    version: str = "",
    queue_s: float | None = None,
    limit_s: float = math.inf,
) -> str | None:
    """Validate the outputs of a loaded model.

    Args:
        triton: where it is loaded.
        model: the name under which it is loaded: a candidate's, or its own.
        golden: archive of inputs and expected outputs by tensor name, each with its batch dimension.
        version: its number; "" for the newest.
        queue_s: as in `TritonClient.infer`.
        limit_s: of all requests together.

    Returns:
        None where the outputs are valid; otherwise why they could not be verified without a golden input.

    Raises:
        VersionRejected: inference fails with the golden input, or returns other outputs.
        TritonTimeout: no response in time.
        TritonError: Triton became unavailable.
    """
    config = triton.config(model)
    infer = _limit_time(
        lambda inputs, left_s: triton.infer(model, inputs, version, queue_s=queue_s, limit_s=left_s), limit_s
    )
    if golden is not None:
        _validate_golden(infer, golden, config)
        return None
    try:
        if outputs := _infer_generated(infer, config):
            check_form(outputs, config)
    except VersionRejected as exc:
        return f"not verified, a generated input failed: {exc}"
    return None


def _limit_time(infer: Callable[[Arrays, float], Arrays], limit_s: float) -> Infer:
    """Limit the time of all requests together, and send one large request at a time.

    Args:
        infer: takes inputs, and the seconds that are left.
        limit_s: of all requests.
    """
    left_s = limit_s

    def infer_in_time(inputs: Arrays) -> Arrays:
        nonlocal left_s
        if left_s <= 0:
            raise TritonTimeout(f"Triton: no response to the validation within {limit_s:g} s")
        size = sum(array.nbytes for array in inputs.values())
        with LARGE_REQUESTS if size > LARGE_BYTES else nullcontext():
            began = time.monotonic()  # waiting for the lock does not count
            outputs = infer(inputs, left_s)
            left_s -= time.monotonic() - began
            return outputs

    return infer_in_time


def _validate_golden(infer: Infer, golden: Path, config: Any) -> None:
    """Infer with the golden inputs, one batch after the other, and keep none of the responses."""
    inputs, expected = split_golden(read_golden(golden), config)
    count = len(next(iter(inputs.values())))
    size = config.max_batch_size or count
    for start in range(0, count, size):
        part, want = inputs, expected
        if size < count:
            part, want = (
                {name: array[start : start + size] for name, array in arrays.items()} for arrays in (inputs, expected)
            )
        check_golden_outputs(infer(part), want, config)


def _infer_generated(infer: Infer, config: Any) -> Arrays:
    """Return the outputs for the first generated input that the model accepts; empty where all would be too large.

    Raises:
        VersionRejected: the model accepts no generated input.
    """
    rejected = None
    for inputs in _generate_inputs(config):
        try:
            return infer(inputs)
        except VersionRejected as exc:
            rejected = exc
    if rejected:
        raise rejected
    log.warning("%s: not validated: its inputs take more than %d MiB", config.name, MAX_GENERATED_BYTES >> 20)
    return {}


def _generate_inputs(config: Any) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Yield inputs of the config's form; variable dims take the size in the metadata, then each of `_SIZES`.

    They have one item, or a full batch: OpenVINO accepts no other number.
    """
    is_variable = any(size < 0 for tensor in config.input for size in tensor.dims)
    for items in sorted({1, max(config.max_batch_size, 1)}):
        for size in _sizes(config) if is_variable else (1,):
            elements = sum(math.prod(_sized(tensor, size)) for tensor in config.input)
            if 8 * items * elements <= MAX_GENERATED_BYTES:
                yield {
                    tensor.name: _generate_input(tensor, config, size, items=items)
                    for tensor in config.input
                    if not tensor.optional
                }


def _sized(tensor: Any, size: int) -> list[int]:
    return [dim if dim >= 0 else size for dim in tensor.dims]


def size_of_images(config: Any) -> tuple[int, int] | None:
    """Height and width of the images that a model was made for, by its metadata; None where that has none."""
    try:
        trained = read_metadata(config)["imgsz"]
        height, width = (trained, trained) if isinstance(trained, int) else trained
        return int(height), int(width)
    except (ValueError, KeyError, TypeError):
        return None


def _sizes(config: Any) -> tuple[int, ...]:
    size = size_of_images(config)
    return _SIZES if size is None else (size[0], *_SIZES)


def _generate_input(tensor: Any, config: Any, size: int, *, items: int) -> NDArray[Any]:
    datatype = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
    dtype = triton_to_np_dtype(datatype.removeprefix("TYPE_").replace("STRING", "BYTES"))
    batch = [items] if config.max_batch_size else []
    shape = [*batch, *_sized(tensor, size)]
    if dtype == np.object_:
        return np.full(shape, b"", np.object_)
    # Different values: a model that divides by their spread would correctly return NaN for equal ones.
    return np.resize(np.arange(3).astype(dtype), shape)
