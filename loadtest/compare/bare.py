"""The bare model in a loop, without a server, or the pipeline around it: the limit for every server of it.

A program of its own. For the model alone it is run by the Python whose runtime serves, and imports only numpy and that
runtime. It reads JSON (`Work`) from standard input and prints one JSON object for each number of streams.
"""

import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WARM_UP_S = 1.0

Run = Callable[[], object]
Infer = Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Work:
    """What the program runs.

    Attributes:
        model: file.
        runtime: `onnxruntime` or `openvino`.
        properties: parameters of Triton's OpenVINO backend, from the model's config.
        tensor: name of the input.
        content: .npy file of the input.
        cores: of the machine.
        seconds: for each number of streams.
        image: file of an encoded image, which is decoded, letterboxed, inferred and post-processed; empty: the model
            runs alone, with `content`.
        size: longer side of the input, pixels.
        stride: of the model.
    """

    model: str
    runtime: str
    properties: Mapping[str, str]
    tensor: str
    content: str
    cores: int
    seconds: float
    image: str = ""
    size: int = 0
    stride: int = 0


def main() -> None:
    """One stream over all cores, then as many streams as cores."""
    work = Work(**json.load(sys.stdin))
    for streams in sorted({1, work.cores}):
        runs = make_runs(work, {"onnxruntime": onnxruntime, "openvino": openvino}[work.runtime](work, streams))
        loop(runs, _WARM_UP_S)
        cpu_s = time.process_time()
        times, span_s = loop(runs, work.seconds)
        cpu_s = time.process_time() - cpu_s
        p50, p95, p99 = np.percentile(times, (50, 95, 99)) * 1000
        print(
            json.dumps(
                {
                    "connections": streams,
                    "requests_per_s": len(times) / span_s,
                    "p50_ms": p50,
                    "p95_ms": p95,
                    "p99_ms": p99,
                    "cpu_s_per_request": cpu_s / len(times),
                    "pss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                    "failures": 0,
                }
            ),
            flush=True,
        )


def make_runs(work: Work, infers: Sequence[Infer]) -> Sequence[Run]:
    """What each stream repeats: the model alone, or the pipeline around it."""
    if not work.image:
        content: NDArray[Any] = np.load(work.content)
        return [partial(infer, content) for infer in infers]
    import cv2  # noqa: PLC0415

    from loadtest.compare.pipeline import detect  # noqa: PLC0415

    cv2.setNumThreads(1)  # as in the transformer: streams run in parallel
    encoded = Path(work.image).read_bytes()
    return [partial(detect, encoded, infer, size=work.size, stride=work.stride) for infer in infers]


def onnxruntime(work: Work, streams: int) -> Sequence[Infer]:
    """A session for each stream."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = work.cores // streams
    sessions = [
        onnxruntime.InferenceSession(work.model, options, providers=["CPUExecutionProvider"]) for _ in range(streams)
    ]
    names = [output.name for output in sessions[0].get_outputs()]

    def infer(session: Any, content: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        return dict(zip(names, session.run(None, {work.tensor: content}), strict=True))

    return [partial(infer, session) for session in sessions]


def openvino(work: Work, streams: int) -> Sequence[Infer]:
    """An inference request for each stream."""
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": work.cores, "NUM_STREAMS": streams}
    if work.properties.get("HINT_BF16", "").lower() == "yes":
        properties["INFERENCE_PRECISION_HINT"] = "bf16"
    compiled = core.compile_model(core.read_model(work.model), "CPU", properties)
    requests = [compiled.create_infer_request() for _ in range(streams)]
    names = [output.get_any_name() for output in compiled.outputs]

    def infer(request: Any, content: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        request.infer({work.tensor: content}, share_inputs=True, share_outputs=True)
        return {name: request.get_tensor(name).data for name in names}

    return [partial(infer, request) for request in requests]


def loop(runs: Sequence[Run], seconds: float) -> tuple[list[float], float]:
    """Run each in a thread of its own until the time is over.

    Returns:
        Seconds of each run, and of all together.
    """
    times: list[float] = []
    began = time.perf_counter()

    def repeat(run: Run) -> None:
        while (started := time.perf_counter()) - began < seconds:
            run()
            times.append(time.perf_counter() - started)

    threads = [threading.Thread(target=repeat, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, time.perf_counter() - began


def describe(work: Work) -> str:
    """Standard input of the program."""
    return json.dumps(asdict(work))


if __name__ == "__main__":
    main()
