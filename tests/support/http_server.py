"""HTTP servers that run in the process of a test."""

import http.client
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.support.ports import find_free_ports

Play = Callable[[str, str], tuple[int, Any] | None]
Judge = Callable[[Mapping[str, str]], tuple[int, str] | None]


class Quiet:
    """Mixin of a request handler that logs nothing."""

    def log_message(self, *_: object) -> None:
        pass


class Exchange(Quiet, BaseHTTPRequestHandler):
    """Reads whole requests and sends whole responses, several in a connection."""

    protocol_version = "HTTP/1.1"

    def read(self) -> bytes:
        """The body of the request."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send the response."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def run_server(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of loopback until the block ends; yields the URL."""
    with ThreadingHTTPServer(("127.0.0.1", find_free_ports(1)[0]), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Server:
    """A server of `serve`: its URL, and its requests in order."""

    url: str
    requests: list[str]


@contextmanager
def serve(
    play: Play, *, upstream: str = "", hidden: Collection[str] = (), judge: Judge = lambda _: None
) -> Iterator[Server]:
    """Respond with the result of `play` for method and path; where it is None, with the response of another server.

    Args:
        play: method and path -> status and content of a JSON response, or None.
        upstream: URL of the other server.
        hidden: header fields that are not forwarded, in lower case.
        judge: fields of a request -> status and S3's code of an error, or None.
    """
    requests: list[str] = []

    class Handler(Quiet, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # with Expect: 100-continue

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            requests.append(f"{self.command} {path}")
            played, rejected = play(self.command, path), judge(dict(self.headers))
            headers: Mapping[str, str] = {}
            if rejected is not None:
                status, content = rejected[0], f"<Error><Code>{rejected[1]}</Code><Message/></Error>".encode()
            elif played is not None:
                status, content = played[0], json.dumps(played[1]).encode()
            else:
                connection = http.client.HTTPConnection(upstream.removeprefix("http://"))
                fields = {name: value for name, value in self.headers.items() if name.lower() not in hidden}
                connection.request(self.command, self.path, body, fields | {"Expect": ""})
                response = connection.getresponse()
                status, content, headers = response.status, response.read(), dict(response.headers)
                connection.close()
            self.send_response(status)
            for name in headers.keys() - {"Content-Length", "Transfer-Encoding", "Connection", "Date", "Server"}:
                self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = respond  # noqa: N815 - http.server's names

    with run_server(Handler) as url:
        yield Server(url, requests)
