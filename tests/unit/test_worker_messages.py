"""What a message requests."""

import base64
import json
from typing import Any

import pytest

from worker.errors import Undeliverable
from worker.messages import Job, Place, etag_of, read_message

ETAG = "0cc175b9c0f1b6a831c399e269772661"


def record(key: str, *, name: str = "ObjectCreated:Put", **members: str) -> dict[str, Any]:
    """A record of an event that S3 sends."""
    return {"eventName": name, "s3": {"bucket": {"name": "photos"}, "object": {"key": key, **members}}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"s3": "s3://photos/a/b c.jpg"}, [Job(Place("photos", "a/b c.jpg"), "default")]),
        ({"s3": "s3://photos/a+b%20.jpg"}, [Job(Place("photos", "a+b%20.jpg"), "default")]),
        (
            {"s3": "s3://photos/a.jpg", "version_id": "7", "model": "other", "parameters": {"confidence": 0.5}},
            [Job(Place("photos", "a.jpg", "7"), "other", {"confidence": 0.5})],
        ),
        ({"image": {"b64": base64.b64encode(b"abc").decode()}}, [Job(b"abc", "default")]),
        # As S3 sends it: form encoding, a plus for a blank.
        ({"Records": [record("a/b+c%2Bd%C3%A9.jpg")]}, [Job(Place("photos", "a/b c+dé.jpg"), "default")]),
        ({"Records": [record("a.jpg", versionId="9")]}, [Job(Place("photos", "a.jpg", "9"), "default")]),
        ({"Records": [record("a.jpg"), record("b.jpg", name="s3:ObjectCreated:Copy")]},
         [Job(Place("photos", "a.jpg"), "default"), Job(Place("photos", "b.jpg"), "default")]),
        ({"Records": [record("a.jpg", name="ObjectRemoved:Delete")]}, []),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"}, []),
        ({"Type": "Notification", "Message": json.dumps({"Records": [record("a+b.jpg")]})},
         [Job(Place("photos", "a b.jpg"), "default")]),
        ({"Type": "Notification", "Message": json.dumps({"Event": "s3:TestEvent"})}, []),
        (
            {"detail-type": "Object Created",
             "detail": {"bucket": {"name": "photos"}, "object": {"key": "a+b.jpg", "version-id": "3"}}},
            [Job(Place("photos", "a+b.jpg", "3"), "default")],
        ),
        ({"detail-type": "Object Deleted", "detail": {}}, []),
    ],
)  # fmt: skip
def test_each_form_is_read(body: dict[str, Any], expected: list[Job]) -> None:
    assert read_message(json.dumps(body), model="default") == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("rubbish", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "expected"),
        ("{}", "expected one of s3 and image"),
        ('{"s3": "s3://photos/a.jpg", "image": {"b64": ""}}', "expected one of s3 and image"),
        ('{"s3": "https://photos/a.jpg"}', "expected s3://bucket/key"),
        ('{"s3": 7}', "expected s3://bucket/key"),
        ('{"s3": "s3://photos/"}', "expected s3://bucket/key"),
        ('{"s3": "s3://photos/a.jpg", "version_id": 7}', "expected s3://bucket/key"),
        ('{"s3": "s3://photos/a.jpg", "modle": "x"}', "got 'modle'"),
        ('{"s3": "s3://photos/a.jpg", "model": "a/b"}', "model: got 'a/b'"),
        ('{"s3": "s3://photos/a.jpg", "model": ""}', "model: got ''"),
        ('{"s3": "s3://photos/a.jpg", "parameters": [1]}', "parameters: expected"),
        ('{"s3": "s3://photos/a.jpg", "parameters": {"a": {}}}', "parameters: expected"),
        ('{"image": "abc"}', '{"b64": <base64>}'),
        ('{"image": {"b64": "ab*"}}', '{"b64": <base64>}'),
        ('{"Records": [{"eventName": "ObjectCreated:Put"}]}', "record of S3's event"),
        ('{"Records": [7]}', "record of S3's event"),
        ('{"Records": [{"eventName": "INSERT", "dynamodb": {}}]}', "record of S3's event"),
        (json.dumps({"Records": [record("")]}), "record of S3's event"),
        ('{"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}', "'Scheduled Event'"),
        ('{"s3": "s3://photos/\\ud800.jpg"}', "no JSON"),
        ('{"s3": "s3://photos/a.jpg", "parameters": {"a": true}}', "parameters: expected"),
        ('{"detail-type": "Object Created", "detail": {"bucket": {}}}', "EventBridge's event"),
        ('{"Type": "Notification", "Message": "rubbish"}', "no JSON"),
    ],
)
def test_anything_else_is_rejected_with_the_reason(body: str, words: str) -> None:
    with pytest.raises(Undeliverable) as raised:
        read_message(body, model="default")
    assert words in str(raised.value)
    assert raised.value.code == "invalid_message"
    assert len(str(raised.value)) < 500


