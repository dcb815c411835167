"""The cluster's own rules, without a cluster: images, certificates, components, what is built."""

import ipaddress
import re
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from cluster import builds, certificates, components, images, programs
from cluster.layout import CONTROL, HOSTS, MACHINES_CIDR, NODES, PODS_CIDR, ROOT, ClusterError


@pytest.mark.parametrize(
    ("published", "program"),
    [
        ("kserve/kserve-controller:v0.20.0", "kserve-manager"),
        ("gcr.io/knative-releases/knative.dev/serving/cmd/activator@sha256:0", "knative-activator"),
        ("gcr.io/knative-releases/knative.dev/net-kourier/cmd/kourier@sha256:0", "kourier"),
        ("docker.io/envoyproxy/envoy:v1.37-latest", "envoy"),
        ("docker.io/envoyproxy/gateway:v1.8.0", "envoy-gateway"),
        ("ghcr.io/kedacore/keda:2.21.0", "keda-operator"),
        ("ghcr.io/kedacore/keda-metrics-apiserver:2.21.0", "keda-adapter"),
        ("ghcr.io/kedacore/keda-admission-webhooks:2.21.0", "keda-webhooks"),
        ("ghcr.io/kedacore/http-add-on-interceptor:0.15.0", "http-add-on-interceptor"),
    ],
)
def test_published_image_is_replaced_by_that_of_its_program(published: str, program: str) -> None:
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "one"},
        "spec": {"template": {"spec": {"containers": [{"name": "one", "image": published}]}}},
    }
    components.rename_images(deployment)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]  # type: ignore[index]
    assert container == {"name": "one", "image": f"docker.io/nereid-cluster/{program}:1", "imagePullPolicy": "Never"}


def test_unknown_image_is_an_error() -> None:
    job = {
        "kind": "Job",
        "metadata": {"name": "one"},
        "spec": {"template": {"spec": {"containers": [{"image": "a/b:1"}]}}},
    }
    with pytest.raises(ClusterError, match="image a/b:1: unknown program"):
        components.rename_images(job)


def test_of_kserve_s_release_its_own_controller_is_installed_without_other_ones() -> None:
    # As in kserve.yaml of 0.20.0: the program that its image is started with, and controllers of other parts.
    names = ["kserve-controller-manager", "kserve-localmodel-controller-manager", "llmisvc-controller-manager"]
    manager = {"name": "manager", "command": ["/manager"], "resources": {}, "readinessProbe": {}}
    proxy = {"name": "kube-rbac-proxy"}
    documents = [
        {
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "template": {"spec": {"containers": [{**manager, "image": "kserve/kserve-controller:v0"}, proxy]}}
            },
        }
        for name in names
    ]
    documents += [
        {"kind": "ValidatingWebhookConfiguration", "metadata": {"name": "llminferenceservice.serving.kserve.io"}}
    ]
    (kserve,) = (each for each in components.COMPONENTS if each.name == "kserve")
    (deployment,) = (each for each in map(kserve.adjust, documents) if each)
    components.rename_images(deployment)
    assert deployment["metadata"]["name"] == "kserve-controller-manager"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "command" not in container  # the entry point of the image that is made here
    assert container["image"] == components.image_of("kserve-manager")
    assert kserve.manifests == ("kserve-namespace.yaml", "kserve.yaml")  # the release has no namespace


def test_every_program_of_a_component_has_a_source() -> None:
    for component in components.COMPONENTS:
        for name in component.programs:
            assert builds.is_wanted(name) or name in components.SOURCES, name
        for name in component.manifests:
            assert (ROOT / "cluster/components" / name).exists() or name in components.SOURCES, name


