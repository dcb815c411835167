"""TensorRT: a plan for the GPU of this machine, and the engines that Ultralytics writes.

A plan fits one GPU architecture and one version of TensorRT: build it where it will serve, in the image that serves.
There this module, and the command `python -m export tensorrt`, need only Python 3.11 (Triton 24.11 has 3.12), its
standard library and the onnx package.

The file is named by compute capability; the profile `tensorrt` refers to it by `cc_model_filenames`.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import ExportError
from export.graph.head import check_head, is_rtdetr
from export.writer.manifest import list_files
from export.writer.staging import move_in, stage, sweep
from export.writer.versions import read_complete
from registry.storage.folder_lock import lock_folder

if TYPE_CHECKING:
    from onnx import ModelProto

BATCHES = (1, 4, 8)  # least, usual, most
PLANS = {
    capability: f"model.cc{capability.replace('.', '')}.plan"
    for capability in ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1")
}

_ONNX, _PROFILE = "model.onnx", "tensorrt.pbtxt"
TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")  # in NVIDIA's images, not on PATH
_BUILD_TIMEOUT_S = 3600
_QUERY_TIMEOUT_S = 60
_LONGEST_HEADER = 1 << 24

# In a process of its own: an error in CUDA ends the process.
_PYTHON = """
import sys
import tensorrt as trt
source, target, name, *shapes = sys.argv[1:]
logger = trt.Logger(trt.Logger.WARNING)
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(source):
    sys.exit("\\n".join(str(parser.get_error(index)) for index in range(parser.num_errors)))
profile = builder.create_optimization_profile()
profile.set_shape(name, *([int(size) for size in shape.split("x")] for shape in shapes))
config = builder.create_builder_config()
config.add_optimization_profile(profile)
plan = builder.build_serialized_network(network, config)
if plan is None:
    sys.exit("TensorRT built nothing; its messages are above")
with open(target, "wb") as file:
    file.write(plan)
"""


@dataclass(frozen=True)
class Builder:
    """The program that builds plans on this machine, and the GPU that they fit.

    Attributes:
        command: `trtexec`, or Python with TensorRT's package.
        capability: compute capability of the GPU.
    """

    command: Sequence[str]
    capability: str

    @property
    def filename(self) -> str:
        """Name of the plan's file."""
        return PLANS[self.capability]


@dataclass(frozen=True)
class Engine:
    """An engine that Ultralytics wrote.

    Attributes:
        metadata: task, names, imgsz, stride and the arguments of its export.
        plan: what TensorRT reads.
    """

    metadata: Mapping[str, Any]
    plan: bytes


def find_builder() -> Builder:
    """The program that builds plans on this machine.

    Raises:
        ExportError: it has no GPU, an unknown one, or no program.
    """
    capability = find_capability()
    trtexec = shutil.which("trtexec") or (str(TRTEXEC) if os.access(TRTEXEC, os.X_OK) else None)
    if trtexec is not None:
        return Builder([trtexec], capability)
    if importlib.util.find_spec("tensorrt") is not None:
        return Builder([sys.executable, "-c", _PYTHON], capability)
    raise ExportError(
        f"TensorRT: got neither trtexec (on PATH, or {TRTEXEC}) nor Python's package tensorrt, expected one of them; "
        "next: run this in the Triton image that serves"
    )


def find_capability() -> str:
    """Compute capability of this machine's GPU, such as `9.0`.

    Raises:
        ExportError: there is no GPU, or an unknown one.
    """
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_QUERY_TIMEOUT_S)
        got = done.stdout.split()
    except (OSError, subprocess.SubprocessError) as exc:
        raise ExportError(
            f"TensorRT builds for the GPU that it runs on: got none here ({exc}), expected one; next: run "
            "`python -m export tensorrt <version folder>` where the model will serve, in the Triton image"
        ) from exc
    if len(set(got)) != 1 or got[0] not in PLANS:
        raise ExportError(
            f"TensorRT: got GPUs of compute capability {', '.join(got) or 'none'}, expected one kind of "
            f"{', '.join(PLANS)}; next: choose one with CUDA_VISIBLE_DEVICES on a machine that has it"
        )
    return got[0]


def build(model: "ModelProto", builder: Builder) -> bytes:
    """Build a plan in FP16, with the decoding of boxes in FP32.

    Args:
        model: a detector of either interface, as in model.onnx.
        builder: from `find_builder`.

    Raises:
        ExportError: TensorRT rejects it.
    """
    import onnx  # noqa: PLC0415 - `find_builder` rejects without it

    from export.graph.fp16 import fix_size, to_fp16  # noqa: PLC0415

    typed = fix_size(to_fp16(model))
    source = typed.graph.input[0]
    dims = [dim.dim_value for dim in source.type.tensor_type.shape.dim][1:]
    shapes = ["x".join(map(str, [batch, *dims])) for batch in BATCHES]
    with tempfile.TemporaryDirectory(prefix="nereid-") as folder:
        onnx_file, plan_file = Path(folder) / "model.onnx", Path(folder) / "model.plan"
        onnx.save(typed, onnx_file)
        arguments = _arguments(builder, onnx_file, plan_file, name=source.name, shapes=shapes)
        _run([*builder.command, *arguments])
        if not plan_file.is_file() or not plan_file.stat().st_size:
            raise ExportError(f"TensorRT built no plan: {builder.command[0]} ended well, but wrote nothing")
        return plan_file.read_bytes()


