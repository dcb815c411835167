"""`nereid plan`: pods, nodes and price of a rate, and what breaks first; `nereid queueing`: how long requests wait."""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from environment import api_key
from environment.arguments import Parser, count, number, positive, seconds
from loadtest.errors import LoadTestError
from loadtest.flood import IMAGE, Target
from loadtest.growth import fleet, limits, queueing, reality
from loadtest.growth.fleet import Fleet, Headroom, Node
from loadtest.growth.limits import Limit, Load

_WIDTH = 150  # of a file
_RATES = (100.0, 1000.0, 100_000.0)
_UTILISATIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
_GROWTHS = (1.25, 1.5, 2.0)
_MOST_PODS = 50  # that are simulated: with more, their share of the rate stays the same, and so do the results
_REQUESTS = 12_000  # of one simulation, about
_WARM_UP = 0.2  # of them
_SEED = 21
_MONTH_S = 30 * 86400
_LOG_FILES_BYTES = 5 * 10 * 2**20  # the kubelet's containerLogMaxFiles and containerLogMaxSize

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
    except (LoadTestError, api_key.AccessError, httpx.HTTPError, OSError) as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m loadtest.growth", description="What a fleet takes, by calculation and simulation.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "plan": "pods, nodes and price of a rate, and what breaks first",
        "queueing": "how long requests wait, by the utilisation of the pods",
    }.items():
        command = commands.add_parser(name, prog=f"nereid {name}", help=text, description=text)
        add = partial(_add, command)
        command.add_argument(
            "--rate-per-pod", type=_rate, required=name == "plan", help="requests/s of one pod, by make capacity"
        )
        command.add_argument(
            "--rates", type=_rate, nargs="+", default=_RATES, help="requests/s (default: 100 1000 100000)"
        )
        add("--latency-ms", positive, 35.0, "mean of one request after another")
        if name == "plan":
            _add_plan(command)
        else:
            add("--slots", count, 4, "TRANSFORMER_MAX_IN_FLIGHT, of manifests/base")
            add("--waiting", count, 32, "TRANSFORMER_MAX_WAITING; beyond it 429")
            add("--delay-s", seconds, 60.0, "from a higher rate until more pods serve")
            add("--url", str, None, "of a server, to be measured beside the simulation of it")
            add("--model", str, "digit-finder", "of that server")
            command.add_argument("--picture", type=Path, default=IMAGE, help="image to send (default: %(default)s)")
            add("--seconds", positive, 5.0, "of each measurement")
            add("--turns", count, 3, "of all measurements; medians")
    return parser


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
    yield _fleet_table(options, [fleet.plan(rate, options.rate_per_pod, headroom, node) for rate in options.rates])
    yield from _headroom_lines(options, headroom, node)
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
    yield _limits_table(found, options.rates)
    yield "where each limit is from, and what helps:"
    for limit in found:
        yield f"- {limit.name}: {limit.remedy} ({limit.source})"
    yield from _other_lines(load, options.rates)


def _fleet_table(options: argparse.Namespace, fleets: Sequence[Fleet]) -> Table:
    """A row for each rate; prices where they are set."""
    size = f"{options.node_cpus:g} vCPUs and {options.node_gib:g} GiB"
    table = Table("requests/s", title=f"Pods of {options.rate_per_pod:g} requests/s, nodes of {size}")
    headings = ["pods", "in an update", "CPUs requested", "GiB requested", "nodes"]
    if options.cpu_price is not None:
        headings += ["CPU, per hour", "per million"]
    if options.gpu_rate is not None:
        headings += ["GPUs"]
        headings += ["GPU, per hour", "per million"] if options.gpu_price is not None else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for each in fleets:
        table.add_row(*_fleet_row(options, each))
    return table


