"""`tensorrt`: a version once more, with a plan for the GPU of this machine."""

from argparse import Namespace
from pathlib import Path
from typing import Any


def add_tensorrt(commands: Any) -> None:
    """Add the parser of `tensorrt`."""
    parser = commands.add_parser(
        "tensorrt",
        help="a version again, with a TensorRT plan for this machine's GPU",
        description="The next version of a detector has all files of this one and a plan in FP16, with the decoding of "
        "boxes in FP32, for the profile tensorrt. Made to run in the Triton image that serves: it needs trtexec or "
        "Python's package tensorrt, Python 3.11, and the onnx package.",
    )
    parser.add_argument("folder", type=Path, help="of the version, such as model_repository/yolov8n/3")
    parser.set_defaults(command=_run, interrupted="; nothing was written", repository="")


def _run(args: Namespace) -> None:
    from export.sources.tensorrt import add_plan, find_builder  # noqa: PLC0415 - see the package

    builder = find_builder()
    print(f"build {builder.filename} with {Path(builder.command[0]).name}; this takes minutes", flush=True)
    print(add_plan(args.folder, builder))
