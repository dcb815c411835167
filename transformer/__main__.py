"""`python -m transformer`: the HTTP and gRPC server in front of Triton. KServe owns argv, `TRANSFORMER_*` is ours."""

import asyncio
import logging
import signal
import socket
import sys

import cv2
import uvicorn
import uvloop
from pydantic import ValidationError

from transformer import arguments
from transformer.dataplane import DataPlane
from transformer.grpc.server import GrpcServer
from transformer.predictor import Predictor
from transformer.rest.app import create_app
from transformer.settings import TransformerSettings
from transformer.synchroniser import Synchroniser

log = logging.getLogger("transformer")

_INTERVAL_S = 0.1


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; requests that were accepted are finished."""
    args = arguments.parse(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("uvicorn", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        settings = TransformerSettings()
    except ValidationError as exc:
        for error in exc.errors():
            name = "TRANSFORMER_" + "_".join(str(part) for part in error["loc"]).upper()
            print(f"error: {name}: got {error['input']!r}, expected: {error['msg']}", file=sys.stderr)
        return 2
    for option in args.ignored:
        log.warning("option --%s changes nothing here", option)
    # Requests are the unit of parallelism: OpenCV's own threads would only fight for the same cores.
    cv2.setNumThreads(1)
    # A broken picture is the client's error, and answered as such.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # uvicorn raises the signal that stopped it once more when all is done: a stop that was asked for is no failure.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve(args, settings))
    except PortError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1


class PortError(Exception):
    """A port cannot be listened on; the message says which."""


class Server(uvicorn.Server):
    """uvicorn, and gRPC beside it: they start and stop together."""

    def __init__(self, config: uvicorn.Config, grpc_server: GrpcServer, *, grace_s: float) -> None:
        super().__init__(config)
        self._grpc_server = grpc_server
        self._grace_s = grace_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept requests."""
        await self._grpc_server.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more; finish what was accepted."""
        grpc_stop = asyncio.create_task(self._grpc_server.stop(self._grace_s))
        await super().shutdown(sockets)
        while not grpc_stop.done():
            await asyncio.wait([grpc_stop], timeout=_INTERVAL_S)
            if self.force_exit:  # the second Ctrl-C
                await self._grpc_server.stop(0)


async def serve(args: arguments.Arguments, settings: TransformerSettings) -> int:
    """Serve both protocols over one data plane until a signal; the exit status.

    Raises:
        PortError: a port cannot be listened on.
    """
    # Here and not by uvicorn, to say in one line what is wrong.
    listener = listen(settings.host, args.http_port)
    secret = settings.predictor_secret.get_secret_value()
    predictor = Predictor(args.predictor_host, timeout_s=settings.request_timeout_s, secret=secret)
    dataplane = DataPlane(predictor, Synchroniser(settings.sync_url), settings)
    grpc_server = GrpcServer(dataplane, settings)
    # gRPC says no more than "failed".
    listen(settings.host, args.grpc_port).close()
    grpc_server.listen(settings.host, args.grpc_port)
    config = uvicorn.Config(
        create_app(settings, dataplane),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
    server = Server(config, grpc_server, grace_s=settings.shutdown_timeout_s)
    line = "http://%s:%d and gRPC on %d in front of Triton at %s"
    log.info(line, settings.host, args.http_port, args.grpc_port, args.predictor_host)
    try:
        # Ends in SystemExit after a signal, see main().
        await server.serve(sockets=[listener])
    finally:
        await dataplane.close()
    return 0 if server.started else 1


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        PortError: it cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as exc:
        raise PortError(f"{host}:{port} cannot be listened on: {exc.strerror}") from exc
    # Connections inherit it. asyncio sets it only on sockets it made itself, and without it an answer on a connection
    # that is kept waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


if __name__ == "__main__":
    sys.exit(main())
