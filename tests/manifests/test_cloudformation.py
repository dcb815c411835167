"""The templates of CloudFormation: valid, and their task the pod of the manifests."""

import re
from functools import cache
from typing import Any

import pytest
import yaml
from cfnlint.api import lint_file

from tests.support.cloudformation import NAMES, TEMPLATES, container_of, read_template
from tests.support.stack import ROOT
from transformer.settings import TransformerSettings
from worker.settings import Settings as WorkerSettings

POD = ROOT / "manifests" / "base" / "inferenceservice.yaml"
CPU_TRITON = ROOT / "manifests" / "components" / "cpu-triton"
# Container of the task: of the pod.
SAME = {"triton": "kserve-container", "synchroniser": "synchroniser", "transformer": "transformer-container"}
# In the pod from the limits of containers; the bucket; JSON, as production has it.
OF_THE_TASK = {
    "AWS_REGION",
    "LOG_FORMAT",
    "PREDICTOR_CPUS",
    "PREDICTOR_POLL_S",
    "PREDICTOR_PROFILE",
    "PREDICTOR_REPOSITORY",
    "TRANSFORMER_API_KEYS_FILE",
    "TRANSFORMER_KEYLESS",
    "TRANSFORMER_MAX_IN_FLIGHT",
    "TRANSFORMER_THREADS",
}
# Prometheus reads them in a cluster, at the pod's address; no version is pinned; S3 itself.
OF_THE_POD = {
    "METRICS_ADDRESS",
    "PREDICTOR_METRICS_RELAY_PORT",
    "PREDICTOR_PINS",
    "PREDICTOR_SYNC_ADDRESS",
    "PREDICTOR_SYNC_PORT",
}


@cache
def pod() -> dict[str, Any]:
    predictor: dict[str, Any] = yaml.safe_load(POD.read_text())["spec"]["predictor"]
    for patched in yaml.safe_load((CPU_TRITON / "inferenceservice.yaml").read_text())["spec"]["predictor"][
        "containers"
    ]:
        (container,) = (each for each in predictor["containers"] if each["name"] == patched["name"])
        container["env"] = container.get("env", []) + patched.get("env", [])
    return {each["name"]: each for each in predictor["containers"]}


def task(template: str = "ecs.yaml") -> dict[str, Any]:
    return dict(read_template(template)["Resources"]["Task"]["Properties"])


def variables_of(container: dict[str, Any]) -> dict[str, Any]:
    return {each["Name"]: each["Value"] for each in container.get("Environment", [])}


@cache
def variables_of_the_pod(name: str) -> dict[str, Any]:
    container = pod()[name]
    own = {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}
    if "envFrom" not in container:
        return own
    lines = (ROOT / "manifests" / "base" / "settings.env").read_text().splitlines()
    shared = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    prefixes = ("PREDICTOR_", "AWS_") if name == "synchroniser" else ("TRANSFORMER_",)
    return {key: value for key, value in shared.items() if key.startswith(prefixes)} | own


@pytest.mark.parametrize("name", NAMES)
def test_template_has_no_finding(name: str) -> None:
    assert [str(found) for found in lint_file(TEMPLATES / name)] == []


@pytest.mark.parametrize(("name", "of_the_pod"), SAME.items())
def test_settings_of_the_task_are_those_of_the_pod(name: str, of_the_pod: str) -> None:
    mine, its = variables_of(container_of(task(), name)), variables_of_the_pod(of_the_pod)
    assert {key: value for key, value in mine.items() if key not in OF_THE_TASK} == {
        key: value for key, value in its.items() if key not in OF_THE_TASK | OF_THE_POD
    }


