"""Where a server listens, by IPv4 or IPv6, and the hosts whose requests it accepts.

The check of hosts rejects a web page whose own name resolves to loopback (DNS rebinding): to the browser the server
there is a part of the page's site, and no rule about other origins applies. Such a page cannot choose the Host of its
requests: it is the page's name. `transformer`, `predictor`, `stack` and `loadtest` share this module; it imports none
of them.
"""

import errno
import re
import socket
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode
from starlette.types import ASGIApp, Receive, Scope, Send

# RFC 9110, 7.2 and RFC 3986, 3.2.2; what stands in brackets is read again.
_HOST = re.compile(
    r"(?P<name>\[(?:[0-9a-f:.]+|v[0-9a-f]+\.[\w.~!$&'()*+,;=:-]+)\]|(?:[\w.~!$&'()*+,;=-]|%[0-9a-f]{2})*)(?::[0-9]*)?",
    re.ASCII | re.IGNORECASE,
)
_IPV4 = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+", re.ASCII)
_ABSOLUTE = re.compile(rb"[a-z][a-z0-9+.-]*://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_SETTING = re.compile(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]", re.ASCII | re.IGNORECASE)


# Nearly every request names the same host; few, for a client may send long ones.
@lru_cache(maxsize=16)
def read_name(host: str) -> str | None:
    """The name in a Host, or in a URL's authority: lower case, without port and root dot; None if it is invalid."""
    match = _HOST.fullmatch(host)
    if match is None:
        return None
    name = match["name"].lower()
    if name.startswith("[") and name[1] != "v":
        try:
            IPv6Address(name[1:-1])
        except ValueError:
            return None
    return name.removesuffix(".")


def split_target(target: bytes) -> tuple[bytes | None, bytes]:
    """The authority of a request target in absolute form and the rest in origin form; None beside any other target."""
    if target[:1] == b"/" or not (match := _ABSOLUTE.fullmatch(target)):
        return None, target
    rest = match[2]
    return match[1], rest if rest[:1] == b"/" else b"/" + rest


def _names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    names = value.replace(",", " ").split()
    if not all(_SETTING.fullmatch(name) and read_name(name) for name in names):
        raise PydanticCustomError("hosts", "names of hosts with commas between, none with a scheme or a port")
    return frozenset(filter(None, map(read_name, names)))


HostNames = Annotated[frozenset[str], NoDecode, BeforeValidator(_names)]
"""Of a setting: names with commas or spaces between."""


def join(host: str, port: int) -> str:
    """`host:port`, as URLs and gRPC want it: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(host: str, port: int, *, backlog: int | None = None) -> socket.socket:
    """Open a socket that listens; on `::` for both families.

    Args:
        host: an address, without brackets, or a name.
        port: 0: any free one.
        backlog: connections that wait to be accepted.

    Raises:
        OSError: not possible; `strerror` has the reason.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0] if host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=backlog, dualstack_ipv6=both)
    except OSError as exc:
        # EAI_ADDRFAMILY and the like are no errno.
        reason = str(exc.strerror or exc).partition(" (while")[0]
        if ":" in host and not has_ipv6():
            reason = f"{reason}: this machine has no IPv6, expected a kernel with it; next: 0.0.0.0, or 127.0.0.1"
        raise OSError(exc.errno or errno.EADDRNOTAVAIL, reason) from exc


def find_free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in sockets]


def has_ipv6() -> bool:
    """Whether the kernel has IPv6, and an address of it on loopback."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def within_reach(address: str) -> str:
    """The address by which a client of the same machine reaches a server: loopback for a server on any address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(address, address)  # noqa: S104


Address = Annotated[str, BeforeValidator(lambda value: value.strip("[]") if isinstance(value, str) else value)]
"""Of a setting: where to listen; an IPv6 address may be in brackets."""


class Hosts:
    """The hosts whose requests a server accepts.

    On loopback the names of loopback. Elsewhere, where clients may know the server by any name, every host; with
    `names` only these, those of loopback, and addresses, which no page can resolve to another server.
    """

    def __init__(self, address: str, names: Collection[str] = (), *, setting: str = "") -> None:
        """The hosts of a server.

        Args:
            address: of its socket, as `getsockname` returns it.
            names: of the server, beside those of loopback.
            setting: that holds the names, for the error message; empty if there is none.
        """
        self._is_local = is_local(address)
        self._names = frozenset(names)
        self._setting = setting

    @property
    def are_known(self) -> bool:
        """Whether any host is rejected."""
        return self._is_local or bool(self._names)

    def find_rejection(self, hosts: Iterable[str]) -> str:
        """Why a request with these Hosts is rejected; empty if it is accepted, as it is without a Host (HTTP/1.0)."""
        foreign = next((host for host in hosts if not self._accept(host)), None)
        if foreign is None:
            return ""
        known = ", ".join(sorted({"localhost", "127.0.0.1", "[::1]"} | self._names))
        words = f"Host: got {foreign[:100]!r}, expected one of {known}"
        return f"{words}; next: {self._setting}=<names of this server>" if self._setting else words

    def _accept(self, host: str) -> bool:
        name = read_name(host)
        if name is None:
            return False
        return name in self._names or is_local(name) or not (self._is_local or _read_address(name.strip("[]")) is None)


@lru_cache(maxsize=16)
def is_local(name: str) -> bool:
    """Whether a name, as `read_name` returns it, is one of loopback (RFC 6761, 6.3) or an address of it."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _read_address(name.strip("[]"))
    return address is not None and address.is_loopback


def _read_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        if ":" in text:
            address = IPv6Address(text)
            return address.ipv4_mapped or address
        return IPv4Address(text) if _IPV4.fullmatch(text) else None
    except ValueError:
        return None


class HostGuard:
    """Rejects requests for another host, before anything else of them is read."""

    def __init__(self, app: ASGIApp, hosts: Hosts, *, respond: Callable[[Scope, str], ASGIApp]) -> None:
        """Guard an application.

        Args:
            app: behind it.
            hosts: of the server.
            respond: writes the response, 421.
        """
        self._app = app
        self._hosts = hosts
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] in {"http", "websocket"}:
            # The host in the request target counts, and the field does not (RFC 9112, 3.2.2).
            authority, path = split_target(scope["raw_path"])
            if authority is None:
                given = [value for name, value in scope["headers"] if name == b"host"]
            else:
                given = [authority]
                scope = {**scope, "raw_path": path, "path": unquote(path.decode("latin-1"))}
            if reason := self._hosts.find_rejection(value.decode("latin-1") for value in given):
                await self._respond(scope, reason)(scope, receive, send)
                return
        await self._app(scope, receive, send)
