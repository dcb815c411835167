"""Bring a model into the model repository, proven, and to where it is served: `python -m export --help`."""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from environment.arguments import Parser, program
from environment.project import in_project
from export import examples
from export.errors import FAILURES, ExportError
from export.manifest import Source, check_model_name, digest
from export.versions import costs, difference

if TYPE_CHECKING:
    from rich.console import Console

    from export.progress import Steps
    from export.repository import Version

# Each command imports what it needs when it runs: torch, scikit-learn and XGBoost are for their own commands only, and
# `tensorrt` has to do with little.

_UNPICKLING = "Unpickling runs whatever code the file holds: do it only with a file whose origin you trust."


@dataclass(frozen=True)
class Row:
    """A line of the table at the end."""

    folder: Path
    seconds: float | None


Run = Callable[[argparse.Namespace, "Steps"], list[Row]]


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
        description="Bring a model into the model repository. It is proven equal to its source first; a new export "
        "takes the next version number, and nothing is ever overwritten. Then publish it to a repository that is "
        "served, on S3 or in a folder, and manage its versions there.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_ultralytics(commands)
    _add_sklearn(commands)
    _add_xgboost(commands)
    prepare = commands.add_parser("examples", help="the three models that come with the repository")
    prepare.add_argument(
        "--precision",
        nargs="+",
        choices=examples.PRECISIONS,
        default=examples.PRECISIONS,
        help="of the detector: fp32 is always there; bf16 and int8 take most of the time (default: all)",
    )
    _add_common(prepare, _run_examples)
    weights = commands.add_parser("weights", help="reject weights that cannot be exported, before torch is installed")
    weights.add_argument("weights", help="as `ultralytics` takes them")
    weights.set_defaults(command=_check_weights, interrupted="", repository="")
    _add_tensorrt(commands)
    _add_publish(commands)
    _add_fetch(commands)
    _add_versions(commands)
    _add_rollback(commands)
    _add_prune(commands)
    _add_sizing(commands)
    for command in commands.choices.values():
        command.add_argument("--traceback", action="store_true", help="show where an error arose, above its message")
    return parser


def _add_ultralytics(commands: Any) -> None:
    parser = commands.add_parser(
        "ultralytics",
        help="a YOLO detector: .pt weights, or the ONNX file or engine that Ultralytics exports from them",
        description="A .pt file needs torch and ultralytics, and is a pickle; without --allow-unpickling only official "
        f"ones are loaded, known by their digests. {_UNPICKLING} An ONNX file is neither.",
    )
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("weights", help="a .pt file, an official name such as yolov8n.pt, or an .onnx or .engine file")
    _add_unpickling(parser)
    parser.add_argument(
        "--interface",
        choices=("fused", "ultralytics"),
        default="fused",
        help="fused: pixels in, boxes with their best class out; ultralytics: as Ultralytics' own client wants it "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--letterbox",
        choices=("rectangle", "square"),
        help="rectangle: height and width stay free, least work on a CPU; square: they are fixed, pictures batch "
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
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("fp32", "bf16", "int8"),
        default=["fp32"],
        help="fp32 is always there; bf16: measure what the profile fast costs; int8: write model.int8.onnx and its "
        "profile, and measure it (default: fp32)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="pictures of what the model will see, 100 or more, or a data set with images/ and labels/: int8 is "
        "calibrated with them, precisions are measured on them",
    )
    parser.add_argument(
        "--format",
        choices=("onnx", "tensorrt"),
        default="onnx",
        help="tensorrt: a plan for this machine's GPU beside model.onnx (default: %(default)s)",
    )
    _add_common(parser, _run_ultralytics)


def _add_sklearn(commands: Any) -> None:
    parser = commands.add_parser(
        "sklearn",
        help="a pickled or joblib scikit-learn classifier, regressor or pipeline",
        description=f"{_UNPICKLING} Without --allow-unpickling it is not even opened.",
    )
    _add_table(parser, "a pickle or joblib file of a fitted estimator")
    _add_common(parser, _run_sklearn)


def _add_xgboost(commands: Any) -> None:
    parser = commands.add_parser(
        "xgboost",
        help="an XGBoost model, with the steps before it in the same graph",
        description="XGBoost's own .json or .ubj needs no unpickling; a pickled model, a pickled pipeline that ends in "
        f"one, and a scaler do. {_UNPICKLING}",
    )
    _add_table(parser, ".json or .ubj of XGBoost, or a pickle or joblib file")
    parser.add_argument("--scaler", type=Path, help="a pickle or joblib file of the StandardScaler before the model")
    _add_common(parser, _run_xgboost)


