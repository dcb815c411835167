"""A queue of SQS and its dead-letter queue."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from worker.aws import code_of, connect, translating
from worker.errors import StartError

MOST = 10  # of a request, by SQS
_SLACK_S = 5
_DEPTHS = {
    "visible": "ApproximateNumberOfMessages",
    "in_flight": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}


@dataclass(frozen=True)
class Message:
    """A message, as it was received.

    Attributes:
        identifier: the same at each delivery.
        receipt: of this delivery.
        receives: how often it was delivered, this time included.
        sent_s: when it was sent, by the clock of SQS, seconds since 1970.
    """

    identifier: str
    receipt: str
    body: str
    receives: int
    sent_s: float


class Queue:
    """The calls to SQS that a worker makes; threads may share it. Each raises `Away` or `Failed`."""

    def __init__(self, url: str, *, dead_letter_url: str, visibility_s: int, wait_s: int, together: int) -> None:
        """Nothing is sent yet.

        Args:
            url: of the queue.
            dead_letter_url: of the other; empty: the queue knows.
            visibility_s: how long a message is hidden from other workers.
            wait_s: longest that a request for messages waits for one.
            together: how many requests may be in progress.

        Raises:
            StartError: boto3 lacks a region or credentials.
        """
        # One attempt: the worker itself tries again, and a stop must not wait for several.
        self._sqs = connect("sqs", together=together, read_s=wait_s + _SLACK_S, attempts=1)
        self._url, self._visibility_s = url, visibility_s
        self._dead_letter_url = dead_letter_url
        self.most_receives = 0  # after which SQS itself moves a message; 0: never

    def open(self) -> None:
        """Read the queue's redrive policy.

        Raises:
            StartError: there is no such queue, or none for dead letters, or one is FIFO.
            Away: SQS is.
            Failed: the worker has no right to.
        """
        for name, url in (("WORKER_QUEUE_URL", self._url), ("WORKER_DEAD_LETTER_URL", self._dead_letter_url)):
            if url.endswith(".fifo"):
                raise StartError(f"{name}: {url} is FIFO, expected a standard queue: images have no order")
        with translating(f"attributes of {self._url}"):
            try:
                found = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["RedrivePolicy"])
                policy = json.loads(found.get("Attributes", {}).get("RedrivePolicy", "{}"))
                self.most_receives = int(policy.get("maxReceiveCount", 0))
                if not self._dead_letter_url and "deadLetterTargetArn" in policy:
                    *_, account, name = policy["deadLetterTargetArn"].split(":")
                    known = self._sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)
                    self._dead_letter_url = known["QueueUrl"]
            except ClientError as exc:
                if not code_of(exc).endswith(("NonExistentQueue", "QueueDoesNotExist")):
                    raise
                raise StartError(f"WORKER_QUEUE_URL: {self._url}, or its dead-letter queue, does not exist") from exc
        if not self._dead_letter_url:
            raise StartError(
                f"{self._url} has no dead-letter queue, where messages that cannot succeed are kept; next: give it a "
                "redrive policy (maxReceiveCount 5), or set WORKER_DEAD_LETTER_URL"
            )

    def receive(self, count: int, *, wait_s: int) -> list[Message]:
        """Up to so many messages; waits for the first one."""
        with translating(f"receiving from {self._url}"):
            response = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(count, MOST),
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=self._visibility_s,
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            )
        return [_read(each) for each in response.get("Messages", [])]

    def delete(self, message: Message) -> None:
        """Delete a message that is done."""
        with translating(f"deleting {message.identifier}"):
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt)

    def hide(self, messages: Iterable[Message], *, seconds: int | None = None) -> list[str]:
        """Hide messages from other workers from now on; with 0 seconds, give them back.

        Args:
            messages: in progress.
            seconds: None: as when they were received.

        Returns:
            What SQS said of those that it could not hide: they are deleted, or another worker's by now.
        """
        return list(self._hide(messages, self._visibility_s if seconds is None else seconds))

    def _hide(self, messages: Iterable[Message], seconds: int) -> Iterator[str]:
        every = list(messages)
        for some in (every[first : first + MOST] for first in range(0, len(every), MOST)):
            entries = [
                {"Id": str(index), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
                for index, message in enumerate(some)
            ]
            with translating(f"changing the visibility of {len(entries)} messages"):
                response = self._sqs.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
            for failed in response.get("Failed", []):
                yield f"{some[int(failed['Id'])].identifier}: {failed.get('Code')}: {failed.get('Message', '')}"

    def send_dead(self, message: Message, code: str, reason: str) -> None:
        """Send a message to the dead-letter queue with the reason; it has to be deleted then."""
        words = {
            "nereid-error-code": code,
            "nereid-error": reason[:1000] or code,
            "nereid-message-id": message.identifier,
        }
        attributes = {name: {"DataType": "String", "StringValue": _printable(text)} for name, text in words.items()}
        with translating(f"sending {message.identifier} to {self._dead_letter_url}"):
            self._sqs.send_message(
                QueueUrl=self._dead_letter_url, MessageBody=message.body, MessageAttributes=attributes
            )

    def count(self) -> dict[str, int]:
        """How many messages there are, by state; approximate."""
        with translating(f"attributes of {self._url}"):
            found = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=list(_DEPTHS.values()))
        attributes = found.get("Attributes", {})
        return {state: int(attributes.get(name, 0)) for state, name in _DEPTHS.items()}


def _read(found: dict[str, Any]) -> Message:
    attributes = found.get("Attributes", {})
    return Message(
        found["MessageId"],
        found["ReceiptHandle"],
        found["Body"],
        int(attributes.get("ApproximateReceiveCount", 1)),
        int(attributes.get("SentTimestamp", time.time() * 1000)) / 1000,
    )


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
