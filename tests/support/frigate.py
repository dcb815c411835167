"""Frigate's own code, from a checkout, with its packages in an environment of their own: `make e2e-frigate`."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.stack import ROOT

PYTHON = ROOT / ".venv-frigate" / "bin" / "python"
FOLDER = ROOT / "tests" / "e2e" / "frigate"
_PLUGIN = Path("frigate") / "detectors" / "plugins" / "deepstack.py"


def checkout() -> Path:
    """Frigate's repository: of FRIGATE."""
    return Path(os.environ.get("FRIGATE") or ROOT.parent / "frigate")


def missing_packages() -> str:
    """What the clients lack, with the next step; empty where they can run."""
    return "" if PYTHON.exists() else f"got no {PYTHON}; next: make e2e-frigate, which installs it"


def missing() -> str:
    """What Frigate lacks, with the next step; empty where it can run."""
    if not (checkout() / _PLUGIN).is_file():
        return (
            f"Frigate: got no {checkout() / _PLUGIN}, expected its repository, 0.18 or newer; next:"
            " git clone https://github.com/blakeblackshear/frigate, and make e2e-frigate FRIGATE=<that folder>"
        )
    return missing_packages()


def run(program: str, arguments: Sequence[str], *, home: Path) -> Any:
    """What one of the programs beside the requirements prints, as JSON; Frigate may write into `home` alone."""
    done = subprocess.run(
        [str(PYTHON), str(FOLDER / program), *arguments],
        # Without variables that would name another PYTHONPATH or a proxy; Frigate reads FRIGATE_* of the environment.
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(checkout()), "HOME": str(home), "CONFIG_DIR": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    if words := missing():
        sys.exit(f"error: {words}")
