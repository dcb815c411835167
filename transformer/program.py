"""`python -m transformer`: the HTTP and gRPC server in front of Triton. KServe owns argv, `TRANSFORMER_*` is ours."""

import asyncio
import ctypes
import logging
import signal
import socket
import ssl
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import cv2
import uvicorn
import uvloop
from pydantic import ValidationError

from environment import stopping
from environment.listening import Hosts, join
from environment.listening import listen as open_listener
from environment.sentry import report_errors
from environment.variables import describe_invalid
from transformer import cli as arguments
from transformer.admission import Admission
from transformer.auth import Keys, KeysError
from transformer.dataplane.dataplane import DataPlane
from transformer.grpc.server import GrpcServer
from transformer.observability import logs
from transformer.observability.trace_context import Trace
from transformer.offload import make_threads, set_threads
from transformer.rest.app import create_app
from transformer.rest.http_limits import LimitedHttpProtocol
from transformer.seccomp import block_rings, confine
from transformer.services import Services
from transformer.settings import OpenTelemetrySettings, TransformerSettings
from transformer.triton.client import TritonClient
from transformer.triton.synchroniser_client import SynchroniserClient

if TYPE_CHECKING:
    from transformer.observability.spans import Spans

log = logging.getLogger("transformer")

_INTERVAL_S = 0.1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 8 * 2**20  # an image of 2.8 megapixels: memory of smaller ones is reused


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; requests that were accepted are finished.

    Returns:
        0 after SIGTERM or Ctrl-C; 2 for an invalid argument, setting or file, where restarting will not help; 1 for any
        other failure.
    """
    args = arguments.parse(sys.argv[1:])
    try:
        settings = TransformerSettings()
    except ValidationError as exc:
        for problem in describe_invalid(TransformerSettings, exc):
            print(f"error: {problem}", file=sys.stderr)
        return 2
    logs.configure(settings.log_format)
    report_errors("transformer", logs.members_of_request)
    release_memory()
    for option in args.ignored:
        log.warning("option --%s has no effect", option)
    # Requests run in parallel: OpenCV's own threads would compete for the same cores.
    cv2.setNumThreads(1)
    # A broken image is the client's error.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # uvicorn raises the signal again after its shutdown, which is not a failure.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    if settings.seccomp:  # before the event loop exists
        block_rings()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return stopping.run(runner, partial(serve, args, settings))
    except (PortError, KeysError, TlsError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1 if isinstance(exc, PortError) else 2


def release_memory() -> None:
    """Have glibc return the memory of large images at once: by default it keeps up to 64 MiB for each thread.

    Its thresholds grow with freed blocks, up to 32 MiB, unless they are set (mallopt(3)).
    """
    with suppress(AttributeError):  # another C library
        for threshold in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(threshold, _KEPT_BYTES)


class PortError(Exception):
    """A port is unavailable; the message says which."""


class TlsError(Exception):
    """Certificate or key is invalid; the message says which."""


class Server(uvicorn.Server):
    """uvicorn and the gRPC server, which start and stop together."""

    def __init__(self, config: uvicorn.Config, grpc_server: GrpcServer, *, grace_s: float) -> None:
        super().__init__(config)
        self._grpc_server = grpc_server
        self._grace_s = grace_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start both servers."""
        await self._grpc_server.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more requests; finish those in progress."""
        grpc_stop = asyncio.create_task(self._grpc_server.stop(self._grace_s))
        # A socket that was accepted a moment ago is not yet a connection of uvicorn, and would miss the shutdown.
        asyncio.get_running_loop().call_later(_INTERVAL_S, self._stop_connections)
        await super().shutdown(sockets)
        while not grpc_stop.done():
            await asyncio.wait([grpc_stop], timeout=_INTERVAL_S)
            if self.force_exit:  # the second Ctrl-C
                await self._grpc_server.stop(0)

    def _stop_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.shutdown()


async def serve(args: arguments.Arguments, settings: TransformerSettings) -> int:
    """Serve both protocols over one data plane until a signal; returns the exit status.

    Raises:
        PortError: a port is unavailable.
        KeysError: the file of API keys is invalid.
        TlsError: certificate or key is invalid.
    """
    # Not by uvicorn, for an error of one line.
    keys = Keys(settings.api_keys_file) if settings.api_keys_file else None
    if args.tls:
        check_tls(args.tls)
    listener = listen(settings.host, args.http_port)
    hosts = Hosts(listener.getsockname()[0], settings.hosts, setting="TRANSFORMER_HOSTS")
    set_threads(make_threads(settings.threads))
    dataplane = DataPlane(TritonClient(args.predictor_host), SynchroniserClient(settings.sync_url), settings)
    spans = open_spans(OpenTelemetrySettings())
    services = Services(settings, dataplane, make_admission(settings), keys, trace=spans.begin if spans else Trace)
    grpc_server = GrpcServer(services)
    # gRPC's own error says no more than "failed".
    listen(settings.host, args.grpc_port).close()
    grpc_server.listen(settings.host, args.grpc_port, args.tls)
    server = Server(configure_http(args, services, hosts), grpc_server, grace_s=settings.shutdown_timeout_s)
    line = "http://%s and gRPC on %d in front of Triton at %s"
    log.info(line, join(settings.host, args.http_port), args.grpc_port, args.predictor_host)
    if settings.seccomp:  # before the first request
        confine(listener.fileno())
    try:
        # Ends in SystemExit after a signal, see main().
        await server.serve(sockets=[listener])
    finally:
        await dataplane.close()
        if spans:
            spans.close()
    return 0 if server.started else 1


def make_admission(settings: TransformerSettings) -> Admission:
    """The limits of requests in progress."""
    return Admission(
        max_in_flight=settings.max_in_flight,
        max_waiting=settings.max_waiting,
        max_bodies_bytes=settings.max_bodies_bytes,
        max_timeout_s=settings.request_timeout_s,
    )


def configure_http(args: arguments.Arguments, services: Services, hosts: Hosts) -> uvicorn.Config:
    """Settings of uvicorn."""
    settings = services.settings
    return uvicorn.Config(
        create_app(services, hosts=hosts),
        # uvicorn only calls it
        http=partial(LimitedHttpProtocol, timeout_s=settings.body_timeout_s, admission=services.admission),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
        # The argument is for this container, the setting for all that share an environment.
        timeout_keep_alive=args.keep_alive_s or settings.keep_alive_s,  # type: ignore[arg-type]  # uvicorn only waits
        ssl_certfile=args.tls.cert_file if args.tls else None,
        ssl_keyfile=args.tls.key_file if args.tls else None,
    )


def open_spans(settings: OpenTelemetrySettings) -> "Spans | None":
    """The exporter of spans; None if OpenTelemetry's variables name no collector, or an unusable one."""
    if not settings.is_on:
        return None
    if settings.protocol != "http/protobuf":
        log.error("no spans: OTEL_EXPORTER_OTLP_PROTOCOL: got %r, expected http/protobuf", settings.protocol)
        return None
    try:
        from transformer.observability.spans import Spans  # noqa: PLC0415  # optional, and slow to import
    except ImportError as exc:
        log.error("no spans: %s; OTEL_EXPORTER_OTLP_ENDPOINT needs the extra otel of pyproject.toml", exc)
        return None
    return Spans()


def check_tls(tls: arguments.Tls) -> None:
    """Check certificate and key: the servers' own errors do not say what is wrong.

    Raises:
        TlsError: a file is missing or invalid, or they do not belong together.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as exc:
        files = f"--ssl_certfile={tls.cert_file} --ssl_keyfile={tls.key_file}"
        raise TlsError(f"{files}: {exc.strerror or exc}; expected a certificate and its key, PEM") from exc


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        PortError: the port is unavailable.
    """
    try:
        listener = open_listener(host, port, backlog=2048)
    except OSError as exc:
        raise PortError(f"{join(host, port)} is unavailable: {exc.strerror}; next: free it, or use another") from exc
    # Connections inherit it; asyncio sets it only on sockets that it made itself. Without it a response on a connection
    # that stays open waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
