"""A machine of the cluster: Linux namespaces with supervisord as their first process.

All that a machine starts is in its process namespace, all that it mounts in its mount namespace, its interfaces and
rules of iptables in its network namespace. The kernel removes them with the first process, so nothing is left behind,
however a machine ends. Only control groups are outside: `stop` removes them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from cluster.layout import CONTROL, GATEWAYS_CIDR, MACHINES_CIDR, NODES, OUTSIDE, STATE, ClusterError, Host

_INIT = Path(__file__).with_name("machine.sh")
_CGROUPS = Path("/sys/fs/cgroup")
_BRIDGE = "machines"
_PATIENCE_S = 30.0


def start(host: Host, programs: str) -> None:
    """Start a machine, unless it runs.

    Args:
        host: which one.
        programs: sections of supervisord's configuration.

    Raises:
        ClusterError: it cannot be started.
    """
    if find(host):
        if (host.folder / "connected").exists():
            return
        stop(host)  # left by an interrupted start
    _forget(host)
    host.folder.mkdir(parents=True, exist_ok=True)
    (host.folder / "log").mkdir(exist_ok=True)
    (host.folder / "supervisord.conf").write_text(_SUPERVISORD.format(folder=host.folder) + programs)
    _make_cgroups(host)
    log = host.folder / "machine.log"
    with log.open("wb") as output:
        parent = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "--net", "--uts", "--ipc", "--pid", "--fork",
             "--kill-child", "--mount-proc", "bash", str(_INIT), host.name, str(host.folder), str(STATE),
             sys.executable],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        pid = _wait_for(host, parent, lambda: _child_of(parent.pid))
        (host.folder / "pid").write_text(f"{pid} {_started(pid)}")
        connect(host)
        (host.folder / "connected").touch()  # machine.sh waits for it
        _wait_for(host, parent, (host.folder / "supervisor.sock").exists)
    except BaseException:  # Ctrl-C too: no partial machine stays
        parent.kill()
        parent.wait()
        _forget(host)
        raise


def _wait_for(host: Host, parent: "subprocess.Popen[bytes]", condition: Callable[[], int]) -> int:
    deadline = time.monotonic() + _PATIENCE_S
    while not (value := condition()):
        if parent.poll() is not None or time.monotonic() > deadline:
            log = (host.folder / "machine.log").read_text().strip()
            raise ClusterError(f"{host.name} did not start: {log}; next: make cluster-down")
        time.sleep(0.01)
    return value


def _forget(host: Host) -> None:
    for name in ("pid", "connected", "supervisor.sock"):
        (host.folder / name).unlink(missing_ok=True)


def find(host: Host) -> int:
    """The process id of a machine's first process, on this machine; 0 where it does not run."""
    try:
        pid, _, started = (host.folder / "pid").read_text().partition(" ")
    except FileNotFoundError:
        return 0
    return int(pid) if _started(int(pid)) == started else 0


def stop(host: Host) -> None:
    """End a machine like a power cut, and remove its control groups; the files on its disk stay."""
    if pid := find(host):
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _PATIENCE_S
        while find(host):
            if time.monotonic() > deadline:
                raise ClusterError(f"{host.name}: process {pid} does not end; next: make cluster-down")
            time.sleep(0.05)
    _forget(host)
    _remove_cgroups(host)


def enter(host: Host, *namespaces: str) -> list[str]:
    """Prefix that runs a command in namespaces of a machine.

    Args:
        host: which one.
        namespaces: options of `nsenter`: net, mount, pid, uts, ipc; all by default.

    Raises:
        ClusterError: the machine does not run.
    """
    pid = find(host)
    if not pid:
        raise ClusterError(f"{host.name} does not run; next: make cluster")
    wanted = namespaces or ("mount", "net", "uts", "ipc", "pid")
    return ["nsenter", f"--target={pid}", *(f"--{each}" for each in wanted), "--"]


