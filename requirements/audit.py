"""`make audit`: compare the locks with known vulnerabilities, from a source of advisories that is within reach.

AUDIT names it: an index with PyPI's JSON API (its address), or a folder of OSV records (OSV's dump of PyPI, or a
checkout of pypa/advisory-database). A mirror may have that API with no advisory in it, and a folder may be old: neither
passes.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
LOCKS = (
    "requirements/constraints.txt",
    "predictor/requirements.txt",
    "requirements/build-constraints.txt",
    "requirements/installer.txt",
    "requirements/torch-cpu.txt",
    "tests/labelling/cvat-requirements.txt",
    "tests/labelling/fiftyone-requirements.txt",
    "tests/labelling/label-studio-requirements.txt",
    "tests/manifests/scan-requirements.txt",
    "integrations/track/requirements.txt",
)
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
# Every complete source has this advisory, of 2021.
_KNOWN = ("urllib3", "1.26.4", "CVE-2021-33503")
_MAX_AGE = timedelta(days=30)
_AT_ONCE, _TIMEOUT_S = 8, 30.0
_NEXT = (
    "next: AUDIT=<address of an index with PyPI's JSON API>, or AUDIT=<folder> with OSV's records of PyPI "
    "(osv.dev, 'data dumps'; or a checkout of pypa/advisory-database)"
)


class AuditError(Exception):
    """The source cannot be read, or is incomplete; the message says why and what to do."""


class Pin(NamedTuple):
    """A package as a lock names it, its name in canonical form."""

    name: str
    version: str


class Hole(NamedTuple):
    """A known vulnerability of a version.

    Attributes:
        names: of the advisory: its own id, then what others call it.
        fixed: versions without it; empty if there is none yet.
    """

    names: tuple[str, ...]
    fixed: tuple[str, ...]


def main() -> int:
    """Print the vulnerabilities; 0 without any, 1 with some, 2 if the source is unknown, incomplete or old."""
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__.partition("\n")[0])
    parser.add_argument("--source", default=os.environ.get("AUDIT", ""), help="(default: the variable AUDIT)")
    source = parser.parse_args().source
    locks = read_locks()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        if not source:
            raise AuditError("got no source of advisories, expected one")
        if source.startswith(("http://", "https://")):
            holes, age = request_index(source.rstrip("/"), locks), timedelta(0)
        else:
            holes, age = read_folder(Path(source), locks)
    except AuditError as exc:
        print(f"error: AUDIT: {exc}; {_NEXT}", file=sys.stderr)
        return 2
    if holes:
        table = Table(
            "package", "version", "advisories", "fixed in", "lock", title="Known vulnerabilities of what is pinned"
        )
        for pin, found in sorted(holes.items()):
            for hole in found:
                table.add_row(*pin, "\n".join(hole.names), ", ".join(hole.fixed) or "-", "\n".join(locks[pin]))
        console.print(table)
    print(
        f"{len(locks)} versions in {len(LOCKS)} locks: {len(holes)} with known vulnerabilities, according to {source}"
    )
    if age > _MAX_AGE:
        words = f"got a newest record of {age.days} days ago, expected one of the last {_MAX_AGE.days}"
        print(f"error: AUDIT: {source}: {words}: what is newer is not known; {_NEXT}", file=sys.stderr)
        return 2
    return int(bool(holes))


def read_locks() -> dict[Pin, list[str]]:
    """The locks of each pinned version."""
    pins: dict[Pin, list[str]] = {}
    for lock in LOCKS:
        for name, version in _PIN.findall((ROOT / lock).read_text()):
            pins.setdefault(Pin(canonicalize_name(name), version), []).append(lock)
    return pins


def request_index(url: str, pins: Iterable[Pin]) -> dict[Pin, list[Hole]]:
    """Request each version from an index with PyPI's JSON API.

    Raises:
        AuditError: it cannot be reached, lacks a version, or has no advisories.
    """
    known = Pin(*_KNOWN[:2])
    with httpx.Client(base_url=url, timeout=_TIMEOUT_S, follow_redirects=True) as client:
        if not any(_KNOWN[2] in hole.names for hole in _request(client, known)):
            raise AuditError(f"{url}: got no advisory of {known.name} {known.version}, which has {_KNOWN[2]}")
        listed = list(pins)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            found = threads.map(lambda pin: _request(client, pin), listed)
            return {pin: holes for pin, holes in zip(listed, found, strict=True) if holes}


def _request(client: httpx.Client, pin: Pin) -> list[Hole]:
    path = f"/pypi/{pin.name}/{pin.version}/json"
    try:
        response = client.get(path)
    except httpx.HTTPError as exc:
        raise AuditError(f"{client.base_url}: {exc}") from exc
    try:
        records = response.raise_for_status().json()["vulnerabilities"]
        return [
            Hole((record["id"], *record["aliases"]), tuple(record["fixed_in"]))
            for record in records
            if not record.get("withdrawn")
        ]
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as exc:
        raise AuditError(f"{client.base_url}: got {response.status_code} for {path}, expected advisories") from exc


def read_folder(folder: Path, pins: Iterable[Pin]) -> tuple[dict[Pin, list[Hole]], timedelta]:
    """Read OSV records, JSON or YAML.

    Returns:
        The vulnerabilities by pin, and the age of the newest record.

    Raises:
        AuditError: the folder has no such records, or lacks one that every complete source has.
    """
    versions: dict[str, list[Pin]] = {}
    known = Pin(*_KNOWN[:2])
    for pin in {*pins, known}:
        versions.setdefault(pin.name, []).append(pin)
    holes: dict[Pin, list[Hole]] = {}
    newest = datetime.min.replace(tzinfo=UTC)
    for record in _read_records(folder):
        newest = max(newest, _read_time(record["modified"]))
        if record.get("withdrawn"):
            continue
        for affected in record.get("affected", []):
            package = affected.get("package", {})
            if package.get("ecosystem") != "PyPI":
                continue
            for pin in versions.get(canonicalize_name(package["name"]), []):
                if is_affected(pin.version, affected):
                    _add(holes.setdefault(pin, []), record, affected)
    if not any(_KNOWN[2] in hole.names for hole in holes.get(known, [])):
        raise AuditError(f"{folder}: got no record of {known.name} {known.version}, which has {_KNOWN[2]}")
    return {pin: found for pin, found in holes.items() if pin in set(pins)}, datetime.now(UTC) - newest


def is_affected(version: str, affected: Mapping[str, Any]) -> bool:
    """Whether OSV's `affected` names a version, in its list or in a range of versions."""
    parsed = Version(version)
    if parsed in {_parse(str(each)) for each in affected.get("versions", [])}:
        return True
    return any(_is_within(parsed, ranged["events"]) for ranged in affected.get("ranges", []) if ranged["type"] != "GIT")


