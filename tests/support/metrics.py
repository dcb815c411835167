"""Samples of a server's /metrics."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(http: httpx.Client) -> Series:
    """Samples by name and labels."""
    text = http.get("/metrics").raise_for_status().text
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(series: Series, name: str, **labels: str) -> float:
    """Sum of the samples that have these labels."""
    wanted = set(labels.items())
    return sum(number for (sample, its), number in series.items() if sample == name and wanted <= its)


def by_labels(series: Series, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Sums by the values of these labels, without zeros."""
    found: dict[tuple[str, ...], float] = {}
    for (sample, its), number in series.items():
        if sample == name and number:
            key = tuple(dict(its)[label] for label in labels)
            found[key] = found.get(key, 0) + number
    return found
