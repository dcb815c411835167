"""An HTTP server of a test: it plays some responses, and gets the rest from another server."""

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


@dataclass(frozen=True)
class Server:
    """An HTTP server of this test: the requests it had, in their order."""

    url: str
    requests: list[str]


@contextmanager
def serve(
    play: Play, *, upstream: str = "", hidden: Collection[str] = (), judge: Judge = lambda _: None
) -> Iterator[Server]:
    """Answer with what `play` says to method and path, where it says nothing with what another server does.

    Args:
        play: method and path -> status and what is answered as JSON, or None.
        upstream: URL of the other server.
        hidden: fields of a request that the other server does not see, in lower case.
        judge: fields of a request -> status and S3's code of an error, or None.
    """
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which answers Expect: 100-continue

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            requests.append(f"{self.command} {path}")
            played, refused = play(self.command, path), judge(dict(self.headers))
            headers: Mapping[str, str] = {}
            if refused is not None:
                status, content = refused[0], f"<Error><Code>{refused[1]}</Code><Message/></Error>".encode()
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

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", find_free_ports(1)[0]), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}", requests)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
