"""How a command runs: with steps and a table where it writes versions, with a console where it manages a repository."""

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from environment.project import in_project
from export.writer.versions import costs, difference

if TYPE_CHECKING:
    from rich.console import Console

    from export.progress import Steps
    from export.writer.repository import Version

UNPICKLING_WARNING = "Unpickling runs whatever code the file holds: do it only with a file whose origin you trust."
_PIPED_WIDTH = 160


@dataclass(frozen=True)
class Row:
    """A row of the table that ends a command.

    Attributes:
        folder: of a version.
        seconds: how long it took to make it; None where it was there already.
    """

    folder: Path
    seconds: float | None


Run = Callable[[Namespace, "Steps"], list[Row]]
Manage = Callable[[Namespace, "Console"], None]


def add_export(parser: ArgumentParser, run: Run, *, suggests_serve: bool = True) -> None:
    """Let a parser end with a function that writes versions into a local repository.

    Args:
        parser: of a command.
        run: that function.
        suggests_serve: whether the next step is printed; not of a command that `make serve` itself runs.
    """
    parser.add_argument(
        "--repository",
        type=Path,
        default=in_project("model_repository"),
        help="model repository (default: %(default)s)",
    )
    parser.set_defaults(command=partial(_export, run, suggests_serve), interrupted="; nothing was written")


def add_management(parser: ArgumentParser, run: Manage, *, has_default: bool = False) -> None:
    """Let a parser end with a function that manages a repository on S3 or in a folder.

    Args:
        parser: of a command.
        run: that function.
        has_default: whether it may be that of the project: for a function that only reads.
    """
    parser.add_argument(
        "--repository",
        required=not has_default,
        default=str(in_project("model_repository")) if has_default else None,
        help="s3://<bucket>/<prefix>, or a folder" + (" (default: %(default)s)" if has_default else ""),
    )
    parser.set_defaults(command=lambda args: run(args, _console()), interrupted="")


def add_unpickling(parser: ArgumentParser) -> None:
    """Add `--allow-unpickling`, for checkpoints and for estimators."""
    parser.add_argument("--allow-unpickling", action="store_true", help="run the code that the file may hold")


def write(repository: Path, prepare: "Callable[[], Version]") -> Row:
    """Prepare a version, and write it into a local repository."""
    from export.writer.repository import write_version  # noqa: PLC0415 - see the package

    began = time.monotonic()
    folder = write_version(repository, prepare())
    return Row(folder, time.monotonic() - began)


def _export(run: Run, suggests_serve: bool, args: Namespace) -> None:
    from export.progress import Steps  # noqa: PLC0415 - see the package

    console = _console()
    with Steps(console) as steps:
        rows = run(args, steps)
    _report(rows, console)
    if suggests_serve:
        console.print(f"next: make serve REPOSITORY={args.repository}", highlight=False, soft_wrap=True)


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415 - see the package

    # In a pipe or a file a line is as long as a search for a word in it needs.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def _report(rows: Sequence[Row], console: "Console") -> None:
    from rich.table import Table  # noqa: PLC0415 - see the package

    table = Table("model", "version", "interface", "MB", "difference from the source", "accuracy", "seconds")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in rows:
        console.print(f"{row.folder}", highlight=False, soft_wrap=True)


def _cells(row: Row) -> tuple[str, ...]:
    manifest = json.loads((row.folder / "manifest.json").read_bytes())
    parity = json.loads((row.folder / "parity.json").read_bytes())
    size_bytes = sum(entry["size_bytes"] for entry in manifest["files"].values())
    return (
        manifest["model"],
        manifest["version"],
        manifest.get("interface", manifest["task"]),
        f"{size_bytes / 1e6:.1f}",
        difference(parity),
        costs(manifest),
        "there already" if row.seconds is None else f"{row.seconds:.1f}",
    )
