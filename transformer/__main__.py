"""`python -m transformer`: the HTTP server in front of Triton. KServe owns argv, `TRANSFORMER_*` is ours."""

import asyncio
import logging
import signal
import socket
import sys

import cv2
import uvicorn
from pydantic import ValidationError

from transformer import arguments
from transformer.rest.app import create_app
from transformer.settings import TransformerSettings


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; requests that were accepted are finished."""
    args = arguments.parse(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    log = logging.getLogger("transformer")
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
    try:
        # Here and not by uvicorn, to say it in one line.
        listener = socket.create_server((settings.host, args.http_port), backlog=2048)
        # Connections inherit it. asyncio sets it only on sockets it made itself, and without it an answer on a
        # connection that is kept waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as exc:
        print(f"error: {settings.host}:{args.http_port} cannot be listened on: {exc.strerror}", file=sys.stderr)
        return 1
    config = uvicorn.Config(
        create_app(settings, predictor_url=args.predictor_host),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
    server = uvicorn.Server(config)
    log.info("http://%s:%d in front of Triton at %s", settings.host, args.http_port, args.predictor_host)
    # uvicorn raises the signal that stopped it once more when all is done: a stop that was asked for is no failure.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    asyncio.run(server.serve(sockets=[listener]))
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
