"""What stands before every route: API keys, and the headers that browsers keep to."""

from collections.abc import Callable

from fastapi import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from transformer.errors import ServingError
from transformer.keys import Keys
from transformer.settings import TransformerSettings

# The page of /docs has its script inline; nothing comes from elsewhere, and nobody frames it.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
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
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


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
        if scope["type"] == "http" and not self._is_open(scope["path"]):
            try:
                self._keys.check(Headers(scope=scope))
            except ServingError as exc:
                await self._answer(scope, exc)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return any(path.startswith(known[:-1]) if known.endswith("*") else path == known for known in self._open)
