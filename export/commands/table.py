"""The commands `sklearn` and `xgboost`: export an estimator that was fitted on tabular data."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.commands.running import UNPICKLING_WARNING, Row, add_export, add_unpickling, write
from export.errors import ExportError
from export.writer.manifest import Source, check_model_name, digest

if TYPE_CHECKING:
    from export.progress import Steps
    from export.writer.repository import Version


def add_sklearn(commands: Any) -> None:
    """Add the parser of `sklearn`."""
    parser = commands.add_parser(
        "sklearn",
        help="a pickled or joblib scikit-learn classifier, regressor or pipeline",
        description=f"{UNPICKLING_WARNING} Without --allow-unpickling it is not even opened.",
    )
    _add_arguments(parser, "a pickle or joblib file of a fitted estimator")
    add_export(parser, _run_sklearn)


def add_xgboost(commands: Any) -> None:
    """Add the parser of `xgboost`."""
    parser = commands.add_parser(
        "xgboost",
        help="an XGBoost model, with the steps before it in the same graph",
        description="XGBoost's own .json or .ubj needs no unpickling; a pickled model, a pickled pipeline that ends in "
        f"one, and a scaler do. {UNPICKLING_WARNING}",
    )
    _add_arguments(parser, ".json or .ubj of XGBoost, or a pickle or joblib file")
    parser.add_argument("--scaler", type=Path, help="a pickle or joblib file of the StandardScaler before the model")
    add_export(parser, _run_xgboost)


def _add_arguments(parser: ArgumentParser, file: str) -> None:
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("file", type=Path, help=file)
    add_unpickling(parser)
    parser.add_argument("--features", nargs="+", metavar="NAME", help="columns (default: what the estimator remembers)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="classes (default: what the estimator remembers)")
    parser.add_argument(
        "--rows",
        type=Path,
        metavar="FILE",
        help="a CSV file of rows to verify the model with (default: rows near what the estimator remembers)",
    )


def _run_sklearn(args: Namespace, steps: "Steps") -> list[Row]:
    check_model_name(args.model)
    from export.sources.pickles import unpickle  # noqa: PLC0415 - see the package
    from export.sources.sklearn import prepare  # noqa: PLC0415

    steps.say(f"read {args.file.name}, convert and compare")
    estimator = unpickle(args.file, allowed=args.allow_unpickling)
    return [write(args.repository, partial(_prepare, args, steps, partial(prepare, estimator)))]


def _run_xgboost(args: Namespace, steps: "Steps") -> list[Row]:
    check_model_name(args.model)
    from export.sources.tabular import prepare  # noqa: PLC0415 - see the package
    from export.sources.xgboost import read  # noqa: PLC0415

    steps.say(f"read {args.file.name}, convert and compare")
    model = read(args.file, scaler=args.scaler, allowed=args.allow_unpickling)
    return [write(args.repository, partial(_prepare, args, steps, partial(prepare, model)))]


def _prepare(args: Namespace, steps: "Steps", prepare: "Callable[..., Version]") -> "Version":
    """Prepare a version of a table model, and print its warnings above the steps."""
    from export.sources.pickles import NEXT, of_other_version  # noqa: PLC0415 - see the package
    from export.sources.tabular import Table  # noqa: PLC0415

    other = of_other_version(args.file)
    source = Source(args.file.name, digest(args.file))
    try:
        version = prepare(Table(args.model, args.features, args.classes, args.rows), source=source)
    except ExportError as exc:
        if other is None:
            raise
        reason = str(exc).partition("; next: ")[0]  # such as --rows, which does not help there
        raise ExportError(f"{args.file}: {other}: {reason}; {NEXT}") from exc
    for note in (*([f"{args.file}: {other}"] if other else []), *version.parity.get("notes", ())):
        steps.warn(note)
    return version
