"""infra/terraform: what it names is what manifests, images and pages have, and its overlay is one that KServe takes.

Without Terraform; `python -m tests.terraform` runs the program itself over the same files.
"""

import json
import re
from decimal import Decimal
from fnmatch import fnmatch
from math import ceil, prod
from pathlib import Path
from typing import Any

import pytest
import yaml

from containers.build import IMAGES
from containers.overlay import set_images
from tests.manifests.__main__ import judge
from tests.manifests.environment import quantity
from tests.manifests.pod import containers_of, pods_of
from tests.manifests.rendering import MANIFESTS, ROOT, Render, needs_kubectl, read_documents, render_foreign
from tests.manifests.terraform_files import FOLDER, blocks, files, fill, named_locals, values_of
from transformer.rest import predict, v1, v2
from transformer.settings import TransformerSettings

PAGE = ROOT / "docs" / "terraform.md"
EXAMPLE = FOLDER / "terraform.tfvars.example"
SIZES = sorted((FOLDER / "sizes").glob("*.tfvars"))
AWS = MANIFESTS / "examples" / "aws"
EXACT = re.compile(r"v?\d+\.\d+\.\d+(-eksbuild\.\d+)?")
GIB = 2**30


def document(name: str) -> dict[str, Any]:
    return next(dict(each) for each in read_documents((MANIFESTS / name).read_text()))


# Versions


def test_every_module_provider_chart_and_add_on_has_one_version() -> None:
    versions = {f"module {name}": each["version"] for name, each in blocks("module").items()}
    (needed,) = [each for each in files().values() if "required_providers" in each]
    versions |= dict(re.findall(r'(\w+) = \{\n\s+source +=.*\n\s+version += "([^"]+)"', needed))
    versions |= {name: each["version"] for name, each in named_locals()["charts"].items()}
    versions |= named_locals()["addons"]
    for chart in FOLDER.glob("charts/*/Chart.yaml"):
        versions[f"chart {chart.parent.name}"] = yaml.safe_load(chart.read_text())["version"]
    assert len(versions) > 40
    assert {name: version for name, version in versions.items() if not EXACT.fullmatch(version)} == {}


def test_modules_of_one_source_have_one_version() -> None:
    versions: dict[str, set[str]] = {}
    for each in blocks("module").values():
        versions.setdefault(each["source"].partition("//")[0], set()).add(each["version"])
    assert {source for source, found in versions.items() if len(found) > 1} == set()


def test_every_chart_and_add_on_is_installed() -> None:
    text = files()["charts.tf"]
    for name in named_locals()["charts"]:
        assert f"local.charts.{name}.version" in text
        assert f"local.charts.{name}.repository" in text
    for chart in FOLDER.glob("charts/*/Chart.yaml"):
        assert f"/charts/{chart.parent.name}" in text


def test_versions_are_those_of_the_pages() -> None:
    charts = named_locals()["charts"]
    page = (ROOT / "docs" / "production-on-eks.md").read_text()
    assert charts["kserve-crd"] == charts["kserve-resources"]
    assert f"--version {charts['kserve-resources']['version']}" in page
    logging = (MANIFESTS / "logging" / "README.md").read_text()
    assert f"--version {charts['fluent-bit']['version']}" in logging
    assert f"Knative Serving {named_locals()['knative_serving_version']}" in (MANIFESTS / "README.md").read_text()


# Variables and outputs


def test_every_variable_says_what_it_is_and_is_used() -> None:
    text = "\n".join(text for name, text in files().items() if name != "variables.tf")
    for name, each in blocks("variable").items():
        assert each.get("description"), name
        assert each.get("type"), name
        assert re.search(rf"\bvar\.{name}\b", text), f"{name} is not used"


def test_every_output_says_what_it_is_and_is_on_the_page() -> None:
    page = PAGE.read_text()
    for name, each in blocks("output").items():
        assert each.get("description"), name
        shown = re.search(rf"`{name}`|output (-raw )?{name}\b", page)
        assert shown, f"{name} is not in {PAGE.name}"


