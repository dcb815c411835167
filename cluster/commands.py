"""`make cluster`, `cluster-status`, `cluster-shell`, `cluster-down`: the commands of the cluster."""

import argparse
import errno
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cluster import builds, certificates, components, images, machine, programs
from cluster.kubectl import get, kubectl, wait_for
from cluster.layout import (
    BUILT,
    CONTROL,
    GIVEN_LINK,
    HOSTS,
    KUBECONFIG,
    MARK,
    NODES,
    OUTSIDE,
    STATE,
    ClusterError,
    Host,
)

_FREE_BYTES = 12 << 30
_PACKAGES = {
    "containerd": "containerd", "runc": "runc", "ctr": "containerd", "iptables": "iptables", "ipset": "ipset",
    "conntrack": "conntrack", "ip": "iproute2", "buildah": "buildah", "debootstrap": "debootstrap",
    "nsenter": "util-linux", "/usr/lib/cni/bridge": "containernetworking-plugins", "curl": "curl",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}  # fmt: skip
_IMAGES = "images"  # Nereid's, in --without
# Folders that the programs of a node expect, and a machine may not have; removed afterwards where they are empty.
_MOUNT_POINTS = ("/var/lib/kubelet", "/var/lib/cni", "/var/lib/containerd", "/etc/cni")

# Gives a client the hosts file and the DNS of the cluster, in a mount namespace of its own.
_NAMES = """
for each in hosts resolv.conf; do mount --bind "$0/$each" "$(readlink -f "/etc/$each")" || exit; done
exec "$@"
"""


def main() -> int:
    """Run the command that was given."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    up = commands.add_parser("up", help="start the cluster, or what is missing of it")
    up.add_argument("--without", nargs="*", default=[], metavar="COMPONENT", help="components to leave out")
    up.set_defaults(run=lambda options: start(set(options.without)))
    commands.add_parser("status", help="show what runs").set_defaults(run=lambda _: show())
    commands.add_parser("missing", help="show what this machine lacks").set_defaults(run=lambda _: show_missing())
    commands.add_parser("down", help="end the cluster; only built programs stay").set_defaults(run=lambda _: end())
    inside = commands.add_parser("exec", help="run a command in the clients' network")
    inside.add_argument("words", nargs=argparse.REMAINDER, metavar="command")
    inside.set_defaults(run=lambda options: execute(options.words))
    for name, function in (("power-off", machine.stop), ("power-on", start_machine)):
        one = commands.add_parser(name, help="switch a node off or on")
        one.add_argument("node", choices=[each.name for each in NODES])
        one.set_defaults(run=lambda options, function=function: function(_node(options.node)))
    options = parser.parse_args()
    # Not in root's PATH after `su`.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    # A shell that starts this in the background has it ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        options.run(options)
    except ClusterError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except OSError as exc:
        short = exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
        remedy = "free some" if short else "make cluster-missing"
        print(f"error: {exc.filename or STATE}: {exc.strerror}; next: {remedy}, make cluster-down", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; next: make cluster continues, make cluster-down removes it", file=sys.stderr)
        return 130
    return 0


def start(without: set[str]) -> None:
    """Start what is missing of the cluster, and show what runs.

    Raises:
        ClusterError: the machine lacks a requirement, or a program does not start.
    """
    check_machine()
    _check_known(without)
    STATE.mkdir(parents=True, exist_ok=True)
    MARK.touch()  # first: an interrupted start may then be removed
    with _only_one(), _steps() as step:
        if named := os.environ.get("CLUSTER_BIN"):
            GIVEN_LINK.unlink(missing_ok=True)
            GIVEN_LINK.symlink_to(Path(named).absolute())
        wanted = components.wanted(without)
        for module in builds.missing({name for each in wanted for name in each.programs}):
            with step(f"build {module.name} (once)"):
                builds.build(module)
        with step("start the machines"):
            certificates.make_all()
            programs.write_name_files()
            for host in HOSTS:
                start_machine(host)
        with step("API server"):
            wait_for("API server", lambda: kubectl("get", "--raw=/readyz") == "ok", 120)
        with step("pause image"):
            components.make_image("pause")
        with step("nodes"):
            components.grant_programs()
            wait_for("nodes", _nodes_are_ready, 120)
        for each in wanted:
            with step(f"install {each.name}"):
                components.install(each)
        if _IMAGES not in without:
            with step("images of Nereid"):
                images.build_own()
        with step("components are available"):
            for each in wanted:
                components.wait(each)
    show()


def _check_known(without: set[str]) -> None:
    names = [*(each.name for each in components.COMPONENTS), _IMAGES]
    if unknown := without - {*names}:
        known = ", ".join(names)
        raise ClusterError(f"--without: got {', '.join(sorted(unknown))}, expected some of {known}")


def start_machine(host: Host) -> None:
    """Start a machine with its programs, unless it runs."""
    machine.start(host, programs.sections(host))


def check_machine() -> None:
    """Check that this machine meets the requirements.

    Raises:
        ClusterError: it does not; the message has the next step.
    """
    if os.geteuid() != 0:
        raise ClusterError("got a user, expected root: namespaces, mounts and iptables; next: sudo make cluster")
    lacking = sorted({package for name, package in _PACKAGES.items() if not _is_there(name)})
    if lacking:
        command = f"apt-get install --no-install-recommends {' '.join(lacking)}"
        raise ClusterError(f"got no {', '.join(lacking)}, expected these Debian packages; next: {command}")
    named = os.environ.get("CLUSTER_BIN", "")
    if named and not Path(named).is_dir():
        raise ClusterError(
            f"CLUSTER_BIN: got {named}, expected a folder with manifests/ and bin/; next: make cluster-missing"
        )
    _check_state()
    free = shutil.disk_usage(next(each for each in (STATE, *STATE.parents) if each.exists())).free
    if free < _FREE_BYTES and not KUBECONFIG.exists():
        raise ClusterError(
            f"{STATE}: got {free / 2**30:.1f} GiB free, expected {_FREE_BYTES >> 30}; "
            "next: free some, or CLUSTER_STATE=<a folder on another disk>"
        )


def _check_state() -> None:
    """Check that the folder is a cluster's, empty or new.

    Raises:
        ClusterError: it has other content.
    """
    others = [each.name for each in STATE.iterdir() if each != BUILT] if STATE.is_dir() else []
    if others and not MARK.exists():
        raise ClusterError(f"CLUSTER_STATE: got {STATE}, which holds {others[0]}, expected an empty or a new folder")


def end() -> None:
    """End all machines and remove their files. Built programs and images in buildah's store stay.

    Raises:
        ClusterError: a process or a mount cannot be removed.
    """
    if os.geteuid() != 0:
        raise ClusterError("got a user, expected root; next: sudo make cluster-down")
    _check_state()
    if MARK.exists():
        with _only_one() as lock:
            for host in reversed(HOSTS):
                machine.stop(host)
            for path in STATE.iterdir():
                if path not in {BUILT, MARK, Path(lock.name)}:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            Path(lock.name).unlink()
            MARK.unlink()
    with suppress(OSError):
        STATE.rmdir()
    for each in _MOUNT_POINTS:
        if not machine.is_mounted(each):
            with suppress(OSError):
                Path(each).rmdir()
    kept = f"; built programs stay in {BUILT}, images in buildah's store" if BUILT.exists() else ""
    print(f"the cluster is removed: no process, no mount{kept}")


def show() -> None:
    """Print machines, nodes and components, and what was left out."""
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    table = Table("machine", "address", "programs", "not running", title="Machines")
    for host in HOSTS:
        states = {each["name"]: each["statename"] for each in machine.programs_of(host)}
        running = [name for name, state in states.items() if state == "RUNNING"]
        others = [f"{name}: {state.lower()}" for name, state in states.items() if state != "RUNNING"]
        table.add_row(host.name, str(host.address), ", ".join(running), ", ".join(others) if states else "off")
    console.print(table)
    if not machine.find(CONTROL):
        console.print("next: make cluster")
        return
    table = Table("component", "state", title="Components")
    for each in components.COMPONENTS:
        table.add_row(each.name, components.state(each))
    console.print(table)
    console.print(kubectl("get", "nodes", "--output=wide").rstrip(), soft_wrap=True)
    console.print("\nnext: make cluster-shell (kubectl, curl and make reach the cluster in it), make e2e-cluster")


def show_missing() -> None:
    """Print the requirements, and which are missing.

    Raises:
        ClusterError: a requirement without which no cluster starts.
    """
    table = Table("component", "files from", "missing", title="Requirements")
    for each in components.COMPONENTS:
        table.add_row(each.name, components.origin(each), "\n".join(components.missing(each)) or "-")
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(table)
    for module in builds.missing({name for each in components.wanted(set()) for name in each.programs}):
        console.print(f"builds once: {', '.join(module.packages)}")
    check_machine()


def execute(words: list[str]) -> None:
    """Replace this process by a command in the clients' network, with the cluster's DNS and kubectl's configuration."""
    words = (words[1:] if words[:1] == ["--"] else words) or [os.environ.get("SHELL", "bash")]
    environment = client_environment()
    # Not in its mount namespace: power-off and power-on need the processes of all machines in /proc.
    command = [*machine.enter(OUTSIDE, "net"), "unshare", "--mount", "sh", "-c", _NAMES, str(OUTSIDE.folder), *words]
    os.execvpe(command[0], command, environment)  # noqa: S606 - the command is the user's


