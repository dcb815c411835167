"""The address of a repository, as a user writes it, parsed in one way for every part that takes one."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from registry.errors import Misconfigured

EXPECTED = "s3://bucket/prefix, s3://http://host:port/bucket/prefix, file:///folder or a folder"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(?=//)|(file):(?=/)", re.IGNORECASE)
# Like Triton's expression, which takes no host without a port, and no IPv6 address.
_ENDPOINT = re.compile(r"(?:(https?)://)?((?:[^/@]*@)?(?:\[[0-9a-f:.]+\]|[^/:]+)(?::[0-9]*)?)(?:/+|$)", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")  # botocore's own rule, without ARNs
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class BucketAddress:
    """A part of a bucket.

    Attributes:
        prefix: of all keys, without a slash at either end; empty: the whole bucket.
        endpoint: URL of the server, where the address names it; else the environment may.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None

    def __str__(self) -> str:
        """The address as a user may write it."""
        place = "/".join(filter(None, (self.bucket, self.prefix)))
        return f"s3://{self.endpoint}/{place}" if self.endpoint else f"s3://{place}"


def read_address(text: str) -> BucketAddress | Path:
    """Parse an address; consecutive slashes count as one, and one at the end is ignored.

    Raises:
        Misconfigured: it is neither S3 nor a folder.
    """
    match = _SCHEME.match(text)
    scheme = (match[1] or match[2] or "").lower() if match else ""
    rest = text[match.end() :] if match else text
    if scheme == "s3":
        return _read_bucket(text, rest.removeprefix("//"))
    if scheme == "file":
        return _read_folder(text, rest)
    if scheme in _PORTS:
        raise Misconfigured(f"repository: got {_shown(text)}, expected s3://{_shown(text)} for a server of S3")
    if scheme or not text or "\0" in text:
        raise Misconfigured(f"repository: got {_shown(text)!r}, expected {EXPECTED}")
    return Path(text)


def is_same_place(first: str, second: str) -> bool:
    """Whether two addresses may mean one repository: servers are compared where both name one.

    Raises:
        Misconfigured: one of them is not an address.
    """
    one, other = read_address(first), read_address(second)
    if isinstance(one, BucketAddress) and isinstance(other, BucketAddress):
        is_one_server = not (one.endpoint and other.endpoint) or is_same_endpoint(one.endpoint, other.endpoint)
        return (one.bucket, one.prefix) == (other.bucket, other.prefix) and is_one_server
    return isinstance(one, Path) and isinstance(other, Path) and one.resolve() == other.resolve()


def is_same_endpoint(first: str, second: str) -> bool:
    """Whether two URLs mean the same server."""
    return _origin(first) == _origin(second)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _read_bucket(text: str, rest: str) -> BucketAddress:
    endpoint = None
    match = _ENDPOINT.match(rest)
    if match and (match[1] or ":" in match[2]):
        endpoint = _check_endpoint(text, (match[1] or "http").lower(), match[2])
        rest = rest[match.end() :]
    bucket, *prefix = rest.split("/")
    if not _BUCKET.fullmatch(bucket):
        raise Misconfigured(f"repository: got {_shown(text)!r} with bucket {bucket!r}, expected {EXPECTED}")
    return BucketAddress(bucket, "/".join(filter(None, prefix)), endpoint)


def _check_endpoint(text: str, scheme: str, host: str) -> str:
    if "@" in host:
        raise Misconfigured(
            f"repository: {_shown(text)} has a password in it, expected credentials in AWS_ACCESS_KEY_ID and so on"
        )
    url = f"{scheme}://{host}"
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    if port == 0:
        raise Misconfigured(f"repository: got {_shown(text)!r}, expected a port from 1 to 65535: {EXPECTED}")
    return url


def _read_folder(text: str, rest: str) -> Path:
    """RFC 8089: a folder of this machine, percent-encoded."""
    host, slash, path = rest.removeprefix("//").partition("/") if rest.startswith("//") else ("", "/", rest[1:])
    decoded = unquote_to_bytes(slash + path.lstrip("/"))
    if host.lower() not in {"", "localhost"} or not slash or b"\0" in decoded:
        raise Misconfigured(f"repository: got {text!r}, expected file:///folder: an absolute path of this machine")
    return Path(os.fsdecode(decoded))


def _shown(text: str) -> str:
    """The address without a password."""
    return re.sub(r"(?<=//)[^/@]*@", "...@", text)
