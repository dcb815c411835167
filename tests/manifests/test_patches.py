"""Our patches: they select items by name, or test an item before they use its index."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.manifests.rendering import MANIFESTS
from tests.support.changes import changed


def json_patches() -> dict[str, list[Any]]:
    """Every JSON patch below manifests/, by the file that holds it."""
    found: dict[str, list[Any]] = {}
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        where = str(path.relative_to(MANIFESTS))
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, list):
                found[where] = document
                continue
            inline = [yaml.safe_load(each.get("patch", "")) for each in document.get("patches", [])]
            found |= {f"{where} {index}": patch for index, patch in enumerate(inline) if isinstance(patch, list)}
    return found


def counted_without_a_test(patch: list[Any]) -> Iterator[str]:
    """Operations on an item by index without a preceding `test`, unless the patch added the item."""
    known: set[str] = set()
    for each in patch:
        target, op = _items(each["path"]), each["op"]
        if op == "test":
            known.update(target)
            continue
        puts = op in {"add", "move", "copy"} and each["path"] in target
        counted = [*target[:-1][-1:]] if puts else [*target[-1:]]
        if "from" in each:
            counted += _items(each["from"])[-1:]
        if not known.issuperset(counted):
            yield f"{op} {each['path']}: {counted} counts, expected op: test of it first"
        known.update(target)


def _items(path: str) -> list[str]:
    """Prefixes of a path that end in an index: of `/a/0/b/1/c` these are `/a/0` and `/a/0/b/1`."""
    parts = path.split("/")
    return ["/".join(parts[: index + 1]) for index, part in enumerate(parts) if part.isdecimal()]


PATCHES = json_patches()


@pytest.mark.parametrize("where", PATCHES)
def test_patch_by_index_tests_first(where: str) -> None:
    assert list(counted_without_a_test(PATCHES[where])) == []


def test_patch_by_index_without_a_test_is_found() -> None:
    patch = PATCHES["overlays/separate-transformer/move.yaml"]
    looks = [index for index, each in enumerate(patch) if each["op"] == "test"]
    assert looks
    assert all(list(counted_without_a_test([*patch[:index], *patch[index + 1 :]])) for index in looks)
    assert list(counted_without_a_test(changed(patch, f"{looks[0]} path", "/spec/other/0/name")))
