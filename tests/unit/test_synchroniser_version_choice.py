"""Which versions of a model should serve."""

import pytest

from predictor.synchroniser.version_choice import select_versions
from registry.config import Policy

LATEST = Policy(latest=1, specific=None)


@pytest.mark.parametrize(
    ("available", "policy", "serving", "unusable", "incompatible", "selected"),
    [
        ({1: "a", 2: "b"}, LATEST, {}, set(), {}, {2: "b"}),
        ({1: "a", 2: "b"}, LATEST, {1: "a"}, {"b"}, {}, {1: "a"}),
        # Changed into an unusable version: serves unchanged.
        ({1: "a", 2: "B"}, LATEST, {2: "b"}, {"B"}, {}, {2: "b"}),
        # Removed: the one before. No usable version: what serves stays.
        ({1: "a"}, LATEST, {2: "b"}, set(), {}, {1: "a"}),
        ({1: "a"}, LATEST, {2: "b"}, {"a"}, {}, {2: "b"}),
        ({1: "a", 2: "b"}, Policy(None, frozenset({1})), {2: "b"}, set(), {}, {1: "a"}),
        ({1: "a", 2: "b"}, Policy(None, frozenset({7})), {2: "b"}, set(), {}, {2: "b"}),
        ({1: "a", 2: "b"}, Policy(None, None), {}, set(), {}, {1: "a", 2: "b"}),
        # Versions whose labels differ from the newest one's are left out, and only beside that one.
        ({1: "a", 2: "b", 3: "c"}, Policy(2, None), {}, set(), {"b": "c"}, {1: "a", 3: "c"}),
        ({1: "a", 2: "b"}, Policy(2, None), {}, set(), {"b": "c"}, {1: "a", 2: "b"}),
    ],
)
def test_versions_are_selected_by_policy_and_state(
    available: dict[int, str],
    policy: Policy,
    serving: dict[int, str],
    unusable: set[str],
    incompatible: dict[str, str],
    selected: dict[int, str],
) -> None:
    assert select_versions(available, policy, serving=serving, unusable=unusable, incompatible=incompatible) == selected
