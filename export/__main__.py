"""Bring a model into the model repository, verified, and to where it is served: `python -m export --help`."""

import argparse
import sys
import traceback
from collections.abc import Sequence

from environment.arguments import Parser, program
from export.commands import examples, keras, onnx, repository, table, tensorrt, ultralytics
from export.errors import FAILURES

# In the order of --help.
_COMMANDS = (
    ultralytics.add_ultralytics,
    onnx.add_onnx,
    keras.add_keras,
    table.add_sklearn,
    table.add_xgboost,
    examples.add_examples,
    ultralytics.add_weights,
    tensorrt.add_tensorrt,
    repository.add_publish,
    repository.add_sign,
    repository.add_fetch,
    repository.add_versions,
    repository.add_rollback,
    repository.add_unpin,
    repository.add_prune,
    repository.add_sizing,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit status 0, 1 for what the user can correct, 2 for wrong arguments."""
    args = _parser().parse_args(arguments)
    try:
        args.command(args)
    except (*FAILURES, OSError, KeyboardInterrupt) as exc:
        if args.traceback:
            traceback.print_exception(exc)
        print(f"error: {_describe(exc, args)}", file=sys.stderr)
        return 1
    return 0


def _describe(error: BaseException, args: argparse.Namespace) -> str:
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted{args.interrupted}"
    if isinstance(error, OSError):
        return f"{error.filename or args.repository}: {error.strerror or error}"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("export"),
        description="Bring a model into the model repository. It is verified against its source first; a new export "
        "takes the next version number, and nothing is ever overwritten. Then publish it to a repository that is "
        "served, on S3 or in a folder, and manage its versions there.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    for command in commands.choices.values():
        command.add_argument("--traceback", action="store_true", help="show where an error arose, above its message")
    return parser


if __name__ == "__main__":
    sys.exit(main())
