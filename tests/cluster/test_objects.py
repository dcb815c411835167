"""Every overlay on an API server, KServe and Knative: whether they accept it, and the objects that they create.

Each overlay has its own namespace, where a quota of zero pods lets none start. So the tests need no nodes, and no
capacity beside the pods of other tests.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.compositions import WITH_KSERVE, WITHOUT, combine
from tests.manifests.pod import KNATIVE, STANDARD, mode_of, pods_of
from tests.manifests.rendering import Object, Render, find_folders, render, render_in, title
from tests.support import api_server
from tests.support.api_server import Applied, create_dry, differences, find, kubectl, wait_for
from tests.support.changes import GONE, changed
from tests.support.cluster import find_missing

PRODUCTION = "overlays/production"
CONTROLLERS = ("kserve/kserve-controller-manager", "knative-serving/controller")
STORAGE = "clusterstoragecontainer"
# Overlays to whose pods KServe's webhook adds a container.
WITH_INITIALIZER = {"overlays/storage-uri", "overlays/canary/storage-uri"}
ON_KNATIVE = ["overlays/canary/knative", "overlays/canary/knative/pinned", "overlays/serverless", "overlays/site"]
WITHOUT_KSERVE = ("base", "examples/", "jobs/", "monitoring", "overlays/http-add-on", "overlays/plain")
ON_STANDARD = [each for each in find_folders() if each not in ON_KNATIVE and not each.startswith(WITHOUT_KSERVE)]
PREDICTOR = "spec predictor"
GRPC, REST = r"^/inference\.GRPCInferenceService/.*$", "^/.*$"
_OWN = "serving.knative.dev/"  # labels and annotations that Knative writes for itself


@pytest.fixture(scope="module", params=find_folders())
def applied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    """An applied overlay; removed afterwards."""
    if missing := find_missing(*CONTROLLERS):
        pytest.skip(missing)
    if unknown := api_server.unknown_kinds(render(request.param)):
        pytest.skip(f"needs the CRDs of {', '.join(unknown)} in the cluster; next: kubectl apply them")
    namespace = api_server.namespace_of(request.param)
    try:
        found = api_server.prepare(request.param, tmp_path_factory.mktemp("overlay"))
        api_server.try_pods(found)
        api_server.apply_without_pods(found)
        yield found
    finally:
        api_server.remove(namespace)


def test_overlay_is_accepted_without_a_warning(applied: Applied) -> None:
    assert {way: result.stderr for way, result in applied.results.items() if result.stderr or not result.accepted} == {}


def test_pods_are_admitted(applied: Applied) -> None:
    """Pod Security, quota, limits and KServe's webhook, which changes only pods with a storageUri, admit the pods."""
    if applied.name in WITH_INITIALIZER and not _is_initializer_restricted():
        # By default without a security context: the namespace rejects it (README.md).
        for result in applied.pods.values():
            assert not result.accepted
            assert "violates PodSecurity" in result.stderr
            assert "storage-initializer" in result.stderr
        return
    assert {name: result.stderr for name, result in applied.pods.items() if result.stderr or not result.accepted} == {}
    more = ["storage-initializer"] if applied.name in WITH_INITIALIZER else []
    for pod in pods_of(applied.render):
        first = [each["name"] for each in applied.pods[title(pod)].object["spec"].get("initContainers", [])]
        assert first == [each["name"] for each in pod["spec"].get("initContainers", [])] + more


def _is_initializer_restricted() -> bool:
    return "securityContext" in find(STORAGE, "default", "default")["spec"]["container"]


@pytest.mark.parametrize("applied", [*ON_STANDARD, *ON_KNATIVE], indirect=True)
def test_templates_are_those_assumed(applied: Applied) -> None:
    """Every field of the pod template of the Deployment, or of Knative's Service."""
    modes = {mode_of(service) for service, _, _ in api_server.components(applied.render)}
    assert modes == {KNATIVE if applied.name in ON_KNATIVE else STANDARD}
    for service, _, pod in api_server.components(applied.render):
        name = pod["metadata"]["name"]
        made = _made("ksvc" if mode_of(service) == KNATIVE else "deployment", name, applied)["spec"]["template"]
        _check_same(applied.templates[name], made, name)


