"""The status of a model in `/status`, by its ledger and state."""

from collections.abc import Callable
from pathlib import Path

import pytest

from predictor.synchroniser.ledger import Activation, VersionLedger
from predictor.synchroniser.records import Records
from predictor.synchroniser.status import VersionStatus
from predictor.synchroniser.view import ModelState, explain_policy, view_model, view_version
from registry.config import Policy

Write = Callable[[VersionLedger], None]


@pytest.fixture
def ledger(tmp_path: Path) -> VersionLedger:
    return VersionLedger("rows", Records(tmp_path))


LISTED = ModelState(fingerprints={1: "a"})
SERVES = ModelState(fingerprints={1: "a"}, serving={1: "a"})
CHANGED = ModelState(fingerprints={1: "b"}, serving={1: "a"})
REMOVED = ModelState(serving={1: "a"})


@pytest.mark.parametrize(
    ("write", "state", "expected"),
    [
        (lambda _: None, LISTED, VersionStatus("available")),
        (lambda known: known.reject("a", "no"), LISTED, VersionStatus("refused", "no")),
        (lambda known: known.incomplete.update(a="waits"), LISTED, VersionStatus("incomplete", "waits")),
        (
            lambda known: known.postpone("a", "disk full", until=9),
            LISTED,
            VersionStatus("available", "disk full; tried again later"),
        ),
        (
            lambda known: known.incompatible.update(a="b"),
            LISTED,
            VersionStatus("available", "its labels or tensors differ from those of the newer version"),
        ),
        (
            lambda _: None,
            ModelState(fingerprints={1: "a"}, in_progress={1: "validating"}),
            VersionStatus("staged", "validating"),
        ),
        (lambda _: None, SERVES, VersionStatus("serving")),
        (
            lambda known: known.activate({"a": Activation("noon", 1.26)}),
            SERVES,
            VersionStatus("serving", None, "noon", 1.3),
        ),
        (
            lambda known: known.set_validated("a", Path(), unverified="no golden input"),
            SERVES,
            VersionStatus("serving", "no golden input"),
        ),
        (
            lambda known: known.reject("b", "no"),
            CHANGED,
            VersionStatus("serving", "changed in the repository, serves unchanged: no"),
        ),
        (lambda _: None, CHANGED, VersionStatus("serving", "changed in the repository, serves unchanged: in progress")),
        (
            lambda _: None,
            REMOVED,
            VersionStatus("serving", "removed from the repository; serves until another version is valid"),
        ),
        (lambda _: None, ModelState(serving={1: "a"}, is_listed=False), VersionStatus("serving")),
    ],
)
def test_version_is_shown_by_ledger_and_state(
    ledger: VersionLedger, write: Write, state: ModelState, expected: VersionStatus
) -> None:
    write(ledger)
    assert view_version(1, ledger, state) == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (SERVES, "serving"),
        (LISTED, "refused"),
        (ModelState(fingerprints={1: "a"}, may_change=True), "loading"),
        (ModelState(fingerprints={1: "a"}, in_progress={1: "validating"}), "loading"),
        (ModelState(fingerprints={1: "a"}, may_change=True, has_defect=True), "refused"),
        (ModelState(fingerprints={1: "a"}, serving={1: "a"}, has_defect=True), "serving"),
    ],
)
def test_model_is_loading_while_it_may_begin_to_serve(ledger: VersionLedger, state: ModelState, expected: str) -> None:
    assert view_model(ledger, state).state == expected


def test_versions_that_cannot_be_checked_are_rejected_and_those_that_serve_stay(ledger: VersionLedger) -> None:
    blocked = dict.fromkeys((1, 2), "config.pbtxt: invalid")
    state = ModelState(fingerprints={1: "a"}, serving={1: "a"}, blocked=blocked, policy="latest 1", error="invalid")
    model = view_model(ledger, state)
    assert model.versions == {"1": VersionStatus("serving"), "2": VersionStatus("refused", "config.pbtxt: invalid")}
    assert (model.serving, model.policy, model.error) == (("1",), "latest 1", "invalid")


def test_versions_are_shown_in_the_order_of_their_numbers(ledger: VersionLedger) -> None:
    state = ModelState(fingerprints={10: "c", 9: "b", 1: "a"}, serving={10: "c", 9: "b"})
    assert list(view_model(ledger, state).versions) == ["1", "9", "10"]
    assert view_model(ledger, state).serving == ("9", "10")


def test_policy_that_cannot_be_met_is_explained() -> None:
    assert explain_policy(Policy(1, None), {1, 2}) is None
    assert explain_policy(Policy(None, frozenset({2})), {1, 2}) is None
    assert explain_policy(Policy(None, frozenset({7, 8})), {1, 7}) == (
        "the policy names version 8, which the repository does not have"
    )
    assert "got 1000 versions" in (explain_policy(Policy(None, None), range(1, 1001)) or "")
