"""boto3's clients, and its errors in words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError

from worker.errors import Away, Failed, StartError, Undeliverable

# Of the account, the keys or the rights: an operator may fix it, and what is held need not be lost.
_PASSING = {
    "SlowDown", "ServiceUnavailable", "RequestTimeout", "InternalError", "Throttling", "ThrottlingException",
    "RequestThrottled", "KMS.ThrottlingException", "TooManyRequestsException",
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken",
    "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
    "UnrecognizedClientException",
}  # fmt: skip
_CONNECT_S, READ_S = 5.0, 30.0


def connect(service: str, *, together: int, read_s: float = READ_S, attempts: int = 2) -> Any:
    """A client of `s3` or `sqs`, which several threads may use.

    Args:
        service: its name.
        together: how many requests may be in progress.
        read_s: longest wait for a part of a response.
        attempts: at each request.

    Raises:
        StartError: there is no region, no credentials, or the configuration of boto3 is invalid.
    """
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=read_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=together,
        # The newer checksums are unknown to older servers with S3's API.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        # botocore itself knows AWS_DEFAULT_REGION alone.
        session = boto3.session.Session(region_name=os.environ.get("AWS_REGION") or None)
        client = session.client(service, config=config)
        found = session.get_credentials()
    except (BotoCoreError, ValueError) as exc:
        raise StartError(
            f"{service}: {exc}; next: export AWS_REGION, or correct the variable AWS_... that says so"
        ) from exc
    if found is None:
        raise StartError(
            f"{service}: no credentials; next: export AWS_ACCESS_KEY_ID and so on, AWS_PROFILE, or use a role"
        )
    return client


@contextmanager
def translating(what: str) -> Iterator[None]:
    """Translate the errors of boto3 that a caller has not handled.

    Args:
        what: was to be done, for messages.

    Raises:
        Undeliverable: boto3 itself rejects a name that a message has.
        Away: the service is away or busy, or the keys have to be renewed.
        Failed: it rejected the request.
    """
    try:
        yield
    except ClientError as exc:
        code, status = code_of(exc), exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        text = f"{what}: {code}: {exc.response.get('Error', {}).get('Message', '')}"
        if code in _PASSING or status >= 500 or status == 429:
            raise Away(text) from exc
        raise Failed(text) from exc
    except ParamValidationError as exc:
        raise Undeliverable("invalid_message", f"{what}: {' '.join(str(exc).split())}") from exc
    except (BotoCoreError, HTTPClientError, OSError) as exc:
        raise Away(f"{what}: {exc}") from exc


def code_of(error: ClientError) -> str:
    """The word by which the service names an error."""
    return str(error.response.get("Error", {}).get("Code", ""))
