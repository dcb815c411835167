"""A model whose requests fail is examined, and loaded again only where its process is dead (see tests/faults)."""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from export.writer.config import read_config, to_text
from tests.support.stack import ROOT, Stack, start_stack, wait_until
from tests.support.versions import seal

MODEL = "digit-finder"
VERSION = ROOT / "model_repository" / MODEL / "1"
AT_ONCE_US = 1  # no request leaves a queue so soon
# Errors of a full queue, and of a request whose time in it is over.
QUEUE = ("Exceeds maximum queue size", "Request timeout expired")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose model has a queue for one."""
    folder = tmp_path_factory.mktemp("short")
    version = folder / "models" / MODEL / "1"
    shutil.copytree(VERSION, version)
    path = version / "config.pbtxt"
    config = read_config(path)
    config.dynamic_batching.default_queue_policy.max_queue_size = 1
    path.write_text(to_text(config), encoding="utf-8")
    seal(version)
    with start_stack(folder / "models", folder / "log", variables={"POLL_S": "0.5"}) as stack:
        yield stack


def inferrer(stack: Stack) -> Callable[[int | None], str]:
    """A function that infers with a queue timeout in microseconds, and returns the error; empty without one."""
    with np.load(VERSION / "golden.npz") as arrays:
        image = arrays["image"]
    tensor = InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image)
    client = InferenceServerClient(f"127.0.0.1:{stack.triton_grpc_port}")

    def infer(timeout_us: int | None) -> str:
        try:
            client.infer(MODEL, [tensor], timeout=timeout_us)
        except InferenceServerException as exc:
            return str(exc.message())
        return ""

    return infer


def count_successes(stack: Stack) -> float:
    """How many requests the model has served."""
    text = httpx.get(f"http://127.0.0.1:{stack.triton_metrics_port}/metrics", trust_env=False).text
    wanted = f'nv_inference_request_success{{model="{MODEL}"'
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(wanted))


def test_failing_requests_have_the_model_examined_with_pauses(short: Stack) -> None:
    infer, before = inferrer(short), count_successes(short)
    until = time.monotonic() + 8
    while time.monotonic() < until:
        assert QUEUE[1] in infer(AT_ONCE_US)
        time.sleep(0.1)
    wait_until(lambda: count_successes(short) > before, log=short.log)
    assert count_successes(short) - before == 1


def test_overloaded_model_goes_on_serving(short: Stack) -> None:
    infer, enough = inferrer(short), Event()

    def infer_on(timeout_us: int | None) -> set[str]:
        errors = set()
        while not enough.is_set():
            errors.add(infer(timeout_us))
        return errors

    def log() -> str:
        return short.log.read_text(errors="replace")

    with ThreadPoolExecutor(8) as threads:
        running = [threads.submit(infer_on, timeout_us) for timeout_us in (None, AT_ONCE_US) * 4]
        try:
            wait_until(
                lambda: f"{MODEL}: cannot be examined" in log() or "loaded again" in log(),
                log=short.log,
            )
        finally:
            enough.set()
        errors = set[str]().union(*(thread.result() for thread in running))
    assert "" in errors
    assert all(any(words in text for words in QUEUE) for text in errors if text), errors
    assert not infer(None)
    assert "loaded again" not in log()
    assert log().count(f"successfully loaded '{MODEL}'") == 1
