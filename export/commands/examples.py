"""`examples`: the models that come with the project."""

from argparse import Namespace
from functools import partial
from typing import TYPE_CHECKING, Any

from export.commands.running import Row, add_export, write
from export.examples.shipped import EXAMPLES, PRECISIONS, find_ready

if TYPE_CHECKING:
    from export.progress import Steps


def add_examples(commands: Any) -> None:
    """Add the parser of `examples`."""
    parser = commands.add_parser("examples", help="the models that come with the repository")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=PRECISIONS,
        help="of the detector: fp32 is always included; bf16 and int8 take most of the time (default: all)",
    )
    add_export(parser, _run, suggests_serve=False)


def _run(args: Namespace, steps: "Steps") -> list[Row]:
    rows = []
    for example in EXAMPLES:
        folder = find_ready(example, args.repository, precisions=args.precision)
        if folder is not None:
            rows.append(Row(folder, None))
        else:
            rows.append(write(args.repository, partial(example.prepare, example, steps, args.precision)))
    return rows
