"""The predictor: the embedded Triton, and the synchroniser that keeps its models up to date."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsError

from predictor.errors import StartError, WrongSetting
from predictor.settings import Settings
from predictor.triton.command import compose_command
from predictor.triton.installation import find_installation, link_backends
from predictor.triton.libpython import fetch_libpython
from predictor.triton.preflight import check_libraries, check_ports, check_repository, find_missing_library
from predictor.triton.privacy import close_to_others


def main() -> None:
    """Run the subcommand that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m predictor", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "triton",
        help="start the embedded Triton on the model repository, in the foreground",
        description="Start the embedded Triton in the foreground. Its settings are environment variables: "
        + ", ".join(_variable(name) for name in Settings.model_fields),
    )
    commands.add_parser(
        "sync",
        help="mirror a model repository on S3, or a folder, and have Triton serve what is new and good",
        description="List PREDICTOR_REPOSITORY every PREDICTOR_POLL_S seconds, bring what is new into PREDICTOR_MIRROR "
        "and have Triton load it. /status and /metrics are on PREDICTOR_SYNC_PORT.",
    )
    judge = commands.add_parser(
        "judge",
        help="say whether a model repository holds anything that must not be loaded, before a Triton reads it itself",
        description="What the synchroniser refuses is refused: status 1. PREDICTOR_PROFILE and PREDICTOR_PLANS count.",
    )
    judge.add_argument("folder", type=Path, metavar="FOLDER", help="the model repository")
    commands.add_parser("install", help="complete the environment of the embedded Triton (PREDICTOR_VENV)")
    arguments = parser.parse_args()
    run: dict[str, Callable[[Settings], None]] = {
        "triton": start_triton,
        "sync": synchronise,
        "install": complete_installation,
        "judge": lambda settings: judge_folder(arguments.folder, settings),
    }
    try:
        run[arguments.command](Settings())
    except ValidationError as exc:
        first = exc.errors()[0]
        name = _variable(str(first["loc"][0]))
        print(f"error: {name}={first['input']}: {first['msg']}", file=sys.stderr)
        sys.exit(2)  # as argparse for a wrong argument: to start it again is of no use
    except SettingsError as exc:  # invalid JSON
        print(f"error: {exc}: {exc.__cause__}", file=sys.stderr)
        sys.exit(2)
    except WrongSetting as exc:
        print(f"error: {exc}", file=sys.stderr)
        sys.exit(2)
    except StartError as exc:
        sys.exit(f"error: {exc}")


def _variable(name: str) -> str:
    """The environment variable of a setting."""
    name = name.upper()
    return name if name == "LOG_FORMAT" else f"PREDICTOR_{name}"


def start_triton(settings: Settings) -> None:
    """Replace this process by `tritonserver`, so that signals meant for it need nobody to pass them on.

    Raises:
        StartError: it cannot start.
    """
    check_repository(settings)
    check_ports(settings)
    installation = find_installation(settings.venv)
    argv, env = compose_command(settings, installation, environ=os.environ)
    check_libraries(installation, env)
    link_backends(installation)
    if open_why := close_to_others():
        words = "other users of this machine can read what models are asked"
        print(f"warning: {words} ({open_why}); next: not on a machine that you share", file=sys.stderr, flush=True)
    os.execve(argv[0], argv, env)  # noqa: S606 - no shell is wanted


def synchronise(settings: Settings) -> None:
    """Run the synchroniser until SIGTERM or Ctrl-C.

    Raises:
        StartError: it cannot start.
    """
    from predictor.sync.server import serve  # noqa: PLC0415 - boto3 and FastAPI take a while

    serve(settings)


def judge_folder(folder: Path, settings: Settings) -> None:
    """Print what may be loaded from a folder and what must not be; ends with status 1 where anything must not.

    Raises:
        StartError: it cannot be read, or holds no version.
    """
    from predictor.judge import judge_repository, report  # noqa: PLC0415 - boto3 takes a while

    counts = report(judge_repository(folder, profile=settings.profile, plans=settings.plans))
    if counts[False]:
        raise StartError(f"{folder}: {counts[False]} of {sum(counts.values())} refused; no Triton should read it")
    if not counts[True]:
        raise StartError(f"{folder}: got no version, expected <model>/<version>/model.onnx")


def complete_installation(settings: Settings) -> None:
    """Fetch what pip could not put into the environment; does nothing where nothing is missing.

    Raises:
        StartError: something is still missing.
    """
    installation = find_installation(settings.venv)
    _, env = compose_command(settings, installation, environ=os.environ)
    if "libpython" in (find_missing_library(installation, env) or ""):
        print(f"fetched {fetch_libpython(installation)}")
    installation = find_installation(settings.venv)
    _, env = compose_command(settings, installation, environ=os.environ)
    check_libraries(installation, env)


if __name__ == "__main__":
    main()
