"""What is done for one message: read each image, have it predicted, write the result."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from worker.bucket import Buckets
from worker.errors import Undeliverable
from worker.inference import Transformer
from worker.messages import Job, Place, etag_of, read_message
from worker.metrics import Metrics
from worker.queue import Message
from worker.settings import Settings

Hold = Callable[[Callable[[], Any]], Any]


class Work:
    """The work on the messages of one queue; threads may share it."""

    def __init__(self, buckets: Buckets, transformer: Transformer, metrics: Metrics, settings: Settings) -> None:
        """Begin.

        Args:
            buckets: of images and results.
            transformer: predicts.
            metrics: of the worker.
            settings: where results go, and what holds for messages that do not say.
        """
        self._buckets, self._transformer, self._metrics, self._settings = buckets, transformer, metrics, settings

    def __call__(self, message: Message, hold: Hold) -> None:
        """Write the result of each image of a message, where there is none yet.

        A message may name several images: what can be done is done, whatever the others are.

        Args:
            message: as received.
            hold: calls a function until nothing that it needs is away.

        Raises:
            Undeliverable: the message, or one of its images, is of no use.
            Failed: S3 or the transformer failed at it.
            Stopping: the worker stops.
        """
        problems = []
        for job in read_message(message.body, model=self._settings.model, parameters=self._settings.parameters):
            try:
                self._do(job, message, hold)
            except Undeliverable as exc:
                problems.append(exc)
        if problems:
            first = problems[0]
            raise Undeliverable(first.code, "; ".join(map(str, problems))) from first

    def _do(self, job: Job, message: Message, hold: Hold) -> None:
        if isinstance(job.image, bytes):
            if not self._settings.results:
                raise Undeliverable(
                    "invalid_message", "an image in a message has no place for its result; expected WORKER_RESULTS"
                )
            image, etag = job.image, etag_of(job.image)
        else:
            place = job.image
            with self._timing("read"):
                image, etag = hold(lambda: self._buckets.read(place))
        with self._timing("predict"):
            document = hold(lambda: self._transformer.predict(job, image, request_id=message.identifier))
        result = self._place(job, job.name_result(etag, str(document["model"]["version"])))
        document["input"] = {"image": str(job.image) if isinstance(job.image, Place) else "inline", "etag": etag}
        if isinstance(job.image, Place) and job.image.version_id:
            document["input"]["version_id"] = job.image.version_id
        document["parameters"] = dict(job.parameters)
        encoded = json.dumps(document, separators=(",", ":")).encode()
        with self._timing("write"):
            is_new = hold(lambda: self._buckets.create(result, encoded))
        self._metrics.results.labels("written" if is_new else "duplicate").inc()

    def _place(self, job: Job, name: str) -> Place:
        if not self._settings.results:
            return Place(job.image.bucket if isinstance(job.image, Place) else "", name)
        bucket, _, prefix = self._settings.results.removeprefix("s3://").partition("/")
        inside = f"{job.image.bucket}/{name}" if isinstance(job.image, Place) else name
        return Place(bucket, "/".join(filter(None, (prefix.strip("/"), inside))))

    @contextmanager
    def _timing(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._metrics.seconds.labels(step).observe(time.perf_counter() - began)
