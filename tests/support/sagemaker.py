"""What SageMaker is between its clients and a container, by its documentation: a path, few headers, errors of its own.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import httpx

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

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != f"/endpoints/{ENDPOINT}/invocations":
                self._send(
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
                self._send(200, kept, response.content)
                return
            error = {"OriginalStatusCode": response.status_code, "OriginalMessage": response.text, "Message": "model"}
            self._send(424, {"x-amzn-errortype": "ModelError"}, json.dumps(error).encode())

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
