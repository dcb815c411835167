"""An S3 server for development: moto's, in memory, on loopback, with a bucket that keeps versions.

`make s3` runs it.
"""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import httpx
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from environment.arguments import Parser
from environment.listening import is_local, read_name

HOST = "127.0.0.1"
BUCKET = "models"
_REJECTED = "<Error><Code>AccessDenied</Code><Message>{}</Message></Error>"
_VERSIONED = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


class LocalPrograms:
    """Accepts requests of programs of this machine and rejects those of web pages; moto accepts any Origin and key.

    A page sends its Origin; a page whose own name resolves to loopback (DNS rebinding) sends that name as the Host.
    moto's own interface, which shows and resets everything, is closed.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """A WSGI application."""
        if reason := self._find_reason(environ):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [_REJECTED.format(reason).encode()]
        return self._app(environ, start_response)

    def _find_reason(self, environ: dict[str, Any]) -> str:
        if "HTTP_ORIGIN" in environ:
            return "a request of a web page: got an Origin, expected none"
        # Clients may put the bucket in front of the name.
        if not is_local(read_name(environ.get("HTTP_HOST", "")) or ""):
            return f"Host: expected localhost or {HOST}"
        if environ.get("PATH_INFO", "").startswith("/moto-api"):
            return "moto-api: closed here"
        return ""


def main() -> int:
    """Serve until Ctrl-C or SIGTERM; 1 if the port is taken."""
    try:
        port = read_port()
        socket.create_server((HOST, port)).close()
    except (ValueError, OverflowError) as exc:
        print(f"error: S3_PORT: {exc}; expected 1 to 65535", file=sys.stderr)
        return 2
    except OSError as exc:
        print(
            f"error: S3_PORT: port {port} is taken ({os.strerror(exc.errno or 0)}); next: stop what listens there"
            f" (ss -ltnp 'sport = :{port}'), or S3_PORT=<another port>",
            file=sys.stderr,
        )
        return 1
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # in every thread: sigwait() below has them
    with serving(port) as url:
        print(f"S3 with the bucket {BUCKET} is ready; it is in memory: its contents are lost at the end (Ctrl-C)")
        print("in another terminal:")
        # moto takes any key.
        print(f"export AWS_ENDPOINT_URL={url} AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=us-east-1")
        print(f"make publish MODEL=digits REPOSITORY=s3://{BUCKET}/demo", flush=True)
        signal.sigwait(signals)
    print("stopped; its contents are lost")
    return 0


def read_port() -> int:
    """The port of the option, or of S3_PORT.

    Raises:
        ValueError: it is no number.
    """
    parser = Parser(prog="nereid s3", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--s3-port", default=os.environ.get("S3_PORT") or "9000", metavar="PORT", help="(default: 9000)"
    )
    return int(parser.parse_args().s3_port)


@contextmanager
def serving(port: int) -> Iterator[str]:
    """Serve until the block ends, with a bucket that keeps versions; the URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request, and servers poll
    app = LocalPrograms(DomainDispatcherApplication(create_backend_app))
    server = make_server(HOST, port, app, threaded=True, request_handler=MotoRequestHandler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://{HOST}:{port}"
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        client.put(f"/{BUCKET}").raise_for_status()
        client.put(f"/{BUCKET}", params={"versioning": ""}, content=_VERSIONED).raise_for_status()
    try:
        yield url
    finally:
        server.shutdown()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
