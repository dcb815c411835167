"""Failures of a repository while a file is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.parsers
import pytest
import urllib3

from registry.errors import StorageError
from registry.layout import Object
from registry.storage.address import BucketAddress
from registry.storage.bucket import Bucket
from registry.storage.bucket_reading import Body
from registry.storage.reading import FolderStorage, read


class BrokenStorage(FolderStorage):
    """A storage whose connections break."""

    def __init__(self, root: Path, fault: Exception) -> None:
        super().__init__(root)
        self._fault = fault

    @contextmanager
    def open(self, source: Object) -> Iterator[Any]:
        """A body that cannot be read to its end."""
        yield Body(self, source.key)

    def read(self, _: int) -> bytes:
        """Read the body."""
        raise self._fault


@pytest.mark.parametrize(
    "fault",
    [
        urllib3.exceptions.SSLError("EOF occurred in violation of protocol"),
        urllib3.exceptions.ProtocolError("Connection broken"),
        botocore.parsers.ResponseParserError("Unable to parse response"),
        RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."),
    ],
)
def test_failure_of_network_or_credentials_is_transient(tmp_path: Path, fault: Exception) -> None:
    source = Object("rows/2/model.onnx", 5, "etag", datetime.now(UTC))
    with pytest.raises(StorageError, match=r"rows/2/model\.onnx"):
        read(BrokenStorage(tmp_path, fault), source, limit=10)
    bucket = Bucket(BucketAddress("models"), connect_s=1, read_s=1, attempts=1, together=1)
    with pytest.raises(StorageError, match="s3://models"), bucket.translating("s3://models"):
        raise fault
