"""`python -m predictor triton`: become the embedded Triton."""

import argparse
import os
import sys

from pydantic import ValidationError

from predictor.command import compose_command
from predictor.errors import StartError
from predictor.installation import find_installation, link_backends
from predictor.preflight import check_ports, check_repository, check_stub
from predictor.settings import Settings


def main() -> None:
    """Run the subcommand that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m predictor", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "triton",
        help="start the embedded Triton on the model repository, in the foreground",
        description="Start the embedded Triton in the foreground. Its settings are environment variables: "
        + ", ".join(f"PREDICTOR_{name.upper()}" for name in Settings.model_fields),
    )
    parser.parse_args()
    try:
        start_triton(Settings())
    except ValidationError as exc:
        first = exc.errors()[0]
        sys.exit(f"error: PREDICTOR_{str(first['loc'][0]).upper()}={first['input']}: {first['msg']}")
    except StartError as exc:
        sys.exit(f"error: {exc}")


def start_triton(settings: Settings) -> None:
    """Replace this process by `tritonserver`, so that signals meant for it need nobody to pass them on.

    Raises:
        StartError: it cannot start.
    """
    check_repository(settings)
    check_ports(settings)
    installation = find_installation(settings.venv)
    argv, env = compose_command(settings, installation, environ=os.environ)
    check_stub(installation, env)
    link_backends(installation)
    os.execve(argv[0], argv, env)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
