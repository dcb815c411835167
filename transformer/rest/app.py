"""The FastAPI application: routes, errors, and the middleware in front of them."""

from collections.abc import Collection
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from environment import __version__
from environment.listening import HostGuard, Hosts
from transformer.errors import MisdirectedRequest
from transformer.rest import openapi, playground, predict, sagemaker, v1, v2, vision
from transformer.rest.documents import ERRORS
from transformer.rest.middleware import (
    AdmissionMiddleware,
    ApiKeyMiddleware,
    EndpointMiddleware,
    RouteMiddleware,
    SecurityHeadersMiddleware,
    TrailingSlashMiddleware,
    keyless_paths,
)
from transformer.rest.openapi_document import describe, operation_id
from transformer.rest.request_log import RequestLogMiddleware
from transformer.rest.responses import add_error_handlers, reject
from transformer.services import Services

_DESCRIPTION = "Images and rows in, predictions out: preprocessing and post-processing in front of NVIDIA Triton."


def create_app(services: Services, *, hosts: Hosts | None = None) -> FastAPI:
    """The application over a data plane.

    Args:
        services: of this process.
        hosts: names of this server, any other is rejected; None: every name is one of it.
    """
    described: dict[str, Any] = {
        "title": "Nereid",
        "description": _DESCRIPTION,
        "version": __version__,
        "responses": ERRORS,
        "generate_unique_id_function": operation_id,
    }
    # FastAPI's own spans would lack gRPC, and its records of failures quote what a client sent.
    described["telemetry"] = {"tracing": False, "metrics": False, "logs": False}
    if services.settings.docs:
        # FastAPI, with the files of /docs from this server: no content delivery network is needed.
        app = FastAPIOffline(**described, redoc_url=None, redirect_slashes=False)
    else:
        app = FastAPI(**described, openapi_url=None, redirect_slashes=False)
    app.state.settings, app.state.dataplane = services.settings, services.dataplane
    app.state.admission = services.admission
    for router in _routers(services):
        app.include_router(router)
    why = "Model repository: versions that serve, that were rejected, and why"
    app.add_api_route("/status", _status, summary=why, tags=["server"], openapi_extra=openapi.STATUS)
    if services.settings.docs:
        playground.add_files(app)
    app.add_api_route("/metrics", _metrics, methods=["HEAD"], include_in_schema=False)
    app.add_api_route("/metrics", _metrics, summary="Metrics", tags=["server"], openapi_extra=openapi.METRICS)
    add_error_handlers(app)
    _add_middleware(app, services, hosts)
    keyless = keyless_paths(services.settings) if services.keys is not None else None
    app.openapi = lambda: _openapi(app, keyless)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _routers(services: Services) -> list[APIRouter]:
    """Those with most requests first."""
    settings = services.settings
    pages = [playground.router] if settings.docs else []  # before v1, whose liveness is at / too
    return [
        predict.router,
        *pages,
        v1.router,
        v2.router,
        vision.router,
        *([sagemaker.router] if settings.sagemaker else []),
    ]


def _add_middleware(app: FastAPI, services: Services, hosts: Hosts | None) -> None:
    """Wrap the application; what is added last is outermost."""
    routes = [*(route for router in _routers(services) for route in router.routes), *app.routes]
    queued = [route for route in routes if isinstance(route, APIRoute) and route.methods == {"POST"}]
    others = [route for route in routes if route not in queued and hasattr(route, "path_regex")]
    patterns = [route.path_format for route in queued]
    app.add_middleware(EndpointMiddleware, endpoints=[pattern for pattern in patterns if "{model}" in pattern])
    app.add_middleware(AdmissionMiddleware, admission=services.admission, queued=patterns)
    if services.keys is not None:
        app.add_middleware(ApiKeyMiddleware, keys=services.keys, settings=services.settings)
    if hosts is not None and hosts.are_known:
        app.add_middleware(HostGuard, hosts=hosts, respond=lambda scope, why: reject(scope, MisdirectedRequest(why)))
    app.add_middleware(RouteMiddleware, routes=[*queued, *others])
    app.add_middleware(TrailingSlashMiddleware)
    app.add_middleware(RequestLogMiddleware, trace=services.trace)
    app.add_middleware(SecurityHeadersMiddleware)


async def _status(request: Request) -> Response:
    return Response(await request.app.state.dataplane.synchroniser_status(), media_type="application/json")


async def _metrics(request: Request) -> Response:
    await request.app.state.dataplane.predictor_ready()
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _openapi(app: FastAPI, keyless: Collection[str] | None) -> dict[str, Any]:
    if not app.openapi_schema:
        app.openapi_schema = describe(app, keyless=keyless)
    return app.openapi_schema
