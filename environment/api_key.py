"""What a client shows to a server that has API keys: NEREID_API_KEY, in a header of HTTP or in metadata of gRPC.

`export`, `loadtest` and `stack` share this module; it imports none of them. The key is read from the environment alone,
because every user of a machine can read the arguments of its processes. Child processes inherit it.
"""

import json
import os
from http import HTTPStatus

VARIABLE = "NEREID_API_KEY"
NEXT = f"next: {VARIABLE}=<one of the server's keys>"
_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_REFUSED_BY_GRPC = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
_SHOWN = 200  # characters of what a server says


class AccessError(Exception):
    """A server does not let this client in, or the key is none; the message says which and what to do."""


def headers() -> dict[str, str]:
    """What shows the key, in lower case as gRPC wants it; nothing where there is no key.

    Raises:
        AccessError: it cannot be a key. The message does not have it.
    """
    key = os.environ.get(VARIABLE, "")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise AccessError(
            f"{VARIABLE}: got something else (not shown) than printable ASCII without blanks, expected a key as make "
            "key shows it"
        )
    return {"authorization": f"Bearer {key}"} if key else {}


def metadata() -> tuple[tuple[str, str], ...]:
    """The same for a call of gRPC.

    Raises:
        AccessError: it cannot be a key.
    """
    return tuple(headers().items())


def check(where: str, status: int | str, text: str) -> None:
    """Pass where a response is about something else than the key.

    Args:
        where: the server, for the message.
        status: of HTTP, or the name of gRPC's code.
        text: the body, or gRPC's details.

    Raises:
        AccessError: the server wants a key, or another one.
    """
    if status in _REFUSED or status in _REFUSED_BY_GRPC:
        raise AccessError(f"{where}: {status} {_words(text)}; {NEXT}")


def _words(text: str) -> str:
    """What the server says, on one line."""
    try:
        said = json.loads(text)["error"]
    except (ValueError, LookupError, TypeError):
        said = text
    return " ".join(str(said).split())[:_SHOWN]