@pytest.mark.parametrize("applied", ON_STANDARD, indirect=True)
def test_deployments_are_those_assumed(applied: Applied) -> None:
    """Strategy and deadlines of Deployments."""
    for _, component, pod in api_server.components(applied.render):
        spec = _made("deployment", pod["metadata"]["name"], applied)["spec"]
        default = {"maxSurge": "25%", "maxUnavailable": "25%"}
        rolling = component.get("deploymentStrategy", {}).get("rollingUpdate", default)
        assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}
        assert spec["progressDeadlineSeconds"] == 600
        assert spec["selector"]["matchLabels"] == {"app": pod["metadata"]["labels"]["app"]}


@pytest.mark.parametrize("applied", ON_STANDARD, indirect=True)
def test_scalers_are_those_assumed(applied: Applied) -> None:
    for _, component, pod in api_server.components(applied.render):
        bounds = (component["minReplicas"], component["maxReplicas"])
        if "autoScaling" in component:
            spec = _made("scaledobject", pod["metadata"]["name"], applied)["spec"]
            assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == bounds
            assert spec["scaleTargetRef"]["name"] == pod["metadata"]["name"]
            assert spec["triggers"] == [_trigger(each) for each in component["autoScaling"]["metrics"]]
            continue
        spec = _made("hpa", pod["metadata"]["name"], applied)["spec"]
        target = {"type": "Utilization", "averageUtilization": component["scaleTarget"]}
        assert (spec["minReplicas"], spec["maxReplicas"]) == bounds
        assert spec["metrics"] == [
            {"type": "Resource", "resource": {"name": component["scaleMetric"], "target": target}}
        ]


@pytest.mark.parametrize("applied", ON_STANDARD, indirect=True)
def test_services_are_those_assumed(applied: Applied) -> None:
    """The first port of the container becomes 80, the others stay."""
    for _, _, pod in api_server.components(applied.render):
        spec = _made("service", pod["metadata"]["name"], applied)["spec"]
        ports = _ports(pod)
        numbers = [80, *(port["containerPort"] for port in ports[1:])]
        expected = [(number, port["containerPort"], port["name"]) for number, port in zip(numbers, ports, strict=True)]
        assert [(port["port"], port["targetPort"], port["name"]) for port in spec["ports"]] == expected
        assert [port.get("appProtocol") for port in spec["ports"] if port["name"] == "grpc"] == ["kubernetes.io/h2c"]
        assert spec["type"] == "ClusterIP"


@pytest.mark.parametrize("applied", ON_STANDARD, indirect=True)
def test_routes_are_those_assumed(applied: Applied) -> None:
    """REST and the gRPC calls of v2, with the service's timeout; KServe waits for the pods, of which there are none."""
    made = list(api_server.components(applied.render))
    for _, _, pod in made:
        result = kubectl(
            "scale", "deployment", pod["metadata"]["name"], f"--namespace={applied.namespace}", "--replicas=0"
        )
        assert result.accepted, result.stderr
    for service, _, pod in made:
        if pod["metadata"]["labels"]["component"] != _entrance(service) or "canary" in service["spec"]:
            continue
        spec = _made("httproute", service["metadata"]["name"], applied)["spec"]
        timeout = f"{service['spec'][_entrance(service)]['timeout']}s"
        assert [_rule(each) for each in spec["rules"]] == [
            (GRPC, pod["metadata"]["name"], 8081, timeout),
            (REST, pod["metadata"]["name"], 80, timeout),
        ]


