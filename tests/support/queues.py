"""Queues of SQS in the S3 server of the tests (moto serves both), and workers on them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.support.ports import find_free_ports
from tests.support.processes import ended
from tests.support.s3 import S3
from tests.support.stack import PATIENCE_S, ROOT


@dataclass(frozen=True)
class Queues:
    """A queue and its dead-letter queue.

    Attributes:
        sqs: boto3's client, past any proxy.
        url, dead_url: of the two.
    """

    sqs: Any
    url: str
    dead_url: str

    def send(self, *bodies: Any) -> None:
        """Send messages, as JSON where they are no text."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body if isinstance(body, str) else json.dumps(body))

    def count(self, state: str = "") -> int:
        """Messages of the queue that are `Delayed`, `NotVisible`, or neither; with `All`, of every state."""
        names = ["", "Delayed", "NotVisible"] if state == "All" else [state]
        keys = [f"ApproximateNumberOfMessages{name}" for name in names]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=keys)["Attributes"]
        return sum(int(found[key]) for key in keys)

    def dead(self) -> list[tuple[str, dict[str, str]]]:
        """Bodies and attributes of the dead letters so far; they stay in the queue."""
        found: dict[str, Any] = {}
        while messages := self.sqs.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=1
        ).get("Messages"):
            if messages[0]["MessageId"] in found:
                break
            found |= {each["MessageId"]: each for each in messages}
        return [
            (each["Body"], {name: value["StringValue"] for name, value in each.get("MessageAttributes", {}).items()})
            for each in found.values()
        ]


def create_queues(s3: S3, name: str, *, most_receives: int = 5) -> Queues:
    """A queue and its dead-letter queue, empty."""
    variables = s3.environment()
    sqs = boto3.client(
        "sqs",
        endpoint_url=s3.url,
        region_name=variables["AWS_DEFAULT_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )
    dead_url = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": str(most_receives)})
    return Queues(sqs, sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": policy})["QueueUrl"], dead_url)


@dataclass(frozen=True)
class Worker:
    """A worker that runs.

    Attributes:
        process: of it.
        log: what it prints.
        port: of its metrics.
    """

    process: subprocess.Popen[bytes]
    log: Path
    port: int


@contextmanager
def start_worker(s3: S3, queues: Queues, url: str, log: Path, **variables: str) -> Iterator[Worker]:
    """Start `python -m worker`; it is stopped at the end of the block.

    Args:
        s3: the server, unless `variables` say another.
        queues: of it.
        url: of the transformer.
        log: for what it prints.
        variables: of its environment.
    """
    (port,) = find_free_ports(1)
    settings = {"WORKER_QUEUE_URL": queues.url, "WORKER_URL": url, "WORKER_PORT": str(port), "WORKER_WAIT_S": "1"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker"],
            cwd=ROOT, env=os.environ | s3.environment() | settings | variables, stdout=output, stderr=output,
        )  # fmt: skip
    with ended(process, patience_s=PATIENCE_S):
        yield Worker(process, log, port)
