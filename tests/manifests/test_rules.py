"""Every folder of the manifests keeps every rule."""

from collections.abc import Callable, Iterator

import pytest

from tests.manifests.rendering import Render
from tests.manifests.rules import RULES

Rule = Callable[[Render], Iterator[str]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_manifests_keep_the_rule(rendered: Render, rule: Rule) -> None:
    assert list(rule(rendered)) == []
