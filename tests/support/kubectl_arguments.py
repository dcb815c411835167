"""Whether kubectl takes the arguments of a command, found out without a cluster."""

import re
import shlex
import subprocess

NOWHERE = "http://127.0.0.1:1"  # nothing listens there: a program that tries to connect has read its arguments
PATIENCE_S = 60


def read_arguments(command: str) -> str:
    """Run a command of kubectl against a server that is not there.

    Returns:
        Why its arguments are invalid; empty where kubectl read them all and tried to connect.
    """
    program, *arguments = shlex.split(command)
    # Behind `--` is another program's.
    own = arguments.index("--") if "--" in arguments else len(arguments)
    arguments[own:own] = [f"--server={NOWHERE}", "--request-timeout=2s"]
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=without_cluster()
    )
    tried = "connection refused" in done.stderr or "was refused" in done.stderr  # codespell:ignore refused
    invalid = re.search("unknown|invalid|error: (you|there|expected|required)", done.stderr.lower())
    return "" if tried and not invalid else done.stderr or done.stdout


def without_cluster() -> dict[str, str]:
    """Variables of kubectl without the configuration of this machine."""
    return {"PATH": "/usr/bin:/usr/local/bin:/bin", "KUBECONFIG": "/dev/null", "HOME": "/nonexistent"}