def test_what_has_no_default_is_in_the_example() -> None:
    needed = {name for name, each in blocks("variable").items() if "default" not in each}
    example = values_of(EXAMPLE)
    assert needed <= example.keys() <= blocks("variable").keys()
    assert ("zone_id" in example) != ("certificate_arn" in example)


@pytest.mark.parametrize("size", SIZES, ids=lambda each: each.stem)
def test_a_size_has_nodes_for_its_pods(size: Path) -> None:
    values = values_of(size)
    assert values.keys() <= blocks("variable").keys()
    nodes = {"spot_max": 0} | values["cpu_nodes"]
    kinds = nodes.get("instance_types") or re.findall(r'"(c\w+\.\w+)"', blocks("variable")["cpu_nodes"]["type"])
    (cores,) = {{"2xlarge": 8, "4xlarge": 16}[each.partition(".")[2]] for each in kinds}
    pod = named_locals()["pod_sizes"]["cpu"]
    # A node keeps half a core and a seventh of its memory; it has 2 GiB for each core.
    each = int(min((cores - 0.5) / pod["cpu"], cores * 2 * 6 / 7 / pod["memory_gib"]))
    pods = values["pods"]
    assert (nodes["max"] + nodes["spot_max"]) * each >= pods["max"] + 1
    assert nodes["min"] * each >= pods["min"]


def test_sizes_are_on_the_page() -> None:
    assert {each.stem for each in SIZES} == {"small", "medium", "large"}
    for size in SIZES:
        assert f"sizes/{size.stem}.tfvars" in PAGE.read_text() or f"`{size.stem}`" in PAGE.read_text()


def test_costs_of_the_page_add_up() -> None:
    rows = [
        [each.strip(" *") for each in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if "|" in line
    ]
    items = [row for row in rows if len(row) == 7 and re.fullmatch(r"[\d.]+", row[2])]
    (total,) = [row for row in rows if row[0] == "in all"]
    assert len(items) > 20
    for size in (3, 4, 5):
        cost = sum(float(row[2]) * float(row[size].replace(",", "") or 0) for row in items)
        assert f"{cost:,.0f}" == total[size]


# Names


def test_names_are_those_of_the_manifests() -> None:
    names = named_locals()
    assert names["namespace"] == document("base/namespace.yaml")["metadata"]["name"]
    assert names["service_account"] == document("base/serviceaccount.yaml")["metadata"]["name"]
    assert names["publisher_account"] == document("jobs/publisher/serviceaccount.yaml")["metadata"]["name"]
    assert names["ingress"] == document("components/ingress/ingress.yaml")["metadata"]["name"]
    allowed = document("base/networkpolicy.yaml")["spec"]["ingress"][0]["from"][0]["namespaceSelector"]
    assert allowed["matchLabels"]["kubernetes.io/metadata.name"] == names["metrics_namespace"]
    logging = yaml.safe_load((MANIFESTS / "logging" / "values.yaml").read_text())
    assert logging["fullnameOverride"] == names["logging_namespace"]


def test_ports_are_those_of_the_load_balancer_policy() -> None:
    (rule,) = document("components/alb/networkpolicy.yaml")["spec"]["ingress"]
    assert [each["port"] for each in rule["ports"]] == [named_locals()["rest_port"], named_locals()["grpc_port"]]


def test_the_agent_of_pod_identity_is_that_of_the_page() -> None:
    assert f"cidr: {named_locals()['pod_identity_agent']}" in (ROOT / "docs" / "production-on-eks.md").read_text()


def test_the_class_of_engines_is_that_of_the_overlay() -> None:
    chart = (FOLDER / "charts" / "storage" / "templates" / "engines.yaml").read_text()
    name = re.search(r"^  name: (\S+)$", chart, re.MULTILINE)
    assert name is not None
    assert f"storageClassName: {name[1]}" in (FOLDER / "templates" / "overlay.yaml.tftpl").read_text()
    user = document("base/inferenceservice.yaml")["spec"]["predictor"]["containers"][0]["securityContext"]["runAsUser"]
    assert f'uid: "{user}"' in chart


def test_images_are_those_that_are_built() -> None:
    names = set(re.findall(r'"([\w-]+)"', named_locals()["images"]))
    assert names == {each.name for each in IMAGES}
    tags = {each["name"]: each["newTag"] for each in document("components/images/kustomization.yaml")["images"]}
    assert tags["nvcr.io/nvidia/tritonserver"] == named_locals()["triton_tag"]
    assert {tag for name, tag in tags.items() if name.startswith("nereid/")} == {named_locals()["nereid_tag"]}


def test_gpu_nodes_are_those_that_the_component_selects() -> None:
    predictor = document("components/gpu/inferenceservice.yaml")["spec"]["predictor"]
    ((label, value),) = predictor["nodeSelector"].items()
    (tolerated,) = predictor["tolerations"]
    pools = (FOLDER / "charts" / "node-pools" / "templates" / "nodepool.yaml").read_text()
    assert "nereid/nodes: gpu" in pools
    assert '"nereid/nodes" = "gpu"' in files()["nodes.tf"]
    for text in (files()["nodes.tf"], pools):
        assert re.search(rf'{re.escape(label)}"?\s*[=:]\s*"{value}"', text)
        assert re.search(rf'key\s*[=:]\s*"?{re.escape(tolerated["key"])}', text)


# What AWS takes as a description: EC2 rejects an apostrophe in one of a rule, IAM anything beyond Latin-1.
DESCRIBED = {
    "aws_security_group": r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}",
    "aws_vpc_security_group_ingress_rule": r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}",
    "aws_vpc_security_group_egress_rule": r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}",
    "aws_wafv2_web_acl": r"[\w+=:#@/\-,.][\w+=:#@/\-,.\s]+[\w+=:#@/\-,.]",
}


