"""The images of tasks: what is fetched, from where, and with which token.

Who may import tasks writes their data. So that it is no way into the network of the backend, only these are fetched:
images in the data itself (data:); paths of Label Studio's files, from LABEL_STUDIO_URL, with its token; s3://, gs://
and azure-blob://, by the address that Label Studio itself signs; and other http(s) addresses of hosts that were named
at the start, without a redirect, and without a token.
"""

import base64
import binascii
from urllib.parse import urlsplit

import httpx

_CLOUD = ("s3", "gs", "azure-blob")
# Of Label Studio's paths those that are files: nothing else of it is requested with the owner's token.
_FILES = ("/data/", "/storage-data/", "/tasks/", "/projects/")
_MAX_BYTES = 64 * 1024 * 1024


class ImageError(Exception):
    """An image of a task that cannot be had; the message says why."""


class Images:
    """Fetches images of tasks."""

    def __init__(self, label_studio: str, token: str, hosts: frozenset[str], timeout_s: float = 30.0) -> None:
        """Connect to nothing yet.

        Args:
            label_studio: its URL; empty where tasks have no files of it.
            token: of a user of it: a legacy token, or a personal access token.
            hosts: names of other hosts that images may come from; `*` is every host.
            timeout_s: of one request.
        """
        self._url, self._token, self._hosts = label_studio.rstrip("/"), token, hosts
        self._http = httpx.Client(timeout=timeout_s, max_redirects=3)

    def fetch(self, address: object, task_id: object) -> bytes:
        """The encoded image at an address of a task's data.

        Raises:
            ImageError: what stands there is no address, is not fetched, or does not respond with a file.
        """
        if not isinstance(address, str) or not address:
            raise ImageError(f"task {task_id}: got {str(address)[:80]!r}, expected the address of an image")
        parts = urlsplit(address)
        if parts.scheme == "data":
            return _decode(address)
        if parts.scheme in _CLOUD:
            uri = base64.urlsafe_b64encode(address.encode()).decode()
            return self._from_label_studio(f"/tasks/{task_id}/presign/?fileuri={uri}")
        path = address.removeprefix(self._url) if self._url else address
        if path.startswith("/") and not path.startswith("//"):
            return self._from_label_studio(path)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ImageError(
                f"{address[:200]}: expected http, https, s3, gs, azure-blob, data, or a path of Label Studio"
            )
        if not self._hosts & {parts.hostname, "*"}:
            raise ImageError(f"{parts.hostname}: no image is fetched from there; next: --image-hosts {parts.hostname}")
        return self._get(address, {}, follow=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _from_label_studio(self, path: str) -> bytes:
        if not path.startswith(_FILES) or "/.." in path:
            raise ImageError(f"{path[:200]}: no path of an image in Label Studio ({', '.join(_FILES)})")
        if not self._url or not self._token:
            raise ImageError(
                f"{path[:200]}: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, to fetch files of Label Studio"
            )
        # httpx sends the token to no other host, where Label Studio redirects to a bucket.
        return self._get(self._url + path, {"Authorization": self._authorization()}, follow=True)

    def _authorization(self) -> str:
        """A personal access token is exchanged for one of five minutes, a legacy one is sent as it is."""
        if self._token.count(".") != 2:
            return f"Token {self._token}"
        try:
            response = self._http.post(f"{self._url}/api/token/refresh", json={"refresh": self._token})
            response.raise_for_status()
            return f"Bearer {response.json()['access']}"
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise ImageError(f"LABEL_STUDIO_API_KEY: {self._url} gave no access token for it: {error}") from error

    def _get(self, url: str, headers: dict[str, str], *, follow: bool) -> bytes:
        try:
            with self._http.stream("GET", url, headers=headers, follow_redirects=follow) as response:
                if response.status_code != httpx.codes.OK:
                    raise ImageError(f"{_shown(url)}: got {response.status_code}, expected 200")
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > _MAX_BYTES:
                        raise ImageError(f"{_shown(url)}: over {_MAX_BYTES} bytes")
                return bytes(body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ImageError(f"{_shown(url)}: {error or type(error).__name__}") from error


def _shown(url: str) -> str:
    """Without its query, which may be a signature."""
    return url.partition("?")[0][:200]


def _decode(address: str) -> bytes:
    head, _, body = address.partition(",")
    if not head.endswith(";base64"):
        raise ImageError(f"{head[:80]}: expected data:image/...;base64,")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ImageError(f"{head[:80]}: not base64: {error}") from error
