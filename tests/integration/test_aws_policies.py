"""manifests/examples/aws: policies that grant what the code calls, by an S3 server that enforces them."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
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
from worker import holding
from worker.batch.inputs import Prefix
from worker.batch.outputs import Form, Outputs, PrefixStore
from worker.bucket import Buckets
from worker.errors import Away, Failed
from worker.messages import Place
from worker.queue import Queue

AWS = Path(__file__).resolve().parents[2] / "manifests" / "examples" / "aws"
BUCKET, ADDRESS = "example-models", "s3://example-models/nereid"
READER, PUBLISHER, WORKER, BATCH = "read-models", "publish-models", "worker", "batch"


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


QUEUE, IMAGES, RESULTS = "images", "example-images", "example-results"


@pytest.fixture(scope="module")
def queue_url(account: Account) -> str:
    """The queue of the worker's policy, with its dead-letter queue, and its bucket with an image."""
    account.enforce("inf")
    with closing(account.client("s3")) as s3, closing(account.client("sqs")) as sqs:
        s3.create_bucket(Bucket=IMAGES)
        s3.put_object(Bucket=IMAGES, Key="a.jpg", Body=b"x")
        dead = sqs.create_queue(QueueName=f"{QUEUE}-dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "5"})
        url: str = sqs.create_queue(QueueName=QUEUE, Attributes={"RedrivePolicy": policy})["QueueUrl"]
    return url


def take_a_message(account: Account, url: str, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker calls, for a message that is done and for one that goes to the dead letters."""
    account.enforce("inf")
    with closing(account.client("sqs")) as sqs:
        sqs.send_message(QueueUrl=url, MessageBody="x")
    account.become(policy, monkeypatch)
    queue = Queue(url, dead_letter_url="", visibility_s=30, wait_s=1, together=2)
    queue.open()
    (message,) = queue.receive(1, wait_s=1)
    queue.hide([message])
    buckets = Buckets(together=2, most_bytes=100)
    assert buckets.read(Place(IMAGES, "a.jpg"))[0] == b"x"
    buckets.create(Place(IMAGES, "a.jpg.json"), b"{}")
    queue.send_dead(message, "failed", "a reason")
    queue.delete(message)
    queue.count()


# Those that a worker needs for an object that is not there, or for one version of it, are not enforced by this server.
@pytest.mark.parametrize(
    "action", ["", *sorted({*actions_of(read_policy(WORKER))} - {"s3:ListBucket", "s3:GetObjectVersion"})]
)
def test_worker_needs_every_permission_of_its_policy(
    action: str, account: Account, queue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(without(read_policy(WORKER), action))
    # Of SQS this server knows no resources, and has an action for the batch, which with AWS is the same one.
    text = re.sub('"arn:aws:sqs:[^"]+"', '"*"', text).replace("MessageVisibility", "MessageVisibilityBatch")
    with nullcontext() if not action else pytest.raises((Failed, Away), match="AccessDenied"):
        take_a_message(account, queue_url, json.loads(text), monkeypatch)


def run_a_batch(folder: Path) -> None:
    """What a batch calls, also for a file that one before it left."""
    stopped = threading.Event()
    hold = partial(holding.hold, stopped=stopped)
    (item,) = Prefix(IMAGES, "", together=2, most_bytes=100).items("")
    assert item.read is not None
    assert item.read()[0] == b"x"
    store = PrefixStore(RESULTS, folder.name)
    with store.locked(hold, stopped=stopped):
        outputs = Outputs(store, {}, folder=folder, form=Form(10), hold=hold)
        store.write("failed-00000.jsonl", b"{}")
        outputs.add([{"input": item.name}], [], mark=item.mark)
        outputs.flush(is_last=True)


@pytest.mark.parametrize("action", ["", *sorted({*actions_of(read_policy(BATCH))})])
def test_batch_needs_every_permission_of_its_policy(
    action: str, account: Account, queue_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert queue_url  # with it comes the image
    account.enforce("inf")
    with closing(account.client("s3")) as s3:
        s3.create_bucket(Bucket=RESULTS)
        s3.delete_object(Bucket=IMAGES, Key="a.jpg.json")
    account.become(without(read_policy(BATCH), action), monkeypatch)
    with nullcontext() if not action else pytest.raises(Failed, match=r"AccessDenied|403"):
        run_a_batch(tmp_path)
    account.enforce("inf")
    with closing(account.client("s3")) as s3:
        left = {each["Key"].rpartition("/")[2] for each in s3.list_objects_v2(
            Bucket=RESULTS, Prefix=f"{tmp_path.name}/").get("Contents", [])}  # fmt: skip
    assert (left == {"part-00000.jsonl", "progress.json"}) == (not action)


def test_reader_cannot_read_elsewhere_in_the_bucket(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.enforce("inf")
    with closing(account.client("s3")) as client:
        client.put_object(Bucket=BUCKET, Key="other/x", Body=b"x")
    account.become(read_policy(READER), monkeypatch)
    storage = reading.open_storage(f"s3://{BUCKET}/other")
    (found,) = storage.walk()
    with pytest.raises(StorageError, match="AccessDenied"), storage.open(found):
        pass