@pytest.mark.parametrize("kind", DESCRIBED)
def test_descriptions_are_such_as_aws_takes(kind: str) -> None:
    found = {name: each["description"] for name, each in blocks("resource", of=kind).items()}
    filled = {name: re.sub(r"\$\{[\w.]+\}", "vision.example.com", text) for name, text in found.items()}
    assert filled
    assert {name: text for name, text in filled.items() if not re.fullmatch(DESCRIBED[kind], text)} == {}


def test_descriptions_of_roles_and_keys_are_such_as_aws_takes() -> None:
    found = [each["description"] for each in blocks("module").values() if "description" in each]
    assert len(found) >= 6
    assert [text for text in found if not re.fullmatch(r"[\t\n\r\x20-\x7e\xa1-\xff]{1,1000}", text)] == []


def test_the_network_outlives_every_chart() -> None:
    """A destroy goes the other way round: a chart whose pods lost NAT or endpoints leaves behind what it made."""
    releases = blocks("resource", of="helm_release")
    needs = {name: " ".join(map(str, each["depends_on"])) for name, each in releases.items()}
    assert "module.vpc" in needs["load_balancer_controller"]
    assert "module.endpoints" in needs["load_balancer_controller"]

    def reaches(name: str) -> bool:
        others = re.findall(r"helm_release\.(\w+)", needs[name])
        return name == "load_balancer_controller" or any(reaches(each) for each in others)

    assert [name for name in needs if not reaches(name)] == []
    for name in ("karpenter", "node_pools"):
        assert "module.karpenter" in needs[name]


# The pipeline


def subject_is_valid(subject: str) -> bool:
    (pattern,) = re.findall(r'can\(regex\("(\^\(repo:.*)", each\)\)', files()["variables.tf"])
    return re.fullmatch(pattern, subject) is not None


