"""What SageMaker is between its clients and a container, by its documentation: a path, few headers, errors of its own.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import boto3
import httpx

from tests.support.http_server import Exchange, run_server

ENDPOINT = "nereid"
# All others are stripped.
_PASSED = {
    "content-type",
    "accept",
    "x-amzn-sagemaker-custom-attributes",
    "x-amzn-sagemaker-target-model",
    "x-amzn-sagemaker-inference-id",
}
_RETURNED = ("content-type", "x-amzn-sagemaker-custom-attributes")


@contextmanager
def open_endpoint(container: str) -> Iterator[Any]:
    """AWS's own client of an endpoint with one container.

    Args:
        container: its URL.

    Yields:
        The client of `sagemaker-runtime`.
    """
    with start_endpoint(container) as url:
        yield boto3.client(
            "sagemaker-runtime",
            endpoint_url=url,
            region_name="eu-central-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106
        )


@contextmanager
def start_endpoint(container: str) -> Iterator[str]:
    """SageMaker with an endpoint of one container.

    Args:
        container: its URL.

    Yields:
        The URL of SageMaker.
    """

    class Endpoint(Exchange, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.read()
            if self.path != f"/endpoints/{ENDPOINT}/invocations":
                self.send(
                    400,
                    {"x-amzn-errortype": "ValidationError"},
                    b'{"message": "Endpoint other of account 123456789012 not found."}',
                )
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() in _PASSED}
            response = httpx.post(
                f"{container}/invocations", content=body, headers=headers, trust_env=False, timeout=60
            )
            if response.is_success:
                kept = {name: response.headers[name] for name in _RETURNED if name in response.headers}
                self.send(200, kept, response.content)
                return
            error = {"OriginalStatusCode": response.status_code, "OriginalMessage": response.text, "Message": "model"}
            self.send(424, {"x-amzn-errortype": "ModelError"}, json.dumps(error).encode())

    with run_server(Endpoint) as url:
        yield url
