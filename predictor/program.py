"""The predictor: the embedded Triton, and the synchroniser that keeps its models up to date."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsError

from environment.variables import describe_invalid, variable
from predictor.errors import StartError, WrongSetting
from predictor.settings import Settings
from predictor.triton.command import compose_command
from predictor.triton.installation import find_installation, link_backends
from predictor.triton.libpython import fetch_libpython
from predictor.triton.preflight import (
    check_libraries,
    check_ports,
    check_repository,
    check_shared_memory,
    find_missing_library,
)
from predictor.triton.privacy import close_to_others
from registry.profiles import first_of

Command = Callable[[Settings, argparse.Namespace], None]


def main() -> None:
    """Run the subcommand that the arguments name."""
    arguments = _build_parser().parse_args()
    run: Command = arguments.run
    try:
        run(Settings(), arguments)
    except ValidationError as exc:
        print(f"error: {next(describe_invalid(Settings, exc))}", file=sys.stderr)
        sys.exit(2)  # as argparse for an invalid argument: restarting will not help
    except SettingsError as exc:  # invalid JSON
        print(f"error: {exc}: {exc.__cause__}", file=sys.stderr)
        sys.exit(2)
    except WrongSetting as exc:
        print(f"error: {exc}", file=sys.stderr)
        sys.exit(2)
    except StartError as exc:
        sys.exit(f"error: {exc}")


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m predictor", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    triton = commands.add_parser(
        "triton",
        help="start the embedded Triton on the model repository, in the foreground",
        description="Start the embedded Triton in the foreground. Its settings are environment variables: "
        + ", ".join(variable(Settings, name) for name in Settings.model_fields),
    )
    triton.set_defaults(run=start_triton)
    synchroniser = commands.add_parser(
        "synchroniser",
        aliases=["sync"],  # its first name, which manifests of users may have
        help="mirror a model repository on S3, or a folder, and have Triton serve each valid version",
        description="List PREDICTOR_REPOSITORY every PREDICTOR_POLL_S seconds, download new versions into "
        "PREDICTOR_MIRROR and have Triton load them. /status and /metrics are on PREDICTOR_SYNC_PORT.",
    )
    synchroniser.set_defaults(run=synchronise)
    judge = commands.add_parser(
        "judge",
        help="report what a model repository holds that must not be loaded, before a Triton reads it itself",
        description="Apply the rules of the synchroniser: exit status 1 where it would reject anything. "
        "PREDICTOR_PROFILE and PREDICTOR_PLANS apply.",
    )
    judge.add_argument("folder", type=Path, metavar="FOLDER", help="the model repository")
    judge.set_defaults(run=judge_folder)
    install = commands.add_parser("install", help="complete the environment of the embedded Triton (PREDICTOR_VENV)")
    install.set_defaults(run=complete_installation)
    return parser


def start_triton(settings: Settings, _: argparse.Namespace) -> None:
    """Replace this process by `tritonserver`, so that signals reach it directly.

    Raises:
        StartError: it cannot start.
    """
    if settings.mirror is None:
        _reject_signed_by(settings)
    check_repository(settings)
    check_ports(settings)
    check_shared_memory()
    installation = find_installation(settings.venv)
    argv, env = compose_command(settings, installation, environ=os.environ)
    check_libraries(installation, env)
    link_backends(installation)
    if open_why := close_to_others():
        warning = f"other users of this machine, or container, can read the inputs of requests ({open_why})"
        print(f"warning: {warning}; next: serve on one that you do not share", file=sys.stderr, flush=True)
    os.execve(argv[0], argv, env)  # noqa: S606 - needs no shell


def synchronise(settings: Settings, _: argparse.Namespace) -> None:
    """Run the synchroniser until SIGTERM or Ctrl-C.

    Raises:
        StartError: it cannot start.
    """
    from predictor.synchroniser.server import serve  # noqa: PLC0415 - it takes a while

    serve(settings)


def judge_folder(settings: Settings, arguments: argparse.Namespace) -> None:
    """Print a verdict for each version of a folder; exit status 1 where any must not be loaded.

    Raises:
        StartError: it cannot be read, or holds no version.
    """
    from predictor.repository_judgement import judge_repository, report  # noqa: PLC0415 - it takes a while

    _reject_signed_by(settings)
    folder: Path = arguments.folder
    counts = report(judge_repository(folder, profile=first_of(settings.profile), plans=settings.plans))
    if counts[False]:
        raise StartError(f"{folder}: {counts[False]} of {sum(counts.values())} rejected; no Triton should read it")
    if not counts[True]:
        raise StartError(f"{folder}: got no version, expected <model>/<version>/model.onnx")


def _reject_signed_by(settings: Settings) -> None:
    """Reject a policy where no synchroniser is that keeps it.

    Raises:
        WrongSetting: there is one.
    """
    if settings.signed_by is not None:
        raise WrongSetting(
            "PREDICTOR_SIGNED_BY: a Triton that reads the repository itself verifies no signature, and reads "
            "configs that none covers; expected it unset, or a synchroniser and PREDICTOR_MIRROR"
        )


def complete_installation(settings: Settings, _: argparse.Namespace) -> None:
    """Fetch the libraries that pip cannot install into the environment; does nothing where none is missing.

    Raises:
        StartError: something is still missing.
    """
    installation = find_installation(settings.venv)
    env = compose_command(settings, installation, environ=os.environ)[1]
    if "libpython" in (find_missing_library(installation, env) or ""):
        print(f"fetched {fetch_libpython(installation)}")
    installation = find_installation(settings.venv)
    env = compose_command(settings, installation, environ=os.environ)[1]
    check_libraries(installation, env)
