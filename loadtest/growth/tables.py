"""What a plan and a simulation are shown as."""

import argparse
import math
from collections.abc import Iterator, Sequence

import numpy as np
from rich.table import Table

from loadtest.growth import fleet, queueing, reality
from loadtest.growth.fleet import Fleet, Headroom, Node
from loadtest.growth.limits import Limit, Load

_UTILISATIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
_GROWTHS = (1.25, 1.5, 2.0)
_MOST_PODS = 50  # that are simulated: with more, their share of the rate stays the same, and so do the results
_REQUESTS = 12_000  # of one simulation, about
_WARM_UP = 0.2  # of them
_SEED = 21
_MONTH_S = 30 * 86400
_LOG_FILES_BYTES = 5 * 10 * 2**20  # the kubelet's containerLogMaxFiles and containerLogMaxSize


def fleets(options: argparse.Namespace, planned: Sequence[Fleet]) -> Table:
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
    for each in planned:
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


def headroom_lines(options: argparse.Namespace, headroom: Headroom, node: Node) -> Iterator[str]:
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


def limits(found: Sequence[Limit], rates: Sequence[float]) -> Table:
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


def other_lines(load: Load, rates: Sequence[float]) -> Iterator[str]:
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


def steady(pod: queueing.Pod, rates: Sequence[float]) -> Table:
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


def growth(pod: queueing.Pod, rate: float, delay_s: float) -> Table:
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


def comparison(rows: Sequence[reality.Row]) -> Table:
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


def _pods(pod: queueing.Pod, rate: float) -> list[int]:
    """Whole pods for each utilisation: few have the same for several."""
    return list(dict.fromkeys(math.ceil(rate / (utilisation * pod.capacity)) for utilisation in _UTILISATIONS))


def _steady(pod: queueing.Pod, pods: int, rate: float, balancer: str) -> str:
    random = np.random.default_rng(_SEED)
    took_s = _REQUESTS / rate
    arrivals = queueing.poisson(random, [(took_s, rate)])
    found = queueing.simulate(pod, arrivals, pods=pods, balancer=balancer, random=random, since_s=took_s * _WARM_UP)
    return _show(*found.figures)


def _show(p50: float, p95: float, p99: float, rejected: float) -> str:
    return f"{p50:.0f} / {p95:.0f} / {p99:.0f}, {rejected:.1%}"
