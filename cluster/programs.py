"""The programs of each machine, as sections of supervisord's configuration, and the files that these programs read."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster import certificates
from cluster.layout import (
    API_PORT,
    BUILT,
    CONTROL,
    DNS_SERVICE,
    DOMAIN,
    NODES,
    OUTSIDE,
    PODS_CIDR,
    ROOT,
    SERVICES_CIDR,
    Host,
)
from cluster.machine import cgroup_of

# With the registry that containerd adds to a name without one.
PAUSE_IMAGE = "docker.io/nereid-cluster/pause:1"
S3_PORT = 9000
_CNI_PLUGINS = "/usr/lib/cni"


def sections(host: Host) -> str:
    """Write the files that the programs of a machine read.

    Returns:
        The programs, as sections of supervisord's configuration.
    """
    if host == OUTSIDE:
        return _outside()
    return (_control_plane() if host == CONTROL else "") + _node(host)


def _outside() -> str:
    # Servers outside the cluster: S3, and the DNS of its clients.
    s3 = [sys.executable, "-m", "moto.server", "-H", str(OUTSIDE.address), "-p", str(S3_PORT)]
    dns = [BUILT / "coredns", "-conf", OUTSIDE.folder / "Corefile"]
    return _section(OUTSIDE, "s3", s3) + _section(OUTSIDE, "dns", dns)


def _control_plane() -> str:
    folder, disk = certificates.FOLDER, CONTROL.folder / "disk"
    etcd = [
        BUILT / "etcd", f"--data-dir={disk / 'etcd'}", "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync", "--logger=zap", "--log-level=warn",
    ]  # fmt: skip
    api_server = [
        BUILT / "kube-apiserver",
        f"--advertise-address={CONTROL.address}",
        f"--secure-port={API_PORT}",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--service-cluster-ip-range={SERVICES_CIDR}",
        f"--client-ca-file={folder / 'ca.crt'}",
        f"--tls-cert-file={folder / 'apiserver.crt'}",
        f"--tls-private-key-file={folder / 'apiserver.key'}",
        f"--kubelet-client-certificate={folder / 'apiserver-to-kubelet.crt'}",
        f"--kubelet-client-key={folder / 'apiserver-to-kubelet.key'}",
        f"--kubelet-certificate-authority={folder / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={folder / 'service-account.key'}",
        f"--service-account-signing-key-file={folder / 'service-account.key'}",
        f"--requestheader-client-ca-file={folder / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={folder / 'front-proxy.crt'}",
        f"--proxy-client-key-file={folder / 'front-proxy.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        # Reach webhooks and aggregated APIs by the addresses of their pods.
        "--enable-aggregator-routing=true",
    ]
    manager = [
        BUILT / "kube-controller-manager", f"--kubeconfig={folder / 'controller-manager.kubeconfig'}",
        f"--authentication-kubeconfig={folder / 'controller-manager.kubeconfig'}",
        f"--authorization-kubeconfig={folder / 'controller-manager.kubeconfig'}",
        "--leader-elect=false", "--use-service-account-credentials=true",
        f"--root-ca-file={folder / 'ca.crt'}",
        f"--service-account-private-key-file={folder / 'service-account.key'}",
        f"--cluster-signing-cert-file={folder / 'ca.crt'}", f"--cluster-signing-key-file={folder / 'ca.key'}",
    ]  # fmt: skip
    scheduler = [
        BUILT / "kube-scheduler", f"--kubeconfig={folder / 'scheduler.kubeconfig'}",
        f"--authentication-kubeconfig={folder / 'scheduler.kubeconfig'}",
        f"--authorization-kubeconfig={folder / 'scheduler.kubeconfig'}", "--leader-elect=false",
    ]  # fmt: skip
    named = (("etcd", etcd), ("api-server", api_server), ("controller-manager", manager), ("scheduler", scheduler))
    return "".join(_section(CONTROL, name, command) for name, command in named)


def _node(host: Host) -> str:
    folder = host.folder
    _write(folder / "containerd.toml", _CONTAINERD.format(pause=PAUSE_IMAGE, plugins=_CNI_PLUGINS))
    _write(folder / "disk/etc/cni/net.d/10-pods.conflist", json.dumps(_cni(host), indent=2))
    _write(folder / "kubelet.yaml", yaml.safe_dump(_kubelet(host)))
    _write(folder / "proxy.yaml", yaml.safe_dump(_proxy(host)))
    kubelet = [
        BUILT / "kubelet", f"--config={folder / 'kubelet.yaml'}", f"--hostname-override={host.name}",
        f"--kubeconfig={certificates.FOLDER / host.name}.kubeconfig", f"--node-ip={host.address}",
    ]  # fmt: skip
    # Network policies alone: iptables and ipset.
    router = [
        BUILT / "kube-router", "--run-router=false", "--run-firewall=true", "--run-service-proxy=false",
        f"--kubeconfig={certificates.FOLDER / 'router.kubeconfig'}", f"--hostname-override={host.name}",
        f"--service-cluster-ip-range={SERVICES_CIDR}", "--metrics-port=0",
    ]  # fmt: skip
    return "".join(
        _section(host, name, command)
        for name, command in (
            ("containerd", ["containerd", f"--config={folder / 'containerd.toml'}"]),
            ("kubelet", kubelet),
            ("proxy", [BUILT / "kube-proxy", f"--config={folder / 'proxy.yaml'}"]),
            ("policies", router),
        )
    )


def _kubelet(host: Host) -> dict[str, Any]:
    serving = certificates.FOLDER / f"{host.name}-serving"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"x509": {"clientCAFile": str(certificates.FOLDER / "ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{serving}.crt",
        "tlsPrivateKeyFile": f"{serving}.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_of(host),
        "clusterDNS": [str(DNS_SERVICE)],
        "clusterDomain": DOMAIN,
        "resolvConf": "/etc/resolv.conf",
        "failSwapOn": False,
        "nodeStatusUpdateFrequency": "5s",
        "volumePluginDir": "/var/lib/kubelet/plugins-exec",
        "serializeImagePulls": False,
        # The machine's disk is not the node's to clean up: with a full one it would first remove every image that
        # no container has at that moment, and there is no registry to pull it from again.
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
    }


def _proxy(host: Host) -> dict[str, Any]:
    # The limits of conntrack are those of the whole machine: unchanged.
    untouched = {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(certificates.FOLDER / "proxy.kubeconfig")},
        "mode": "iptables",
        "clusterCIDR": PODS_CIDR,
        "conntrack": untouched,
        "hostnameOverride": host.name,
    }


def _cni(host: Host) -> dict[str, Any]:
    addresses = {"type": "host-local", "ranges": [[{"subnet": host.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def write_name_files() -> None:
    """Write /etc/hosts and /etc/resolv.conf of the machines, and the zone of the DNS outside the cluster."""
    hosts = "127.0.0.1 localhost\n" + "".join(f"{each.address} {each.name}\n" for each in (OUTSIDE, *NODES))
    for host in (OUTSIDE, *NODES):
        _write(host.folder / "hosts", hosts)
        _write(host.folder / "resolv.conf", f"nameserver {OUTSIDE.address}\n")
    _write(OUTSIDE.folder / "Corefile", (ROOT / "cluster/components/outside.Corefile").read_text())


def _section(host: Host, name: str, command: Sequence[object]) -> str:
    words = " ".join(str(each) for each in command).replace("%", "%%")
    return f"""
[program:{name}]
command={words}
redirect_stderr=true
stdout_logfile={host.folder}/log/{name}.log
stdout_logfile_maxbytes=64MB
stdout_logfile_backups=1
startsecs=2
startretries=1000000
killasgroup=true
stopwaitsecs=20
"""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


_CONTAINERD = """\
version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  # An AppArmor profile would stay in the kernel.
  disable_apparmor = true
  sandbox_image = "{pause}"
  # A lower score needs CAP_SYS_RESOURCE, which root in a small virtual machine or a container may lack.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""
