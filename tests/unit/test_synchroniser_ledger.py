"""The ledger of the versions of a model, and which entries outlive the process or the version."""

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from predictor.synchroniser.ledger import MAX_ATTEMPTS, Activation, VersionLedger
from predictor.synchroniser.records import Records
from registry.layout import Object


def ledger_of(folder: Path) -> VersionLedger:
    """The ledger of a new process."""
    return VersionLedger("rows", Records(folder))


def test_rejection_outlives_the_process_and_a_defect_does_not(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.reject("a", "wrong outputs")
    ledger.reject("b", "KeyError", is_defect=True)
    assert (ledger.unusable, ledger.rejected.get("b")) == ({"a", "b"}, "KeyError")
    again = ledger_of(tmp_path)
    assert (again.unusable, again.rejected.get("a"), again.rejected.get("b")) == ({"a"}, "wrong outputs", None)


def test_listing_forgets_versions_that_are_neither_listed_nor_serve(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    for key in ("listed", "gone"):
        ledger.reject(key, "no")
        ledger.postpone(key, "disk full", until=100)
        ledger.incompatible[key] = "newest"
        ledger.set_validated(key, tmp_path / key, unverified="no golden input")
    ledger.set_validated("serves", tmp_path / "serves", unverified="no golden input")
    ledger.begin_listing({"listed"}, serving={"serves"})
    for each in (ledger, ledger_of(tmp_path)):
        assert (each.rejected.get("listed"), each.rejected.get("gone")) == ("no", None)
        assert [each.unverified.get(key) for key in ("listed", "serves", "gone")] == ["no golden input"] * 2 + [None]
    assert (set(ledger.postponed), set(ledger.incompatible), set(ledger.validated)) == ({"listed"},) * 3


def test_version_is_unsigned_until_its_signature_changes(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    first, second = (Object("rows/1/model.sig", 1, etag, datetime.now(UTC)) for etag in ("first", "second"))
    for known, other in ((None, first), (first, second), (second, None)):
        ledger.set_unsigned("a", "not signed", known)
        ledger.forget_unsigned({"a": known})
        assert (ledger.unusable, ledger.unsigned) == ({"a"}, {"a": "not signed"})
        ledger.forget_unsigned({"a": other})
        assert ledger.unusable == set()
    ledger.set_unsigned("a", "not signed", None)
    assert ledger_of(tmp_path).unusable == set()  # with other keys, perhaps
    ledger.clear()
    assert ledger.unusable == set()


def test_version_is_incomplete_until_the_next_listing(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.incomplete["a"] = "waits for model.onnx"
    assert (ledger.unusable, ledger.incomplete.get("a")) == ({"a"}, "waits for model.onnx")
    ledger.begin_listing({"a"}, serving=())
    assert (ledger.unusable, ledger.incomplete.get("a")) == (set(), None)


def test_verified_version_is_no_longer_unverified(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.set_validated("a", tmp_path, unverified="no golden input")
    ledger.set_validated("a", tmp_path, unverified=None)
    assert (ledger.unverified.get("a"), ledger_of(tmp_path).unverified.get("a")) == (None, None)


def test_postponement_ends_at_its_time(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.postpone("a", "disk full", until=100)
    ledger.postpone("b", "timeout", until=50)
    assert ledger.next_attempt == 50
    assert ledger.postponements({1: "a", 2: "b"}) == (
        "version 2: timeout; tried again later; version 1: disk full; tried again later"
    )
    ledger.end_postponements(50)
    assert (ledger.unusable, ledger.next_attempt, ledger.postponement("b")) == ({"a"}, 100, None)
    ledger.end_postponements(100)
    assert not ledger.unusable
    assert ledger.postponements({1: "a"}) is None
    assert not ledger.next_attempt


def test_failures_and_deaths_are_counted_separately(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    assert [ledger.count_failure("a"), ledger.count_failure("a"), ledger.count_failure("b")] == [1, 2, 1]
    assert [ledger.count_death("a"), ledger.count_death("a")] == [1, 2]
    ledger.activate({"a": None})
    assert ledger.count_failure("a") == 1


def test_version_whose_trials_ended_processes_is_skipped_once_by_each(tmp_path: Path) -> None:
    unfinished = ExitStack()
    for number in range(MAX_ATTEMPTS):
        ledger = ledger_of(tmp_path)
        assert (set(ledger.crashes), ledger.skip_crashing("a")) == ({"a"} if number else set(), False)
        unfinished.enter_context(ledger.trial("a"))  # and the process ends
    for _ in range(2):
        ledger = ledger_of(tmp_path)
        assert [ledger.skip_crashing("a"), ledger.skip_crashing("a")] == [True, False]


def test_trial_that_ends_is_no_crash(tmp_path: Path) -> None:
    with ledger_of(tmp_path).trial("a"):
        pass
    assert set(ledger_of(tmp_path).crashes) == set()


def test_activation_is_known_until_the_version_no_longer_serves(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.set_validated("a", tmp_path, unverified=None)
    ledger.activate({"a": Activation("noon", 1.5)})
    assert (ledger.activations.get("a"), ledger.validated) == (Activation("noon", 1.5), {})
    ledger.activate({"a": None, "b": Activation("one", 2)})
    assert (ledger.activations.get("a"), ledger.activations.get("b")) == (Activation("noon", 1.5), Activation("one", 2))
    ledger.activate({"b": None})
    assert ledger.activations.get("a") is None
    ledger.activations.clear()
    assert ledger.activations.get("b") is None


def test_nothing_is_known_of_a_removed_model(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.reject("a", "no")
    ledger.set_validated("b", tmp_path, unverified="no golden input")
    unfinished = ExitStack()
    unfinished.enter_context(ledger.trial("c"))
    ledger.clear()
    for each in (ledger, ledger_of(tmp_path)):
        assert not {*each.unusable, *each.crashes, *each.validated}
        assert each.unverified.get("b") is None
