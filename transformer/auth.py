"""API keys, required from clients where TRANSFORMER_API_KEYS_FILE names a file.

A line of the file is a name and the SHA-256 of a key, as `make key NAME=<who>` writes them. A key has 256 random bits:
too many to try, so that a slow hash would only slow the server. The file is read again when it changes.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from environment.arguments import Parser
from environment.project import in_project
from transformer.errors import Forbidden, Unauthenticated
from transformer.observability import metrics

log = logging.getLogger("transformer")

_LINE = re.compile(r"(?P<name>[0-9a-zA-Z._-]{1,64}) sha256:(?P<digest>[0-9a-f]{64})")
_PREFIX = "nereid_"  # what scanners for leaked secrets look for
_MAX_AGE_S = 1.0
_MAX_KEY_LENGTH = 1024
_PLACES = "Authorization: Bearer <key>, or X-API-Key: <key>"


class KeysError(Exception):
    """The file of API keys cannot be used; the message says why."""


class Keys:
    """The API keys of a file."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            KeysError: the file cannot be read, has no key, or an invalid line.
        """
        self._path = path
        self._state = _state_of(path)
        self._names, broken = _read(path)
        if broken:
            raise KeysError(broken[0])
        if not self._names:
            raise KeysError(f"{path}: got no key, expected at least one; next: make key NAME=<who> KEYS={path}")
        self._looked_at = time.monotonic()
        metrics.expect_keys(self._names.values())

    def check(self, headers: Mapping[str, str], *, places: str = _PLACES) -> str:
        """The name of the API key of a request; the request is counted under it, or as rejected.

        Args:
            headers: HTTP headers or gRPC metadata, with names in lower case.
            places: where a key is expected, for the message.

        Raises:
            Unauthenticated: the request has no key.
            Forbidden: the key is unknown.
        """
        key = find_key(headers)
        if not key:
            metrics.count_key("", "no key")
            raise Unauthenticated(f"no API key; expected {places}")
        self._refresh()
        digest = hashlib.sha256(key[:_MAX_KEY_LENGTH].encode()).hexdigest()
        # Compare with all of them: the time must reveal nothing about any.
        found = [name for known, name in self._names.items() if hmac.compare_digest(known, digest)]
        if not found:
            metrics.count_key("", "unknown key")
            raise Forbidden("unknown API key; expected one of this server's keys")
        metrics.count_key(found[0], "accepted")
        return found[0]

    def _refresh(self) -> None:
        """Read the file again if it has changed.

        A key that was removed is revoked: a key that is in no valid line is rejected, also if another line is
        invalid or the file cannot be read.
        """
        if time.monotonic() - self._looked_at < _MAX_AGE_S:
            return
        self._looked_at = time.monotonic()
        state = _state_of(self._path)
        if state == self._state:
            return
        self._state = state
        try:
            self._names, broken = _read(self._path)
        except KeysError as exc:
            self._names, broken = {}, [str(exc)]
            self._state = ()  # the file may come back unchanged
        for words in broken:
            log.error("API keys: %s", words)
        metrics.expect_keys(self._names.values())
        if not self._names:
            log.error("%s has no API key any more: every request that needs one is rejected", self._path)


def is_keyless(name: str, patterns: Collection[str]) -> bool:
    """Whether a path or a method needs no key: a pattern is its whole name, or how it begins, and an asterisk."""
    return any(name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns)


def find_key(headers: Mapping[str, str]) -> str:
    """The key in HTTP headers or gRPC metadata, with names in lower case; "" without one."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _state_of(path: Path) -> tuple[int, ...]:
    """Changes whenever the file is replaced or written; empty if it is missing.

    The modification time is not enough: a copy keeps that of its source, and two writes may share one tick.
    """
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_size


def _read(path: Path) -> tuple[dict[str, str], list[str]]:
    """Names by digest, and a message for each invalid line.

    Raises:
        KeysError: the file cannot be read.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as exc:
        raise KeysError(f"{path}: {exc}") from exc
    names, broken = {}, []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            # Not the line itself: it may be a key.
            broken.append(f"{path}, line {number}: expected '<name> sha256:<64 hex digits>', as make key writes it")
        else:
            names[match["digest"]] = match["name"]
    return names, broken


def make(name: str, path: Path) -> str:
    """Make a key, add its digest to the file, and return the key, which is stored nowhere.

    Raises:
        KeysError: the name is invalid, or the file cannot be written.
    """
    key = _PREFIX + secrets.token_urlsafe(32)
    line = f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    if not _LINE.fullmatch(line):
        raise KeysError(f"NAME: got {name!r}, expected letters, digits, dots, hyphens and underscores, at most 64")
    try:
        # A new file is for its owner alone; an existing one keeps its mode.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write(line + "\n")
    except OSError as exc:
        raise KeysError(f"{path}: {exc.strerror}") from exc
    return key


def main() -> int:
    """Make a key from the command line."""
    parser = Parser(prog="nereid key", description="Make an API key, shown once.")
    parser.add_argument("name", help="whose key it is")
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        default=in_project("keys.txt"),
        help="file of TRANSFORMER_API_KEYS_FILE; the key's digest is added to it (default: %(default)s)",
    )
    options = parser.parse_args()
    try:
        key = make(options.name, options.file)
    except KeysError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print(key)
    print(f"shown once; its digest is in {options.file}: to revoke the key, remove that line", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
