"""Errors of boto3 where a server of S3 cannot be used, in words that a user can act on.

boto3's own text is left out where it has headers in it, which hold secrets.
"""

from dataclasses import dataclass

from botocore import exceptions
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role"
# All that boto3 raises where a network, a server or credentials are at fault: urllib3's own where TLS breaks in the
# middle of a body, RuntimeError where refreshed credentials have expired already, OSError where a token's file is gone.
FAULTS = (
    exceptions.BotoCoreError, exceptions.ClientError, exceptions.HTTPClientError, exceptions.IncompleteReadError,
    HTTPError, ResponseParserError, RuntimeError, OSError,
)  # fmt: skip
_ELSEWHERE = {
    "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "IncorrectEndpoint", "PermanentRedirect",
}  # fmt: skip


@dataclass(frozen=True)
class Access:
    """How a bucket was accessed.

    Attributes:
        bucket: its name.
        endpoint: URL of the server, without a password.
        read_s: longest that a read was waited for.
        attempts: how often each request was sent.
    """

    bucket: str
    endpoint: str
    read_s: float
    attempts: int

    def explain(self, error: Exception) -> str:
        """What is wrong, and the next step."""
        server = self.endpoint
        match error:
            case exceptions.ClientError():
                words = self._explain_response(error)
            case exceptions.ReadTimeoutError():
                words = f"{server} did not respond in {self.read_s:g} s, {self.attempts} times; next: try again later"
            case exceptions.SSLError():
                words = f"{server} is not trusted: {error.kwargs.get('error')}; next: AWS_CA_BUNDLE=<certificates>"
            case exceptions.ProxyConnectionError():
                words = f"the proxy to {server} cannot be reached; next: look at HTTPS_PROXY, HTTP_PROXY, NO_PROXY"
            case exceptions.ConnectionError():
                words = (
                    f"{server} cannot be reached; next: look at AWS_ENDPOINT_URL, AWS_REGION, and whether it "
                    "runs (locally: make s3)"
                )
            case exceptions.NoCredentialsError():
                words = f"no credentials; expected {CREDENTIALS}; next: export them, and try again"
            case exceptions.CredentialRetrievalError():
                words = f"{str(error).rstrip(': ')}; next: look at {CREDENTIALS}"
            case exceptions.HTTPClientError():
                words = f"{server} broke off ({type(error).__name__}); next: try again"
            case _:
                words = str(error) or type(error).__name__
        return words

    def _explain_response(self, error: exceptions.ClientError) -> str:
        code, status = code_of(error), status_of(error)
        said = error.response.get("Error", {}).get("Message", "")
        if code == "NoSuchBucket":
            words = (
                f"no bucket {self.bucket} at {self.endpoint}; next: make it, or correct REPOSITORY or AWS_ENDPOINT_URL"
            )
        elif code in _ELSEWHERE or status in {301, 307}:
            words = f"the bucket is in another region ({status} {code}: {said}); next: AWS_REGION=<its region>"
        elif status in {401, 403} or "Expired" in code:
            words = (
                f"access denied ({code}, {error.operation_name}); expected credentials that may list and read there, "
                f"and write and delete to publish; next: look at {CREDENTIALS}"
            )
        elif status == 501:
            words = (
                f"{self.endpoint} does not know {error.operation_name} in this form; expected conditional writes to "
                "publish, ListObjectsV2 to read"
            )
        elif status >= 500 or status == 429:
            words = f"{self.endpoint} failed {self.attempts} times ({status} {code}); next: try again later"
        else:
            words = f"{self.endpoint} returned {status} {code}: {said}"
        return words


def code_of(error: exceptions.ClientError) -> str:
    """S3's code of an error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: exceptions.ClientError) -> int:
    """HTTP status of an error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
