"""The predictor: the embedded Triton, and the synchroniser that keeps its models up to date."""

import argparse
import os
import sys

from pydantic import ValidationError

from predictor.command import compose_command
from predictor.errors import StartError
from predictor.installation import find_installation, link_backends
from predictor.libpython import fetch_libpython
from predictor.preflight import check_libraries, check_ports, check_repository, find_missing_library
from predictor.privacy import close_to_others
from predictor.settings import Settings


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
    commands.add_parser("install", help="complete the environment of the embedded Triton (PREDICTOR_VENV)")
    run = {"triton": start_triton, "sync": synchronise, "install": complete_installation}[parser.parse_args().command]
    try:
        run(Settings())
    except ValidationError as exc:
        first = exc.errors()[0]
        name = _variable(str(first["loc"][0]))
        print(f"error: {name}={first['input']}: {first['msg']}", file=sys.stderr)
        sys.exit(2)  # as argparse for a wrong argument: to start it again is of no use
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
