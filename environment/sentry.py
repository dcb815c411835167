"""Errors to Sentry, where SENTRY_DSN names a project: what a part logs as an error, with its traceback.

Nothing of a request goes along but what its log line says: no body, no header, no query, no variable of a frame. Other
variables that the SDK reads: SENTRY_ENVIRONMENT, SENTRY_RELEASE, and those of proxies and certificates.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from environment import __version__

log = logging.getLogger("sentry")

_FLUSH_S = 2.0

Members = Callable[[], Mapping[str, Any]]


def report_errors(part: str, members: Members = dict) -> None:
    """Report what is logged as an error from here on; without SENTRY_DSN nothing is imported, and nothing sent.

    A package that is missing or a DSN that is invalid is logged, and the part goes on: it serves without Sentry too.

    Args:
        part: name of the process, a tag of each event.
        members: of the request in progress, as in its log line: tags too.
    """
    dsn = os.environ.get("SENTRY_DSN")
    if not dsn:
        return
    try:
        import sentry_sdk  # noqa: PLC0415  # optional, and slow to import
        from sentry_sdk.integrations.atexit import AtexitIntegration  # noqa: PLC0415
        from sentry_sdk.integrations.dedupe import DedupeIntegration  # noqa: PLC0415
        from sentry_sdk.integrations.excepthook import ExcepthookIntegration  # noqa: PLC0415
        from sentry_sdk.integrations.logging import LoggingIntegration  # noqa: PLC0415
        from sentry_sdk.integrations.threading import ThreadingIntegration  # noqa: PLC0415
        from sentry_sdk.utils import BadDsn  # noqa: PLC0415
    except ImportError as exc:
        log.error("no reports: %s; SENTRY_DSN needs the extra sentry of pyproject.toml", exc)
        return

    def complete(event: Any, hint: Any) -> Any:
        record = hint.get("log_record")
        found = {**members(), **getattr(record, "fields", {})}
        event.pop("modules", None)
        for raised in event.get("exception", {}).get("values", []):
            raised["value"] = ""  # an exception's own words may quote what it failed at; the log has them
        event["extra"] = {}  # the SDK's copy of the line's members, and the process's arguments
        event["tags"] = event.get("tags", {}) | {name: str(value) for name, value in found.items() if value != ""}
        return event

    try:
        sentry_sdk.init(
            dsn=dsn,
            release=os.environ.get("SENTRY_RELEASE") or f"nereid@{__version__}",
            before_send=complete,
            integrations=[
                LoggingIntegration(level=None, event_level=logging.ERROR, sentry_logs_level=None),
                ExcepthookIntegration(),
                AtexitIntegration(callback=lambda *_: None),  # it would write to stderr
                ThreadingIntegration(),
                DedupeIntegration(),
            ],
            # Frameworks and clients that the SDK knows would add requests.
            default_integrations=False,
            auto_enabling_integrations=False,
            send_default_pii=False,
            include_local_variables=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            auto_session_tracking=False,
            shutdown_timeout=_FLUSH_S,
        )
    except (BadDsn, ValueError):  # the latter of a port or an address
        log.error("no reports: SENTRY_DSN: got something else (not shown), expected a DSN of Sentry")
        return
    sentry_sdk.set_tag("part", part)


def flush() -> None:
    """Send what is not sent yet, for a process that ends without the interpreter's own end; 2 s at most."""
    if sentry_sdk := sys.modules.get("sentry_sdk"):
        sentry_sdk.flush(_FLUSH_S)
