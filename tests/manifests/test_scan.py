"""Exceptions of the scanner; the scanner itself is tested where it is installed (make manifests-scan)."""

import pytest

from tests.manifests import scan
from tests.manifests.rendering import Render

NAKED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "naked", "namespace": "nereid"},
    "spec": {"containers": [{"name": "a", "image": "a:latest", "securityContext": {"privileged": True}}]},
}


def test_every_exception_has_a_reason() -> None:
    assert all(len(reason) > 20 for reason in scan.read_exceptions().values())


def test_finding_without_a_reason_is_a_fault_and_so_is_the_reverse() -> None:
    found = {("CKV_K8S_16", "Pod.a.b"): ("privileged", {"base"})}
    assert scan.judge(found, {("CKV_K8S_16", "Pod.a.b"): "because"}) == []
    assert scan.judge(found, {("CKV_K8S_16", "Pod.a.*"): "because"}) == []
    assert len(scan.judge(found, {("CKV_K8S_16", "Pod.a.c"): "because"})) == 2
    assert len(scan.judge(found, {("CKV_K8S_17", "Pod.a.b"): "because"})) == 2


@pytest.mark.skipif(not scan.CHECKOV.is_file(), reason="needs checkov in .venv-scan (make manifests-scan installs it)")
def test_privileged_pod_is_found() -> None:
    _, found = scan.scan([Render("overlays/a", (NAKED,))])
    assert found["CKV_K8S_16", "Pod.nereid.naked"][1] == {"overlays/a"}
