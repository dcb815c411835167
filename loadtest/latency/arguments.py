"""The command line."""

import argparse
import re
from functools import partial
from pathlib import Path

from environment.arguments import Parser, count, number, positive, seconds
from environment.project import in_project
from loadtest.latency.payloads import KINDS

# Their names as commands of `nereid`.
COMMANDS = {"run": "loadtest", "cold": "loadtest-cold", "capacity": "capacity", "ui": "loadtest-ui"}


def parse() -> argparse.Namespace:
    """The parsed command line; the process ends with status 2 where it is invalid."""
    return _parser().parse_args()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m loadtest.latency", description="Latency tests with Locust.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "run": "closed loop of users, or open loop at a rate",
        "cold": "silence, burst, silence, burst: latency of the first responses",
        "capacity": "the highest rate that keeps p95 under a limit",
        "ui": "Locust's web page",
    }.items():
        command = commands.add_parser(name, prog=f"nereid {COMMANDS[name]}", help=text, description=text)
        _add_options(command, timeout_s=120 if name == "cold" else 30)
        if name == "cold":
            command.add_argument("--silence-s", type=seconds, default=60, help="(default: %(default)s)")
            command.add_argument("--burst-s", type=positive, default=10, help="(default: %(default)s)")
            command.add_argument("--cycles", type=count, default=2, help="bursts (default: %(default)s)")
        if name == "ui":
            command.add_argument("--port", type=count, default=8089, help="(default: %(default)s)")
        if name in {"run", "capacity"}:
            _add_thresholds(command, of_steps=name == "capacity")
        else:
            command.set_defaults(rate=None, connections=1, warm_up_s=0, duration_s=0)
    return parser


def _add_thresholds(parser: argparse.ArgumentParser, *, of_steps: bool) -> None:
    add = parser.add_argument
    add("--rate", type=_rate, help="requests/s: an open loop; of capacity, the rate to count replicas for")
    add("--connections", type=count, default=128, help="of an open loop, at most (default: %(default)s)")
    add("--warm-up-s", type=seconds, default=3 if of_steps else 5, help="not measured (default: %(default)s)")
    add("--duration-s", type=positive, default=10 if of_steps else 30, help="measured (default: %(default)s)")
    add("--p95-ms", type=positive, required=of_steps, help="at most")


def _add_options(parser: argparse.ArgumentParser, *, timeout_s: float) -> None:
    add = parser.add_argument
    add("--url", type=_url, default="http://localhost:8080", help="of the server (default: %(default)s)")
    add("--grpc", default="localhost:8081", help="host:port of its gRPC (default: %(default)s)")
    add("--triton-metrics-url", type=_url, default="http://localhost:8002/metrics", help="(default: %(default)s)")
    add("--model", default="", help="name (default: the first that the server lists)")
    add("--weights", type=_weights, help=f"mix, as in 'predict=4 v2=2'; kinds: {', '.join(KINDS)}")
    add("--pictures", type=Path, help="folder with images (default: several sizes, made from the shipped ones)")
    add("--users", type=count, default=4, help="of a closed loop (default: %(default)s)")
    add("--fail-ratio", type=_ratio, default=0.01, help="at most (default: %(default)s)")
    add("--timeout-s", type=positive, default=timeout_s, help="for one request (default: %(default)s)")
    add("--output", type=Path, default=in_project("output/loadtest"), help="(default: %(default)s)")


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected http://host:port")
    return text.rstrip("/")


# Above the maximum, the generator itself would be measured.
_rate = partial(number, least=0.01, most=10_000, expected="requests/s from 0.01 to 10000")
_ratio = partial(number, least=0, most=1, expected="a number from 0 to 1")


def _weights(text: str) -> dict[str, int]:
    weights = {}
    for entry in re.split(r"[\s,]+", text.strip()):
        kind, _, weight = entry.partition("=")
        if kind not in KINDS or not (weight or "1").isdecimal() or int(weight or 1) == 0:
            kinds = ", ".join(KINDS)
            raise argparse.ArgumentTypeError(f"got {entry!r}, expected <kind>=<whole number>, kinds: {kinds}")
        weights[kind] = int(weight or 1)
    return weights
