"""kubectl as the cluster's administrator, from outside the cluster."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from cluster import machine
from cluster.layout import BUILT, KUBECONFIG, OUTSIDE, STATE, ClusterError


def kubectl(*arguments: str, input: str | None = None) -> str:  # noqa: A002 - subprocess's word
    """Run kubectl and return what it prints.

    Raises:
        ClusterError: it failed; the message has its output.
    """
    command = [*machine.enter(OUTSIDE, "net"), str(BUILT / "kubectl"), f"--kubeconfig={KUBECONFIG}", *arguments]
    # The cluster's network has no route to a proxy.
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment["KUBECACHEDIR"] = str(STATE / "kubectl")
    done = subprocess.run(command, env=environment, input=input, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def get(*arguments: str) -> Any:
    """Objects of `kubectl get`."""
    return yaml.load(kubectl("get", *arguments, "--output=yaml"), yaml.CSafeLoader)


def apply(documents: Iterable[Any], *, patience_s: float = 60.0) -> None:
    """Apply objects server-side; retry while a webhook or a kind that was just installed is missing.

    Raises:
        ClusterError: they are not accepted in time.
    """
    text = yaml.dump_all(documents, Dumper=yaml.CSafeDumper)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", input=text)
        except ClusterError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def wait_for(what: str, condition: Callable[[], bool], patience_s: float) -> None:
    """Return once a condition holds.

    Raises:
        ClusterError: it does not hold in time.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if condition():
                return
        except ClusterError:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {patience_s:.0f} s; next: make cluster-status, make cluster-shell")
        time.sleep(0.5)
