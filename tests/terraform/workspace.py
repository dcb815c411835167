"""A copy of a Terraform configuration, initialised: with providers and modules of the registry, or without one."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.terraform import registry, schemas

_REGISTRY = "https://registry.terraform.io/.well-known/terraform.json"
_REACHED_WITHIN_S = 5
_TIMEOUT_S = 3600
_TYPE = re.compile(r'^\s*(?:resource|data|ephemeral) "(\w+)"', re.MULTILINE)
# Terraform's own, and hashes of the published providers, which the schemas of npm do not have.
_LEFT_OUT = shutil.ignore_patterns(".terraform", "*.tfstate*", ".terraform.lock.hcl")


class TerraformError(Exception):
    """Terraform ended with a status other than 0; its output is the message."""


@dataclass(frozen=True)
class Workspace:
    """An initialised copy: commands run in it.

    Attributes:
        published: whether providers and modules are those of the registry.
    """

    folder: Path
    environment: dict[str, str]
    published: bool

    def run(self, *arguments: str, shown: bool = False) -> str:
        """What Terraform prints; `shown`: on stdout at once, too.

        Raises:
            TerraformError: it failed.
        """
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=self.folder,
            env=self.environment,
            check=False,
            timeout=_TIMEOUT_S,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if shown:
            print(done.stdout, end="", flush=True)
        if done.returncode:
            raise TerraformError(f"terraform {' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}")
        return done.stdout


def reaches_registry() -> bool:
    """Whether the public registry responds."""
    try:
        with urllib.request.urlopen(_REGISTRY, timeout=_REACHED_WITHIN_S) as response:
            return "providers.v1" in json.load(response)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def missing_programs(*, published: bool) -> list[str]:
    """What has to be installed, with its purpose."""
    needed = {"terraform": "1.11 or later", "git": "for the modules"}
    if not published:
        needed |= {"go": "1.24 or later: builds what serves the schemas", "npm": "fetches the providers' bindings"}
    return [f"{name} ({purpose})" for name, purpose in needed.items() if shutil.which(name) is None]


@contextmanager
def opened(folder: Path, *, modules: Path | None, published: bool) -> Iterator[Workspace]:
    """Copy and initialise `folder`; without the registry, modules are git directories below `modules`.

    Raises:
        TerraformError: `terraform init` failed.
    """
    work = schemas.CACHE.parent / "terraform-work"
    work.mkdir(parents=True, exist_ok=True)
    copy = Path(tempfile.mkdtemp(dir=work))
    shutil.copytree(folder, copy, ignore=_LEFT_OUT, dirs_exist_ok=True)
    try:
        if published:
            workspace = Workspace(copy, environment(), published=True)
            workspace.run("init", "-backend=false", "-input=false", "-no-color")
            yield workspace
        else:
            with _own(copy, modules or schemas.CACHE / "none") as workspace:
                yield workspace
    finally:
        shutil.rmtree(copy)


@contextmanager
def _own(copy: Path, modules: Path) -> Iterator[Workspace]:
    with registry.serve(modules) as url:
        configuration = copy.with_suffix(".tfrc")
        configuration.write_text(
            f'provider_installation {{\n  filesystem_mirror {{\n    path = "{schemas.make()}"\n  }}\n}}\n'
            f'host "registry.terraform.io" {{\n  services = {{\n    "modules.v1" = "{url}/"\n  }}\n}}\n'
        )
        workspace = Workspace(copy, {**environment(), "TF_CLI_CONFIG_FILE": str(configuration)}, published=False)
        try:
            workspace.run("init", "-backend=false", "-input=false", "-no-color")
            workspace.environment["SCHEMAS_OF"] = ",".join(_types_in(copy))
            yield workspace
        finally:
            configuration.unlink()


def _types_in(folder: Path) -> list[str]:
    """Types of resources and data sources that a configuration and its modules, installed below it, have."""
    texts = (path.read_text() for path in folder.rglob("*.tf"))
    return sorted({name for text in texts for name in _TYPE.findall(text)})


def environment() -> dict[str, str]:
    """Without what a user has set for other runs, or for AWS: no credentials get into a test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "AWS_"))}
    return {**kept, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "AWS_EC2_METADATA_DISABLED": "true"}


def need(*, published: bool) -> None:
    """End with what is missing, if anything is."""
    if missing := missing_programs(published=published):
        sys.exit(f"error: missing: {', '.join(missing)}; next: install it")
