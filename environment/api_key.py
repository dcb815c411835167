"""The API key that a client sends to a server: NEREID_API_KEY, in a header of HTTP or in metadata of gRPC.

`export`, `loadtest` and `stack` share this module; it imports none of them. The key is read from the environment alone,
because every user of a machine can read the arguments of its processes. Child processes inherit it.
"""

import json
import os
from http import HTTPStatus

VARIABLE = "NEREID_API_KEY"
NEXT = f"next: {VARIABLE}=<one of the server's keys>"
_REJECTED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_REJECTED_BY_GRPC = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
_SHOWN = 200  # characters of a server's message


class AccessError(Exception):
    """A server rejects this client, or the key is invalid; the message says which and what to do."""


def headers() -> dict[str, str]:
    """The headers with the key, names in lower case as gRPC requires; empty without a key.

    Raises:
        AccessError: it is no valid key. The message does not contain it.
    """
    key = os.environ.get(VARIABLE, "")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise AccessError(
            f"{VARIABLE}: got something else (not shown) than printable ASCII without blanks, expected a key as make "
            "key shows it"
        )
    return {"authorization": f"Bearer {key}"} if key else {}


def metadata() -> tuple[tuple[str, str], ...]:
    """The key as metadata of a gRPC call.

    Raises:
        AccessError: it is no valid key.
    """
    return tuple(headers().items())


def check(where: str, status: int | str, text: str) -> None:
    """Return if a response is about something other than the key.

    Args:
        where: the server, for the message.
        status: of HTTP, or the name of gRPC's code.
        text: the body, or gRPC's details.

    Raises:
        AccessError: the server requires a key, or another one.
    """
    if status in _REJECTED or status in _REJECTED_BY_GRPC:
        raise AccessError(f"{where}: {status} {_words(text)}; {NEXT}")


def _words(text: str) -> str:
    """The message of the server, on one line."""
    try:
        message = json.loads(text)["error"]
    except (ValueError, LookupError, TypeError):
        message = text
    return " ".join(str(message).split())[:_SHOWN]
