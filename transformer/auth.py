"""API keys: who may ask, where TRANSFORMER_API_KEYS_FILE names a file.

A line of it is a name and the SHA-256 of a key, as `make key NAME=<who>` writes them. A key has 256 random bits, so
nobody can try all of them, and a slow hash would only slow the server. The file is read again when it changes.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from environment.arguments import Parser
from environment.project import in_project
from transformer.errors import Forbidden, Unauthenticated
from transformer.observability import metrics

log = logging.getLogger("transformer")

_LINE = re.compile(r"(?P<name>[0-9a-zA-Z._-]{1,64}) sha256:(?P<digest>[0-9a-f]{64})")
_PREFIX = "nereid_"  # what scanners for leaked secrets look for
_MAX_AGE_S = 1.0
_LONGEST = 1024


class KeysError(Exception):
    """The file cannot be used; the message says why."""


class Keys:
    """The keys of a file."""

    def __init__(self, path: Path) -> None:
        """Read them.

        Raises:
            KeysError: the file cannot be read, has no key, or a line is none.
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

    def check(self, headers: Mapping[str, str]) -> str:
        """The name of the key that a request shows; it is counted, and so is a request that is refused.

        Args:
            headers: of HTTP, or metadata of gRPC, with names in lower case.

        Raises:
            Unauthenticated: it shows none.
            Forbidden: it shows another one.
        """
        key = _find_key(headers)
        if not key:
            metrics.count_key("", "no key")
            raise Unauthenticated("no API key; expected Authorization: Bearer <key>, or X-API-Key: <key>")
        self._refresh()
        digest = hashlib.sha256(key[:_LONGEST].encode()).hexdigest()
        # All of them, always: the time tells nothing about any.
        found = [name for known, name in self._names.items() if hmac.compare_digest(known, digest)]
        if not found:
            metrics.count_key("", "unknown key")
            raise Forbidden("the API key is not known here")
        metrics.count_key(found[0], "accepted")
        return found[0]

    def _refresh(self) -> None:
        """Read the file again where it has changed.

        A key that was removed is revoked: one that is in no good line is refused, also where another line is
        broken or the file cannot be read.
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
            self._state = ()  # it may be there in a moment, and unchanged
        for words in broken:
            log.error("API keys: %s", words)
        metrics.expect_keys(self._names.values())
        if not self._names:
            log.error("%s has no key any more: nobody is let in", self._path)


def _find_key(headers: Mapping[str, str]) -> str:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _state_of(path: Path) -> tuple[int, ...]:
    """Another one whenever the file is another, or was written; empty where there is none.

    The time alone is not enough: a copy keeps that of its source, and two writes may come within one tick of it.
    """
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_size


def _read(path: Path) -> tuple[dict[str, str], list[str]]:
    """Names by digest, and what is wrong with other lines.

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
            # Not the line itself: it may be a key that somebody put there.
            broken.append(f"{path}, line {number}: expected '<name> sha256:<64 hex digits>', as make key writes it")
        else:
            names[match["digest"]] = match["name"]
    return names, broken


def make(name: str, path: Path) -> str:
    """Make a key, add its digest to the file, and return it: it is nowhere else.

    Raises:
        KeysError: the name is none, or the file cannot be written.
    """
    key = _PREFIX + secrets.token_urlsafe(32)
    line = f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    if not _LINE.fullmatch(line):
        raise KeysError(f"NAME: got {name!r}, expected letters, digits, dots, hyphens and underscores, at most 64")
    try:
        # Its owner's alone, where it is new; a file that exists keeps its mode.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write(line + "\n")
    except OSError as exc:
        raise KeysError(f"{path}: {exc.strerror}") from exc
    return key


def main() -> int:
    """Make a key from the command line."""
    parser = Parser(prog="nereid key", description="Make an API key, shown once.")
    parser.add_argument("name", help="of its owner")
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        default=in_project("keys.txt"),
        help="TRANSFORMER_API_KEYS_FILE; the key's digest is added there (default: %(default)s)",
    )
    options = parser.parse_args()
    try:
        key = make(options.name, options.file)
    except KeysError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print(key)
    print(f"shown once; its digest is in {options.file}, removing that line takes it back", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
