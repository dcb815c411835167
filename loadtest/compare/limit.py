"""The limits of a configuration, run by `bare.py`: the bare model, as a profile configures it, and its pipeline."""

import ast
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from loadtest.compare import bare
from loadtest.compare.candidates import MODEL, mirror
from loadtest.compare.measurement import machine_cpu_s
from loadtest.compare.preparation import FOLDER, letterbox
from loadtest.compare.processes import ROOT, CandidateError

_TRITON = ROOT / ".venv-triton"
_THREADS = {"INFERENCE_NUM_THREADS", "NUM_STREAMS", "PERFORMANCE_HINT"}  # of OpenVINO; `bare.py` sets them itself


def measure_bare(profile: str, image: bytes, seconds: float, *, pipeline: bool = False) -> list[dict[str, Any]]:
    """Figures of the bare model, one entry for each number of streams.

    Args:
        profile: of Nereid.
        image: JPEG.
        seconds: for each number of streams.
        pipeline: whether decoding, letterboxing and NMS are part of it, all in one process.

    Raises:
        CandidateError: it failed.
    """
    work = bare_work(profile, image, seconds)
    if pipeline:
        encoded = FOLDER / "input.jpg"
        encoded.write_bytes(image)
        work = replace(work, image=str(encoded))
    began, cpu_s, busy_s = time.perf_counter(), _children_cpu_s(), machine_cpu_s()
    done = subprocess.run(
        [sys.executable if pipeline else _python(work.runtime), "-m", "loadtest.compare.bare"],
        cwd=ROOT, input=bare.describe(work), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise CandidateError(done.stderr[-1000:])
    cpu_s, busy_s = _children_cpu_s() - cpu_s, machine_cpu_s() - busy_s
    others_cpu = max(0.0, busy_s - cpu_s) / (time.perf_counter() - began)
    return [json.loads(line) | {"others_cpu": others_cpu} for line in done.stdout.splitlines()]


def bare_work(profile: str, image: bytes, seconds: float, *, cache: Path = FOLDER) -> bare.Work:
    """What the bare model runs, by the configuration that Triton reads.

    Args:
        profile: of Nereid.
        image: encoded; letterboxed into the input tensor.
        seconds: for each number of streams.
        cache: folder of the mirrors; gets the input tensor.
    """
    folder = mirror(profile, cache) / "models" / MODEL
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    metadata = ast.literal_eval(config.parameters["metadata"].string_value)
    content = cache / "input.npy"
    np.save(content, letterbox(image, max(metadata["imgsz"]), metadata["stride"]))
    version = max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    properties = {
        key: value.string_value for key, value in config.parameters.items() if key.isupper() and key not in _THREADS
    }
    return bare.Work(
        model=str((version / (config.default_model_filename or "model.onnx")).resolve()),
        runtime=config.backend,
        properties=properties,
        tensor=config.input[0].name,
        content=str(content),
        cores=len(os.sched_getaffinity(0)),
        seconds=seconds,
        size=max(metadata["imgsz"]),
        stride=metadata["stride"],
    )


def _python(runtime: str) -> str:
    """The Python that has the runtime: Triton's own, where its backend is written in Python."""
    backends: list[Path] = list(_TRITON.glob(f"lib/python*/site-packages/{runtime}/__init__.py"))
    return str(_TRITON / "bin" / "python") if backends else sys.executable


def _children_cpu_s() -> float:
    """CPU seconds of child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
