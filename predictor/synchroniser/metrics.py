"""Prometheus metrics of the synchroniser."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """The metrics of one synchroniser, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self.versions = Gauge("nereid_sync_versions", "Versions in the repository", ["model", "state"], **options)
        self.serving = Gauge("nereid_sync_serving_version", "Highest version that serves", ["model"], **options)
        self.rejected = Gauge(
            "nereid_sync_refused_version", "1 for the newest rejected version", ["model", "version"], **options
        )
        self.models = Gauge("nereid_sync_models", "Folders of the repository", ["state"], **options)
        self.ready = Gauge(
            "nereid_sync_ready", "1 once each model serves or is rejected, and at least one serves", **options
        )
        self.listed = Gauge(
            "nereid_sync_last_listing_timestamp_seconds", "Last successful listing of the repository", **options
        )
        self.listings = Counter("nereid_sync_listings_total", "Listings", ["result"], **options)
        self.triton = Gauge("nereid_sync_triton_up", "1 while Triton responds", **options)
        self.loads = Counter("nereid_sync_loads_total", "Loads of a model", ["model", "result"], **options)
        self.rejections = Counter("nereid_sync_refusals_total", "Rejected versions", ["model"], **options)
        self.failures = Counter(
            "nereid_sync_failures_total", "Transient failures, which are retried", ["model"], **options
        )
        self.downloaded = Counter(
            "nereid_sync_downloaded_bytes_total", "Bytes downloaded from the repository", **options
        )
        self.seconds = Histogram(
            "nereid_sync_seconds_to_serve",
            "From the first listing that shows a version until it serves",
            ["model"],
            buckets=_SECONDS,
            **options,
        )
