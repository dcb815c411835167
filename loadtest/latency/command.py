"""The commands: each measures, and prints what it measured."""

import argparse
import dataclasses
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import gevent
from flask import Response, request
from gevent.event import Event
from locust.stats import stats_history
from rich.console import Console

from environment import api_key
from environment.listening import Hosts
from loadtest.errors import LoadTestError, WrongArgument
from loadtest.latency import capacity, images, report, server
from loadtest.latency.arguments import parse
from loadtest.latency.cold import bursts
from loadtest.latency.measurement import Measurement, Plan, follow, measure
from loadtest.latency.payloads import KINDS, Target
from loadtest.latency.samples import Expected, find_missed, summarize
from loadtest.latency.users import LoadEnvironment, ScaleToZero
from loadtest.tasks import TABLE_TASKS

_WIDTH = 120  # of a file
_FIRST_RATE_SHARE = 0.5  # of the rate of a closed loop: the server should sustain it
_FEWEST = 10  # requests of a step


def main() -> int:
    """Measure; 0 where every threshold holds, 1 where one does not or nothing could be measured, 2: wrong argument."""
    options = parse()
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=_WIDTH)
    # Without this, gevent prints a traceback for SIGINT.
    gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    try:
        commands: Mapping[str, Callable[[argparse.Namespace, Console], int]] = {
            "run": _run,
            "cold": _cold,
            "capacity": _capacity,
            "ui": _ui,
        }
        return commands[options.command](options, console)
    except LoadTestError as exc:
        console.print(f"error: {exc}", markup=False)
        return exc.status
    except api_key.AccessError as exc:
        console.print(f"error: {exc}", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130


def _run(options: argparse.Namespace, console: Console) -> int:
    plan = _plan(options)
    folder = _folder(options)
    _announce(console, plan)
    measured = measure(plan, folder)
    expected = Expected(options.p95_ms, options.fail_ratio, plan.rate)
    missed = find_missed(summarize(measured.samples, measured.window), expected)
    report.draw(folder / "latency.png", plan, measured)
    report.write_result(folder / "result.json", plan, measured, missed)
    console.print(report.latency_table(plan, measured))
    return _close(console, plan, measured, missed=missed, folder=folder)


def _cold(options: argparse.Namespace, console: Console) -> int:
    plan = _plan(options)
    folder = _folder(options)
    console.print(
        f"requests to {plan.target.model}: {options.cycles} times {options.silence_s:g} s of silence, then a burst of "
        f"{plan.users} users for {options.burst_s:g} s from its first response on",
        markup=False,
    )
    shape = ScaleToZero(users=plan.users, silence_s=options.silence_s, burst_s=options.burst_s, cycles=options.cycles)
    measured = follow(plan, shape, folder)
    found = bursts(measured.samples, measured.began)
    missed = [
        f"burst {number}: got no successful response within {options.timeout_s:g} s, expected one"
        for number, burst in enumerate(found, 1)
        if burst.first_response_s is None
    ]
    missed += find_missed(summarize(measured.samples, measured.window), Expected(None, options.fail_ratio))
    report.draw(folder / "latency.png", plan, measured)
    report.write_result(folder / "result.json", plan, measured, missed, found)
    console.print(report.burst_table(found))
    return _close(console, plan, measured, missed=missed, folder=folder)


def _close(console: Console, plan: Plan, measured: Measurement, *, missed: list[str], folder: Path) -> int:
    """Print the end of every run; its exit status."""
    console.print(report.split_table(plan, measured))
    lines = [report.triton_line(measured), *report.memory_lines(measured), *report.generator_lines(measured)]
    lines += report.error_lines(measured.samples, measured.window)
    lines += [f"missed: {line}" for line in missed]
    lines.append(f"written: {folder}")
    console.print(*lines, sep="\n", markup=False)
    return int(bool(missed))


def _capacity(options: argparse.Namespace, console: Console) -> int:
    plan = _plan(options)
    plan = dataclasses.replace(plan, rate=None, users=len(plan.weights))
    _announce(console, plan)
    expected = Expected(options.p95_ms, options.fail_ratio)
    alone = measure(plan)
    figures = summarize(alone.samples, alone.window)
    if missed := find_missed(figures, dataclasses.replace(expected, p95_ms=None)):
        raise LoadTestError("; ".join([*missed, *report.error_lines(alone.samples, alone.window)]))
    console.print(f"closed loop: {figures.responses_per_second:.1f} requests/s, p95 {figures.p95:.1f} ms")
    lowest = _FEWEST / plan.duration_s
    start = max(lowest, figures.responses_per_second * _FIRST_RATE_SHARE)
    knee = capacity.find(lambda rate: _step(plan, rate, expected, console), start, lowest=lowest)
    if knee is None:
        limits = f"p95 under {options.p95_ms:g} ms and failures under {options.fail_ratio:.2%}"
        raise LoadTestError(
            f"no rate from {lowest:g} requests/s holds {limits}; next: a larger P95_MS, or a longer DURATION_S"
        )
    console.print(*report.capacity_lines(knee, options.p95_ms, options.rate), sep="\n", markup=False)
    return 0


def _step(plan: Plan, rate: float, expected: Expected, console: Console) -> capacity.Step:
    """Measure one rate, and print it."""
    measured = measure(dataclasses.replace(plan, rate=rate))
    figures = summarize(measured.samples, measured.window)
    missed = find_missed(figures, dataclasses.replace(expected, rate=rate))
    console.print(
        f"{rate:8.2f} requests/s: reached {figures.responses_per_second:.2f}, p95 {figures.p95:.1f} ms, "
        f"failures {figures.fail_ratio:.1%}, generator {measured.cpu_share:.0%}: "
        + ("; ".join(missed) if missed else "holds"),
        markup=False,
    )
    return capacity.Step(rate, figures.responses_per_second, figures.mean, figures.p95, tuple(missed))


def _ui(options: argparse.Namespace, console: Console) -> int:
    plan = _plan(options)
    try:
        socket.create_server(("127.0.0.1", options.port)).close()
    except OSError as exc:
        reason = f"port {options.port} is taken; next: LOADTEST_UI_PORT=<another port>"
        raise LoadTestError(f"LOADTEST_UI_PORT: {reason}") from exc
    environment = LoadEnvironment(plan.target, plan.weights)
    runner = environment.create_local_runner()
    sys.argv[1:] = []  # its page reads them as Locust's own
    page = environment.create_web_ui("127.0.0.1", options.port)
    assert page.app is not None  # noqa: S101  # with its page, it has one
    page.app.before_request(_reject_foreign)
    gevent.spawn(stats_history, runner)
    console.print(
        f"Locust: http://localhost:{options.port} sends requests to {plan.target.model}; stop: Ctrl-C", markup=False
    )
    with suppress(KeyboardInterrupt):
        Event().wait()
    page.stop()
    runner.quit()
    return 0


def _reject_foreign() -> Response | None:
    """Reject a web page that leads its own name here (DNS rebinding): the page of Locust starts load."""
    reason = Hosts("127.0.0.1").find_rejection([request.headers.get("Host", "")])
    return Response(reason, 421, mimetype="text/plain") if reason else None


def _announce(console: Console, plan: Plan) -> None:
    loop = f"{plan.users} users" if plan.rate is None else f"{plan.rate:g} requests/s"
    mix = " ".join(f"{kind}={weight}" for kind, weight in plan.weights.items())
    console.print(
        f"requests to {plan.target.model} ({plan.target.task}) at {plan.target.url}: {loop}, {mix}; "
        f"{plan.warm_up_s:g} s warm-up, {plan.duration_s:g} s measured",
        markup=False,
    )
    if plan.rate is None and plan.users < len(plan.weights):
        console.print(f"warning: {plan.users} users for {len(plan.weights)} kinds: some are not sent", markup=False)


def _plan(options: argparse.Namespace) -> Plan:
    """The load, by the server's metadata of the model.

    Raises:
        LoadTestError: the server does not respond, or the model, the kinds or the images do not fit.
        AccessError: the server requires a key, or another one.
    """
    target = server.describe(options.url, options.grpc, model=options.model, timeout_s=options.timeout_s)
    weights = _weights(options, target)
    if "grpc" in weights:
        server.check_grpc(target)
    return Plan(
        target=_with_images(target, options.pictures),
        weights=weights,
        users=options.users,
        rate=options.rate,
        connections=options.connections,
        warm_up_s=options.warm_up_s,
        duration_s=options.duration_s,
        metrics_url=options.triton_metrics_url,
    )


def _weights(options: argparse.Namespace, target: Target) -> dict[str, int]:
    weights: dict[str, int] = options.weights or {
        name: 1 for name, kind in KINDS.items() if target.task in kind.default_for
    }
    for name in weights:
        if target.task not in KINDS[name].tasks:
            fitting = ", ".join(each for each, kind in KINDS.items() if target.task in kind.tasks)
            raise WrongArgument(f"WEIGHTS: {target.model} ({target.task}) does not take {name}; expected {fitting}")
    return weights


def _with_images(target: Target, folder: Path | None) -> Target:
    if target.task in TABLE_TASKS:
        return target
    try:
        found = images.read(folder or images.make())
    except OSError as exc:
        raise WrongArgument(f"PICTURES: {folder}: {exc.strerror}") from exc
    if not found:
        raise WrongArgument(f"PICTURES: {folder}: got no image, expected .jpg, .png, ...")
    return dataclasses.replace(target, images=found)


def _folder(options: argparse.Namespace) -> Path:
    folder: Path = options.output / time.strftime("%Y-%m-%dT%H-%M-%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise WrongArgument(f"--output {folder}: {exc.strerror}") from exc
    return folder
