"""What stands before every route: the headers that browsers keep to, API keys, and the line of requests."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

from fastapi import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from transformer.admission import Admission
from transformer.auth import Keys
from transformer.errors import Overloaded, ServingError
from transformer.observability.request_record import current_request
from transformer.settings import TransformerSettings

# The page of /docs has its script inline; nothing comes from elsewhere, and nobody frames it.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# By the words of TRANSFORMER_KEYLESS.
_PATHS = {
    "health": ("/", "/v2/health/*"),  # "/" is what KServe's v1 clients take for liveness
    "metrics": ("/metrics",),
    "status": ("/status",),
    "docs": ("/docs", "/openapi.json", "/static-offline-docs/*"),
}


def route_of(scope: Scope) -> str:
    """The pattern of the route that a request was found to fit; "other" where it fits none."""
    return getattr(scope.get("route"), "path_format", "other")


class SecurityHeaders:
    """Adds them to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class TrailingSlash:
    """Treats a path with a slash at its end as the one without, to which KServe's server would redirect."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        # Only a slash that was sent as such: %2F belongs to a name.
        if scope["type"] == "http" and len(scope["path"]) > 1 and scope["raw_path"].endswith(b"/"):
            scope["path"], scope["raw_path"] = scope["path"][:-1], scope["raw_path"][:-1]
        await self._app(scope, receive, send)


class FindRoute:
    """Notes, like Starlette, which route a path fits: before the guards, for what they refuse is counted under it."""

    def __init__(self, app: ASGIApp, routes: Iterable[Any]) -> None:
        """Stand before an application.

        Args:
            app: behind it.
            routes: all that it has, those first that are asked most: they have a `path_regex`.
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


class KeyGuard:
    """Lets in who shows a key; answers before the body is read."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        settings: TransformerSettings,
        *,
        answer: Callable[[Scope, ServingError], Response],
    ) -> None:
        """Guard an application.

        Args:
            app: behind it.
            keys: of those who may.
            settings: say what is open without a key.
            answer: writes an error.
        """
        self._app = app
        self._keys = keys
        self._open = tuple(path for word in settings.keyless for path in _PATHS[word])
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http":
            record = current_request()
            record.key = ""
            try:
                if not self._is_open(scope["path"]):
                    record.key = self._keys.check(Headers(scope=scope))
            except ServingError as exc:
                await self._answer(scope, exc)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return any(path.startswith(known[:-1]) if known.endswith("*") else path == known for known in self._open)


class LineGuard:
    """Refuses requests that the queue has no room for, before anything is done for them.

    FastAPI's way to a handler costs more than the refusal, and there are the more of them the less time there is.
    `FindRoute` stands before it.
    """

    def __init__(
        self,
        app: ASGIApp,
        admission: Admission,
        queued: Collection[str],
        *,
        answer: Callable[[Scope, ServingError], Response],
    ) -> None:
        """Guard an application.

        Args:
            app: behind it.
            admission: has the queue.
            queued: the routes that wait in it, as patterns.
            answer: writes an error.
        """
        self._app = app
        self._admission = admission
        self._queued = frozenset(queued)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http" and scope["method"] == "POST" and route_of(scope) in self._queued:
            try:
                self._admission.check()
            except Overloaded as exc:
                await self._answer(scope, exc)(scope, receive, send)
                return
        await self._app(scope, receive, send)
