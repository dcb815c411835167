"""Prometheus metrics of the worker."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_AGES = (0.1, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)


class Metrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self.messages = Counter(
            "nereid_worker_messages_total",
            "Messages by what became of them: done, dead_letter, failed (received again later), given_back (at a stop)",
            ["outcome"],
            **options,
        )
        self.results = Counter(
            "nereid_worker_results_total",
            "Results: written, or duplicate (there was one already)",
            ["result"],
            **options,
        )
        self.in_progress = Gauge("nereid_worker_in_progress", "Messages in progress", **options)
        self.waits = Counter(
            "nereid_worker_waits_total", "Pauses of messages that are held while a server is away or busy", **options
        )
        self.seconds = Histogram(
            "nereid_worker_seconds", "Of an image, by step: read, predict, write", ["step"], buckets=_SECONDS, **options
        )
        self.ages = Histogram(
            "nereid_worker_message_age_seconds", "From sending to receiving", buckets=_AGES, **options
        )
        self.oldest = Gauge(
            "nereid_worker_oldest_message_age_seconds",
            "Age of the oldest message in progress; 0 without one",
            **options,
        )
        self.queue = Gauge("nereid_worker_queue_messages", "Messages of the queue (approximate)", ["state"], **options)
        # Counters are there before their first event: a rate does not see one that begins at 1.
        for outcome in ("done", "dead_letter", "failed", "given_back"):
            self.messages.labels(outcome)
        for result in ("written", "duplicate"):
            self.results.labels(result)
        for step in ("read", "predict", "write"):
            self.seconds.labels(step)
