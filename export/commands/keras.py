"""`keras`: a model of Keras or TensorFlow."""

from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.commands.onnx import add_description, choose, read_options, reporter
from export.commands.running import Row, add_export, add_unpickling, write
from export.commands.ultralytics import add_precisions
from export.writer.manifest import check_model_name

if TYPE_CHECKING:
    from export.progress import Steps


def add_keras(commands: Any) -> None:
    """Add the parser of `keras`."""
    parser = commands.add_parser(
        "keras",
        help="a model of Keras or TensorFlow: .keras, .h5, or the folder of a SavedModel",
        description="A classifier of images is served as one, anything else with its own tensors. A .keras or .h5 file "
        "is loaded in Keras' safe mode; one with code (a Lambda layer), and any SavedModel, which is a program, with "
        "--allow-unpickling alone: do it only with a file whose origin you trust. How images came to the model's size, "
        "and what scaled their pixels outside of it, is in no file: --fit and --scale say it.",
    )
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("file", type=Path, help="a .keras or .h5 file, or the folder of a SavedModel")
    add_unpickling(parser)
    parser.add_argument("--signature", metavar="NAME", help="of a SavedModel (default: serving_default)")
    parser.add_argument(
        "--task",
        choices=("classify", "none"),
        help="classify: images in, probabilities out; none: its own tensors (default: classify, where it takes images)",
    )
    add_description(parser)
    add_precisions(parser, formats=False)
    add_export(parser, _run)


def _run(args: Namespace, steps: "Steps") -> list[Row]:
    check_model_name(args.model)
    from export.sources.keras_file import check_file  # noqa: PLC0415 - see the package

    check_file(args.file, allowed=args.allow_unpickling)  # before anything is imported that takes seconds
    from export.sources.keras import Model, prepare  # noqa: PLC0415

    model = Model(args.file, args.task, read_options(args), args.signature, args.allow_unpickling)
    made = partial(prepare, args.model, model, choice=choose(args, steps), report=reporter(steps))
    return [write(args.repository, made)]