@pytest.mark.parametrize(
    "subject",
    [
        "repo:acme/vision:environment:registry",
        "repo:acme/vision:ref:refs/heads/main",
        "repo:acme@123456/vision@456789:environment:registry",
        "repo:acme@123456/vision@456789:ref:refs/tags/v1",
        "project_path:acme/teams/vision:ref_type:branch:ref:main",
    ],
)
def test_subjects_of_github_and_gitlab_are_valid(subject: str) -> None:
    assert subject_is_valid(subject)


@pytest.mark.parametrize(
    "subject",
    [
        "repo:acme/vision:*",
        "repo:acme/*:environment:registry",
        "repo:acme@123456/vision:environment:registry",
        "repo:acme@123456/*@456789:environment:registry",
        "repo:acme@*/vision@456789:environment:registry",
        "repo:acme@123456/vision@456789:pull_request",
        "project_path:acme/vision:ref_type:branch:ref:*",
    ],
)
def test_subjects_that_others_could_have_are_not(subject: str) -> None:
    assert not subject_is_valid(subject)


def test_subjects_of_the_example_are_the_environments_of_the_workflows() -> None:
    pipeline = values_of(EXAMPLE)["pipeline"]
    subjects = pipeline["images_subjects"] + pipeline["models_subjects"]
    assert [each for each in subjects if not subject_is_valid(each)] == []
    workflows = "".join(each.read_text() for each in (ROOT / ".github" / "workflows").glob("*.yml"))
    of_workflows = set(re.findall(r"^    environment: (\w+)$", workflows, re.MULTILINE))
    assert {each.rpartition(":")[2] for each in subjects} == of_workflows


def test_the_audience_is_the_one_that_gitlab_requests() -> None:
    requested = re.findall(r"AWS_ID_TOKEN:\n\s+aud: (\S+)", (ROOT / ".gitlab-ci.yml").read_text())
    (default,) = re.findall(r'audience\s+= optional\(string, "([^"]+)"\)', files()["variables.tf"])
    assert set(requested) == {default}
    assert "audience" not in EXAMPLE.read_text()


# Rights


def actions(statements: str) -> dict[str, list[str]]:
    return {each["sid"]: sorted(each["actions"]) for each in named_locals()[statements]}


def actions_of(*policies: str) -> dict[str, list[str]]:
    found = [each for name in policies for each in json.loads((AWS / name).read_text())["Statement"]]
    listed = {each["Sid"]: each["Action"] for each in found}
    return {sid: sorted([one] if isinstance(one, str) else one) for sid, one in listed.items()}


def test_rights_are_those_of_the_examples() -> None:
    assert actions("reader_statements") == actions_of("read-models.json", "kms-read.json")
    assert actions("publisher_statements") == actions_of("publish-models.json", "kms-publish.json")


def test_the_endpoint_of_s3_lets_a_publisher_through() -> None:
    text = files()["network.tf"]
    (allowed,) = re.findall(r'data "aws_iam_policy_document" "s3_endpoint".*?actions\s+= \[([^\]]+)\]', text, re.DOTALL)
    needed = {action for one in actions("publisher_statements").values() for action in one if action.startswith("s3:")}
    assert set(re.findall(r'"([^"]+)"', allowed)) == needed


def test_logs_are_written_with_the_rights_of_the_example() -> None:
    (statement,) = blocks("module")["fluent_bit_role"]["policy_statements"]
    assert {"Write": sorted(statement["actions"])} == actions_of("write-logs.json")


def test_uploads_need_no_header_of_encryption() -> None:
    """The module's policy would deny each upload that leaves the key to the bucket, as ours do."""
    assert "attach_deny_incorrect_kms_key_sse" not in blocks("module")["models"]
    assert "attach_deny_unencrypted_object_uploads" not in blocks("module")["models"]


# The web ACL


def test_every_rule_on_a_body_counts_and_has_its_label() -> None:
    names = named_locals()
    rules = {"core-rule-set": names["body_rules"], "known-bad-inputs": names["known_body_rules"]}
    for group, found in rules.items():
        assert f'"awswaf:managed:aws:{group}:${{each}}"' in files()["edge.tf"]
        assert all(name.endswith("_BODY") and label == f"{name[:-5]}_Body" for name, label in found.items())
    assert {"Log4JRCE_BODY", "JavaDeserializationRCE_BODY"} <= rules["known-bad-inputs"].keys()