def run(host: Host, command: Sequence[str], **options: Any) -> str:
    """Run a command on a machine and return what it prints.

    Raises:
        ClusterError: the machine does not run, or the command failed.
    """
    done = subprocess.run([*enter(host), *command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        words = f"{host.name}: {' '.join(command)}: got exit status {done.returncode}, expected 0"
        raise ClusterError(f"{words}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return str(done.stdout)


def supervisor(host: Host) -> Any:
    """Supervisord's API on a machine, https://supervisord.org/api.html."""
    transport = SupervisorTransport(None, None, f"unix://{host.folder}/supervisor.sock")
    return ServerProxy("http://127.0.0.1", transport=transport).supervisor


def programs_of(host: Host) -> list[dict[str, Any]]:
    """Supervisord's state of each program of a machine; empty where the machine does not run."""
    if not find(host):
        return []
    with suppress(OSError, Fault):
        return list(supervisor(host).getAllProcessInfo())
    return []


def connect(host: Host) -> None:
    """Connect a machine to the bridge, with its address and the routes to the pods of the others."""
    inside = enter(host, "net")
    if host == OUTSIDE:
        _ip(inside, f"link add {_BRIDGE} type bridge")
        device = _BRIDGE
    else:
        outside = enter(OUTSIDE, "net")
        # The other end may be left from an earlier run of the machine.
        subprocess.run([*outside, "ip", "link", "del", host.name], capture_output=True, check=False)
        _ip(outside, f"link add {host.name} type veth peer name machines netns {find(host)}")
        _ip(outside, f"link set {host.name} master {_BRIDGE} up")
        device = "machines"
    _ip(inside, f"address add {host.address}/{MACHINES_CIDR.partition('/')[2]} dev {device}")
    _ip(inside, f"link set {device} up")
    _ip(inside, "link set lo up")
    for node in NODES:
        if node != host:
            _ip(inside, f"route replace {node.pods} via {node.address}")
    if host == OUTSIDE:
        # Like a load balancer in front of the cluster.
        _ip(inside, f"route replace {GATEWAYS_CIDR} via {CONTROL.address}")


def is_mounted(folder: str) -> bool:
    """Whether any process has a mount at a folder; the kernel removes the mount with the folder."""
    for file in Path("/proc").glob("[0-9]*/mountinfo"):
        with suppress(OSError):  # it has ended, or is a zombie
            if any(line.split()[4] == folder for line in file.read_text().splitlines()):
                return True
    return False


def _ip(enter_command: Sequence[str], arguments: str) -> None:
    done = subprocess.run([*enter_command, "ip", *arguments.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"ip {arguments}: {done.stderr.strip()}; next: make cluster-down")


def _child_of(pid: int) -> int:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return 0
    return int(children[0]) if children else 0


def _started(pid: int) -> str:
    """Start of a process, in ticks since the boot; empty where it has ended or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _hierarchies() -> list[Path]:
    """The hierarchy of cgroup v2; else those of v1, one for each controller, and `unified`, which runc uses too."""
    if _is_v2():
        return [_CGROUPS]
    return [each for each in _CGROUPS.iterdir() if each.is_dir() and not each.is_symlink()]


def _is_v2() -> bool:
    return (_CGROUPS / "cgroup.controllers").exists()


def cgroup_of(host: Host) -> str:
    """The control group of all pods of a machine, named after the cluster's folder."""
    return f"/{'-'.join(STATE.parts[1:])}/{host.name}"


def _make_cgroups(host: Host) -> None:
    for hierarchy in _hierarchies():
        group = hierarchy
        for name in cgroup_of(host).strip("/").split("/"):
            parent, group = group, group / name
            if _is_v2():
                # A group has the controllers that each group above it delegates.
                available = (parent / "cgroup.controllers").read_text().split()
                wanted = [
                    f"+{each}" for each in ("cpu", "cpuset", "memory", "pids", "hugetlb", "io") if each in available
                ]
                (parent / "cgroup.subtree_control").write_text(" ".join(wanted))
            group.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):  # empty at first: no process may enter until it is set
                if (group / file).exists() and not (group / file).read_text().strip():
                    (group / file).write_text((parent / file).read_text())


def _remove_cgroups(host: Host) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    for hierarchy in _hierarchies():
        top = hierarchy / cgroup_of(host).strip("/")
        groups = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True) if top.exists() else []
        for group in [*groups, top] if top.exists() else []:
            while True:  # killed processes take a moment to end
                try:
                    group.rmdir()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        words = f"{group} cannot be removed: processes of it do not end"
                        raise ClusterError(f"{words}; next: make cluster-down again") from None
                    time.sleep(0.05)
        with suppress(OSError):  # shared: the last machine removes it
            top.parent.rmdir()


_SUPERVISORD = """\
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile=/run/supervisord.pid
childlogdir={folder}/log
[unix_http_server]
file={folder}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
