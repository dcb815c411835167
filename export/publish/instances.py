"""The instances of a server that a URL leads to, each queried over a connection of its own.

Behind one URL there may be several: pods behind a balancer, which chooses one for each connection, or behind a host
name that has the address of each (a headless Service). A connection that is kept would always lead to the same one.
"""

import socket
import ssl
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import httpx

from environment import api_key
from export.errors import ExportError

_TIMEOUT_S = 10


class Endpoint:
    """A URL, and the addresses behind its host name."""

    def __init__(self, url: str) -> None:
        """Nothing is sent, and no name resolved, yet.

        Raises:
            ExportError: the URL or the key is invalid.
        """
        if not url.lower().startswith(("http://", "https://")):
            raise ExportError(f"URL: got {url!r}, expected such as http://localhost:8080")
        try:
            self._url = httpx.URL(url)
            self._headers = api_key.headers()
        except httpx.InvalidURL as exc:
            raise ExportError(f"URL: got {url!r} ({exc}), expected such as http://localhost:8080") from exc
        except api_key.AccessError as exc:
            raise ExportError(str(exc)) from exc
        self._context = httpx.create_ssl_context()  # made once: it takes longer than a request
        self._excluded: set[int] = set()

    def addresses(self) -> list[str]:
        """Addresses of the host name; "" (the name itself) where it has only one, or where a proxy resolves it."""
        proxies = urllib.request.getproxies()
        if proxies.keys() & {self._url.scheme, "all"} and not urllib.request.proxy_bypass(self._url.host):
            return [""]
        try:
            found = socket.getaddrinfo(self._url.host, self._url.port or self._url.scheme, type=socket.SOCK_STREAM)
        except OSError:
            return [""]
        # A link-local address leads nowhere without its interface.
        addresses = dict.fromkeys(str(each[4][0]) for each in found if "%" not in str(each[4][0]))
        near = [address for address in addresses if ip_address(address).version not in self._excluded]
        return near if len(addresses) > 1 and near else [""]

    def exclude(self, responding: Iterable[str], silent: Iterable[str]) -> set[str]:
        """Exclude an address family of which no address responds, where the other family's do: localhost has both.

        Returns:
            Silent addresses of families that are not excluded.
        """
        versions = {ip_address(address).version for address in responding if address}
        if versions:
            self._excluded |= {ip_address(address).version for address in silent if address} - versions
        return {address for address in silent if address and ip_address(address).version in versions}

    @contextmanager
    def open(self, address: str = "") -> Iterator[httpx.Client]:
        """A client whose connections are its own; it drops the key where a redirect leads elsewhere.

        Args:
            address: one of `addresses`.
        """
        transport = _Pinned(self._url.host, address, self._context) if address else None
        with httpx.Client(
            base_url=self._url,
            headers=self._headers,
            timeout=_TIMEOUT_S,
            follow_redirects=True,
            verify=self._context,
            transport=transport,
        ) as client:
            yield client


class _Pinned(httpx.HTTPTransport):
    """Connects to one address of a host name, which stays the one of Host, SNI and the certificate."""

    def __init__(self, host: str, address: str, context: ssl.SSLContext) -> None:
        super().__init__(verify=context)
        self._host, self._address = host, address

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """httpx.BaseTransport."""
        if request.url.host == self._host:
            request = httpx.Request(
                request.method,
                request.url.copy_with(host=self._address),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": self._host},
            )
        return super().handle_request(request)
