"""Access keys of the cluster's S3 server (moto), and rejection of all other keys while a block runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import httpx
from botocore.config import Config

from tests.support.cluster import S3_URL

_MAY_READ = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"}],
}
_READER = "reader"


class Keys:
    """Access keys of a user with list and read permissions only."""

    def __init__(self) -> None:
        self._client = boto3.client(
            "iam", endpoint_url=S3_URL, region_name="us-east-1", aws_access_key_id="cluster",
            aws_secret_access_key="cluster", config=Config(proxies={}),  # noqa: S106 - moto's
        )  # fmt: skip
        self._client.create_user(UserName=_READER)
        self._client.put_user_policy(UserName=_READER, PolicyName="read", PolicyDocument=json.dumps(_MAY_READ))

    def make(self) -> dict[str, str]:
        """Create another pair of keys; its environment variables."""
        key = self._client.create_access_key(UserName=_READER)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def delete(self, keys: dict[str, str]) -> None:
        """Delete a pair of keys from the server."""
        _count("inf")
        self._client.delete_access_key(UserName=_READER, AccessKeyId=keys["AWS_ACCESS_KEY_ID"])
        _count("0")

    def close(self) -> None:
        """Remove the user."""
        for each in self._client.list_access_keys(UserName=_READER)["AccessKeyMetadata"]:
            self._client.delete_access_key(UserName=_READER, AccessKeyId=each["AccessKeyId"])
        self._client.delete_user_policy(UserName=_READER, PolicyName="read")
        self._client.delete_user(UserName=_READER)


@contextmanager
def known_keys() -> Iterator[Keys]:
    """Keys of a new user; inside `enforced` the server rejects all others."""
    keys = Keys()
    try:
        yield keys
    finally:
        keys.close()


@contextmanager
def enforced() -> Iterator[None]:
    """While the block runs the server rejects requests with unknown keys or without permission."""
    _count("0")
    try:
        yield
    finally:
        _count("inf")


def _count(number: str) -> None:
    """Set how many requests moto accepts before it verifies keys."""
    httpx.post(f"{S3_URL}/moto-api/reset-auth", content=number, trust_env=False).raise_for_status()
