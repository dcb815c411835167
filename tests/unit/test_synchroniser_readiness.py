"""The conditions for the readiness of a synchroniser."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pytest

from predictor.synchroniser.readiness import explain_wait


@dataclass
class Model:
    is_loaded: bool = False
    is_settled: bool = False
    is_failing: bool = False


SERVES, REJECTED = Model(is_loaded=True, is_settled=True), Model(is_settled=True)
PENDING, FAILING = Model(), Model(is_failing=True)
URL = "s3://models"


@pytest.mark.parametrize(
    ("models", "first", "is_listing_failing", "expected"),
    [
        ({}, None, False, "the repository s3://models"),
        ({}, None, True, "the repository s3://models"),
        ({}, set(), False, "the first model in s3://models"),
        ({"a": SERVES}, {"a"}, False, None),
        ({"a": SERVES, "b": REJECTED}, {"a", "b"}, False, None),
        ({"a": SERVES, "b": PENDING, "c": PENDING}, {"a", "b", "c"}, False, "models: b, c"),
        # Uploaded after the first listing, or removed since: nothing to wait for.
        ({"a": SERVES, "new": PENDING}, {"a", "removed"}, False, None),
        # A model that fails repeatedly blocks no other, and is waited for where none serves.
        ({"a": SERVES, "b": FAILING}, {"a", "b"}, False, None),
        ({"b": FAILING}, {"b"}, False, "models: b"),
        ({"a": REJECTED, "b": REJECTED}, {"a", "b"}, False, "a model that serves; rejected: a, b"),
        # The repository is unavailable: the mirror's models serve.
        ({"a": SERVES}, None, True, None),
        ({"a": SERVES, "b": PENDING}, None, True, "models: b"),
        ({"a": SERVES}, None, False, "the repository s3://models"),
    ],
)
def test_readiness_waits_for_the_first_models(
    models: Mapping[str, Model], first: Collection[str] | None, is_listing_failing: bool, expected: str | None
) -> None:
    assert explain_wait(models, first=first, is_listing_failing=is_listing_failing, url=URL) == expected
