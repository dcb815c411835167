"""boto3's clients, and its errors in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from worker.errors import Away, Failed

# Of the account, the keys or the rights: an operator may fix it, and what is held need not be lost.
_BUSY = {"SlowDown", "ServiceUnavailable", "RequestTimeout", "InternalError", "Throttling", "ThrottlingException"}
_CONNECT_S, _READ_S = 5.0, 30.0


def connect(service: str, *, together: int) -> Any:
    """A client of `s3` or `sqs`, which several threads may use.

    Args:
        service: its name.
        together: how many requests may be in progress.
    """
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=together,
        # The newer checksums are unknown to older servers with S3's API.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client(service, config=config)


@contextmanager
def translating(what: str) -> Iterator[None]:
    """Translate the errors of boto3 that a caller has not handled.

    Args:
        what: was to be done, for messages.

    Raises:
        Away: the service is away or busy, or has no credentials yet.
        Failed: it rejected the request.
    """
    try:
        yield
    except ClientError as exc:
        code, status = code_of(exc), exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        text = f"{what}: {code}: {exc.response.get('Error', {}).get('Message', '')}"
        if code in _BUSY or status >= 500:
            raise Away(text) from exc
        raise Failed(text) from exc
    except (BotoCoreError, HTTPClientError, OSError) as exc:
        raise Away(f"{what}: {exc}") from exc


def code_of(error: ClientError) -> str:
    """The word by which the service names an error."""
    return str(error.response.get("Error", {}).get("Code", ""))
