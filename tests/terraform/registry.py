"""A registry of modules on loopback: tags of git repositories below a folder, in the protocol of Terraform's own.

`terraform init` looks for `terraform-aws-modules/eks/aws` where its command line configuration says; with this registry
the source and the version of every module call stay as they are, and Terraform itself chooses among the versions.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.http_server import Exchange, run_server

_VERSIONS = re.compile(r"/([\w-]+)/([\w-]+)/([\w-]+)/versions")
_DOWNLOAD = re.compile(r"/([\w-]+)/([\w-]+)/([\w-]+)/([\w.+-]+)/download")
_ARCHIVE = re.compile(r"/([\w-]+)/([\w-]+)/([\w-]+)/([\w.+-]+)\.tar\.gz")
_TAG = re.compile(r"v?(\d+\.\d+\.\d+)")
_DEPTH = 3


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve what is below `folder` until the block ends; yields the URL.

    A module `<owner>/<name>/<provider>` is a git directory below a folder, or itself one, named
    `terraform-<provider>-<name>`, with whatever in front of it that ends in no letter: `owner+terraform-aws-eks/repo`.
    """
    repositories = find(folder)

    class Registry(Exchange):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            if match := _VERSIONS.fullmatch(self.path):
                versions = [{"version": each} for each in _versions(repositories.get(_name(match)))]
                found = {"modules": [{"versions": versions}]}
                self.send(200 if versions else 404, {"Content-Type": "application/json"}, json.dumps(found).encode())
            elif match := _DOWNLOAD.fullmatch(self.path):
                self.send(204, {"X-Terraform-Get": f"/{'/'.join(match.groups())}.tar.gz"}, b"")
            elif match := _ARCHIVE.fullmatch(self.path):
                archive = _archive(repositories.get(_name(match)), match[4])
                self.send(200 if archive else 404, {"Content-Type": "application/gzip"}, archive)
            else:
                self.send(404, {}, b"")

    with run_server(Registry) as url:
        yield url


def find(folder: Path) -> dict[str, Path]:
    """Git directories below a folder, by `terraform-<provider>-<name>`."""
    found = {}
    heads = (
        path for depth in range(1, _DEPTH + 2) for path in folder.glob("/".join(["*"] * depth)) if path.name == "HEAD"
    )
    for head in sorted(heads):
        for part in reversed(head.relative_to(folder).parts[:-1]):
            if match := re.search(r"(?<![a-z])terraform-\w+-[\w-]+$", part.removesuffix(".git")):
                found[match[0]] = head.parent
                break
    return found


def _name(match: re.Match[str]) -> str:
    return f"terraform-{match[3]}-{match[2]}"


def _versions(repository: Path | None) -> list[str]:
    tags = _git(repository, "tag").decode().split() if repository else []
    return [match[1] for tag in tags if (match := _TAG.fullmatch(tag))]


def _archive(repository: Path | None, version: str) -> bytes:
    for tag in (f"v{version}", version):
        if repository and (archive := _git(repository, "archive", "--format=tar.gz", tag)):
            return archive
    return b""


def _git(repository: Path, *arguments: str) -> bytes:
    """What git prints; nothing where it fails, for a copy may lack the files of old versions."""
    done = subprocess.run(["git", "-C", repository, *arguments], check=False, capture_output=True)
    return done.stdout if done.returncode == 0 else b""
