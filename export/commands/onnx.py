"""`onnx`: any ONNX file, with its own tensors or as a classifier of images."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.commands.running import Row, add_export, write
from export.commands.ultralytics import add_precisions, find_calibration
from export.errors import ExportError
from export.writer.manifest import check_model_name

if TYPE_CHECKING:
    from export.progress import Steps
    from export.sources.choice import Choice
    from export.sources.onnx_classifier import Options

_DEFAULT_BATCH = 8
# Of other tasks what is in a file's tensors is a matter of the program that wrote it.
_ULTRALYTICS = ("detect", "segment", "pose", "obb", "semantic", "depth")


def add_onnx(commands: Any) -> None:
    """Add the parser of `onnx`."""
    parser = commands.add_parser(
        "onnx",
        help="any ONNX file, with its own tensors, or with --task classify as a classifier of images",
        description="Without --task the model is served with its own tensors, whatever they are. With --task classify "
        "it takes images, and --mean and what else the training fixed is said here, or read with --preprocessor. What "
        "Ultralytics exported is for `ultralytics`.",
    )
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("file", type=Path, help="an .onnx file; its external data lies beside it")
    parser.add_argument("--task", choices=("classify", *_ULTRALYTICS), help="classify (default: its own tensors)")
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="NPZ",
        help="an array for each input, with which its own tensors are verified (default: made-up ones)",
    )
    parser.add_argument(
        "--max-batch-size",
        type=int,
        default=_DEFAULT_BATCH,
        metavar="N",
        help="items in one request to Triton, of a file that batches; 0: none does (default: %(default)s)",
    )
    add_description(parser)
    add_precisions(parser, formats=False)
    add_export(parser, _run)


def add_description(parser: ArgumentParser) -> None:
    """Add what `--task classify` reads."""
    group = parser.add_argument_group("of --task classify")
    group.add_argument(
        "--preprocessor",
        type=Path,
        metavar="JSON",
        help="preprocessor_config.json of transformers, or config.json of timm: size, crop, mean, std, labels",
    )
    group.add_argument("--labels", help="a file with a name on each line or JSON, or names between commas")
    group.add_argument(
        "--fit",
        choices=("shortest", "stretch"),
        help="shortest: the shorter side becomes --size, then the centre is cut out; stretch: all of the image becomes "
        "--size (default: shortest of a square)",
    )
    group.add_argument("--size", type=_sides, metavar="N|HxW", help="of the resized image (default: --crop)")
    group.add_argument(
        "--crop", type=_sides, metavar="N|HxW", help="that the graph gets (default: what the file fixes)"
    )
    group.add_argument("--interpolation", help="bilinear, bicubic, nearest, box, hamming, lanczos (default: bilinear)")
    group.add_argument("--scale", type=_fraction, help="what a pixel is multiplied by before --mean (default: 1/255)")
    for key in ("mean", "std"):
        group.add_argument(f"--{key}", nargs="+", metavar="NUMBER", help="of each channel, or of all, or imagenet")
    group.add_argument("--layout", choices=("nchw", "nhwc"), help="(default: where the file has 1 or 3 channels)")
    group.add_argument("--channels", choices=("rgb", "bgr", "grey"), help="(default: rgb, or grey of one channel)")
    group.add_argument(
        "--softmax",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether the file returns logits (default: auto, by the numbers that it returns)",
    )
    group.add_argument("--output", metavar="NAME", help="that has a number for each class, of several")


def _sides(text: str) -> int | list[int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ArgumentTypeError(f"got {text}, expected a number such as 224, or height and width such as 192x256")
    return int(sides[0]) if len(sides) == 1 else [int(side) for side in sides]


def _fraction(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise ArgumentTypeError(f"got {text}, expected a number such as 1/255 or 1") from None


def _run(args: Namespace, steps: "Steps") -> list[Row]:
    check_model_name(args.model)
    if args.task in _ULTRALYTICS:
        raise ExportError(
            f"--task {args.task}: got an ONNX file whose layout it does not say; next: `export ultralytics` for a file "
            "that Ultralytics exported, or omit --task, which serves its own tensors"
        )
    return [write(args.repository, partial(_classifier if args.task else _tensors, args, steps))]


def _tensors(args: Namespace, steps: "Steps") -> Any:
    from export.sources.onnx_tensors import prepare  # noqa: PLC0415 - see the package

    given = [key for key in ("labels", "preprocessor", "mean", "std", "size", "crop") if getattr(args, key) is not None]
    if given:
        raise ExportError(f"--{given[0]}: is of a classifier, expected --task classify beside it")
    return prepare(
        args.model, args.file, inputs=args.inputs, max_batch_size=args.max_batch_size, report=reporter(steps)
    )


def _classifier(args: Namespace, steps: "Steps") -> Any:
    from export.sources.classifier import prepare  # noqa: PLC0415 - see the package
    from export.sources.onnx_classifier import read_classifier  # noqa: PLC0415
    from export.writer.manifest import Source, digest  # noqa: PLC0415

    if args.inputs is not None:
        raise ExportError("--inputs: is of a model with its own tensors; next: omit it, or --task")
    choice = choose(args, steps)
    options = read_options(args)
    steps.say(f"read {args.file.name}")
    classifier = read_classifier(args.file, options)
    if options.labels is None:
        steps.warn(f"{args.file.name}: got no --labels: its {len(classifier.description.names)} classes have numbers")
    source = Source(args.file.name, digest(args.file))
    return prepare(args.model, classifier, source=source, choice=choice, report=reporter(steps))


def read_options(args: Namespace) -> "Options":
    """What the arguments of `add_description` say of a classifier."""
    from export.sources.onnx_classifier import Options, add_preprocessor  # noqa: PLC0415 - see the package
    from export.sources.preprocessor import read_labels  # noqa: PLC0415

    options = Options(
        labels=None if args.labels is None else read_labels(args.labels),
        fit=args.fit,
        size=args.size,
        crop=[args.crop] * 2 if isinstance(args.crop, int) else args.crop,
        mean=_read_numbers("mean", args.mean),
        std=_read_numbers("std", args.std),
        scale=args.scale,
        layout=args.layout,
        channels=args.channels,
        interpolation=args.interpolation,
        softmax=args.softmax,
        output=args.output,
    )
    return options if args.preprocessor is None else add_preprocessor(options, args.preprocessor)


def _read_numbers(key: str, words: list[str] | None) -> tuple[float, ...] | None:
    from export.sources.onnx_classifier import IMAGENET  # noqa: PLC0415 - see the package

    if words is None:
        return None
    if words == ["imagenet"]:
        return IMAGENET[key]
    try:
        return tuple(float(part) for word in words for part in word.split(","))
    except ValueError:
        raise ExportError(f"--{key}: got {' '.join(words)}, expected numbers, or imagenet") from None


def choose(args: Namespace, steps: "Steps") -> "Choice":
    """The precisions, with the images that they are measured on."""
    from export.sources.choice import Choice  # noqa: PLC0415 - see the package

    if "int8" in args.precision and args.calibration is None:
        raise ExportError("--precision int8: got no --calibration, expected a folder of what the model will see")
    return Choice(precisions=args.precision, calibration=find_calibration(args, steps))


def reporter(steps: "Steps") -> Any:
    """What shows the steps of an export."""
    from export.sources.choice import Reporter  # noqa: PLC0415 - see the package

    return Reporter(steps.say, steps.track, steps.warn)
