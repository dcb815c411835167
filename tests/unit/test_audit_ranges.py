"""`make audit`: which versions an advisory is about, and which packages it requests advisories for."""

import pytest

from requirements.audit import LOCKS, is_affected, read_locks


def test_every_lock_is_compared_with_advisories() -> None:
    pins = read_locks()
    assert {lock for locks in pins.values() for lock in locks} == set(LOCKS)
    (numpy,) = {pin.version for pin, locks in pins.items() if pin.name == "numpy" and LOCKS[1] in locks}
    assert numpy.startswith("1."), "the embedded Triton's own"


@pytest.mark.parametrize(
    ("version", "events", "affected"),
    [
        ("1.5", [{"introduced": "1.5"}, {"fixed": "2"}], True),
        ("2.0", [{"introduced": "1.5"}, {"fixed": "2"}], False),
        ("2.0", [{"introduced": "1.5"}, {"last_affected": "2"}], True),
        ("2.0.1", [{"introduced": "1.5"}, {"last_affected": "2"}], False),
        ("3.1", [{"fixed": "2"}, {"introduced": "0"}, {"introduced": "3"}], True),
        ("2.5", [{"fixed": "2"}, {"introduced": "0"}, {"introduced": "3"}], False),
        ("1.10", [{"introduced": "1.9"}], True),
        ("1.0", [{"introduced": "what"}, {"fixed": "that is no version"}], True),
    ],
)
def test_range_of_versions(version: str, events: list[dict[str, str]], affected: bool) -> None:
    assert is_affected(version, {"ranges": [{"type": "ECOSYSTEM", "events": events}]}) is affected
    assert not is_affected(version, {"ranges": [{"type": "GIT", "events": events}]})
