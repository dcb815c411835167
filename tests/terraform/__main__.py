"""Verify a Terraform configuration with Terraform itself: `python -m tests.terraform` (`make terraform-test`).

Formatting, checkov, `init`, `validate` and the configuration's own tests, which mock the providers. Providers and
modules come from the registry where it can be reached, else the schemas of the providers from npm (`schemas.py`) and
the modules from git directories below --modules.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.terraform import workspace
from tests.terraform.workspace import TerraformError, Workspace

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra" / "terraform"
_CHECKOV = ROOT / ".venv-scan" / "bin" / "checkov"
_NO_MODULES = (
    "the registry of Terraform cannot be reached; next: MODULES=<folder with git directories of the modules>, "
    "as in tests/terraform/README.md"
)
_NOT_JUDGED = (
    "not judged, for the providers were not there: values that a provider itself examines (lengths, patterns, choices, "
    "arguments that exclude each other), functions of providers, `sensitive`, write-only and deprecated arguments"
)


def main() -> None:
    """Print each step; exit with 1 after the first that fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.terraform", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the configuration (default: infra/terraform)")
    parser.add_argument("--modules", type=Path, help="git directories of the modules, where no registry can be reached")
    options = parser.parse_args()
    published = workspace.reaches_registry()
    workspace.need(published=published)
    if not published and options.modules is None:
        sys.exit(f"error: {_NO_MODULES}")
    print(f"providers and modules: {'of the registry' if published else 'schemas of npm, modules of --modules'}")
    try:
        _format(options.folder)
        _scan(options.folder)
        with workspace.opened(options.folder, modules=options.modules, published=published) as opened:
            _verify(opened)
        print("verified" if published else _NOT_JUDGED)
    except (TerraformError, subprocess.CalledProcessError) as exc:
        sys.exit(f"error: {exc}")


def _format(folder: Path) -> None:
    print("terraform fmt -check", flush=True)
    subprocess.run(
        ["terraform", "fmt", "-check", "-recursive", "-diff", "-no-color"],
        cwd=folder,
        env=workspace.environment(),
        check=True,
    )


def _scan(folder: Path) -> None:
    """Each exception is in the code, beside what it is for, with its reason: `#checkov:skip=<check>:<reason>`."""
    if not _CHECKOV.is_file():
        sys.exit("error: checkov is missing; next: make terraform-test, which installs it")
    print("checkov", flush=True)
    command = [str(_CHECKOV), "--directory", ".", "--framework", "terraform", "--quiet", "--compact", "--skip-download"]
    subprocess.run(command, cwd=folder, env=workspace.environment(), check=True)


def _verify(opened: Workspace) -> None:
    print("terraform validate", flush=True)
    opened.run("validate", "-no-color", shown=True)
    print("terraform test", flush=True)
    opened.run("test", "-no-color", shown=True)


if __name__ == "__main__":
    main()
