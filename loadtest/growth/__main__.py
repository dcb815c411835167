"""`nereid plan`: pods, nodes and price of a rate, and what breaks first; `nereid queueing`: how long requests wait."""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from environment import api_key
from environment.arguments import Parser, count, number, positive, seconds
from loadtest.errors import LoadTestError
from loadtest.flood import IMAGE, Target
from loadtest.growth import fleet, limits, queueing, reality, tables
from loadtest.growth.fleet import Headroom, Node
from loadtest.growth.limits import Load

_WIDTH = 150  # of a file
_RATES = (100.0, 1000.0, 100_000.0)

_share = partial(number, least=0.01, most=1, expected="a number from 0.01 to 1")
_factor = partial(number, least=1, most=100, expected="a number from 1 to 100")
_price = partial(number, least=0, most=1e6, expected="a price from 0")
_rate = partial(number, least=0.01, most=1e9, expected="requests/s from 0.01")
_surge = partial(number, least=0, most=1, expected="a number from 0 to 1")


def main() -> int:
    """Print what was computed; 1 where it cannot be, 2 where an argument is invalid."""
    options = _parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    try:
        for each in {"plan": _plan, "queueing": _queueing}[options.command](options):
            console.print(each, markup=False, soft_wrap=isinstance(each, str))
    except httpx.HTTPError as exc:
        console.print(f"error: {options.url}: {exc}; next: make serve", markup=False, soft_wrap=True)
        return 1
    except (LoadTestError, api_key.AccessError, OSError) as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m loadtest.growth", description="What a fleet takes, by calculation and simulation.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_plan(_command(commands, "plan", "pods, nodes and price of a rate, and what breaks first", needs_rate=True))
    _add_queueing(_command(commands, "queueing", "how long requests wait, by the utilisation of the pods"))
    return parser


def _command(commands: Any, name: str, text: str, *, needs_rate: bool = False) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, prog=f"nereid {name}", help=text, description=text)
    command.add_argument(
        "--rate-per-pod", type=_rate, required=needs_rate, help="requests/s of one pod, by make capacity"
    )
    command.add_argument("--rates", type=_rate, nargs="+", default=_RATES, help="requests/s (default: 100 1000 100000)")
    _add(command, "--latency-ms", positive, 35.0, "mean of one request after another")
    return command


def _add_queueing(command: argparse.ArgumentParser) -> None:
    add = partial(_add, command)
    add("--slots", count, 4, "TRANSFORMER_MAX_IN_FLIGHT, of manifests/base")
    add("--waiting", count, 32, "TRANSFORMER_MAX_WAITING; beyond it 429")
    add("--delay-s", seconds, 60.0, "from a higher rate until more pods serve")
    add("--url", str, None, "of a server, to be measured beside the simulation of it")
    add("--model", str, "digit-finder", "of that server")
    add("--picture", Path, IMAGE, "image to send")
    add("--seconds", positive, 5.0, "of each measurement")
    add("--turns", count, 3, "of all measurements; medians")


def _add_plan(command: argparse.ArgumentParser) -> None:
    add = partial(_add, command)
    add("--utilisation", _share, 0.7, "of the rate of a pod, what it gets on average")
    add("--burst", _factor, 1.2, "highest rate over the mean while more pods start")
    add("--zones", count, 3, "one of them may fail; 1: none")
    add("--surge", _surge, 0.25, "maxSurge of a rolling update, as a share of the pods")
    add("--node-cpus", positive, 16.0, "vCPUs of a node")
    add("--node-gib", positive, 64.0, "memory of a node")
    add("--cpu-price", _price, None, "of a vCPU for an hour, of nodes as a whole")
    add("--gpu-price", _price, None, "of a GPU for an hour, with its share of the node")
    add("--gpu-rate", _rate, None, "requests/s of one GPU, measured")
    add("--poll-s", positive, 10.0, "PREDICTOR_POLL_S")
    add("--objects", count, 1000, "in the repository")
    add("--files", count, 11, "of a new version")
    add("--models", count, 1, "in a pod, for the series of its metrics")
    add("--log-bytes", positive, 375.0, "of the log for a request")
    add("--body-kb", positive, 139.0, "of a request and its response")
    add("--image-gb", positive, 10.3, "of the container images that a new node pulls")
    add("--gbps", positive, 10.0, "bandwidth of the ingress and of the registry, Gbit/s")


def _add(parser: argparse.ArgumentParser, name: str, kind: Callable[[str], object], default: object, text: str) -> None:
    shown = f"{text} (default: %(default)s)" if default is not None else text
    parser.add_argument(name, type=kind, default=default, help=shown)


def _plan(options: argparse.Namespace) -> Iterator[Table | str]:
    headroom = Headroom(options.utilisation, options.burst, options.zones, options.surge)
    node = Node(options.node_cpus, options.node_gib)
    if not node.pods:
        raise LoadTestError(
            f"a node of {node.cpus:g} vCPUs and {node.gib:g} GiB holds no pod of {fleet.POD_CPUS:g} CPUs and "
            f"{fleet.POD_GIB:g} GiB; next: larger --node-cpus or --node-gib"
        )
    yield tables.fleets(options, [fleet.plan(rate, options.rate_per_pod, headroom, node) for rate in options.rates])
    yield from tables.headroom_lines(options, headroom, node)
    load = Load(
        per_pod=options.rate_per_pod,
        headroom=headroom,
        node=node,
        poll_s=options.poll_s,
        pages=math.ceil(options.objects / 1000),
        files=options.files,
        models=options.models,
        log_bytes=options.log_bytes,
        body_bytes=options.body_kb * 1000,
        latency_s=options.latency_ms / 1000,
        image_gb=options.image_gb,
        gbps=options.gbps,
    )
    found = limits.find(load)
    yield tables.limits(found, options.rates)
    yield "where each limit is from, and what helps:"
    for limit in found:
        yield f"- {limit.name}: {limit.remedy} ({limit.source})"
    yield from tables.other_lines(load, options.rates)


def _queueing(options: argparse.Namespace) -> Iterator[Table | str]:
    if options.url is not None:
        with httpx.Client(base_url=options.url, headers=api_key.headers(), timeout=60, trust_env=False) as client:
            target = Target(client, options.model, options.picture)
            target.latency_ms()  # reports a server, a model or a key that is wrong
            room = options.slots + options.waiting
            rows = reality.compare(target, slots=options.slots, room=room, seconds=options.seconds, turns=options.turns)
        yield tables.comparison(rows)
        return
    if options.rate_per_pod is None:
        raise LoadTestError("--rate-per-pod is missing; next: make capacity P95_MS=..., or --url to measure a server")
    room = options.slots + options.waiting
    pod = queueing.Pod.bounded(options.rate_per_pod, options.latency_ms / 1000, slots=options.slots, room=room)
    speeds = ", ".join(f"{speed:.1f}" for speed in pod.speeds)
    yield f"a pod: {speeds} requests/s with 1 to {options.slots} in progress; room for {room}"
    yield tables.steady(pod, options.rates)
    yield tables.growth(pod, options.rates[0], options.delay_s)


if __name__ == "__main__":
    sys.exit(main())