def _is_within(version: Version, events: Iterable[Mapping[str, Any]]) -> bool:
    # In the order of versions; what cannot be read must not hide a hole.
    steps = []
    for kind, at in ((kind, str(at)) for event in events for kind, at in event.items()):
        parsed = _parse(at) or (Version("0") if kind == "introduced" else None)
        if parsed is not None and kind in {"introduced", "fixed", "last_affected"}:
            steps.append((parsed, kind))
    within = False
    for begin, kind in sorted(steps):
        if version > begin if kind == "last_affected" else version >= begin:
            within = kind == "introduced"
    return within


def _parse(version: str) -> Version | None:
    try:
        return Version(version)
    except InvalidVersion:
        return None


def _add(holes: list[Hole], record: Mapping[str, Any], affected: Mapping[str, Any]) -> None:
    """Merge the entries of one vulnerability that several databases have under different names."""
    names = (str(record["id"]), *record.get("aliases", []))
    if any(set(names) & set(hole.names) for hole in holes):
        return
    events = [event for ranged in affected.get("ranges", []) if ranged["type"] != "GIT" for event in ranged["events"]]
    holes.append(Hole(names, tuple(str(event["fixed"]) for event in events if "fixed" in event)))


def _read_records(folder: Path) -> Iterator[dict[str, Any]]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in {".json", ".yaml"}) if folder.is_dir() else []
    if not paths:
        raise AuditError(f"{folder}: got no records, expected a folder of .json or .yaml files")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in paths:
        text = path.read_bytes()
        record = json.loads(text) if path.suffix == ".json" else yaml.load(text, loader)  # noqa: S506 - a safe one
        if isinstance(record, dict) and "modified" in record:
            yield record


def _read_time(value: object) -> datetime:
    """ISO 8601; YAML may have read it already."""
    time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return time if time.tzinfo else time.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
