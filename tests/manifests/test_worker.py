"""manifests/worker beside an overlay that serves: by its Service, through the policies, with the role's policy."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.manifests.environment import environment_of
from tests.manifests.pod import containers_of, pods_of
from tests.manifests.rendering import (
    MANIFESTS,
    ROOT,
    Object,
    Render,
    needs_kubectl,
    render,
    render_over,
    with_components,
)
from tests.manifests.rules.selectors import matches, selects, target_ports
from worker.settings import Settings

WORKER = "worker"


@needs_kubectl
@pytest.mark.parametrize(
    ("overlay", "components"), [("plain", ()), ("eks", ()), ("standard", ("service",)), ("production", ("service",))]
)
def test_worker_reaches_the_transformer_by_its_service(
    overlay: str, components: tuple[str, ...], tmp_path: Path
) -> None:
    serving = render_over(
        f"overlays/{overlay}", {"namespace": "nereid", **with_components(tmp_path, *components)}, tmp_path
    )
    worker, (pod,) = render(WORKER), pods_of(render(WORKER))
    (container,) = containers_of(pod)
    url = urlsplit(environment_of(container, pod, worker)["WORKER_URL"])
    service = serving.named("Service", str(url.hostname))
    assert service
    assert service["metadata"]["namespace"] == pod["metadata"]["namespace"]
    ports = [each for each in service["spec"]["ports"] if each["port"] == (url.port or 80)]
    (target,) = (each for each in pods_of(serving) if selects(service, each))
    ((port,),) = [target_ports({"spec": {**service["spec"], "ports": ports}}, target)]
    for one, direction, other in ((pod, "egress", target), (target, "ingress", pod)):
        (selector,) = peers(worker, one, direction, port)
        assert matches(selector, other["metadata"]["labels"])


def peers(given: Render, pod: Object, direction: str, port: int) -> list[Any]:
    """Selectors of the pods that the policies of a pod let in, or out to, at a port."""
    return [
        peer["podSelector"]
        for policy in given.of_kind("NetworkPolicy")
        if matches(policy["spec"]["podSelector"], pod["metadata"]["labels"])
        for rule in policy["spec"].get(direction, [])
        if port in {each["port"] for each in rule["ports"]}
        for peer in rule["from" if direction == "ingress" else "to"]
        if "podSelector" in peer
    ]


@needs_kubectl
def test_keda_reads_queue_and_region_where_the_worker_does() -> None:
    rendered = render(WORKER)
    (pod,) = pods_of(rendered)
    (container,) = containers_of(pod)
    (scaled,) = rendered.of_kind("ScaledObject")
    (authentication,) = rendered.of_kind("TriggerAuthentication")
    variables = environment_of(container, pod, rendered)
    (trigger,) = scaled["spec"]["triggers"]
    assert scaled["spec"]["scaleTargetRef"]["envSourceContainerName"] == container["name"]
    assert variables[trigger["metadata"]["queueURLFromEnv"]].startswith("https://sqs.")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    (region,) = authentication["spec"]["env"]
    assert (region["parameter"], region["containerName"]) == ("awsRegion", container["name"])
    assert region["name"] in variables
    assert f".{variables[region['name']]}." in variables["WORKER_QUEUE_URL"]


@needs_kubectl
def test_memory_has_room_for_an_image_in_each_slot() -> None:
    rendered = render(WORKER)
    (pod,) = pods_of(rendered)
    (container,) = containers_of(pod)
    variables = environment_of(container, pod, rendered)
    settings = Settings.model_validate({
        name.lower(): variables[f"WORKER_{name}"] for name in ("QUEUE_URL", "SLOTS", "MAX_IMAGE_BYTES")
    })  # fmt: skip
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi")) * 2**20
    assert 2 * settings.slots * settings.max_image_bytes + 128 * 2**20 <= limit


@pytest.mark.parametrize(("name", "page"), [("worker", "queues"), ("batch", "batches")])
def test_policy_of_the_role_is_the_rights_of_the_page(name: str, page: str) -> None:
    policy = json.loads((MANIFESTS / "examples" / "aws" / f"{name}.json").read_text())
    granted = [each["Action"] for each in policy["Statement"]]
    actions = {action for each in granted for action in ([each] if isinstance(each, str) else each)}
    (section,) = re.findall(r"^## Rights\n(.*?)^## ", (ROOT / f"docs/{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    words = re.findall(r"`((?:s3:|sqs:)?[A-Z][a-z]\w+)`", section)
    assert {action.partition(":")[2] for action in actions} == {word.rpartition(":")[2] for word in words}
