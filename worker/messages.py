"""What a message requests: its forms are read here, and nowhere else."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus, urlencode

from worker.errors import Undeliverable

_FORMS = (
    '{"s3": "s3://bucket/key", "model": ..., "parameters": {...}}, {"image": {"b64": ...}, ...}, or an event of S3'
    " (directly, by SNS or by EventBridge)"
)
_MEMBERS = {"s3", "image", "model", "parameters", "version_id"}
_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)", re.DOTALL)
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ETAG = re.compile(r"[0-9a-f]{32}(-\d+)?")
# <key>.<model>.<version>.<etag>[.<parameters>].json: what `Job.name_result` makes.
_RESULT = re.compile(r".*\.[A-Za-z0-9_.-]+\.\d+\.[0-9a-f]{32}(-\d+)?(\.[0-9a-f]{12})?\.json", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """An object in a bucket.

    Attributes:
        version_id: of a versioned bucket; empty: the newest.
    """

    bucket: str
    key: str
    version_id: str = ""

    def __str__(self) -> str:
        """The URL of the object."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Job:
    """One image of a message.

    Attributes:
        image: where it is, or the encoded image itself.
        model: its name.
        parameters: of the request, such as `confidence`.
    """

    image: Place | bytes
    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def query(self) -> str:
        """The parameters as a query of HTTP; lists are repeated."""
        return urlencode(sorted(self.parameters.items()), doseq=True)

    def name_result(self, etag: str, version: str) -> str:
        """Where the result goes, without bucket and prefix: the same for every delivery of the message.

        Args:
            etag: of the image that was read.
            version: of the model that responded.
        """
        name = self.image.key if isinstance(self.image, Place) else "inline/image"
        if not _ETAG.fullmatch(etag):  # of another server than AWS: anything may be in it
            etag = hashlib.sha256(etag.encode()).hexdigest()[:32]
        marks = [self.model, version, etag]
        if self.parameters:
            marks.append(hashlib.sha256(self.query.encode()).hexdigest()[:12])
        return f"{name}.{'.'.join(marks)}.json"


def read_message(body: str, *, model: str = "", parameters: Mapping[str, Any] | None = None) -> list[Job]:
    """The images that a message points to; none of a test event, of a removed object, and of a result of ours.

    Args:
        body: of the message.
        model: that of messages which name none, such as S3's events; empty: there is none.
        parameters: of the same.

    Raises:
        Undeliverable: it is in no known form.
    """
    document = _read_json(body)
    if document.get("Type") == "Notification" and isinstance(document.get("Message"), str):  # SNS
        document = _read_json(document["Message"])
    if document.get("Event") == "s3:TestEvent":
        return []
    if isinstance(document.get("Records"), list):
        places = list(_read_records(document["Records"]))
    elif "detail-type" in document and "detail" in document:
        places = list(_read_event(document))
    else:
        return [_read_job(document, model, parameters or {})]
    if not model and places:
        raise Undeliverable("invalid_message", "an event of S3 names no model; expected WORKER_MODEL")
    return [Job(place, model, parameters or {}) for place in places if not _RESULT.fullmatch(place.key)]


def etag_of(image: bytes) -> str:
    """The ETag that S3 would give an image that came in a message."""
    return hashlib.md5(image, usedforsecurity=False).hexdigest()


def _read_json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
        json.dumps(document, ensure_ascii=False).encode()  # half of a surrogate pair is no name of anything
    except (ValueError, RecursionError) as exc:
        raise Undeliverable("invalid_message", f"no JSON ({exc}); expected {_FORMS}") from exc
    if not isinstance(document, dict):
        raise Undeliverable("invalid_message", f"got {text[:80]!r}, expected {_FORMS}")
    return document


def _read_records(records: list[Any]) -> Iterator[Place]:
    for record in records:
        try:
            found = record["s3"]
            if not str(record["eventName"]).removeprefix("s3:").startswith("ObjectCreated:"):
                continue
            key = unquote_plus(found["object"]["key"])
            yield Place(_name(found["bucket"]["name"]), _name(key), _text(found["object"].get("versionId") or ""))
        except (KeyError, TypeError, AttributeError) as exc:
            raise Undeliverable("invalid_message", f"a record of S3's event has no {exc}; expected {_FORMS}") from exc


def _read_event(document: dict[str, Any]) -> Iterator[Place]:
    if document.get("source", "aws.s3") != "aws.s3" or not str(document["detail-type"]).startswith("Object "):
        raise Undeliverable("invalid_message", f"an event {document['detail-type']!r}; expected {_FORMS}"[:400])
    if document["detail-type"] != "Object Created":
        return
    try:
        detail = document["detail"]
        found = detail["object"]  # its key is not encoded, unlike in S3's own events
        yield Place(_name(detail["bucket"]["name"]), _name(found["key"]), _text(found.get("version-id") or ""))
    except (KeyError, TypeError, AttributeError) as exc:
        raise Undeliverable("invalid_message", f"EventBridge's event has no {exc}; expected {_FORMS}") from exc


def _read_job(document: dict[str, Any], model: str, parameters: Mapping[str, Any]) -> Job:
    if unknown := sorted(document.keys() - _MEMBERS):
        raise Undeliverable("invalid_message", f"got {unknown[0][:60]!r}, expected {_FORMS}")
    if ("s3" in document) == ("image" in document):
        raise Undeliverable("invalid_message", f"expected one of s3 and image: {_FORMS}")
    name = document.get("model", model)
    if not isinstance(name, str) or not _MODEL.fullmatch(name):
        raise Undeliverable("invalid_message", f"model: got {name!r}, expected a name (or WORKER_MODEL)"[:200])
    # Those of the worker are for its own model.
    own = document.get("parameters", {} if "model" in document else parameters)
    if not isinstance(own, dict) or not all(map(_is_value, own.values())):
        raise Undeliverable("invalid_message", "parameters: expected an object of numbers, words and lists of them")
    return Job(_read_place(document) if "s3" in document else _read_image(document["image"]), name, own)


def _read_place(document: dict[str, Any]) -> Place:
    url, version_id = document["s3"], document.get("version_id", "")
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None or not isinstance(version_id, str):
        raise Undeliverable("invalid_message", f"s3: got {url!r}, expected s3://bucket/key"[:300])
    return Place(match[1], match[2], version_id)


def _read_image(member: Any) -> bytes:
    try:
        return base64.b64decode(member["b64"], validate=True)
    except (KeyError, TypeError, binascii.Error, ValueError) as exc:
        raise Undeliverable("invalid_message", 'image: expected {"b64": <base64>}') from exc


def _is_value(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _name(value: Any) -> str:
    if not _text(value):
        raise TypeError("name")
    return str(value)
