"""Proof that a version answers as it must, before anyone can reach it.

With golden.npz, which export writes: its input must give its outputs. Without: an input is made up, whose outputs
should be finite and fit their dims; that they are not says nothing of the model, which may know no such input.
"""

import ast
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

log = logging.getLogger("sync")

Ask = Callable[[Arrays], Arrays]

# A request takes seven times its tensors: one large one at a time fits into the memory of the container.
_LARGE_BYTES = 4 * 2**20
_LARGE = threading.Lock()

# Another ONNX Runtime, or a GPU in half precision, gives a little else.
_RELATIVE, _ABSOLUTE = 0.02, 0.02
_BOXES_PX, _SCORES = 4.0, 0.05
_COMPARED = 50  # candidates of a detector, the best ones: further down their order is chance
_MEANINGFUL = 0.05  # below this score a candidate may be any other
_COMPARED_AT_ONCE = 2**20  # numbers
_LONGEST_METADATA = 2**16  # bytes that are read here: it was judged, and may hold a hundred thousand names
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
        Why nothing is proven, where there is no golden input; None where it answers well.

    Raises:
        Refused: it does not answer its golden input, or not as it must.
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
            if outputs := _ask_anything(ask, config):
                _check_form(outputs, config)
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
        _check_answer(ask(part), want, config)
    return None


def _check_answer(outputs: Arrays, expected: Arrays, config: Any) -> None:
    _check_form(outputs, config)
    for name, want in expected.items():
        got = outputs.get(name)
        if got is None or got.shape != want.shape:
            shape = "nothing" if got is None else list(got.shape)
            raise Refused(f"golden input: output {name!r}: got {shape}, expected {list(want.shape)}")
    if {"boxes", "scores", "classes"} <= expected.keys():
        _compare_detections(outputs, expected)
    else:
        _compare(outputs, expected)


def _check_form(outputs: Arrays, config: Any) -> None:
    """Finite numbers in the dims that the config declares."""
    for tensor in config.output:
        array = outputs.get(tensor.name)
        if array is None:
            raise Refused(f"output {tensor.name!r}: got nothing, expected {list(tensor.dims)}")
        dims = array.shape[1:] if config.max_batch_size else array.shape
        if len(dims) != len(tensor.dims) or any(
            want not in {-1, got} for got, want in zip(dims, tensor.dims, strict=True)
        ):
            raise Refused(f"output {tensor.name!r}: got dims {list(dims)}, expected {list(tensor.dims)}")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            count = int(np.count_nonzero(~np.isfinite(array)))
            raise Refused(f"output {tensor.name!r}: got {count} of {array.size} numbers NaN or infinite")


def _compare(outputs: Arrays, expected: Arrays) -> None:
    for name, want in expected.items():
        got = outputs[name]
        if not np.issubdtype(want.dtype, np.number):
            if not np.array_equal(got, want):
                raise Refused(f"golden input: output {name!r} is not what it was at the export")
            continue
        for start in range(0, want.size, _COMPARED_AT_ONCE):
            some, sought = (array.reshape(-1)[start : start + _COMPARED_AT_ONCE] for array in (got, want))
            excess = np.abs(some.astype(np.float64) - sought) - (_ABSOLUTE + _RELATIVE * np.abs(sought))
            if not excess.max() <= 0:
                at = np.unravel_index(start + int(excess.argmax()), want.shape)
                raise Refused(
                    f"golden input: output {name!r}{[int(i) for i in at]}: got {got[at]:.6g}, expected {want[at]:.6g}"
                )


def _compare_detections(outputs: Arrays, expected: Arrays) -> None:
    """Look up each of the best candidates; their order may differ where scores are close."""
    for boxes, scores, classes, got_boxes, got_scores, got_classes in zip(
        *(arrays[name] for arrays in (expected, outputs) for name in ("boxes", "scores", "classes")), strict=True
    ):
        for index in [i for i in np.argsort(-scores)[:_COMPARED] if scores[i] >= _MEANINGFUL]:
            near = (np.abs(got_boxes - boxes[index]).max(axis=1) <= _BOXES_PX) & (
                np.abs(got_scores - scores[index]) <= _SCORES
            )
            if not (near & (got_classes == classes[index])).any():
                box = ", ".join(f"{value:.1f}" for value in boxes[index])
                raise Refused(
                    f"golden input: got nothing like class {classes[index]}, score {scores[index]:.3f} at {box}"
                )
        high = got_scores[got_scores >= scores.max(initial=0) + max(_SCORES, _MEANINGFUL)]
        if high.size:
            raise Refused(
                f"golden input: got a score of {high.max():.3f}, expected at most {scores.max(initial=0):.3f}"
            )


def _ask_anything(ask: Ask, config: Any) -> Arrays:
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
    text = config.parameters["metadata"].string_value if "metadata" in config.parameters else ""
    if len(text) > _LONGEST_METADATA:
        return _SIZES
    try:
        metadata = ast.literal_eval(text)
        trained = metadata["imgsz"]
        return (int(trained if isinstance(trained, int) else trained[0]), *_SIZES)
    except (ValueError, SyntaxError, KeyError, TypeError, IndexError):
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