def client_environment() -> dict[str, str]:
    """Variables of a client: kubectl's configuration, the S3 server and its keys."""
    # The cluster's network has no route to a proxy.
    here = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return {
        **here,
        "KUBECACHEDIR": str(STATE / "kubectl"),
        "KUBECONFIG": str(KUBECONFIG),
        "PATH": f"{BUILT}:{os.environ.get('PATH', os.defpath)}",
        "AWS_ENDPOINT_URL": f"http://{OUTSIDE.address}:{programs.S3_PORT}",
        "AWS_ACCESS_KEY_ID": "cluster",
        "AWS_SECRET_ACCESS_KEY": "cluster",
        "AWS_REGION": "us-east-1",
    }


def _nodes_are_ready() -> bool:
    ready = [
        condition["status"]
        for node in get("nodes")["items"]
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    return ready == ["True"] * len(NODES)


def _node(name: str) -> Host:
    return next(each for each in NODES if each.name == name)


def _is_there(name: str) -> bool:
    return bool(shutil.which(name)) or Path(name).is_file()


@contextmanager
def _only_one() -> Iterator[TextIO]:
    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"{STATE}: in use by another make cluster or cluster-down; next: wait for it, or end it"
            ) from None
        yield lock


@contextmanager
def _steps() -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    columns = (SpinnerColumn(finished_text="[green]done[/]"), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 110, highlight=False)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        @contextmanager
        def step(what: str) -> Iterator[None]:
            task = progress.add_task(what, total=1)
            began = time.monotonic()
            yield
            progress.update(task, completed=1)
            if not console.is_terminal:
                console.print(f"{what}: {time.monotonic() - began:.1f} s")

        yield step
