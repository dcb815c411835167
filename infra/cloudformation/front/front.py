"""A Lambda function: requests of an HTTP API of API Gateway to a SageMaker endpoint of Nereid, and its responses back.

Needs nothing beyond what Lambda's Python has. Forms: payload 2.0 of API Gateway, `InvokeEndpoint` of SageMaker.
"""

import base64
import json
import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

# Lambda takes and gives 6 MB of JSON, of which base64 leaves three quarters.
_MAX_BYTES = (6 * 1024 * 1024 - 1024) * 3 // 4
_MAX_ATTRIBUTES = 1024  # SageMaker's
# The function ends after 29 s. The caller knows whether to send it once more.
_SAGEMAKER = boto3.client(
    "sagemaker-runtime", config=Config(connect_timeout=1, read_timeout=26, retries={"total_max_attempts": 1})
)
# Of SageMaker itself, not of the container.
_UNAVAILABLE = {"ServiceUnavailable", "ModelNotReadyException", "InternalDependencyException"}


def handle(event: Mapping[str, Any], _context: object = None) -> dict[str, Any]:
    """Pass one request on.

    Args:
        event: of API Gateway; `pathParameters.model` is the model, the query its parameters.

    Returns:
        The response of the endpoint, errors of the container with their own status.
    """
    text = event.get("body") or ""
    body = base64.b64decode(text) if event.get("isBase64Encoded") else text.encode()
    attributes = _compose_attributes(event)
    if len(attributes) > _MAX_ATTRIBUTES:
        limit = f"parameters: got {len(attributes)} characters, expected at most {_MAX_ATTRIBUTES}"
        return _reject(HTTPStatus.REQUEST_URI_TOO_LONG, "invalid_request", limit)
    headers = {name.lower(): value for name, value in event.get("headers", {}).items()}
    if encoding := headers.get("content-encoding"):
        what = f"Content-Encoding: got {encoding!r}, expected none: SageMaker does not pass it on"
        return _reject(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media", what)
    try:
        response = _SAGEMAKER.invoke_endpoint(
            EndpointName=os.environ["ENDPOINT_NAME"],
            Body=body,
            ContentType=headers.get("content-type", "application/octet-stream"),
            Accept=headers.get("accept", "application/json"),
            CustomAttributes=attributes,
            InferenceId=event["requestContext"]["requestId"],
        )
        return _respond(HTTPStatus.OK, response["ContentType"], response["Body"].read())
    except ClientError as exc:
        return _translate(exc)
    except (ReadTimeoutError, ConnectTimeoutError) as exc:
        _log(exc)
        return _reject(HTTPStatus.GATEWAY_TIMEOUT, "deadline_exceeded", "no response in time; next: try again")
    except BotoCoreError as exc:
        _log(exc)
        return _reject(HTTPStatus.SERVICE_UNAVAILABLE, "predictor_unavailable", "no connection; next: try again")


def _compose_attributes(event: Mapping[str, Any]) -> str:
    """The parameters as SageMaker passes them on: `name=value`, with commas between, values as in a query."""
    pairs = parse_qsl(event.get("rawQueryString", ""), keep_blank_values=True)
    if model := (event.get("pathParameters") or {}).get("model"):
        pairs.insert(0, ("model", unquote(model)))
    return ",".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)


def _translate(exc: ClientError) -> dict[str, Any]:
    """The container's own response where it gave one; otherwise what SageMaker says of the request.

    SageMaker's own words are for the log: they name the account.
    """
    code, message = exc.response["Error"]["Code"], exc.response["Error"]["Message"]
    if code == "ModelError":
        if not (status := exc.response.get("OriginalStatusCode")):
            _log(exc)
            return _reject(HTTPStatus.GATEWAY_TIMEOUT, "deadline_exceeded", "no response in time; next: try again")
        return _respond(int(status), "application/json", exc.response.get("OriginalMessage", "").encode())
    _log(exc)
    if code == "ThrottlingException":
        return _reject(HTTPStatus.TOO_MANY_REQUESTS, "overloaded", "too many requests; next: try again")
    if code in _UNAVAILABLE or "not found" in message:
        return _reject(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "the endpoint is not ready; next: try again")
    if code == "ValidationError":
        return _reject(
            HTTPStatus.BAD_REQUEST, "invalid_request", "SageMaker rejected it; next: the log of this function"
        )
    return _reject(HTTPStatus.BAD_GATEWAY, "predictor_failed", "the endpoint failed; next: the log of this function")


def _log(exc: Exception) -> None:
    print(json.dumps({"level": "error", "message": f"SageMaker: {exc}"}))


def _respond(status: int, content_type: str, body: bytes) -> dict[str, Any]:
    if len(body) > _MAX_BYTES:
        what = f"response: got {len(body)} bytes, expected at most {_MAX_BYTES}; next: fewer images in one request"
        return _reject(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "payload_too_large", what)
    return {
        "statusCode": status,
        "headers": {"content-type": content_type, **_retry(status)},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def _reject(status: HTTPStatus, code: str, error: str) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json", **_retry(status)},
        "body": json.dumps({"error": error, "code": code}),
    }


def _retry(status: int) -> dict[str, str]:
    return {"retry-after": "1"} if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE} else {}
