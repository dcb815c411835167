"""The project's folder, from whichever folder a command is run.

A path that a user gives is relative to where the user stands; a default, such as `model_repository`, is the project's.
"""

from pathlib import Path

# Not resolved: the folders of a checkout may be links.
ROOT = Path(__file__).absolute().parents[1]


def in_project(name: str) -> Path:
    """A file or folder of the project: relative to where the user stands, if it is below; absolute otherwise."""
    return shown(ROOT / name)


def shown(path: Path) -> Path:
    """An absolute path as the user would type it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def from_root(path: Path) -> Path:
    """A path of the user for a process that runs in the project's folder: as it is, if the user stands there too."""
    return path if Path.cwd() == ROOT else Path.cwd() / path
