"""components/alb: consistent timeouts, and their documentation."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.__main__ import judge
from tests.manifests.compositions import combine
from tests.manifests.environment import environment_of
from tests.manifests.pod import containers_of, pods_of
from tests.manifests.rendering import MANIFESTS, ROOT, Render, needs_kubectl, render, render_over
from tests.manifests.rules import objects
from transformer.settings import TransformerSettings

pytestmark = needs_kubectl

EKS = "overlays/eks"
PAGE = ROOT / "docs" / "production-on-eks.md"
AWS = MANIFESTS / "examples" / "aws"
TRITON_S = 30  # its own --exit-timeout-secs
PREFIX = "alb.ingress.kubernetes.io/"
# From the table in the controller's docs/guide/ingress/annotations.md.
KNOWN = {
    "scheme", "target-type", "listen-ports", "certificate-arn", "ssl-policy", "healthcheck-path", "success-codes",
    "healthcheck-interval-seconds", "healthcheck-timeout-seconds", "healthy-threshold-count",
    "unhealthy-threshold-count", "load-balancer-attributes", "target-group-attributes", "backend-protocol-version",
}  # fmt: skip


def annotations(rendered: Render, kind: str) -> dict[str, str]:
    """Annotations of the controller, from the one object of this kind that has any."""
    (found,) = (each for each in rendered.of_kind(kind) if PREFIX in str(each["metadata"].get("annotations")))
    return {name.removeprefix(PREFIX): value for name, value in found["metadata"]["annotations"].items()}


def times() -> dict[str, float]:
    """Timeouts in seconds, by name."""
    rendered = render(EKS)
    (pod,) = pods_of(rendered)
    by_name = {each["name"]: each for each in containers_of(pod)}
    transformer = by_name["transformer-container"]
    own = environment_of(transformer, pod, rendered)
    defaults = {name: field.default for name, field in TransformerSettings.model_fields.items()}
    ingress = annotations(rendered, "Ingress")
    return {
        "request": float(own.get("TRANSFORMER_REQUEST_TIMEOUT_S", defaults["request_timeout_s"])),
        "accepted": float(own.get("TRANSFORMER_SHUTDOWN_TIMEOUT_S", defaults["shutdown_timeout_s"])),
        "preStop": float(transformer["lifecycle"]["preStop"]["exec"]["command"][1]),
        "grace": pod["spec"]["terminationGracePeriodSeconds"],
        "deregistration": _number(ingress["target-group-attributes"]),
        "idle": _number(ingress["load-balancer-attributes"]),
        "kept": float(own.get("TRANSFORMER_KEEP_ALIVE_S", defaults["keep_alive_s"])),
    }


def _number(text: str) -> float:
    return float(text.rpartition("=")[2])


def test_times_fit_each_other() -> None:
    found = times()
    assert found["deregistration"] >= found["request"]
    assert found["preStop"] > found["deregistration"]
    assert found["accepted"] >= found["request"]
    assert found["grace"] >= found["preStop"] + found["accepted"] + TRITON_S
    assert found["request"] < found["idle"] < found["kept"]


def test_page_has_these_times() -> None:
    rows = dict(re.findall(r"^\| ([^|]+?) \| (\d+) \|", PAGE.read_text().partition("## 10.")[2], re.MULTILINE))
    times_s = {name.split("(")[0].strip(): float(value) for name, value in rows.items()}
    found = times()
    assert times_s == {
        "a request": found["request"],
        "deregistration delay": found["deregistration"],
        "preStop of the transformer": found["preStop"],
        "what was accepted": found["accepted"],
        "grace period": found["grace"],
        "idle timeout of the ALB": found["idle"],
        "connections without a request": found["kept"],
    }


def test_annotations_are_those_of_the_controller(tmp_path: Path) -> None:
    rendered = combine(("service", "ingress", "alb", "alb-grpc"), tmp_path)
    for kind in ("Ingress", "Service"):
        found = annotations(rendered, kind)
        assert set(found) <= KNOWN, set(found) - KNOWN
    (ingress,) = rendered.of_kind("Ingress")
    assert {"HTTPS": 443} in json.loads(annotations(rendered, "Ingress")["listen-ports"])
    paths = {each["path"]: each["backend"]["service"] for each in ingress["spec"]["rules"][0]["http"]["paths"]}
    assert paths["/"]["name"] == "acme-nereid"
    assert paths["/inference.GRPCInferenceService"]["name"] == "acme-nereid-alb-grpc"
    (policy,) = (each for each in rendered.of_kind("NetworkPolicy") if each["metadata"]["name"] == "acme-nereid-alb")
    assert {port["port"] for port in policy["spec"]["ingress"][0]["ports"]} == {8080, 8081}


def test_pod_identity_of_the_page_is_right(tmp_path: Path) -> None:
    block = PAGE.read_text().partition("\n    patches:\n")[2].partition("\n\n")[0]
    written: dict[str, Any] = yaml.safe_load(f"    patches:\n{block}")
    rendered = render_over(EKS, {"namespace": "nereid", **written}, tmp_path)
    of_examples = objects.placeholders_are_replaced.__name__.replace("_", " ")
    assert [fault for fault in judge(rendered) if not fault.startswith(of_examples)] == []
    account = rendered.named("ServiceAccount", "nereid")
    assert account is not None
    assert "eks.amazonaws.com/role-arn" not in account["metadata"].get("annotations", {})
    assert "169.254.170.23/32" in json.dumps(rendered.objects)


@pytest.mark.parametrize("path", sorted(AWS.glob("*.json")), ids=lambda path: path.stem)
def test_policies_are_for_what_the_overlay_names(path: Path) -> None:
    policy = json.loads(path.read_text())
    text = json.dumps(policy)
    rendered = render(EKS)
    (settings,) = rendered.of_kind("ConfigMap")
    bucket, prefix = settings["data"]["PREDICTOR_REPOSITORY"].removeprefix("s3://").split("/")
    assert policy["Version"] == "2012-10-17"
    assert {each["Effect"] for each in policy["Statement"]} == {"Allow"}
    assert f"`{path.name}`" in PAGE.read_text()
    if path.stem.endswith("-models"):
        assert f'"arn:aws:s3:::{bucket}"' in text
        assert f'"arn:aws:s3:::{bucket}/{prefix}/*"' in text
    if path.stem == "trust-irsa":
        assert '"system:serviceaccount:nereid:nereid"' in text
    if path.stem == "trust-pod-identity":
        assert policy["Statement"][0]["Principal"] == {"Service": "pods.eks.amazonaws.com"}
        assert policy["Statement"][0]["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    assert rendered.named("ServiceAccount", "nereid") is not None
