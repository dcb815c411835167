"""What stands before every route: the headers that browsers keep to, API keys, and the line of requests."""

from collections.abc import Callable, Sequence

from fastapi import Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from transformer.dataplane import DataPlane
from transformer.errors import Overloaded, ServingError
from transformer.keys import Keys
from transformer.record import current
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
            record = current()
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
    """Refuses questions that the line has no room for, before anything is done for them.

    FastAPI's way to a handler costs more than the refusal, and there are the more of them the less time there is.
    """

    def __init__(
        self,
        app: ASGIApp,
        dataplane: DataPlane,
        questions: Sequence[APIRoute],
        *,
        answer: Callable[[Scope, ServingError], Response],
    ) -> None:
        """Guard an application.

        Args:
            app: behind it.
            dataplane: has the line.
            questions: the routes that wait in it.
            answer: writes an error.
        """
        self._app = app
        self._dataplane = dataplane
        self._questions = questions
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http" and scope["method"] == "POST" and self._find(scope):
            try:
                self._dataplane.admission.check()
            except Overloaded as exc:
                await self._answer(scope, exc)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _find(self, scope: Scope) -> bool:
        """Whether it is a question; like Starlette, note which and about what."""
        for route in self._questions:
            if found := route.path_regex.match(scope["path"]):
                scope["route"], scope["path_params"] = route, found.groupdict()
                return True
        return False
