"""The option that permits unpickling, which the commands for checkpoints and for estimators share."""

from argparse import ArgumentParser

WARNING = "Unpickling runs whatever code the file holds: do it only with a file whose origin you trust."


def add_unpickling(parser: ArgumentParser) -> None:
    """Add `--allow-unpickling`."""
    parser.add_argument("--allow-unpickling", action="store_true", help="run the code that the file may hold")
