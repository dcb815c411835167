"""ASGI middleware: security headers, route lookup, API-key authentication, admission control, inference endpoints."""

from collections.abc import Collection, Iterable
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from transformer.admission import Admission
from transformer.auth import Keys, find_key, is_keyless
from transformer.errors import OutOfMemory, Overloaded, ServingError
from transformer.observability.request_record import current_request
from transformer.rest.form_key import PLACE, read_form_key, takes_form_key
from transformer.rest.responses import reject
from transformer.settings import TransformerSettings

# Nothing is loaded from elsewhere, no script or style is inline, and no page may frame one of these.
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
# FastAPI's page has its script inline.
_DOCS_POLICY = f"{_POLICY}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
)
_POLICY_HEADER = (b"content-security-policy", _POLICY.encode())
_DOCS_POLICY_HEADER = (b"content-security-policy", _DOCS_POLICY.encode())
# By the values of TRANSFORMER_KEYLESS.
_PATHS = {
    "health": ("/", "/v2/health/*", "/ping"),  # "/" is what KServe's v1 clients take for liveness
    "metrics": ("/metrics",),
    "status": ("/status",),
    "docs": ("/docs", "/openapi.json", "/static-offline-docs/*"),
    # The pages alone: what they show is of routes that require a key, which the user types there.
    "playground": ("/", "/stack", "/playground/*"),
}


def keyless_paths(settings: TransformerSettings) -> tuple[str, ...]:
    """Patterns of the paths that need no API key."""
    return tuple(path for word in settings.keyless for path in _PATHS[word])


def route_of(scope: Scope) -> str:
    """The pattern of the route of a request; "other" for an unknown route."""
    return getattr(scope.get("route"), "path_format", "other")


class SecurityHeadersMiddleware:
    """Adds the security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = _DOCS_POLICY_HEADER if scope["path"] == "/docs" else _POLICY_HEADER
                message["headers"] = [*message["headers"], policy, *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class TrailingSlashMiddleware:
    """Removes a slash at the end of a path; KServe's server would redirect instead."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        # Only a literal slash: %2F belongs to a name.
        if scope["type"] == "http" and len(scope["path"]) > 1 and scope["raw_path"].endswith(b"/"):
            scope["path"], scope["raw_path"] = scope["path"][:-1], scope["raw_path"][:-1]
            scope["had_trailing_slash"] = True
        await self._app(scope, receive, send)


class RouteMiddleware:
    """Finds the route of a request like Starlette does, but before the middleware that may reject the request.

    So rejected requests are counted under their route, and the queue is checked without FastAPI: a 429 takes 33 µs, and
    65 to 124 µs where a route class checks it behind FastAPI's own routing.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[Any]) -> None:
        """Wrap an application.

        Args:
            app: to wrap.
            routes: of the application, those with most requests first; each has a `path_regex`.
        """
        self._app = app
        self._routes = tuple((route, getattr(route, "methods", None)) for route in routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http":
            self._find(scope)
        await self._app(scope, receive, send)

    def _find(self, scope: Scope) -> None:
        path, method = scope["path"], scope["method"]
        for route, methods in self._routes:
            if not (found := route.path_regex.match(path)):
                continue
            takes_method = methods is None or method in methods
            if takes_method or "route" not in scope:
                scope["route"], scope["path_params"] = route, found.groupdict()
            if takes_method:
                return


class ApiKeyMiddleware:
    """Rejects requests without a valid API key before their body is read, or the image of a form that may hold one."""

    def __init__(self, app: ASGIApp, keys: Keys, settings: TransformerSettings) -> None:
        """Wrap an application.

        Args:
            app: to wrap.
            keys: one of which is required.
            settings: name the routes that need none.
        """
        self._app = app
        self._keys = keys
        self._open = keyless_paths(settings)
        self._timeout_s = settings.body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http":
            record = current_request()
            record.key = ""
            try:
                if not is_keyless(scope["path"], self._open):
                    record.key, receive = await self._check(scope, receive)
            except ServingError as exc:
                await reject(scope, exc)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope, receive: Receive) -> tuple[str, Receive]:
        """The name of the key, and what brings the body."""
        headers = Headers(scope=scope)
        if find_key(headers) or not takes_form_key(scope):
            return self._keys.check(headers), receive
        key, receive = await read_form_key(scope, receive, timeout_s=self._timeout_s)
        places = f"Authorization: Bearer <key>, X-API-Key: <key>, or {PLACE}"
        return self._keys.check({"x-api-key": key}, places=places), receive


class AdmissionMiddleware:
    """Rejects inference requests beyond a full queue before their body is read; needs `RouteMiddleware` around it."""

    def __init__(self, app: ASGIApp, admission: Admission, queued: Collection[str]) -> None:
        """Wrap an application.

        Args:
            app: to wrap.
            admission: has the queue.
            queued: patterns of the routes whose requests are queued.
        """
        self._app = app
        self._admission = admission
        self._queued = frozenset(queued)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http" and scope["method"] == "POST" and route_of(scope) in self._queued:
            try:
                self._admission.check()
            except Overloaded as exc:
                await reject(scope, exc)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class EndpointMiddleware:
    """Calls the endpoint of an inference request itself; needs `RouteMiddleware` around it.

    FastAPI describes these routes in `/docs`, but has nothing to do for their requests: it would look the route up
    again, resolve dependencies that they do not have and enter two exit stacks.
    """

    def __init__(self, app: ASGIApp, endpoints: Collection[str]) -> None:
        """Wrap an application.

        Args:
            app: gets all other requests.
            endpoints: patterns of the routes whose endpoint takes `model` and `request`, and returns a response.
        """
        self._app = app
        self._endpoints = frozenset(endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] != "http" or scope["method"] != "POST" or route_of(scope) not in self._endpoints:
            await self._app(scope, receive, send)
            return
        try:
            response = await scope["route"].endpoint(scope["path_params"]["model"], Request(scope, receive, send))
        except ServingError as exc:
            response = reject(scope, exc)
        except MemoryError:
            response = reject(scope, OutOfMemory())
        await response(scope, receive, send)