def _fleet_row(options: argparse.Namespace, each: Fleet) -> Iterator[str]:
    yield f"{each.rate:,.10g}"
    yield from (f"{each.pods:,}", f"{each.surged:,}")
    yield from (f"{each.surged * fleet.POD_CPUS:,.1f}", f"{each.surged * fleet.POD_GIB:,.1f}", f"{each.nodes:,}")
    if options.cpu_price is not None:
        yield from _prices(each, each.cpus * options.cpu_price)
    if options.gpu_rate is not None:
        headroom = Headroom(options.utilisation, options.burst, options.zones, options.surge)
        number_of = fleet.gpus(each.rate, options.gpu_rate, headroom)
        yield f"{number_of:,}"
        if options.gpu_price is not None:
            yield from _prices(each, number_of * options.gpu_price)


def _prices(each: Fleet, per_hour: float) -> Iterator[str]:
    yield f"{per_hour:,.2f}"
    yield f"{each.per_million(per_hour):,.2f}"


def _headroom_lines(options: argparse.Namespace, headroom: Headroom, node: Node) -> Iterator[str]:
    lost = f"one of {headroom.zones} zones may fail" if headroom.zones > 1 else "no zone may fail"
    yield (
        f"headroom: {headroom.factor:.2f} times the pods that the rate alone takes: utilisation "
        f"{headroom.utilisation:g}, bursts of {headroom.burst:g} times the mean, {lost}; a rolling update has "
        f"{headroom.surge:.0%} more beside them; {node.pods} pods on a node"
    )
    if options.cpu_price is None:
        yield "price of CPUs: CPU_PRICE=<per vCPU and hour> (--cpu-price), of nodes as a whole"
    if options.gpu_rate is None or options.gpu_price is None:
        yield "price of GPUs: GPU_RATE=<requests/s of one, measured> GPU_PRICE=<per GPU and hour>"


def _other_lines(load: Load, rates: Sequence[float]) -> Iterator[str]:
    """What has a price or a duration, and no rate at which it breaks."""
    lists = " / ".join(f"{rate * load.pods * load.pages / load.poll_s * _MONTH_S:,.0f}" for rate in rates)
    yield f"S3: LIST in 30 days: {lists}; what they cost: docs/sizing.md"
    average = load.headroom.utilisation / load.headroom.burst * load.per_pod
    minutes = _LOG_FILES_BYTES / (load.log_bytes * average) / 60
    yield f"kubectl logs: a node keeps 50 MiB of a container, {minutes:,.0f} minutes of the requests of a pod"
    yield (
        "autoscaler: the HPA looks every 15 s at figures of the last 15 s, KEDA every 30 s; it adds 4 pods or "
        "doubles them, and they start. What grows meanwhile must fit into --burst: nereid queueing --delay-s"
    )


def _limits_table(found: Sequence[Limit], rates: Sequence[float]) -> Table:
    table = Table("what breaks", "at requests/s", "limit", title="In the order in which they break")
    for rate in rates:
        table.add_column(f"at {rate:,.10g}", justify="right")
    table.add_column("computed from")
    for limit in found:
        used = (_amount(limit.use * rate, broken=rate >= limit.rate) for rate in rates)
        table.add_row(limit.name, f"{limit.rate:,.0f}", f"{limit.limit:,.0f} {limit.unit}", *used, limit.inputs)
    return table


def _amount(value: float, *, broken: bool) -> str:
    text = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    return f"{text} !" if broken else text