def _run(command: Sequence[str]) -> None:
    """Run the program that builds a plan.

    Raises:
        ExportError: it failed, or took too long.
    """
    try:
        subprocess.run(
            command,
            check=True,
            timeout=_BUILD_TIMEOUT_S,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except subprocess.CalledProcessError as exc:
        last = "\n".join(exc.stdout.splitlines()[-20:])
        raise ExportError(f"TensorRT built no plan (exit status {exc.returncode}); its last lines:\n{last}") from exc
    except subprocess.TimeoutExpired as exc:
        raise ExportError(f"TensorRT built no plan within {_BUILD_TIMEOUT_S} s") from exc


def add_plan(folder: Path, builder: Builder) -> Path:
    """Write a version once more under the next number, with a plan for this machine, and return the new folder.

    Args:
        folder: of a version in a local repository.
        builder: from `find_builder`.

    Raises:
        ExportError: the version is not complete, has no profile for TensorRT, or TensorRT rejects it.
    """
    import onnx  # noqa: PLC0415 - as above

    manifest = read_complete(folder)
    if manifest is None or not {_PROFILE, _ONNX} <= manifest["files"].keys():
        raise ExportError(
            f"{folder}: got no complete version of a detector with {_ONNX} and {_PROFILE}, expected one that "
            "`python -m export ultralytics` wrote; next: export it again"
        )
    plan = build(onnx.load(folder / _ONNX), builder)
    model = folder.resolve().parent
    with lock_folder(model.parent):
        sweep(model.parent)
        staging = stage(model)
        try:
            for name in manifest["files"]:
                shutil.copyfile(folder / name, staging / name)
            (staging / builder.filename).write_bytes(plan)
            created = datetime.now(UTC).isoformat(timespec="seconds")
            files = list_files(staging)
            return move_in(
                staging, lambda number: {**manifest, "version": str(number), "created": created, "files": files}
            )
        except BaseException:  # Ctrl-C too
            sweep(model.parent)
            raise


def read_engine(path: Path) -> Engine:
    """Read an Ultralytics `.engine`: a length (4 bytes, little-endian), JSON of this length, the plan.

    Raises:
        ExportError: it is of another kind, or was exported in a way that cannot be served.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as exc:
        raise ExportError(f"{path}: the file is missing") from exc
    length = int.from_bytes(content[:4], "little")
    try:
        if length > min(_LONGEST_HEADER, len(content) - 4):
            raise ValueError("it ends before its metadata does")
        metadata = json.loads(content[4 : 4 + length])
        missing = [key for key in ("task", "names", "imgsz", "stride") if key not in metadata]
    except (ValueError, TypeError) as exc:
        raise ExportError(
            f"{path}: got no engine of Ultralytics ({exc}), expected a length, JSON and a plan (yolo export "
            "format=engine dynamic=True)"
        ) from exc
    plan = content[4 + length :]
    if missing or not plan:
        raise ExportError(f"{path}: got no {', '.join(missing) or 'plan behind its metadata'}")
    _check_engine(path, metadata)
    return Engine(metadata, plan)


def _check_engine(path: Path, metadata: Mapping[str, Any]) -> None:
    arguments = metadata.get("args")
    arguments = arguments if isinstance(arguments, Mapping) else {}
    check_head(metadata, where=str(path))
    if metadata["task"] != "detect" or is_rtdetr(metadata):
        raise ExportError(
            f"{path}: task: got {metadata['task']!r:.80}, head {metadata.get('head')!r:.80}, expected a YOLO detector: "
            "an engine does not say how the outputs of others are read; next: pass the .pt or .onnx file with "
            "--format tensorrt"
        )
    if not arguments.get("dynamic"):
        raise ExportError(
            f"{path}: got an engine for one shape, which Triton cannot batch, expected dynamic=True: export it again"
        )
    if arguments.get("half"):
        raise ExportError(
            f"{path}: half: got tensors in FP16, expected FP32: pass the .pt or .onnx file with --format tensorrt, "
            "which runs in FP16 inside"
        )


def _arguments(builder: Builder, source: Path, target: Path, *, name: str, shapes: Sequence[str]) -> list[str]:
    if builder.command[-1] == _PYTHON:
        return [str(source), str(target), name, *shapes]
    profile = [f"--{bound}Shapes={name}:{shape}" for bound, shape in zip(("min", "opt", "max"), shapes, strict=True)]
    return [f"--onnx={source}", f"--saveEngine={target}", "--stronglyTyped", *profile, "--skipInference"]