@pytest.mark.parametrize("applied", ON_KNATIVE, indirect=True)
def test_revisions_are_those_assumed(applied: Applied) -> None:
    """Revisions of Knative: the pod, its queue-proxy, and its scaler."""
    for service, component, pod in api_server.components(applied.render):
        name = pod["metadata"]["name"]
        made = _made("deployment", f"{name}-00001-deployment", applied)["spec"]
        containers = made["template"]["spec"]["containers"]
        (queue,) = [each for each in containers if each["name"] == "queue-proxy"]
        containers.remove(queue)
        assumed = api_server.revision_pod_of(applied.templates[name], name, applied.namespace)
        completed = create_dry(api_server.deployment_of(assumed)).object["spec"]["template"]
        _check_same(completed, made["template"], f"the revision of {name}")
        assert made["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        given = service["metadata"]["annotations"]
        assert f"{made['progressDeadlineSeconds']}s" == given["serving.knative.dev/progress-deadline"]
        _check_queue(queue, component)
        scaler = _made("podautoscaler.autoscaling.internal.knative.dev", f"{name}-00001", applied)
        scaling = {key: value for key, value in pod["metadata"]["annotations"].items() if "autoscaling" in key}
        assert scaling.items() <= scaler["metadata"]["annotations"].items()
        assert scaler["spec"]["containerConcurrency"] == component["containerConcurrency"]


def _check_queue(queue: Any, component: Any) -> None:
    """The queue-proxy probes in place of the kubelet, with the container's period."""
    variables = {each["name"]: each.get("value") for each in queue["env"]}
    assert variables["CONTAINER_CONCURRENCY"] == str(component["containerConcurrency"])
    assert variables["REVISION_TIMEOUT_SECONDS"] == str(component["timeout"])
    probe = json.loads(variables["SERVING_READINESS_PROBE"])
    assert (probe["httpGet"]["path"], probe["httpGet"]["port"]) == ("/v2/health/ready", 8080)
    assert probe["periodSeconds"] == 1
    assert {port["containerPort"] for port in queue["ports"]} >= {8012, 8112, 9090}


def test_apply_again_changes_nothing(applied: Applied) -> None:
    """Fields of webhooks and controllers included: GitOps tools report no difference."""
    result = kubectl("diff", "--server-side", "--filename=-", sent=applied.render.objects)
    assert result.accepted, f"{result.stderr}{result.text}"


@pytest.mark.parametrize("applied", ["base"], indirect=True)
def test_mode_must_be_set(applied: Applied) -> None:
    """Knative rejects fields of base that only Standard mode accepts; an overlay sets the mode."""
    assert wait_for("a rejection", lambda: "resourceFieldRef" in _why_not_ready(applied))


@pytest.mark.parametrize("applied", ["overlays/serverless"], indirect=True)
def test_quota_on_knative_needs_room_for_one_more_pod(applied: Applied) -> None:
    """KServe dry-runs each update of a Knative Service, and Knative then dry-runs a pod (README.md)."""
    assert wait_for("a rejection", lambda: "exceeded quota" in _why_not_ready(applied))


@pytest.mark.parametrize("applied", ["overlays/serverless"], indirect=True)
def test_knative_drops_unknown_fields(applied: Applied) -> None:
    """Silently, because KServe sends the field unchanged: a rule of tests/manifests finds it earlier."""
    ((service, component, pod),) = api_server.components(applied.render)
    for path, value in {
        "spec terminationGracePeriodSeconds": 60,
        "spec containers 0 lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
    }.items():
        sent = api_server.knative_service_of(
            changed(changed(pod, path, value), "spec serviceAccountName", GONE), component
        )
        # In another namespace: this one has no room for the webhook's dry run of a pod.
        sent["metadata"] = {**sent["metadata"], "name": "another", "namespace": "default"}
        way = ("--dry-run=server", "--validate=ignore", "--output=json", "--filename=-")
        made = kubectl("create", *way, sent=[sent]).object["spec"]["template"]["spec"]
        assert path.split()[-1] not in str(made), service["metadata"]["name"]


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("overlays/standard", f"{PREDICTOR} containers kserve-container readinessProbe", GONE),
        ("overlays/standard", f"{PREDICTOR} containers transformer-container readinessProbe", GONE),
        ("overlays/separate-transformer", "spec transformer containerConcurrency", 3),
        ("overlays/separate-transformer", "spec transformer containers 0 readinessProbe", GONE),
        ("overlays/storage-uri", f"{PREDICTOR} model args", ["--log-verbose=1"]),
        (
            "overlays/storage-uri",
            f"{PREDICTOR} model env",
            [{"name": "HOME", "value": "/"}, {"name": "A", "value": "1"}],
        ),
        ("overlays/storage-uri", f"{PREDICTOR} model resources", {"limits": {"cpu": "3"}}),
        ("overlays/canary/storage-uri", f"{PREDICTOR} minReplicas", 4),
        ("overlays/serverless", f"{PREDICTOR} timeout", GONE),
        ("overlays/serverless", f"{PREDICTOR} maxReplicas", GONE),
        ("overlays/serverless", f"{PREDICTOR} minReplicas", GONE),
    ],
)
def test_changes_of_users_have_the_assumed_effect(name: str, path: str, value: Any, tmp_path: Path) -> None:
    """Fields that no overlay of ours has, for users' overlays."""
    if missing := find_missing(*CONTROLLERS):
        pytest.skip(missing)
    try:
        found = api_server.prepare(name, tmp_path)
        services = [changed(each, path, value) for each in found.render.of_kind("InferenceService")]
        others = [each for each in found.render.objects if each["kind"] != "InferenceService"]
        found.render = Render(name, (*others, *services))
        api_server.try_pods(found)
        api_server.apply_without_pods(found)
        test_templates_are_those_assumed(found)
        if name in ON_STANDARD:
            test_scalers_are_those_assumed(found)
    finally:
        api_server.remove(api_server.namespace_of(name))


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A pod that production accepts, and its namespace, where pods may start; removed afterwards."""
    if missing := find_missing(*CONTROLLERS):
        pytest.skip(missing)
    try:
        found = api_server.prepare(PRODUCTION, tmp_path_factory.mktemp("overlay"))
        ((_, _, pod),) = api_server.components(found.render)
        yield pod
    finally:
        api_server.remove(api_server.namespace_of(PRODUCTION))


@pytest.mark.parametrize(
    ("path", "value", "stderr"),
    [
        ("spec containers 0 securityContext", GONE, "violates PodSecurity"),
        ("spec containers 1 securityContext runAsNonRoot", False, "violates PodSecurity"),
        ("spec hostNetwork", True, "violates PodSecurity"),
        ("spec volumes -", {"name": "host", "hostPath": {"path": "/"}}, "violates PodSecurity"),
        ("spec containers 0 resources requests cpu", "41", "must be less than or equal to cpu limit"),
        ("spec containers 0 resources", {"limits": {"cpu": "61", "memory": "4Gi"}}, "exceeded quota"),
        ("spec containers 0 resources", {"limits": {"cpu": "2", "memory": "129Gi"}}, "exceeded quota"),
        ("spec serviceAccountName", "absent", "not found"),
    ],
)
def test_production_rejects_pods(production: Object, path: str, value: Any, stderr: str) -> None:
    result = create_dry(changed(production, path, value))
    assert not result.accepted
    assert stderr in result.stderr


def test_production_sets_limits_of_injected_containers(production: Object) -> None:
    more = {**production["spec"]["containers"][0], "name": "mesh"}
    more.pop("resources")
    made = create_dry(changed(production, "spec containers -", more)).object
    assert made["spec"]["containers"][-1]["resources"] == {
        "limits": {"cpu": "500m", "memory": "512Mi"},
        "requests": {"cpu": "100m", "memory": "128Mi"},
    }


@pytest.mark.parametrize("kind", ["Standard", "Knative"])
def test_mode_cannot_be_changed(kind: str, tmp_path: Path) -> None:
    """Delete first (README.md)."""
    if missing := find_missing(*CONTROLLERS):
        pytest.skip(missing)
    first, second = {"Standard": ("standard", "serverless"), "Knative": ("serverless", "standard")}[kind]
    name = f"overlays/{first}"
    try:
        (tmp_path / "first").mkdir()
        (tmp_path / "second").mkdir()
        found = api_server.prepare(name, tmp_path / "first")
        api_server.apply_without_pods(found)
        wait_for("its mode", lambda: find("isvc", "nereid", found.namespace).get("status", {}).get("deploymentMode"))
        other = render_in(f"overlays/{second}", found.namespace, tmp_path / "second")
        result = kubectl("apply", "--server-side", "--filename=-", sent=other.objects)
        assert not result.accepted
        assert "deploymentMode" in result.stderr
    finally:
        api_server.remove(api_server.namespace_of(name))


@pytest.mark.parametrize("names", [WITH_KSERVE, WITHOUT], ids=["kserve", "deployment"])
def test_components_together_are_accepted(names: tuple[str, ...], tmp_path: Path) -> None:
    """All components that combine, with a prefix; no pod starts."""
    if missing := find_missing(*CONTROLLERS):
        pytest.skip(missing)
    namespace = api_server.namespace_of(f"components-{len(names)}")
    # The cluster has no operator for Secrets.
    rendered = combine(tuple(each for each in names if not each.startswith("external-secrets")), tmp_path, namespace)
    if unknown := api_server.unknown_kinds(rendered):
        pytest.skip(f"needs the CRDs of {', '.join(unknown)} in the cluster; next: kubectl apply them")
    applied = Applied("components", namespace, rendered)
    try:
        api_server.remove(namespace, wait=True)
        result = kubectl("apply", "--server-side", "--filename=-", sent=list(rendered.of_kind("Namespace")))
        assert result.accepted, result.stderr
        api_server.apply_without_pods(applied)
        assert {
            way: result.stderr for way, result in applied.results.items() if result.stderr or not result.accepted
        } == {}
    finally:
        api_server.remove(namespace)


def _why_not_ready(applied: Applied) -> str:
    conditions = find("isvc", "nereid", applied.namespace).get("status", {}).get("conditions", [])
    return " ".join(each.get("message", "") for each in conditions if each["type"] == "PredictorReady")


def _made(kind: str, name: str, applied: Applied) -> Any:
    return wait_for(f"{kind} {name} in {applied.namespace}", lambda: find(kind, name, applied.namespace))


def _check_same(assumed: Any, made: Any, what: str) -> None:
    found = differences(_clean(assumed), _clean(made))
    assert not found, "\n".join([f"{what}: {len(found)} fields differ", *found])


def _clean(template: Any) -> Any:
    """Without labels and annotations of Knative, and without empty fields."""
    metadata = {}
    for key in ("labels", "annotations"):
        given = template["metadata"].get(key, {})
        metadata[key] = {name: value for name, value in given.items() if not _is_of_knative(name, value)}
    return {"metadata": metadata, "spec": template["spec"]}


def _is_of_knative(name: str, value: str) -> bool:
    own = name.startswith(_OWN) and name != f"{_OWN}progress-deadline"
    return own or name == "kubectl.kubernetes.io/default-container" or (name == "app" and not value.startswith("isvc."))


def _entrance(service: Object) -> str:
    return "transformer" if "transformer" in service["spec"] else "predictor"


def _ports(pod: Object) -> list[Any]:
    """Ports of the container with ports."""
    (ports,) = [each["ports"] for each in pod["spec"]["containers"] if each.get("ports")]
    return list(ports)


def _rule(rule: Any) -> tuple[str, str, int, str]:
    ((match,), (backend,)) = rule["matches"], rule["backendRefs"]
    return match["path"]["value"], backend["name"], backend["port"], rule["timeouts"]["request"]


def _trigger(metric: Any) -> dict[str, Any]:
    external = metric["external"]
    metadata = {key: external["metric"][key] for key in ("query", "serverAddress")}
    return {"type": "prometheus", "metadata": {**metadata, "threshold": external["target"]["value"]}}