def _queueing(options: argparse.Namespace) -> Iterator[Table | str]:
    if options.url is not None:
        with httpx.Client(base_url=options.url, headers=api_key.headers(), timeout=60, trust_env=False) as client:
            target = Target(client, options.model, options.picture)
            target.latency_ms()  # reports a server, a model or a key that is wrong
            room = options.slots + options.waiting
            rows = reality.compare(target, slots=options.slots, room=room, seconds=options.seconds, turns=options.turns)
        yield _comparison_table(rows)
        return
    if options.rate_per_pod is None:
        raise LoadTestError("--rate-per-pod is missing; next: make capacity P95_MS=..., or --url to measure a server")
    room = options.slots + options.waiting
    pod = queueing.Pod.bounded(options.rate_per_pod, options.latency_ms / 1000, slots=options.slots, room=room)
    speeds = ", ".join(f"{speed:.1f}" for speed in pod.speeds)
    yield f"a pod: {speeds} requests/s with 1 to {options.slots} in progress; room for {room}"
    yield _steady_table(pod, options.rates)
    yield _growth_table(pod, options.rates[0], options.delay_s)


def _comparison_table(rows: Sequence[reality.Row]) -> Table:
    table = Table("utilisation", title="One pod, Poisson arrivals: p50 / p95 / p99 in ms, and what is 429")
    for heading in ("capacity, requests/s", "alone, ms", "measured", "simulated", "simulated over measured"):
        table.add_column(heading, justify="right")
    for row in rows:
        ratios = (there / here for here, there in zip(row.measured[:3], row.simulated[:3], strict=True))
        table.add_row(
            f"{row.utilisation:g}",
            f"{row.capacity:.1f}",
            f"{row.latency_ms:.1f}",
            *(_show(*figures) for figures in (row.measured, row.simulated)),
            " / ".join(f"{ratio:.2f}" for ratio in ratios),
        )
    return table


def _steady_table(pod: queueing.Pod, rates: Sequence[float]) -> Table:
    table = Table("requests/s", "utilisation", "pods", title="Poisson arrivals: p50 / p95 / p99 in ms, and what is 429")
    for balancer in queueing.BALANCERS:
        table.add_column(balancer, justify="right")
    for rate in rates:
        for pods in _pods(pod, rate):
            simulated = min(pods, _MOST_PODS)
            cells = (_steady(pod, simulated, rate * simulated / pods, balancer) for balancer in queueing.BALANCERS)
            of = f"{pods:,}" if simulated == pods else f"{simulated} of {pods:,}"
            table.add_row(f"{rate:,.10g}", f"{rate / pods / pod.capacity:.2f}", of, *cells)
    return table


def _pods(pod: queueing.Pod, rate: float) -> list[int]:
    """Whole pods for each utilisation: few have the same for several."""
    return list(dict.fromkeys(math.ceil(rate / (utilisation * pod.capacity)) for utilisation in _UTILISATIONS))


def _steady(pod: queueing.Pod, pods: int, rate: float, balancer: str) -> str:
    random = np.random.default_rng(_SEED)
    took_s = _REQUESTS / rate
    arrivals = queueing.poisson(random, [(took_s, rate)])
    found = queueing.simulate(pod, arrivals, pods=pods, balancer=balancer, random=random, since_s=took_s * _WARM_UP)
    return _show(*found.figures)


def _growth_table(pod: queueing.Pod, rate: float, delay_s: float) -> Table:
    """The rate grows at once, and pods for it serve after a delay."""
    title = f"The rate grows at once from {rate:g} requests/s, more pods serve after {delay_s:g} s; until then"
    table = Table("utilisation before", title=title)
    for growth in _GROWTHS:
        table.add_column(f"x {growth:g}", justify="right")
    for pods in _pods(pod, rate):
        cells = []
        for growth in _GROWTHS:
            random = np.random.default_rng(_SEED)
            arrivals = queueing.poisson(random, [(20, rate), (delay_s, rate * growth)])
            found = queueing.simulate(pod, arrivals, pods=pods, random=random, since_s=20)
            cells.append(_show(*found.figures))
        table.add_row(f"{rate / pods / pod.capacity:.2f}", *cells)
    return table


def _show(p50: float, p95: float, p99: float, rejected: float) -> str:
    return f"{p50:.0f} / {p95:.0f} / {p99:.0f}, {rejected:.1%}"


if __name__ == "__main__":
    sys.exit(main())
