"""Rules beyond schemas. A rule is a function that yields the faults of a render; `make manifests` prints its name."""

from collections.abc import Callable, Iterator

from tests.manifests.rendering import Render
from tests.manifests.rules import credentials, deployments, egress, kserve, objects, pods, programs, selectors

Rule = Callable[[Render], Iterator[str]]

RULES: tuple[Rule, ...] = (
    *objects.RULES,
    *credentials.RULES,
    *deployments.RULES,
    *egress.RULES,
    *kserve.RULES,
    *pods.RULES,
    *programs.RULES,
    *selectors.RULES,
)
