"""A bucket on S3, or on a server with S3's API: its client, its credentials, its errors in words.

boto3 is AWS's own client: it knows every source of credentials (variables, profiles, IRSA, instance roles) and lists
all keys. obstore was tried: one key such as `a//b` fails its whole listing, and in a folder it follows links out of it.
"""

import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import exceptions
from botocore.config import Config
from botocore.utils import get_environ_proxies

from registry.errors import Misconfigured, StorageError
from registry.storage.address import BucketAddress, is_same_endpoint
from registry.storage.bucket_errors import CREDENTIALS, FAULTS, Access, code_of

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # the first that is set counts
# Looking for credentials may run a program, read a file that comes later, or use the network.
_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.MetadataRetrievalError,
)
# S3's codes for keys that have expired or been replaced, perhaps with new ones in their file by now.
_STALE = {
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken",
    "RequestExpired", "SignatureDoesNotMatch", "TokenRefreshRequired", "AccessDenied", "403",
}  # fmt: skip
_NEXT = "; next: correct the variable AWS_... or the profile that says so"

T = TypeVar("T")


class Bucket:
    """A client that is made when it is needed, and again when the credentials have changed.

    Attributes:
        address: bucket and prefix.
    """

    def __init__(
        self, address: BucketAddress, *, connect_s: float, read_s: float, attempts: int, together: int
    ) -> None:
        """Nothing is sent yet.

        Args:
            address: bucket and prefix.
            connect_s: longest that a connection may take.
            read_s: longest that a read of a response may take, not the whole response.
            attempts: how often a request is sent at most.
            together: how many requests may be in progress.
        """
        self.address = address
        self._attempts = attempts
        self._read_s = read_s
        self._config = Config(
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=together,
            # The newer checksums are unknown to older MinIO and Ceph; manifest.json has a digest of every file.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._lock = threading.Lock()
        self._made: tuple[Any, Any] | None = None  # the client, and the keys that it has

    def check(self) -> None:
        """Read the configuration of S3: variables, profiles, certificates.

        Raises:
            Misconfigured: it is invalid.
        """
        with suppress(StorageError):  # credentials may still come
            self._client()

    def call(self, what: str, work: Callable[[Any], T]) -> T:
        """Call a function with boto3's client; a second time where the credentials have changed since.

        Args:
            what: the key or address, for messages.
            work: client -> result; may be called twice.

        Raises:
            StorageError: S3 rejected it, or could not be reached.
        """
        with self.translating(what):
            client = self._client()
            try:
                return work(client)
            except (exceptions.ClientError, *_NO_CREDENTIALS, RuntimeError) as exc:
                if isinstance(exc, exceptions.ClientError) and code_of(exc) not in _STALE:
                    raise
                renewed = self._renew(client)
                if renewed is None:
                    raise
                return work(renewed)

    @contextmanager
    def translating(self, what: str) -> Iterator[None]:
        """Translate boto3's errors into words that a user can act on; never its text where that contains headers.

        Raises:
            StorageError: in place of any error of boto3.
        """
        try:
            yield
        except FAULTS as exc:
            raise StorageError(f"{what}: {self._access.explain(exc)}") from exc
        except Misconfigured as exc:  # it was valid at the start: it may be corrected again
            raise StorageError(str(exc)) from exc

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made[0]

    def _renew(self, client: Any) -> Any | None:
        """A new client where another thread has made one, or the keys have changed; else None."""
        with self._lock:
            if self._made is None or self._made[0] is not client:
                return self._made and self._made[0]
            made = self._make()
            if made[1] is None or made[1] == self._made[1]:
                return None
            self._made = made
            return made[0]

    def _make(self) -> tuple[Any, Any]:
        """A client, and the keys that it was made with.

        Raises:
            Misconfigured: its configuration is invalid.
            StorageError: the search for credentials failed.
        """
        where = f"{self.address}"
        try:
            core = botocore.session.Session()
            # botocore itself knows the older name alone.
            session = boto3.session.Session(botocore_session=core, region_name=os.environ.get("AWS_REGION") or None)
            client = session.client("s3", endpoint_url=self._endpoint_url(), config=self._config)
            _check_server(core, client.meta.endpoint_url)
            credentials = core.get_credentials()
            return client, credentials and credentials.get_frozen_credentials()
        except (
            *_NO_CREDENTIALS,
            exceptions.ConnectionError,
            exceptions.HTTPClientError,
            exceptions.ClientError,
        ) as exc:
            raise StorageError(f"{where}: {self._access.explain(exc)}") from exc
        except exceptions.PartialCredentialsError as exc:
            raise Misconfigured(f"{where}: {exc}; expected {CREDENTIALS}; next: export them, and try again") from exc
        except exceptions.BotoCoreError as exc:
            raise Misconfigured(f"{where}: {exc}{_NEXT}") from exc
        except ValueError as exc:
            raise Misconfigured(f"{where}: {self._find_endpoint_problem() or exc}{_NEXT}") from exc
        except (AttributeError, TypeError) as exc:  # botocore, where a profile has a word instead of a section
            raise Misconfigured(f"{where}: a profile is not as botocore expects it ({exc}){_NEXT}") from exc
        except OSError as exc:  # the file of a token does not exist yet
            raise StorageError(f"{where}: {exc.filename}: {exc.strerror}; next: look at {CREDENTIALS}") from exc

    def _endpoint_url(self) -> str | None:
        own = self.address.endpoint
        name = next((name for name in _ENDPOINTS if os.environ.get(name)), "")
        if own and name and not _is_same(own, os.environ[name]):
            raise Misconfigured(
                f"{self.address}: REPOSITORY names {own}, and {name} another server, "
                f"{_without_password(os.environ[name])}; expected one; next: unset {name}, or s3://bucket/prefix"
            )
        return own

    def _find_endpoint_problem(self) -> str:
        """What is wrong with the server's URL; empty without one."""
        name = next((name for name in _ENDPOINTS if os.environ.get(name)), "")
        if self.address.endpoint or not name:
            return ""
        return f"{name}: got {_without_password(os.environ[name])!r}, expected such as http://localhost:9000"

    @property
    def _access(self) -> Access:
        made = self._made
        endpoint = _without_password(made[0].meta.endpoint_url) if made else self.address.endpoint or "S3"
        return Access(self.address.bucket, endpoint, self._read_s, self._attempts)


def _check_server(core: Any, endpoint: str) -> None:
    """Check URL, certificates and proxy now; boto3 would fail only at the first request, as a network error.

    Raises:
        Misconfigured: the URL, the certificates or the proxy is invalid.
        ValueError: the URL is invalid.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or endpoint != endpoint.strip():
        raise ValueError(f"Invalid endpoint: {_without_password(endpoint)}")
    _ = parts.port  # ValueError
    bundle = core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    if parts.scheme == "https" and bundle:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            folder = os.path.isdir(bundle)  # noqa: PTH112 - as OpenSSL takes it
            context.load_verify_locations(**{"capath" if folder else "cafile": bundle})
        except OSError as exc:  # ssl.SSLError is one
            reason = exc.strerror or exc
            raise Misconfigured(f"AWS_CA_BUNDLE: {bundle}: {reason}; expected a file of certificates (PEM)") from exc
    for scheme, proxy in get_environ_proxies(endpoint).items():
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy.removeprefix('//')}")
        try:
            good = url.scheme in {"http", "https"} and url.hostname and url.port != 0
        except ValueError:
            good = False
        if not good and scheme in {parts.scheme, "all"}:
            got = _without_password(proxy)
            raise Misconfigured(f"{scheme.upper()}_PROXY: got {got!r}, expected such as http://host:3128")


def _is_same(first: str, second: str) -> bool:
    try:
        return is_same_endpoint(first, second)
    except ValueError:  # no port
        return False


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    host, slash, path = (rest if separator else scheme).partition("/")
    return f"{scheme if separator else ''}{separator}{host.rpartition('@')[2]}{slash}{path}".rstrip("/")