def test_triton_of_the_task_is_that_of_the_pod() -> None:
    _, _, script, *arguments = pod()["kserve-container"]["args"]
    container = container_of(task(), "triton")
    mine_script, *mine = container["Command"]
    secret = [each for each in arguments if "restricted" in each]
    added = [
        each["value"] for each in yaml.safe_load((CPU_TRITON / "arguments.yaml").read_text()) if each["op"] == "add"
    ]
    # Of an option that is given twice, Triton takes the last.
    options: dict[str, list[str]] = {each.partition("=")[0]: [] for each in [*arguments, *added]}
    for each in [*arguments, *added]:
        if each.partition("=")[0] != "--model-repository":
            options[each.partition("=")[0]].clear()
        options[each.partition("=")[0]].append(each)
    wanted = [each for found in options.values() for each in found if each not in secret]
    assert sorted(mine) == sorted(wanted)
    # ECS puts no variables into arguments: the script does.
    for option in secret:
        names, _, protocols = option.partition("=")
        assert protocols.replace("$(PREDICTOR_SECRET)", "$PREDICTOR_SECRET") in mine_script
        assert f"{names}=$restricted" in mine_script
    assert mine_script.startswith(script.partition("exec ")[0])


@pytest.mark.parametrize("name", [*SAME])
def test_containers_of_the_task_are_restricted_as_those_of_the_pod(name: str) -> None:
    container, its = container_of(task(), name), pod()[SAME[name]]
    context = its["securityContext"]
    assert container["User"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert container["ReadonlyRootFilesystem"] is context["readOnlyRootFilesystem"] is True
    assert container["LinuxParameters"]["Capabilities"]["Drop"] == context["capabilities"]["drop"]
    mounts = {each["ContainerPath"]: each.get("ReadOnly", False) for each in container["MountPoints"]}
    wanted = {each["mountPath"]: each.get("readOnly", False) for each in its["volumeMounts"]}
    # Fargate brings it.
    wanted.pop("/dev/shm", None)  # noqa: S108 - the path of a mount
    mounts.pop("/keys", None)
    assert mounts == wanted


def test_secrets_reach_the_containers_that_they_are_for() -> None:
    found = {each["Name"]: names_of(each.get("Secrets", [])) for each in task()["ContainerDefinitions"]}
    assert found == {
        "volumes": ["KEYS"],
        "triton": ["PREDICTOR_SECRET"],
        "synchroniser": ["PREDICTOR_SECRET"],
        "transformer": [],
    }


def names_of(secrets: Any) -> list[str]:
    """Names of the variables, those of a condition too."""
    if isinstance(secrets, dict):
        secrets = [each for branch in secrets["Fn::If"][1:] if isinstance(branch, list) for each in branch]
    return [each["Name"] for each in secrets]


def test_only_the_transformer_is_reached_from_outside() -> None:
    ports = {
        each["Name"]: [port["ContainerPort"] for port in each.get("PortMappings", [])]
        for each in task()["ContainerDefinitions"]
    }
    assert ports == {"volumes": [], "triton": [], "synchroniser": [], "transformer": [8080, 8081]}
    (rule,) = read_template("ecs.yaml")["Resources"]["TaskSecurityGroup"]["Properties"]["SecurityGroupIngress"]
    assert (rule["FromPort"], rule["ToPort"]) == (8080, 8081)
    listening = [each for each in container_of(task(), "triton")["Command"][1:] if "address" in each]
    assert {each.partition("=")[2] for each in listening} == {"127.0.0.1"}


def test_pauses_of_the_service_fit_together() -> None:
    resources = read_template("ecs.yaml")["Resources"]
    request_s = float(variables_of(container_of(task(), "transformer"))["TRANSFORMER_REQUEST_TIMEOUT_S"])
    for group in ("HttpTargets", "GrpcTargets"):
        attributes = {each["Key"]: each["Value"] for each in resources[group]["Properties"]["TargetGroupAttributes"]}
        assert float(attributes["deregistration_delay.timeout_seconds"]) > request_s
    balancer = {
        each["Key"]: each["Value"] for each in resources["LoadBalancer"]["Properties"]["LoadBalancerAttributes"]
    }
    idle_s = float(balancer["idle_timeout.timeout_seconds"])
    kept_s = float(variables_of(container_of(task(), "transformer"))["TRANSFORMER_KEEP_ALIVE_S"])
    assert request_s < idle_s < kept_s
    stop_s = container_of(task(), "transformer")["StopTimeout"]
    assert TransformerSettings().shutdown_timeout_s < stop_s <= 120
    # A model may take as long as in the pod, whose startup probe is once a second.
    probe = pod()["transformer-container"]["startupProbe"]
    assert resources["Service"]["Properties"]["HealthCheckGracePeriodSeconds"] >= (
        probe["failureThreshold"] * probe["periodSeconds"]
    )


def test_sizes_are_pairs_of_fargate() -> None:
    sizes = read_template("ecs.yaml")["Mappings"]["Sizes"]
    for name, size in sizes.items():
        cpus, gib = int(size["Cpu"]) / 1024, int(size["Memory"]) / 1024
        assert name == f"{cpus:.0f}vcpu"
        assert 2 * cpus <= gib <= 8 * cpus
        assert gib % {2: 1, 4: 1, 8: 4, 16: 8}[int(cpus)] == 0
        assert float(size["TritonCpus"]) + float(size["Threads"]) <= cpus + 0.5
        # docs/limits.md: 140 MiB, and 150 for each image of 50 megapixels in progress.
        assert 140 + 150 * int(size["InFlight"]) <= int(size["TransformerMemory"]) <= int(size["Memory"]) / 4


def test_service_waits_for_what_its_target_groups_need() -> None:
    resources = read_template("ecs.yaml")["Resources"]
    service = resources["Service"]
    assert service["DependsOn"] == "Listener"
    http, grpc = service["Properties"]["LoadBalancers"]
    assert http["TargetGroupArn"] == {"Ref": "HttpTargets"}
    assert {"Ref": "GrpcRule"} in grpc["Fn::If"][1]["TargetGroupArn"]["Fn::Select"][1]


@pytest.mark.parametrize("name", ["ecs.yaml", "worker.yaml"])
def test_update_keeps_the_number_of_tasks(name: str) -> None:
    assert "DesiredCount" not in read_template(name)["Resources"]["Service"]["Properties"]


def test_update_keeps_the_number_of_instances() -> None:
    assert read_template("sagemaker.yaml")["Resources"]["Endpoint"]["Properties"]["RetainAllVariantProperties"] is True


@pytest.mark.parametrize("name", ["worker.yaml", "sagemaker.yaml"])
def test_start_from_zero_takes_no_capacity_away(name: str) -> None:
    policy = read_template(name)["Resources"]["FromZero"]["Properties"]["StepScalingPolicyConfiguration"]
    assert policy["AdjustmentType"] == "ChangeInCapacity"
    assert [each["ScalingAdjustment"] for each in policy["StepAdjustments"]] == [1]


def test_messages_in_progress_keep_a_task() -> None:
    policy = read_template("worker.yaml")["Resources"]["ByBacklog"]["Properties"]
    metrics = {
        each["Id"]: each
        for each in policy["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]["Metrics"]
    }
    # SQS reports messages in progress only where there are any.
    assert metrics["backlog"]["Expression"] == "(visible + FILL(inprogress, 0)) / tasks"
    assert [name for name, each in metrics.items() if each["ReturnData"]] == ["backlog"]


def test_worker_stops_later_than_it_finishes() -> None:
    container = container_of(task("worker.yaml"), "worker")
    given = variables_of(container)
    wait_s, grace_s = float(given["WORKER_WAIT_S"]), float(given["WORKER_GRACE_S"])
    assert wait_s + grace_s + 15 <= container["StopTimeout"] <= 120
    known = {f"WORKER_{name.upper()}" for name in WorkerSettings.model_fields}
    assert {name for name in given if name.startswith("WORKER_")} <= known


def test_worker_may_do_what_the_page_says() -> None:
    page = (ROOT / "docs" / "queues.md").read_text()
    rights = page[page.index("## Rights") :].split("\n## ")[0]
    named = set(re.findall(r"\b(?:Receive|Delete|Send)Message\b|\b(?:Get|List|Put|Change)[A-Z]\w+", rights))
    role = read_template("worker.yaml")["Resources"]["TaskRole"]["Properties"]["Policies"][0]["PolicyDocument"]
    statements = [each for each in role["Statement"] if "Sid" in each]  # without keys of KMS
    actions = {action for each in statements for action in _listed(each["Action"])}
    assert {action.partition(":")[2] for action in actions} == named


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
