"""Records of versions that survive a restart: one JSON file for each model and topic.

    refused/<model>.json    rejected versions, and why
    unproven/<model>.json   versions that serve without a golden input that verified them, and why
    tried/<model>.json      versions whose validation ended this process, and how often
    chosen/<model>.json     which profile a version runs in on this CPU, and how it compares with the others

Versions are named by their fingerprints.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from predictor.synchroniser.files import replace_file

log = logging.getLogger("synchroniser")

_RUNNING = "running"  # cannot be a fingerprint, which is hexadecimal


class Records:
    """The files; methods may be called for different models at once."""

    def __init__(self, root: Path) -> None:
        """Create the folders below `root`.

        Raises:
            OSError: they cannot be created.
        """
        self._rejected = root / "refused"
        self._unverified = root / "unproven"
        self._crashes = root / "tried"
        self._choices = root / "chosen"
        for folder in (self._rejected, self._unverified, self._crashes, self._choices):
            folder.mkdir(parents=True, exist_ok=True)

    def read_rejected(self, model: str) -> dict[str, str]:
        """Return the reasons by fingerprint; empty where the file is missing or invalid."""
        return _read(self._rejected / f"{model}.json")

    def write_rejected(self, model: str, reasons: Mapping[str, str]) -> None:
        """Write the reasons by fingerprint."""
        _write(self._rejected / f"{model}.json", reasons)

    def read_unverified(self, model: str) -> dict[str, str]:
        """Return the reasons by fingerprint; empty where the file is missing or invalid."""
        return _read(self._unverified / f"{model}.json")

    def write_unverified(self, model: str, reasons: Mapping[str, str]) -> None:
        """Write the reasons by fingerprint."""
        _write(self._unverified / f"{model}.json", reasons)

    def read_choices(self, model: str) -> dict[str, Any]:
        """Return what was measured, by fingerprint; empty where the file is missing or invalid."""
        return _read(self._choices / f"{model}.json")

    def write_choices(self, model: str, choices: Mapping[str, Any]) -> None:
        """Write what was measured; on a full disk nothing is written."""
        with suppress(OSError):
            _write(self._choices / f"{model}.json", choices)

    def read_crashes(self, model: str) -> dict[str, int]:
        """Return how often this process ended during the validation of a version, by fingerprint."""
        content = _read(self._crashes / f"{model}.json")
        counts = {key: count for key, count in content.items() if isinstance(count, int)}
        if isinstance(key := content.get(_RUNNING), str):
            counts[key] = counts.get(key, 0) + 1
        return counts

    def write_crashes(self, model: str, counts: Mapping[str, int], *, running: str = "") -> None:
        """Write the counts; on a full disk nothing is written.

        Args:
            model: its name.
            counts: as `read_crashes` returns them.
            running: fingerprint of the version that is being validated, if any: counted by the next process, if this
                one ends meanwhile.
        """
        with suppress(OSError):
            _write(self._crashes / f"{model}.json", {**counts, **({_RUNNING: running} if running else {})})

    def close(self) -> None:
        """Clear what is running: a process that gets a signal to stop is no crash."""
        for path in self._crashes.glob("*.json"):
            content = _read(path)
            if content.pop(_RUNNING, None):
                with suppress(OSError):
                    _write(path, content)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        log.warning("the mirror: %s cannot be read (%s): taken for empty", path, exc)
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    if content:
        replace_file(path, json.dumps(dict(content), indent=1).encode())
    else:
        path.unlink(missing_ok=True)