def test_event_without_a_model_is_rejected() -> None:
    with pytest.raises(Undeliverable, match="WORKER_MODEL"):
        read_message(json.dumps({"Records": [record("a.jpg")]}))
    with pytest.raises(Undeliverable, match="WORKER_MODEL"):
        read_message('{"s3": "s3://photos/a.jpg"}')


def test_result_has_a_name_of_its_own_for_each_image_model_version_and_parameters() -> None:
    jobs = [
        Job(Place("photos", "a.jpg"), "yolo"),
        Job(Place("photos", "b.jpg"), "yolo"),
        Job(Place("photos", "a.jpg"), "yolo.2"),
        Job(Place("photos", "a.jpg"), "yolo", {"confidence": 0.5}),
        Job(Place("photos", "a.jpg"), "yolo", {"confidence": 0.6}),
        Job(b"a", "yolo"),
    ]
    names = [job.name_result(etag, version) for job in jobs for etag in (ETAG, f"{ETAG}-2") for version in ("1", "2")]
    assert names[0] == f"a.jpg.yolo.1.{ETAG}.json"
    assert len(set(names)) == len(names)
    assert Job(Place("a", "b"), "m", {"x": 1, "y": [2, 3]}).name_result(ETAG, "1") == Job(
        Place("a", "b"), "m", {"y": [2, 3], "x": 1}
    ).name_result(ETAG, "1")


def test_event_about_a_result_requests_nothing() -> None:
    for job in (Job(Place("photos", "a.jpg"), "yolo"), Job(Place("photos", "a.jpg"), "yolo", {"confidence": 0.5})):
        for etag in (ETAG, f"{ETAG}-2"):
            name = job.name_result(etag, "3")
            assert read_message(json.dumps({"Records": [record(name)]}), model="yolo") == []
    assert read_message(json.dumps({"Records": [record("a.json")]}), model="yolo")


def test_result_has_a_recognisable_name_whatever_the_etag_is() -> None:
    name = Job(Place("photos", "a.jpg"), "yolo").name_result("CJi1/x==", "3")
    assert read_message(json.dumps({"Records": [record(name)]}), model="yolo") == []
    assert name != Job(Place("photos", "a.jpg"), "yolo").name_result("CJi1/y==", "3")


def test_parameters_of_the_worker_are_for_its_own_model() -> None:
    parameters = {"confidence": 0.5}
    for body, expected in (({}, parameters), ({"model": "other"}, {}), ({"parameters": {"iou": 1}}, {"iou": 1})):
        message = json.dumps({"s3": "s3://photos/a.jpg", **body})
        (job,) = read_message(message, model="yolo", parameters=parameters)
        assert job.parameters == expected


def test_etag_of_an_image_is_that_of_s3() -> None:
    assert etag_of(b"a") == ETAG


def test_parameters_become_a_query() -> None:
    assert Job(b"", "m", {"confidence": 0.5, "classes": ["a b", 2]}).query == "classes=a+b&classes=2&confidence=0.5"