def test_every_route_with_a_body_may_have_an_image() -> None:
    prefixes = named_locals()["body_routes"]
    routes = [
        route.path  # type: ignore[attr-defined]
        for router in (predict.router, v1.router, v2.router)
        for route in router.routes
        if "POST" in getattr(route, "methods", set())
    ]
    assert len(routes) >= 4
    assert [route for route in routes if not route.startswith(tuple(prefixes))] == []


def test_a_body_that_the_transformer_takes_passes() -> None:
    too_large = re.compile(named_locals()["too_large"])
    most = TransformerSettings.model_fields["max_body_bytes"].default
    million = (most // 1_000_000 + 1) * 1_000_000
    assert not any(too_large.search(str(each)) for each in (0, 999, most - 1, most))
    assert all(too_large.search(str(each)) for each in (million, million + 1, 999_999_999, 10**9, 2**32, 10**12))


def test_the_load_balancer_keeps_the_times_of_the_component() -> None:
    (attribute,) = [
        value
        for name, value in document("components/alb/ingress.yaml")["metadata"]["annotations"].items()
        if name.endswith("load-balancer-attributes")
    ]
    assert f'"{attribute}"' in files()["edge.tf"]


# The overlay


SERVED = ("nereid/predictor", "nereid/transformer", "nvcr.io/nvidia/tritonserver")


def overlay_values(**changed: Any) -> dict[str, Any]:
    root = changed.pop("root", "../..")
    names = named_locals()
    values = {
        "root": root,
        "ref": "",
        "namespace": names["namespace"],
        "repository": "s3://acme-models/nereid",
        "region": "eu-central-1",
        "s3_endpoint": "https://bucket.vpce-0123456789abcdef0-abcdefgh.s3.eu-central-1.vpce.amazonaws.com",
        "s3_addresses": ["10.64.136.10", "10.64.137.10", "10.64.138.10"],
        "pod_identity_agent": names["pod_identity_agent"],
        "images": [image(each) for each in SERVED],
        "service_account": names["service_account"],
        "knative": False,
        "gpu": False,
        "cpu_triton": False,
        "ingress": names["ingress"],
        "host": "vision.acme.test",
        "annotations": {
            "alb.ingress.kubernetes.io/certificate-arn": "arn:aws:acm:eu-central-1:123412341234:certificate/1",
            "alb.ingress.kubernetes.io/wafv2-acl-arn": "arn:aws:wafv2:eu-central-1:123412341234:regional/webacl/n/2",
        },
        "client_subnets": ["10.64.136.0/24", "10.64.137.0/24", "10.64.138.0/24"],
        "rest_port": names["rest_port"],
        "grpc_port": names["grpc_port"],
        "nodes": "cpu",
        "min_pods": 2,
        "max_pods": 8,
        "quota": None,
        "has_quota": False,
        "max_gpus": 0,
    }
    return values | changed


def image(name: str) -> dict[str, str]:
    return {
        "name": name,
        "new_name": f"123412341234.dkr.ecr.eu-central-1.amazonaws.com/{name.removeprefix('nvcr.io/')}",
        "pin": f"digest: sha256:{'7' * 64}",
    }


def quota_of(pods: int, kind: str) -> dict[str, int]:
    """The quota by the expressions of overlay.tf."""
    text = files()["overlay.tf"].partition("  quota = ")[2].partition("\n  }\n")[0]
    found = dict(re.findall(r"^ +(\w+) += (?:ceil\()?([^#\n]*?)\)?$", text, re.MULTILINE))
    assert len(found) == 5
    sizes = {f"local.pod.{name}": value for name, value in named_locals()["pod_sizes"][kind].items()}
    return {name: _computed(each, sizes | {"var.pods.max": pods}) for name, each in found.items()}


def _computed(text: str, values: dict[str, Any]) -> int:
    """A sum of products, rounded up."""
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(name, str(values[name]))
    text = re.sub(r"\((\d+) \+ 1\)", lambda one: str(int(one[1]) + 1), text)
    terms = [[Decimal(each) for each in term.split("*")] for term in text.split("+")]
    return ceil(sum(prod(each) for each in terms))


CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "cpu": {
        "cpu_triton": True,
        "images": [image(f"nereid/{each}") for each in ("predictor", "transformer", "cpu-triton")],
    },
    "gpu": {"gpu": True, "nodes": "gpu", "max_pods": 2, "max_gpus": 2, "has_quota": True, "quota": quota_of(2, "gpu")},
    "many": {"min_pods": 24, "max_pods": 64, "has_quota": True, "quota": quota_of(64, "cpu")},
    "knative": {"knative": True},
}


