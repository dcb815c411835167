"""Objects below a prefix of a bucket, written only where they are as they were last seen: none of another is lost."""

import io
from pathlib import Path
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from worker.aws import READ_S, code_of, connect, translating
from worker.errors import Away

_GONE = {"NoSuchKey", "404"}
_CHANGED = _GONE | {"PreconditionFailed", "412"}
_MEANWHILE = {"ConditionalRequestConflict", "409"}
_TRIES = 3


class Objects:
    """Each write has a condition: the ETag that was last seen, or that there is no such object.

    A response that was lost leaves an object whose ETag this program does not know. So each object says whose it is,
    and where that is this one, it is written again. All methods may raise `Away` and `Failed`.
    """

    def __init__(self, bucket: str, prefix: str, *, read_s: float = READ_S, attempts: int = 2) -> None:
        """Nothing is sent yet.

        Args:
            bucket: its name.
            prefix: of all keys; empty: the whole bucket.
            read_s: longest wait for a part of a response.
            attempts: at each request.

        Raises:
            StartError: boto3 has no region or no credentials.
        """
        self._s3 = connect("s3", together=2, read_s=read_s, attempts=attempts)
        self._bucket, self._prefix = bucket, prefix.strip("/")
        self._writer = uuid4().hex
        self._seen: dict[str, str] = {}  # ETags by name

    def etag(self, name: str) -> str:
        """As it was last seen; empty where there was none."""
        return self._seen.get(name, "")

    def read(self, name: str) -> bytes | None:
        """An object; None where there is none."""
        with translating(f"reading {self._key(name)}"):
            try:
                found = self._s3.get_object(**self._place(name))
            except ClientError as exc:
                if code_of(exc) not in _GONE:
                    raise
                self._seen[name] = ""
                return None
            content: bytes = found["Body"].read()
        self._seen[name] = found["ETag"]
        return content

    def find(self, name: str) -> bool:
        """Whether there is an object."""
        found = self._head(name)
        self._seen[name] = found.get("ETag", "")
        return bool(found)

    def write(self, name: str, content: Path | bytes) -> bool:
        """Write an object; False where another program has changed it since it was seen."""
        for _ in range(_TRIES):
            etag = self.etag(name)
            opened = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
            with opened as body, translating(f"writing {self._key(name)}"):
                try:
                    found = self._s3.put_object(
                        **self._place(name), Body=body, Metadata={"writer": self._writer},
                        **({"IfMatch": etag} if etag else {"IfNoneMatch": "*"}),
                    )  # fmt: skip
                except ClientError as exc:
                    if code_of(exc) in _MEANWHILE:
                        break
                    if code_of(exc) not in _CHANGED:
                        raise
                else:
                    self._seen[name] = found["ETag"]
                    return True
            found = self._head(name)
            if found.get("Metadata", {}).get("writer") != self._writer:
                return False
            self._seen[name] = found["ETag"]
        raise Away(f"writing {self._key(name)}: something else does, too")

    def remove(self, name: str) -> bool:
        """Remove an object that was seen; False where another program has changed it since."""
        if not (etag := self.etag(name)):
            return True
        with translating(f"removing {self._key(name)}"):
            try:
                self._s3.delete_object(**self._place(name), IfMatch=etag)
            except ClientError as exc:
                if code_of(exc) not in _CHANGED:
                    raise
                return not self._head(name)
        self._seen[name] = ""
        return True

    def _head(self, name: str) -> dict[str, Any]:
        """Of an object; empty where there is none."""
        with translating(f"reading {self._key(name)}"):
            try:
                found: dict[str, Any] = self._s3.head_object(**self._place(name))
            except ClientError as exc:
                if code_of(exc) not in _GONE:
                    raise
                return {}
        return found

    def _place(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._key(name)}

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name
