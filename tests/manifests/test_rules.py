"""Every folder of the manifests keeps every rule."""

import pytest

from tests.manifests.pod import containers_of, pods_of
from tests.manifests.rendering import KUBECTL_MISSING, MANIFESTS, Render, find_folders, has_kubectl, render
from tests.manifests.rules import RULES
from tests.manifests.rules.objects import MADE_BY_THE_USER


def test_manifests_keep_every_rule(rendered: Render) -> None:
    assert {rule.__name__: faults for rule in RULES if (faults := list(rule(rendered)))} == {}


def test_images_have_one_tag_in_all_folders() -> None:
    if not has_kubectl():
        pytest.skip(KUBECTL_MISSING)
    pods = [pod for name in find_folders() for pod in pods_of(render(name))]
    images = {container["image"] for pod in pods for container in containers_of(pod)}
    by_tag = {image for image in images if "@" not in image}
    assert len({image.rpartition(":")[0] for image in by_tag}) == len(by_tag), sorted(by_tag)


@pytest.mark.parametrize(("kind", "command"), [("Secret", "create secret generic"), ("ConfigMap", "create configmap")])
def test_readme_has_the_commands_for_what_the_user_creates(kind: str, command: str) -> None:
    page = (MANIFESTS / "README.md").read_text()
    assert all(f"{command} {name} " in page for name in MADE_BY_THE_USER[kind])
