"""Conventions between Triton's command line and the synchroniser: folders of the mirror, and names that both use."""

from pathlib import Path

CANDIDATE_PREFIX = "candidate~"  # before the name of a model under test: invalid in a model's name, so never served
ACCESS_HEADER = "nereid"  # its suffix: triton-grpc-protocol-nereid carries the secret of restricted protocols


def models_folder(mirror: Path) -> Path:
    """Return Triton's first repository in a mirror: what serves."""
    return mirror / "models"


def trial_folder(mirror: Path) -> Path:
    """Return Triton's second repository in a mirror: candidates under test."""
    return mirror / "trial"
