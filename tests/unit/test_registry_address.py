"""Addresses of repositories, as users write them."""

import os
from pathlib import Path

import pytest

from registry.errors import Misconfigured
from registry.storage.address import BucketAddress, is_same_place, read_address
from registry.storage.bucket import Bucket
from stack.parts import visible


@pytest.mark.parametrize(
    ("text", "bucket", "prefix", "endpoint"),
    [
        ("s3://models", "models", "", None),
        ("s3://models/", "models", "", None),
        ("s3://models/a/b/", "models", "a/b", None),
        ("s3://models//a///b//", "models", "a/b", None),
        ("S3://models/my models+ü%20", "models", "my models+ü%20", None),  # keys are not percent-encoded
        ("s3://http://host:9000/models/a", "models", "a", "http://host:9000"),
        ("s3://https://s3.example.com/models", "models", "", "https://s3.example.com"),
        ("s3://HTTPS://host:9000//models//a", "models", "a", "https://host:9000"),
        ("s3://host:9000/models/a", "models", "a", "http://host:9000"),  # Triton: not said is http
        ("s3://10.0.0.1:9000/models", "models", "", "http://10.0.0.1:9000"),
        ("s3://http://[::1]:9000/models/a", "models", "a", "http://[::1]:9000"),
        ("s3://[::1]:9000/models", "models", "", "http://[::1]:9000"),
    ],
)
def test_address_of_a_bucket(text: str, bucket: str, prefix: str, endpoint: str | None) -> None:
    address = read_address(text)
    assert address == BucketAddress(bucket, prefix, endpoint)
    assert read_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///srv/my%20models", "/srv/my models"),
        ("file:///srv/my models", "/srv/my models"),
        ("file:///srv/100%25/", "/srv/100%"),
        ("file:///srv/models#1?x", "/srv/models#1?x"),
        ("file://localhost/srv", "/srv"),
        ("file:/srv/models", "/srv/models"),
        ("FILE:///srv", "/srv"),
        ("file:////srv", "/srv"),
        ("file:///srv/%C3%BC", "/srv/ü"),
        ("/srv/my%20models", "/srv/my%20models"),
        ("models", "models"),
        ("c:models", "c:models"),
    ],
)
def test_address_of_a_folder(text: str, path: str) -> None:
    assert read_address(text) == Path(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "gs://bucket/x",
            "expected s3://bucket/prefix, s3://http://host:port/bucket/prefix, file:///folder or",
        ),
        ("http://host:9000/bucket", "expected s3://http://host:9000/bucket"),
        ("", "got ''"),
        ("s3://", "with bucket ''"),
        ("s3:///models", "with bucket ''"),  # of s3://$BUCKET/models, where BUCKET is not set
        ("s3://http://host:9000", "with bucket ''"),
        ("s3://my bucket/x", "with bucket 'my bucket'"),
        ("s3://arn:aws:s3:us-east-1:1:accesspoint/x/y", "expected s3://bucket/prefix"),
        ("s3://http://host:99999/bucket", "expected a port from 1 to 65535"),
        ("s3://http://user:secret@host:9000/bucket", "has a password in it"),
        ("https://user:secret@host/bucket", "expected s3://https://...@host/bucket"),
        ("file://srv/models", "an absolute path of this machine"),
        ("file:///srv/%00", "an absolute path of this machine"),
    ],
)
def test_invalid_address_is_rejected_with_the_expected_form(text: str, expected: str) -> None:
    with pytest.raises(Misconfigured) as rejected:
        read_address(text)
    assert expected in str(rejected.value)
    assert "secret" not in str(rejected.value)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("s3://models/a/", "s3://models//a", True),
        ("s3://http://host:9000/models", "s3://models", True),  # the other one's server is in its environment
        ("s3://http://host/models", "s3://http://HOST:80/models", True),
        ("s3://http://host:9000/models", "s3://http://other:9000/models", False),
        ("s3://models/a", "s3://models/b", False),
        ("file:///srv/a%20b", "/srv/a b", True),
        ("/srv/models", "s3://models", False),
    ],
)
def test_same_place(first: str, second: str, same: bool) -> None:
    assert is_same_place(first, second) is same


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "https://s3.eu-central-1.amazonaws.com"),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "https://s3.dualstack.eu-central-1.amazonaws.com"),
        ({"AWS_ENDPOINT_URL": "http://[fd00::9]:9000"}, "http://[fd00::9]:9000"),
    ],
)
def test_s3_is_reached_by_ipv6(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    keys = {"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for name, value in (keys | variables).items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(BucketAddress("models", ""), connect_s=1, read_s=1, attempts=1, together=1)
    assert bucket.call("its server", lambda client: client.meta.endpoint_url) == url
    # The address that the local stack passes on to the synchroniser.
    assert visible("synchroniser", os.environ).items() >= variables.items()
