"""A release of these manifests as a git repository, for overlays in other repositories."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.manifests.rendering import MANIFESTS

NEREID = "https://git.example.com/nereid"  # as the pages have it
TAG = "v0.1.0"

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")


def make_release(folder: Path) -> str:
    """Create a repository with the manifests of this working tree under the tag of the pages; returns its address.

    Args:
        folder: an empty one, for the repository.
    """
    folder.mkdir(exist_ok=True)
    shutil.copytree(MANIFESTS, folder / "manifests")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message=a"), ("tag", TAG)):
        _git(*words, folder=folder)
    return f"file://{folder}"


def _git(*words: str, folder: Path) -> None:
    """Run git there, with a placeholder identity."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, timeout=60)
