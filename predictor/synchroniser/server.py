"""The synchroniser as a process: its loop in a thread, and `/status`, `/ready` and `/metrics` over HTTP."""

import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from environment import sentry, stopping
from environment.error_codes import ErrorCode
from environment.listening import HostGuard, Hosts, join, listen, within_reach
from environment.log_lines import log_as_json
from predictor.errors import StartError, WrongSetting
from predictor.settings import Settings
from predictor.synchroniser.loop import Synchroniser
from predictor.synchroniser.metrics_relay import ByPort, create_relay
from predictor.synchroniser.mirror import Mirror
from predictor.synchroniser.services import Services
from predictor.synchroniser.status import Status
from predictor.synchroniser.triton_client import TritonClient
from registry.errors import Misconfigured
from registry.signatures.trust import Trust, read_trust
from registry.storage.reading import open_storage

log = logging.getLogger("synchroniser")

_STOP_S = 5.0
_DEFAULT_MIRROR = Path(".cache/mirror")


def serve(settings: Settings) -> None:
    """Synchronise until SIGTERM or Ctrl-C.

    Raises:
        StartError: the repository's URL is invalid, or the mirror or the port is unavailable.
    """
    _configure_logging(settings)
    sentry.report_errors("synchroniser")
    try:
        storage = open_storage(settings.repository)
    except Misconfigured as exc:
        raise WrongSetting(f"{exc} (PREDICTOR_REPOSITORY; make: REPOSITORY=)") from exc
    trust = _read_trust(settings)
    listeners = _listen(settings)
    mirror = Mirror(settings.mirror or _DEFAULT_MIRROR, limit_bytes=settings.mirror_bytes)
    status = Status(storage.url, settings.instance)
    triton = TritonClient(
        join(within_reach(settings.address), settings.grpc_port),
        secret=settings.secret.get_secret_value(),
        load_timeout_s=settings.load_timeout_s,
    )
    synchroniser = Synchroniser(Services(settings, storage, mirror, triton, status, trust))
    hosts = Hosts(listeners[0].getsockname()[0], settings.sync_hosts, setting="PREDICTOR_SYNC_HOSTS")
    app: Any = create_app(status, hosts)
    if settings.metrics_relay_port:
        app = ByPort(app, create_relay(settings), settings.metrics_relay_port)
    server = uvicorn.Server(_configure_http(app))
    failed = threading.Event()
    worker = threading.Thread(target=_run, args=(synchroniser, server, failed), name="synchroniser", daemon=True)
    worker.start()
    log.info("%s to %s; status on http://%s", storage.url, mirror.root, join(*listeners[0].getsockname()[:2]))
    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            stopping.run(runner, partial(server.serve, listeners))
    finally:
        synchroniser.stop()
        worker.join(_STOP_S)
        mirror.records.close()
        logging.shutdown()
        sentry.flush()
        sys.stdout.flush()
        # A download or a load may take minutes more; its result takes effect in its last step only.
        os._exit(1 if failed.is_set() else 0)


def _read_trust(settings: Settings) -> Trust | None:
    """Whose signatures are required.

    Raises:
        WrongSetting: a file is missing or broken: without it every version would serve, or none.
    """
    if settings.signed_by is None:
        return None
    try:
        trust = read_trust(settings.signed_by)
    except Misconfigured as exc:
        raise WrongSetting(f"{exc} (PREDICTOR_SIGNED_BY; make: SIGNED_BY=)") from exc
    log.info("versions have to be signed by %s", ", ".join(trust.described))
    return trust


def _configure_logging(settings: Settings) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if settings.log_format == "json":
        log_as_json()
    for noisy in ("uvicorn", "botocore", "boto3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _configure_http(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        # uvicorn's other parser accepts requests that RFC 9112 forbids.
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )


def create_app(status: Status, hosts: Hosts | None = None) -> Starlette:
    """Create the HTTP application, which is read-only; with `hosts` it rejects requests for other host names."""

    def get_status(_: Request) -> Response:
        return JSONResponse(status.as_json())

    def get_ready(_: Request) -> Response:
        content = status.as_json()
        waiting_for = content["waiting_for"]
        return JSONResponse({"ready": status.ready, "waiting_for": waiting_for}, 200 if status.ready else 503)

    def get_metrics(_: Request) -> Response:
        return Response(generate_latest(status.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    routes = {"/status": get_status, "/ready": get_ready, "/metrics": get_metrics}
    middleware = []
    if hosts is not None and hosts.are_known:
        misdirected = ErrorCode.MISDIRECTED_REQUEST
        middleware.append(Middleware(HostGuard, hosts=hosts, respond=lambda _, why: _error(misdirected, why)))
    # Not FastAPI, which takes as long to import as the rest of this process's own modules.
    return Starlette(
        routes=[Route(path, respond, methods=["GET"]) for path, respond in routes.items()],
        middleware=middleware,
        exception_handlers={HTTPException: _reject},
    )


def _reject(request: Request, exc: Exception) -> Response:
    path = request.url.path[:200]
    if isinstance(exc, HTTPException) and exc.status_code == ErrorCode.METHOD_NOT_ALLOWED.http_status:
        return _error(ErrorCode.METHOD_NOT_ALLOWED, f"{request.method} {path}: expected GET", exc.headers)
    return _error(ErrorCode.ROUTE_NOT_FOUND, f"no route {path}; expected /status, /ready or /metrics")


def _error(code: ErrorCode, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message, "code": code}, code.http_status, headers)


def _run(synchroniser: Synchroniser, server: uvicorn.Server, failed: threading.Event) -> None:
    """Run the loop; a defect that ends it ends the process, which its manager starts again."""
    try:
        synchroniser.run()
    except Exception:
        failed.set()
        log.exception("the synchroniser ended")
    finally:
        server.should_exit = True


def _listen(settings: Settings) -> list[socket.socket]:
    """Open the synchroniser's own port, and that of Triton's metrics where there is one."""
    ports = {"PREDICTOR_SYNC_PORT (make: SYNC_PORT=)": settings.sync_port}
    if settings.metrics_relay_port:
        ports["PREDICTOR_METRICS_RELAY_PORT"] = settings.metrics_relay_port
    listeners = []
    for variable, port in ports.items():
        try:
            listeners.append(listen(settings.sync_address, port))
        except OSError as exc:
            raise StartError(
                f"port {port} on {settings.sync_address}: {exc.strerror}; choose another with {variable}"
            ) from exc
    return listeners
