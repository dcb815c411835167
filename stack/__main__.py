"""The local stack in the foreground: Triton, synchroniser and transformer under supervisor, until Ctrl-C.

`make serve` and `nereid serve` run it. Parts that die are started again with growing pauses; stopping ends the
transformer first, then the rest; stack/supervisord.conf says how. Each part logs to a file of its own in
output/serve-<HTTP_PORT>; with --verbose, or VERBOSE=1, all of them log to the terminal.
"""

import os
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from environment.arguments import Parser
from stack.settings import StackError, StackSettings, describe, iterate_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack; 0 after a stop by the user, 1 if a part could not be kept alive, 2 for a wrong setting."""
    options = read_options(arguments)
    os.environ |= options
    try:
        settings = StackSettings()
        prepare(settings)
    except ValidationError as exc:
        print(f"error: {describe(exc, options)}", file=sys.stderr)
        return 2
    except StackError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    from stack.supervise import supervise  # noqa: PLC0415 - what is wrong is reported before

    if not settings.verbose:
        what = "the transformer" if settings.triton_url else "Triton, the synchroniser and the transformer"
        print(f"starting {what} (logs: {settings.log_folder}/)", flush=True)
    if reason := supervise(settings):
        print(f"error: {reason}; its last words are above", file=sys.stderr)
        return 1
    if not settings.verbose:
        print("stopped")
    return 0


def read_options(arguments: Sequence[str] | None) -> dict[str, str]:
    """The options that were given, as variables of the same names."""
    parser = Parser(prog="nereid serve", description="Serve a model repository in the foreground, until Ctrl-C.")
    for name, description, is_flag in iterate_options():
        option = f"--{name.replace('_', '-')}"
        if is_flag:
            parser.add_argument(option, dest=name, action="store_const", const="1", help=description)
        else:
            parser.add_argument(option, dest=name, metavar=name.rpartition("_")[2].upper(), help=description)
    parser.epilog = (
        "Each option is also an environment variable: --http-port is HTTP_PORT. TRANSFORMER_* and PREDICTOR_* set the "
        "parts: docs/configuration.md."
    )
    given = vars(parser.parse_args(arguments))
    return {name.upper(): value for name, value in given.items() if value is not None}


def prepare(settings: StackSettings) -> None:
    """Find what is wrong before anything is started; puts what the parts will read into the environment.

    Raises:
        StackError: something is wrong.
    """
    from stack.checks import check, find_problems  # noqa: PLC0415 - --help is fast without
    from stack.parts import compose_environment, paths_from_root  # noqa: PLC0415

    check(settings)
    os.environ |= compose_environment(settings, state="")  # but for the state as the parts will read it
    if problem := next(find_problems(with_triton=not settings.triton_url), ""):
        raise StackError(problem)
    os.environ |= paths_from_root(os.environ)


if __name__ == "__main__":
    sys.exit(main())
