"""manifests/examples/aws: policies that grant what the code calls, by an S3 server that enforces them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from export.__main__ import main
from export.writer.repository import write_version
from registry.errors import StorageError
from registry.storage import reading
from tests.support.exported import version
from tests.support.ports import find_free_ports
from tests.support.s3 import S3
from tests.support.stack import PATIENCE_S

AWS = Path(__file__).resolve().parents[2] / "manifests" / "examples" / "aws"
BUCKET, ADDRESS = "example-models", "s3://example-models/nereid"
READER, PUBLISHER = "read-models", "publish-models"


@dataclass(frozen=True)
class Account:
    """A server that enforces IAM, but for who may set it up.

    Attributes:
        url: its endpoint.
    """

    url: str

    def client(self, service: str) -> Any:
        """A client of boto3, while no policy is enforced."""
        keys = S3(Path(os.devnull)).environment()
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=keys["AWS_DEFAULT_REGION"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        )

    def enforce(self, after: str = "0") -> None:
        """Enforce policies from now on; `inf`: no more."""
        httpx.post(f"{self.url}/moto-api/reset-auth", content=after).raise_for_status()

    def become(self, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Work with the keys of a new user that has this policy alone."""
        self.enforce("inf")
        name = f"user-{time.monotonic_ns()}"
        with closing(self.client("iam")) as iam:
            iam.create_user(UserName=name)
            iam.put_user_policy(UserName=name, PolicyName="a", PolicyDocument=json.dumps(policy))
            key = iam.create_access_key(UserName=name)["AccessKey"]
        for variable, value in S3(Path(os.devnull)).environment(self.url).items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        monkeypatch.delenv("AWS_SESSION_TOKEN")
        self.enforce()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """With the bucket of the policies, and one version in it."""
    (port,) = find_free_ports(1)
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        made = Account(f"http://127.0.0.1:{port}")
        _wait_for(made.url)
        with closing(made.client("s3")) as client:
            client.create_bucket(Bucket=BUCKET)
            client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield made
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            httpx.get(f"{url}/moto-api/data.json").raise_for_status()
            return
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as export leaves it, with one version."""
    folder = tmp_path_factory.mktemp("local")
    write_version(folder, version())
    return folder


def read_policy(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((AWS / f"{name}.json").read_text())
    return read


def actions_of(policy: dict[str, Any]) -> list[str]:
    granted = [statement["Action"] for statement in policy["Statement"]]
    return [action for each in granted for action in ([each] if isinstance(each, str) else each)]


def without(policy: dict[str, Any], action: str) -> dict[str, Any]:
    statements = [
        {**each, "Action": sorted({*actions_of({"Statement": [each]})} - {action})} for each in policy["Statement"]
    ]
    return {**policy, "Statement": [each for each in statements if each["Action"]]}


def take_all(into: Path) -> int:
    """List and download like the synchroniser, and return the number of files."""
    storage = reading.open_storage(ADDRESS)
    found = list(storage.walk())
    for index, each in enumerate(found):
        reading.download(storage, each, into / str(index), count=lambda _: None)
    return len(found)


def work(local: Path) -> int:
    """Publish twice, roll back and prune, and return the sum of exit statuses."""
    again = ["publish", "tiny", "--from", str(local), "--repository", ADDRESS, "--force"]
    steps = [again, again, ["rollback", "tiny", "--repository", ADDRESS], ["unpin", "tiny", "--repository", ADDRESS]]
    steps.append(["prune", "tiny", "--keep", "1", "--yes", "--repository", ADDRESS])
    return sum(main(step) for step in steps)


def test_policy_of_publishers_allows_their_commands_and_no_more(
    account: Account, local: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account.become(read_policy(PUBLISHER), monkeypatch)
    assert work(local) == 0
    account.become(read_policy(READER), monkeypatch)
    assert take_all(tmp_path) > 3
    assert main(["publish", "tiny", "--from", str(local), "--repository", ADDRESS, "--force"]) != 0


@pytest.mark.parametrize("action", actions_of(read_policy(READER)))
def test_readers_need_every_permission_of_their_policy(
    action: str, account: Account, local: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account.become(read_policy(PUBLISHER), monkeypatch)
    assert main(["publish", "tiny", "--from", str(local), "--repository", ADDRESS, "--force"]) == 0
    account.become(without(read_policy(READER), action), monkeypatch)
    with pytest.raises(StorageError, match="AccessDenied"):
        take_all(tmp_path)


# Aborting is for an upload in parts that fails.
@pytest.mark.parametrize("action", sorted({*actions_of(read_policy(PUBLISHER))} - {"s3:AbortMultipartUpload"}))
def test_publishers_need_every_permission_of_their_policy(
    action: str, account: Account, local: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account.become(read_policy(PUBLISHER), monkeypatch)
    assert work(local) == 0
    account.become(without(read_policy(PUBLISHER), action), monkeypatch)
    capsys.readouterr()
    assert work(local) != 0
    assert "AccessDenied" in capsys.readouterr().err


def test_reader_cannot_read_elsewhere_in_the_bucket(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.enforce("inf")
    with closing(account.client("s3")) as client:
        client.put_object(Bucket=BUCKET, Key="other/x", Body=b"x")
    account.become(read_policy(READER), monkeypatch)
    storage = reading.open_storage(f"s3://{BUCKET}/other")
    (found,) = storage.walk()
    with pytest.raises(StorageError, match="AccessDenied"), storage.open(found):
        pass
