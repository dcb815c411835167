"""Conventions between Triton's command line, our backends and the synchroniser: folders, names, and a message."""

from pathlib import Path

CANDIDATE_PREFIX = "candidate~"  # before the name of a model under test: invalid in a model's name, so never served
ACCESS_HEADER = "nereid"  # its suffix: triton-grpc-protocol-nereid carries the secret of restricted protocols
# Before the JSON of what a config lacks, in the error of a backend that may not complete it.
INCOMPLETE_CONFIG = "the config lacks inputs or outputs, expected: "


def models_folder(mirror: Path) -> Path:
    """Return Triton's first repository in a mirror: what serves."""
    return mirror / "models"


def trial_folder(mirror: Path) -> Path:
    """Return Triton's second repository in a mirror: candidates under test."""
    return mirror / "trial"