def make(folder: Path, template: str, **changed: Any) -> Render:
    """The overlay beside a link to our manifests, as it would be in a checkout, below that of its images."""
    below = folder / "aws" / ("terraform" if template == "overlay.yaml.tftpl" else "publish")
    below.mkdir(parents=True)
    root = Path("../" * (len(folder.resolve().parts) + 2)) / MANIFESTS.relative_to("/")
    values = overlay_values(root=root, **changed)
    (below / "kustomization.yaml").write_text(fill(template, values))
    if below.name == "publish":
        return render_foreign(below)
    (folder / "aws" / "kustomization.yaml").write_text(fill("images.yaml.tftpl", values))
    return render_foreign(folder / "aws")


@needs_kubectl
@pytest.mark.parametrize("case", CASES)
def test_the_overlay_is_valid(case: str, tmp_path: Path) -> None:
    rendered = make(tmp_path, "overlay.yaml.tftpl", **CASES[case])
    assert list(judge(rendered)) == []


@needs_kubectl
def test_nothing_of_an_example_is_left_in_the_overlay(tmp_path: Path) -> None:
    text = yaml.safe_dump_all(make(tmp_path, "overlay.yaml.tftpl").objects)
    for example in (
        "111122223333",
        "example-models",
        "example.com",
        "192.0.2.",
        "198.51.100.",
        "sha256:000",
        "role-arn",
    ):
        assert example not in text, example


@needs_kubectl
def test_the_overlay_has_what_terraform_knows(tmp_path: Path) -> None:
    rendered = make(tmp_path, "overlay.yaml.tftpl")
    (pod,) = pods_of(rendered)
    assert {each["image"].rpartition("@")[2] for each in containers_of(pod)} == {f"sha256:{'7' * 64}"}
    (settings,) = [each for each in rendered.of_kind("ConfigMap") if "nereid-settings" in each["metadata"]["name"]]
    assert settings["data"]["AWS_ENDPOINT_URL_S3"].startswith("https://bucket.vpce-")
    assert settings["data"]["PREDICTOR_REPOSITORY"] == "s3://acme-models/nereid"
    policy = rendered.named("NetworkPolicy", "nereid-s3")
    assert policy is not None
    s3, agent = policy["spec"]["egress"]
    assert [each["ipBlock"]["cidr"] for each in s3["to"]] == ["10.64.136.10/32", "10.64.137.10/32", "10.64.138.10/32"]
    assert agent["ports"] == [{"port": 80, "protocol": "TCP"}]


def test_the_pipeline_writes_every_image_of_ours() -> None:
    """Where the overlay is made again, digests stay: they are in the folder above."""
    made = fill("images.yaml.tftpl", overlay_values())
    pushed = {name: f"registry.acme.test/{name}@sha256:{'8' * 64}" for name in SERVED if name.startswith("nereid/")}
    text, written = set_images(made, pushed)
    assert set(written) == set(pushed)
    assert text.count(f"digest: sha256:{'8' * 64}") == len(pushed)
    assert "images:" not in fill("overlay.yaml.tftpl", overlay_values())