def _add_tensorrt(commands: Any) -> None:
    parser = commands.add_parser(
        "tensorrt",
        help="a version again, with a TensorRT plan for this machine's GPU",
        description="The next version of a detector has all files of this one and a plan in FP16, with the decoding of "
        "boxes in FP32, for the profile tensorrt. Made to run in the Triton image that serves: it needs trtexec or "
        "Python's package tensorrt, Python 3.11, and the onnx package.",
    )
    parser.add_argument("folder", type=Path, help="of the version, such as model_repository/yolov8n/3")
    parser.set_defaults(command=_build_plan, interrupted="; nothing was written", repository="")


def _add_table(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("file", type=Path, help=what)
    _add_unpickling(parser)
    parser.add_argument("--features", nargs="+", metavar="NAME", help="columns (default: what the estimator remembers)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="classes (default: what the estimator remembers)")
    parser.add_argument(
        "--rows",
        type=Path,
        metavar="FILE",
        help="a CSV file of rows to verify the model with (default: rows near what the estimator remembers)",
    )


def _add_unpickling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--allow-unpickling", action="store_true", help="run the code that the file may hold")


def _add_common(parser: argparse.ArgumentParser, run: Run) -> None:
    parser.add_argument(
        "--repository",
        type=Path,
        default=in_project("model_repository"),
        help="model repository (default: %(default)s)",
    )
    parser.set_defaults(command=partial(_export, run), interrupted="; nothing was written")


def _add_publish(commands: Any) -> None:
    parser = commands.add_parser(
        "publish", help="upload a version as the next one of a repository that is served, and wait until it serves"
    )
    parser.add_argument("model", help="name in both repositories")
    parser.add_argument(
        "--from", dest="source", type=Path, default=in_project("model_repository"), help="local (default: %(default)s)"
    )
    parser.add_argument("--version", help="of the local repository (default: the newest)")
    parser.add_argument("--wait", metavar="URL", help="of the transformer: wait until it serves the version")
    parser.add_argument("--timeout", type=float, default=120, metavar="S", help="of --wait (default: %(default)s)")
    parser.add_argument(
        "--force",
        action="store_true",
        help="publish again what is there already, or what clients of the model do not expect",
    )
    _add_remote(parser, "publish")


def _add_fetch(commands: Any) -> None:
    parser = commands.add_parser("fetch", help="copy a version of a repository to a local one")
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("--version", help="number (default: the newest that is complete)")
    parser.add_argument("--to", type=Path, required=True, help="local repository; this version there is replaced")
    _add_remote(parser, "fetch")


def _add_versions(commands: Any) -> None:
    parser = commands.add_parser("versions", help="what a repository holds, and what of it serves")
    parser.add_argument("model", nargs="?", help="only this one")
    parser.add_argument("--url", help="of the transformer, to say what serves")
    _add_read(parser)
    parser.set_defaults(command=partial(_manage, "versions"), interrupted="")


def _add_rollback(commands: Any) -> None:
    parser = commands.add_parser("rollback", help="pin the version before the one that serves")
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("--url", help="of the transformer, to know what serves (default: what the policy asks for)")
    _add_remote(parser, "rollback")
    parser = commands.add_parser("unpin", help="let the newest version serve again")
    parser.add_argument("model", help="name in the repository")
    _add_remote(parser, "unpin")


def _add_prune(commands: Any) -> None:
    parser = commands.add_parser("prune", help="delete old versions that nothing asks for")
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("--keep", type=int, default=3, help="so many of the newest stay (default: %(default)s)")
    parser.add_argument("--url", help="of the transformer, so that nothing goes that serves")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    _add_remote(parser, "prune")


def _add_sizing(commands: Any) -> None:
    parser = commands.add_parser("sizing", help="memory, disks, quota and S3's requests of the pods that serve it")
    parser.add_argument("--pods", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--poll-s", type=float, default=10.0, help="seconds between listings (default: %(default)s)")
    _add_read(parser)
    parser.set_defaults(command=_size, interrupted="")


def _add_remote(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--repository", required=True, help="s3://<bucket>/<prefix>, or a folder")
    parser.set_defaults(command=partial(_manage, name), interrupted="")


def _add_read(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repository",
        default=str(in_project("model_repository")),
        help="s3://<bucket>/<prefix>, or a folder (default: %(default)s)",
    )


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415 - see above

    # Where nobody looks, lines are as long as they must be for those who search them.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _export(run: Run, args: argparse.Namespace) -> None:
    from export.progress import Steps  # noqa: PLC0415 - see above

    console = _console()
    with Steps(console) as steps:
        rows = run(args, steps)
    _report(rows, args.repository, console)


def _manage(name: str, args: argparse.Namespace) -> None:
    from export.remote import commands  # noqa: PLC0415 - see above

    getattr(commands, name)(args, _console())


def _size(args: argparse.Namespace) -> None:
    from export.remote.sizing import sizing  # noqa: PLC0415 - see above

    sizing(args, _console())


def _build_plan(args: argparse.Namespace) -> None:
    from export.tensorrt import add_plan, find_builder  # noqa: PLC0415 - see above

    builder = find_builder()
    print(f"build {builder.filename} with {Path(builder.command[0]).name}; this takes minutes", flush=True)
    print(add_plan(args.folder, builder))


def _check_weights(args: argparse.Namespace) -> None:
    from export.weights_file import check_weights  # noqa: PLC0415 - see above

    if Path(args.weights).suffix not in {".onnx", ".engine"}:
        check_weights(args.weights)


def _run_ultralytics(args: argparse.Namespace, steps: "Steps") -> list[Row]:
    check_model_name(args.model)
    from export.calibration import ENOUGH, Folder  # noqa: PLC0415 - see above
    from export.ultralytics import Choice, prepare  # noqa: PLC0415

    pictures = Folder(args.calibration) if args.calibration else None
    if pictures is not None and len(pictures) < ENOUGH:
        steps.warn(f"--calibration {args.calibration}: got {len(pictures)} pictures, expected {ENOUGH} or more")
    builder = None
    if args.format == "tensorrt":
        from export.tensorrt import find_builder  # noqa: PLC0415

        builder = find_builder()
    choice = Choice(
        args.interface,
        args.letterbox,
        args.imgsz,
        args.precision,
        pictures,
        builder,
        unpickling=args.allow_unpickling,
        nms_free=args.nms_free,
        predict=args.predict,
    )
    prove = partial(prepare, args.model, args.weights, choice=choice, say=steps.say, track=steps.track, warn=steps.warn)
    return [_publish(args, prove)]


def _run_sklearn(args: argparse.Namespace, steps: "Steps") -> list[Row]:
    check_model_name(args.model)
    from export.tables.pickles import unpickle  # noqa: PLC0415 - see above
    from export.tables.sklearn import prepare  # noqa: PLC0415

    steps.say(f"read {args.file.name}, convert and compare")
    estimator = unpickle(args.file, allowed=args.allow_unpickling)
    return [_publish(args, partial(_prove_table, args, steps, partial(prepare, estimator)))]


def _run_xgboost(args: argparse.Namespace, steps: "Steps") -> list[Row]:
    check_model_name(args.model)
    from export.tables.table import prepare  # noqa: PLC0415 - see above
    from export.tables.xgboost import read  # noqa: PLC0415

    steps.say(f"read {args.file.name}, convert and compare")
    model = read(args.file, scaler=args.scaler, allowed=args.allow_unpickling)
    return [_publish(args, partial(_prove_table, args, steps, partial(prepare, model)))]


def _prove_table(args: argparse.Namespace, steps: "Steps", prepare: "Callable[..., Version]") -> "Version":
    """Prepare a version of a table model, and print its warnings above the steps."""
    from export.tables.pickles import NEXT, of_other_version  # noqa: PLC0415 - see above
    from export.tables.table import Table  # noqa: PLC0415

    other = of_other_version(args.file)
    try:
        version = prepare(Table(args.model, args.features, args.classes, args.rows), source=_source(args.file))
    except ExportError as exc:
        if other is None:
            raise
        reason = str(exc).partition("; next: ")[0]  # such as --rows, which does not help there
        raise ExportError(f"{args.file}: {other}: {reason}; {NEXT}") from exc
    for note in (*([f"{args.file}: {other}"] if other else []), *version.parity.get("notes", ())):
        steps.warn(note)
    return version


def _run_examples(args: argparse.Namespace, steps: "Steps") -> list[Row]:
    rows = []
    for example in examples.EXAMPLES:
        folder = examples.find_ready(example, args.repository, precisions=args.precision)
        if folder is not None:
            rows.append(Row(folder, None))
        else:
            rows.append(_publish(args, partial(example.prepare, example, steps, args.precision)))
    return rows


def _publish(args: argparse.Namespace, prepare: "Callable[[], Version]") -> Row:
    from export.repository import publish  # noqa: PLC0415 - see above

    began = time.monotonic()
    folder = publish(args.repository, prepare())
    return Row(folder, time.monotonic() - began)


def _source(path: Path) -> Source:
    return Source(path.name, digest(path))


def _report(rows: Sequence[Row], repository: Path, console: "Console") -> None:
    from rich.table import Table as Grid  # noqa: PLC0415 - see above

    grid = Grid("model", "version", "interface", "MB", "difference from the source", "mAP50-95", "seconds")
    for row in rows:
        manifest = json.loads((row.folder / "manifest.json").read_bytes())
        parity = json.loads((row.folder / "parity.json").read_bytes())
        size_bytes = sum(entry["size_bytes"] for entry in manifest["files"].values())
        grid.add_row(
            manifest["model"],
            manifest["version"],
            manifest.get("interface", manifest["task"]),
            f"{size_bytes / 1e6:.1f}",
            difference(parity),
            costs(manifest),
            "there already" if row.seconds is None else f"{row.seconds:.1f}",
        )
    console.print(grid)
    for row in rows:
        console.print(f"{row.folder}", highlight=False, soft_wrap=True)
    console.print(f"next: make serve REPOSITORY={repository}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
