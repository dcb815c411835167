"""Images out of buckets, and results into them: each result is written once."""

from botocore.exceptions import ClientError

from worker.aws import code_of, connect, translating
from worker.errors import Away, Undeliverable
from worker.messages import Place

_GONE = {"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "404", "MethodNotAllowed", "InvalidObjectState"}
_EXISTS = {"PreconditionFailed", "412"}
_MEANWHILE = {"ConditionalRequestConflict", "409"}


class Buckets:
    """The calls to S3 that a worker makes; threads may share it."""

    def __init__(self, *, together: int, most_bytes: int) -> None:
        """Nothing is sent yet.

        Args:
            together: how many requests may be in progress.
            most_bytes: of an image.
        """
        self._s3 = connect("s3", together=together)
        self._most_bytes = most_bytes

    def read(self, place: Place) -> tuple[bytes, str]:
        """An object and its ETag, without quotes.

        Raises:
            Undeliverable: there is no such object, it is in an archive, or too large.
            Away: S3 is.
            Failed: S3 rejected it.
        """
        version = {"VersionId": place.version_id} if place.version_id else {}
        with translating(f"reading {place}"):
            try:
                found = self._s3.get_object(Bucket=place.bucket, Key=place.key, **version)
            except ClientError as exc:
                if code_of(exc) not in _GONE:
                    raise
                raise Undeliverable("image_not_found", f"{place}: {code_of(exc)}") from exc
            body = found["Body"]
            try:
                if found["ContentLength"] > self._most_bytes:
                    got = f"{found['ContentLength']} bytes, expected at most {self._most_bytes}"
                    raise Undeliverable("payload_too_large", f"{place}: got {got} (WORKER_MAX_IMAGE_BYTES)")
                return body.read(), found["ETag"].strip('"')
            finally:
                body.close()

    def create(self, place: Place, document: bytes) -> bool:
        """Write a result; False where it exists already: the message was delivered twice.

        Raises:
            Away: S3 or the bucket is, or another worker writes the same at this moment.
            Failed: S3 rejected it.
        """
        with translating(f"writing {place}"):
            try:
                self._s3.put_object(
                    Bucket=place.bucket, Key=place.key, Body=document, ContentType="application/json", IfNoneMatch="*"
                )
            except ClientError as exc:
                if code_of(exc) in _EXISTS:
                    return False
                if code_of(exc) in _MEANWHILE:
                    raise Away(f"writing {place}: another worker does", 0.2) from exc
                if code_of(exc) == "NoSuchBucket":  # of no message's doing: WORKER_RESULTS
                    raise Away(f"writing {place}: there is no such bucket") from exc
                raise
        return True
