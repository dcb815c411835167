"""The commit of a measurement, for the files that it writes."""

import subprocess
from pathlib import Path


def commit() -> str:
    """The commit of the checkout, with `-dirty` where it was changed; empty where that is unknown."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return ""
    return described.stdout.strip()