def test_modules_are_pinned_with_hashes_and_no_address() -> None:
    folders = {path.name for path in builds.MODULES.iterdir()}
    assert folders == {each.name for each in builds.WANTED}
    for module in builds.WANTED:
        folder = builds.MODULES / module.name
        text = (folder / "go.mod").read_text()
        assert "://" not in text
        assert not re.search(r"=> *\.", text), "a replacement by a folder"
        if "require" in text:
            assert (folder / "go.sum").stat().st_size
    (kubernetes,) = (each for each in builds.WANTED if each.name == "kubernetes")
    assert f"k8s.io/kubernetes v{builds.KUBERNETES}" in (builds.MODULES / kubernetes.name / "go.mod").read_text()


def test_machines_have_addresses_of_their_own() -> None:
    assert len({each.address for each in HOSTS}) == len(HOSTS)
    assert all(each.address in ipaddress.ip_network(MACHINES_CIDR) for each in HOSTS)
    networks = [ipaddress.ip_network(node.pods) for node in NODES]
    assert all(each.subnet_of(ipaddress.ip_network(PODS_CIDR)) for each in networks)  # type: ignore[arg-type]
    assert not networks[0].overlaps(networks[1])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(certificates, "FOLDER", tmp_path / "certificates")
    monkeypatch.setattr(certificates, "KUBECONFIG", tmp_path / "admin.kubeconfig")
    return tmp_path


def test_certificates_are_signed_named_and_the_owner_s_alone(folder: Path) -> None:
    certificates.make_all()
    made = certificates.FOLDER
    authority = x509.load_pem_x509_certificate((made / "ca.crt").read_bytes())
    server = x509.load_pem_x509_certificate((made / "apiserver.crt").read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "kubernetes.default.svc" in names.get_values_for_type(x509.DNSName)
    assert CONTROL.address in names.get_values_for_type(x509.IPAddress)
    node = x509.load_pem_x509_certificate((made / "node-1.crt").read_bytes())
    assert node.subject.rfc4514_string() == "O=system:nodes,CN=system:node:node-1"
    assert all(path.stat().st_mode & 0o077 == 0 for path in [*made.glob("*.key"), folder / "admin.kubeconfig"])
    config = yaml.safe_load((folder / "admin.kubeconfig").read_text())
    assert config["clusters"][0]["cluster"]["server"] == f"https://{CONTROL.address}:6443"


@pytest.mark.usefixtures("folder")
def test_certificates_are_made_once() -> None:
    certificates.make_all()
    before = (certificates.FOLDER / "ca.crt").read_bytes()
    certificates.make_all()
    assert (certificates.FOLDER / "ca.crt").read_bytes() == before


def test_names_of_our_images_are_those_of_the_manifests() -> None:
    ours = images.own_images()
    aliases = [alias for names in ours.values() for alias in names]
    component = yaml.safe_load((ROOT / "manifests/components/images/kustomization.yaml").read_text())
    assert {f"{each['name']}:{each['newTag']}" for each in component["images"]} <= set(aliases)
    assert len(set(aliases)) == len(aliases)


def test_libraries_of_a_program_are_found(tmp_path: Path) -> None:
    assert any(path.name.startswith("libc.") for path in images.libraries_of(Path("/bin/ls")))
    script = tmp_path / "static"
    script.write_text("#!/bin/sh\n")
    assert images.libraries_of(script) == []


def test_supervisord_reads_what_runs_on_each_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from supervisor.options import ServerOptions  # noqa: PLC0415 - a slow import

    monkeypatch.setattr("cluster.layout.STATE", folder)
    wanted = {
        "outside": {"s3", "dns"},
        "node-1": {
            "etcd",
            "api-server",
            "controller-manager",
            "scheduler",
            "containerd",
            "kubelet",
            "proxy",
            "policies",
        },
        "node-2": {"containerd", "kubelet", "proxy", "policies"},
    }
    for host in HOSTS:
        (host.folder / "log").mkdir(parents=True)
        text = "[supervisord]\n" + programs.sections(host)
        (folder / "supervisord.conf").write_text(text)
        options = ServerOptions()
        options.realize(["-c", str(folder / "supervisord.conf")])
        assert {group.name for group in options.process_group_configs} == wanted[host.name]
