"""`ultralytics`: a model of Ultralytics; `weights`: whether weights can be exported."""

from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.commands.running import UNPICKLING_WARNING, Row, add_export, add_unpickling, write
from export.writer.manifest import check_model_name

if TYPE_CHECKING:
    from export.progress import Steps
    from export.proof.calibration import Folder
    from export.sources.tensorrt import Builder


def add_ultralytics(commands: Any) -> None:
    """Add the parser of `ultralytics`."""
    parser = commands.add_parser(
        "ultralytics",
        help="a YOLO model (boxes, masks, keypoints, rotated boxes) or RT-DETR: .pt weights, or the ONNX file or "
        "engine that Ultralytics exports from them",
        description="A .pt file needs torch and ultralytics, and is a pickle: it is loaded where its SHA-256 is on the "
        f"list in export/sources/trusted_checkpoints.py, any other with --allow-unpickling. {UNPICKLING_WARNING} An "
        "ONNX file needs none of this.",
    )
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("weights", help="a .pt file, an official name such as yolov8n.pt, or an .onnx or .engine file")
    add_unpickling(parser)
    _add_form(parser)
    add_precisions(parser)
    add_export(parser, _run)


def _add_form(parser: ArgumentParser) -> None:
    """Add the options for inputs and outputs of the exported graph."""
    parser.add_argument(
        "--interface",
        choices=("fused", "ultralytics"),
        default="fused",
        help="fused: pixels in, boxes with their best class (and masks, keypoints or angles) out; ultralytics: as "
        "Ultralytics' own client expects it (default: %(default)s)",
    )
    parser.add_argument(
        "--letterbox",
        choices=("rectangle", "square"),
        help="rectangle: height and width stay free, least work on a CPU; square: they are fixed, images batch "
        "(default: rectangle, where the file leaves them free)",
    )
    parser.add_argument("--imgsz", type=int, help="input size of the export (.pt only; default: as trained)")
    parser.add_argument(
        "--nms-free",
        action="store_true",
        help="of YOLO26 and YOLOv10, which have two heads, the one that needs no NMS (.pt only; default: the other, as "
        "Ultralytics exports; an ONNX file says itself which it has)",
    )
    parser.add_argument(
        "--predict",
        action="store_true",
        help="compare an ONNX file with Ultralytics' own predict, which needs torch and ultralytics; a .pt always is",
    )


def add_precisions(parser: ArgumentParser, *, formats: bool = True) -> None:
    """Add the options for how the graph runs; `formats`: whether there may be a TensorRT plan too."""
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("fp32", "bf16", "int8"),
        default=["fp32"],
        help="fp32 is always included; bf16: measure what the profile fast costs; int8: write model.int8.onnx and its "
        "profile, and measure it (default: fp32)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="images of what the model will see, 100 or more, or a data set with images/ and labels/: int8 is "
        "calibrated with them, precisions are measured on them",
    )
    if not formats:
        return
    parser.add_argument(
        "--format",
        choices=("onnx", "tensorrt"),
        default="onnx",
        help="tensorrt: a plan for this machine's GPU beside model.onnx (default: %(default)s)",
    )


def add_weights(commands: Any) -> None:
    """Add the parser of `weights`."""
    parser = commands.add_parser("weights", help="reject weights that cannot be exported, before torch is installed")
    parser.add_argument("weights", help="as `ultralytics` and `keras` take them")
    add_unpickling(parser)
    parser.set_defaults(command=_check_weights, interrupted="", repository="")


def _run(args: Namespace, steps: "Steps") -> list[Row]:
    check_model_name(args.model)
    from export.sources.choice import Choice  # noqa: PLC0415 - see the package
    from export.sources.ultralytics import prepare  # noqa: PLC0415

    choice = Choice(
        args.interface,
        args.letterbox,
        args.imgsz,
        args.precision,
        find_calibration(args, steps),
        _find_builder(args),
        unpickling=args.allow_unpickling,
        nms_free=args.nms_free,
        predict=args.predict,
    )
    made = partial(prepare, args.model, args.weights, choice=choice, say=steps.say, track=steps.track, warn=steps.warn)
    return [write(args.repository, made)]


def find_calibration(args: Namespace, steps: "Steps") -> "Folder | None":
    """The images of `--calibration`, with a warning where they are few."""
    from export.proof.calibration import ENOUGH, Folder  # noqa: PLC0415 - see the package

    if args.calibration is None:
        return None
    images = Folder(args.calibration)
    if len(images) < ENOUGH:
        steps.warn(f"--calibration {args.calibration}: got {len(images)} images, expected {ENOUGH} or more")
    return images


def _find_builder(args: Namespace) -> "Builder | None":
    if args.format != "tensorrt":
        return None
    from export.sources.tensorrt import find_builder  # noqa: PLC0415 - see the package

    return find_builder()


def _check_weights(args: Namespace) -> None:
    from export.sources.keras_file import check_file, find_kind  # noqa: PLC0415 - see the package
    from export.sources.weights_file import check_weights  # noqa: PLC0415

    path = Path(args.weights)
    if find_kind(path) is not None:
        check_file(path, allowed=args.allow_unpickling)
    elif path.suffix not in {".onnx", ".engine"}:
        check_weights(args.weights)
