"""Where the logs of the stack go: a file for each part, of limited size, or all of them to the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pydantic takes as long as the rest of what reads logs
    from stack.settings import StackSettings

PARTS = ("triton", "synchroniser", "transformer", "supervisor")
MAX_BYTES = 20_000_000  # of each file, and of the one before it, which is kept as <name>.log.1
LAST_LINES = 20
_TERMINAL = "/dev/fd/1"


def compose_logging(settings: "StackSettings") -> dict[str, str]:
    """The variables of stack/supervisord.conf about logs."""
    if settings.verbose:
        # supervisor itself writes to the terminal too, unless it is silent.
        files = dict.fromkeys(PARTS, _TERMINAL) | {"supervisor": "/dev/null"}
    else:
        files = {part: str(log_of(part, settings.log_folder).absolute()) for part in PARTS}
    return {f"LOG_{part.upper()}": file for part, file in files.items()} | {
        "LOG_BYTES": str(0 if settings.verbose else MAX_BYTES),
        "LOG_SILENT": "false" if settings.verbose else "true",
        "LOG_FOLDER": "" if settings.verbose else str(settings.log_folder.absolute()),
    }


def log_of(part: str, folder: Path) -> Path:
    """The log of a part."""
    return folder / f"{part}.log"


def begin(folder: Path) -> None:
    """Make the folder; what a stack before this one wrote there is kept as `<name>.log.1`."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        log = log_of(part, folder)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.1"))


def read_last_lines(log: Path) -> list[str]:
    """The last lines of a log; none where there is no such file."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LAST_LINES * 1000))
            return file.read().decode(errors="replace").splitlines()[-LAST_LINES:]
    except FileNotFoundError:
        return []
