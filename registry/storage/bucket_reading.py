"""Reads the objects of a model repository on S3."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from registry.errors import StorageError
from registry.layout import Object
from registry.storage.bucket import Bucket
from registry.storage.bucket_errors import FAULTS


class S3Storage:
    """A bucket, or a part of one."""

    def __init__(self, bucket: Bucket) -> None:
        self.url = str(bucket.address)
        self._bucket = bucket
        self._prefix = f"{bucket.address.prefix}/" if bucket.address.prefix else ""

    def walk(self, under: str = "") -> Iterator[Object]:
        """Every object below the prefix, in pages of a thousand."""
        prefix, last = self._prefix + under, ""
        start: dict[str, str] = {}
        while True:
            page = self._bucket.call(self.url, partial(self._list, prefix, start))
            keys = []
            for entry in page.get("Contents", ()):
                keys.append(entry["Key"])
                if not entry["Key"].startswith(prefix):
                    raise StorageError(f"{self.url}: expected keys below {prefix!r}, the server lists {entry['Key']!r}")
                yield _describe_object(entry, entry["Key"][len(self._prefix) :])
            if not page.get("IsTruncated"):
                return
            # Some servers name no token; some know the older listing alone, which ignores both.
            if not keys or max(keys) <= last:
                raise StorageError(f"{self.url}: the server lists the same keys again, expected ListObjectsV2 in pages")
            token, last = page.get("NextContinuationToken"), max(keys)
            start = {"ContinuationToken": token} if token else {"StartAfter": last}

    def _list(self, prefix: str, start: Mapping[str, str], client: Any) -> Any:
        return client.list_objects_v2(Bucket=self._bucket.address.bucket, Prefix=prefix, **start)

    @contextmanager
    def open(self, source: Object) -> Iterator[Any]:
        """The object, if it is still the one that was listed."""
        place = {"Bucket": self._bucket.address.bucket, "Key": self._prefix + source.key}
        response = self._bucket.call(source.key, lambda client: client.get_object(**place, IfMatch=source.etag))
        with closing(response["Body"]) as body:
            # A server may ignore the condition.
            if response["ETag"].strip('"') != source.etag.strip('"'):
                raise StorageError(f"{source.key} changed while it was read")
            yield Body(body, source.key)


class Body:
    """The stream of an object, whose errors are those of the storage."""

    def __init__(self, stream: Any, key: str) -> None:
        self._stream, self._key = stream, key

    def read(self, size: int | None = None) -> bytes:
        """Read at most so many bytes, or all; none at the end."""
        try:
            block: bytes = self._stream.read(size)
        except FAULTS as exc:
            raise StorageError(f"{self._key}: {exc}") from exc
        return block


def _describe_object(entry: Mapping[str, Any], key: str) -> Object:
    return Object(key, entry["Size"], entry["ETag"], entry["LastModified"])