def test_the_overlay_is_kept() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    for name in ("aws/kustomization.yaml", "aws/terraform/kustomization.yaml"):
        assert not any(f"/manifests/overlays/{name}".startswith(each) for each in ignored if each[:1] == "/"), name


@needs_kubectl
@pytest.mark.parametrize("case", ["gpu", "many"])
def test_the_quota_holds_all_pods_and_one_for_an_update(case: str, tmp_path: Path) -> None:
    rendered = make(tmp_path, "overlay.yaml.tftpl", **CASES[case])
    (pod,) = pods_of(rendered)
    quota = rendered.named("ResourceQuota", "nereid")
    assert quota is not None
    hard = quota["spec"]["hard"]
    pods = CASES[case]["max_pods"] + 1
    for of in ("requests", "limits"):
        for name in ("cpu", "memory"):
            each = sum((quantity(one["resources"][of][name]) for one in containers_of(pod)), Decimal())
            assert quantity(hard[f"{of}.{name}"]) >= each * pods, f"{of}.{name}"
    assert int(hard["pods"]) > pods


@needs_kubectl
@pytest.mark.parametrize(("case", "kind"), [("defaults", "cpu"), ("gpu", "gpu")])
def test_sizes_of_a_pod_are_those_of_the_manifests(case: str, kind: str, tmp_path: Path) -> None:
    (pod,) = pods_of(make(tmp_path, "overlay.yaml.tftpl", **CASES[case]))
    found = {
        f"{name}{suffix}": sum((quantity(each["resources"][of][name]) for each in containers_of(pod)), Decimal())
        for of, suffix in (("requests", ""), ("limits", "_limit"))
        for name in ("cpu", "memory")
    }
    size = named_locals()["pod_sizes"][kind]
    assert found["cpu"] == Decimal(str(size["cpu"]))
    assert found["cpu_limit"] == size["cpu_limit"]
    assert found["memory"] == Decimal(str(size["memory_gib"])) * GIB
    assert found["memory_limit"] == Decimal(str(size["memory_limit_gib"])) * GIB


@needs_kubectl
def test_the_quota_of_the_component_is_for_so_many_pods(tmp_path: Path) -> None:
    rendered = make(tmp_path, "overlay.yaml.tftpl")
    (service,) = rendered.of_kind("InferenceService")
    assert service["spec"]["predictor"]["maxReplicas"] == named_locals()["pods_of_quota"]


@needs_kubectl
def test_the_job_publishes_to_the_bucket(tmp_path: Path) -> None:
    rendered = make(tmp_path, "publish.yaml.tftpl", images=[image("nereid/export")])
    assert list(judge(rendered)) == []
    (settings,) = rendered.of_kind("ConfigMap")
    assert settings["data"]["REPOSITORY"] == "s3://acme-models/nereid"
    assert settings["data"]["MODELS"]
    policy = rendered.named("NetworkPolicy", "nereid-publisher-s3")
    assert policy is not None
    assert len(policy["spec"]["egress"]) == 2


def test_templates_have_values_for_what_they_use() -> None:
    text = files()["overlay.tf"]
    for template in (FOLDER / "templates").iterdir():
        used = set(re.findall(r"\$\{(?:jsonencode\()?(\w+)", template.read_text()))
        used |= set(re.findall(r"%\{ (?:if !?|for [\w, ]+ in )(\w+)", template.read_text()))
        own = set(re.findall(r"%\{ for ([\w, ]+) in", template.read_text()))
        used -= {name.strip() for names in own for name in names.split(",")}
        assert {name for name in used if not re.search(rf"\b{name}\s+=", text)} == set()


def test_nothing_is_kept_that_terraform_makes() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    for name in ("infra/terraform/.terraform/", "infra/terraform/terraform.tfvars", "infra/terraform/backend.tf"):
        assert any(fnmatch(f"/{name}", each) for each in ignored), name
