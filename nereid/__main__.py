"""`nereid <command>`: find the command, install what it needs, and run the part's own program in this process."""

import os
import runpy
import sys

from nereid.commands import COMMANDS


def main() -> int:
    """Run the command that the arguments name; 1 if the reader of the output is gone (`| head`)."""
    try:
        try:
            return dispatch()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends: https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def dispatch() -> int:
    """Run the command that the arguments name; 2 if it is unknown."""
    name, words = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if name in {"-h", "--help", "help"}:
        print(describe())
        return 0
    if name in {"-V", "--version"}:
        from environment import __version__  # noqa: PLC0415 - only here

        print(f"nereid {__version__}")
        return 0
    if name not in COMMANDS:
        from environment.arguments import nearest  # noqa: PLC0415 - only here

        print(
            f"error: unknown command: {name}{nearest(name, list(COMMANDS), otherwise='; next: nereid --help')}",
            file=sys.stderr,
        )
        return 2
    return run(name, words)


def run(name: str, words: list[str]) -> int:
    """Run a command.

    Args:
        name: one of `COMMANDS`.
        words: its arguments.
    """
    from nereid.needs import NeedsError, provide  # noqa: PLC0415 - the list of commands is fast without

    command = COMMANDS[name]
    try:
        provide(command.needs, words)
    except NeedsError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    # sys.argv as the parsers of the parts read it: environment/arguments.py.
    sys.argv[:] = ["nereid", *command.words, *words]
    try:
        runpy.run_module(command.module, run_name="__main__")
    except KeyboardInterrupt:
        return 130
    return 0


def describe() -> str:
    """The list of commands, with a line for each."""
    lines = ["usage: nereid COMMAND ...", ""]
    group = ""
    for name, command in COMMANDS.items():
        if command.group != group:
            lines += [""] * bool(group) + [command.group]
            group = command.group
        lines.append(f"  {name:<14} {command.summary}")
    return "\n".join([*lines, "", "nereid COMMAND --help: its options"])


if __name__ == "__main__":
    sys.exit(main())
