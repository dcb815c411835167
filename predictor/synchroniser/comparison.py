"""Compares how long Triton takes for the same request to two models: one at a time, and several at once."""

import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from predictor.synchroniser.triton_client import TritonClient
from predictor.synchroniser.validation import LARGE_BYTES, LARGE_REQUESTS, MAX_GENERATED_BYTES, size_of_images
from registry.errors import TransientError, VersionRejected
from registry.golden import Arrays, read_golden, split_golden

_TOGETHER = 4  # requests at once: as many as clients of one model often send
_WARM_UPS = 3  # of several at once: what they are put together to, another each time, is prepared at its first run
_PAIRS, _FEWEST_PAIRS = 15, 3
_MEASURE_S = 1.5  # for more than the fewest pairs
_LIMIT_S = 30.0  # of a request


def compare(triton: TritonClient, candidate: str, served: str, golden: Path, *, stopped: Event) -> float:
    """Time a candidate in turn with the model that serves; returns its time as a share of that.

    It is the larger of two shares, of a request alone and of several at once: what is faster in one alone is not.

    Args:
        triton: where both are loaded.
        candidate: its name.
        served: name of what serves.
        golden: its first item is sent, with images of the size that the model was made for: the golden ones are small.
        stopped: ends the comparison.

    Raises:
        VersionRejected: the candidate does not take the request.
        TransientError: what serves did not, or `stopped` is set.
        TritonError: Triton became unavailable.
    """
    inputs = compose_inputs(read_golden(golden), triton.config(candidate))

    def request(model: str) -> None:
        if stopped.is_set():
            raise TransientError("stopped")
        triton.infer(model, inputs, limit_s=_LIMIT_S)

    def request_served() -> None:
        try:
            request(served)
        except VersionRejected as exc:
            raise TransientError(f"what serves did not take the request: {exc}") from exc

    is_large = sum(array.nbytes for array in inputs.values()) > LARGE_BYTES
    with LARGE_REQUESTS if is_large else nullcontext(), ThreadPoolExecutor(_TOGETHER) as pool:

        def together(call: Callable[[], None]) -> None:
            for future in [pool.submit(call) for _ in range(_TOGETHER)]:
                future.result()

        calls = partial(request, candidate), request_served
        alone = compare_calls(*calls)
        if is_large:
            return alone
        return max(alone, compare_calls(*(partial(together, call) for call in calls), warm_ups=_WARM_UPS))


def compare_calls(first: Callable[[], None], second: Callable[[], None], *, warm_ups: int = 1) -> float:
    """Time two calls in turn; returns the median over pairs of the first one's seconds as a share of the second one's.

    Args:
        first: what is compared.
        second: with what.
        warm_ups: calls of each before: they allocate.

    What else the machine does meets both calls of a pair, or few pairs.
    """
    for call in (first, second):
        for _ in range(warm_ups):
            call()
    shares: list[float] = []
    began = time.perf_counter()
    while len(shares) < _FEWEST_PAIRS or (len(shares) < _PAIRS and time.perf_counter() - began < _MEASURE_S):
        shares.append(_time(first) / _time(second))
    return statistics.median(shares)


def compose_inputs(arrays: Arrays, config: Any) -> Arrays:
    """The first golden item, its images repeated to the size that the model was made for, where that is not too large.

    Args:
        arrays: of golden.npz.
        config: of the model; images are `(height, width, 3)`, both variable.
    """
    inputs, _ = split_golden(arrays, config)
    size = size_of_images(config)
    composed = {}
    for tensor in config.input:
        if (array := inputs.get(tensor.name)) is None:
            continue
        first = array[:1] if config.max_batch_size else array
        shape = list(first.shape)
        if size is not None and list(tensor.dims) == [-1, -1, 3]:
            shape[-3:-1] = size
        if 8 * math.prod(shape) > MAX_GENERATED_BYTES:
            shape = list(first.shape)
        composed[tensor.name] = np.ascontiguousarray(np.resize(first, shape))
    return composed


def _time(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
