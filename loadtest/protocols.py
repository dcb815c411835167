"""`python -m loadtest.protocols`: what each protocol adds to the same request, in one run.

One connection for each protocol, one image, the protocols in turn. The response says how long the server's data plane
took (`timing_ms.total`: decode, preprocess, infer, postprocess); what the client waited beyond that is the protocol's:
encoding, transport, parsing, writing the response.
"""

import argparse
import asyncio
import base64
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from environment import api_key
from environment.arguments import Parser, count
from loadtest.errors import LoadTestError
from loadtest.generator.connections import Client
from loadtest.generator.requests import (
    Request,
    grpc_raw,
    image_tensor,
    multipart,
    predict_image,
    v1_image,
    v2_binary,
    v2_json,
)

IMAGE = Path(__file__).parent / "pictures" / "digits.jpg"
_TIMEOUT_S = 30.0
_WARM_UP = 10
_FEWEST = 2  # have a median and a percentile

Times = Mapping[str, Sequence[float]]  # by protocol, ms


def main() -> int:
    """Measure, and print the table."""
    options = _parser().parse_args()
    console = Console(highlight=False)
    try:
        image = options.picture.read_bytes()
    except OSError as exc:
        console.print(f"error: --picture {options.picture}: {exc.strerror}", markup=False, soft_wrap=True)
        return 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            waited, inside = runner.run(measure(options, image, console))
    except (LoadTestError, api_key.AccessError) as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    except (OSError, ValueError, LookupError) as exc:
        console.print(f"error: {options.http}: {exc}; is `make serve` running?", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    title = f"{options.picture.name} ({len(image)} bytes) to {options.model}, {options.requests} requests each, ms"
    console.print(table(title, waited, inside))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="nereid protocols", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--http", default="localhost:8080", help="host:port (default: %(default)s)")
    parser.add_argument("--grpc", default="localhost:8081", help="host:port (default: %(default)s)")
    parser.add_argument("--model", default="digit-finder", help="a detector (default: %(default)s)")
    parser.add_argument("--picture", type=Path, default=IMAGE, help="image to send (default: %(default)s)")
    parser.add_argument(
        "--requests", type=partial(count, least=_FEWEST), default=200, help="for each protocol (default: %(default)s)"
    )
    return parser


def encode(model: str, image: bytes) -> Mapping[str, Request]:
    """The same request for each protocol and encoding."""
    tensor = image_tensor(image)
    return {
        "/predict, raw body": predict_image(model, image),
        "/predict, multipart": multipart(f"/predict/{model}", image),
        "v1, base64": v1_image(model, image),
        "v2, base64": v2_json(model, tensor, [base64.b64encode(image).decode()]),
        "v2, binary": v2_binary(model, tensor),
        "gRPC": grpc_raw(model, tensor),
    }


async def measure(options: argparse.Namespace, image: bytes, console: Console) -> tuple[Times, Times]:
    """Milliseconds that the client waited, and that the data plane took, for each protocol.

    Raises:
        LoadTestError: a request failed.
        AccessError: the server requires a key, or another one.
        OSError: no connection, or no response in time.
    """
    requests = encode(options.model, image)
    waited: dict[str, list[float]] = {name: [] for name in requests}
    inside: dict[str, list[float]] = {name: [] for name in requests}
    async with AsyncExitStack() as stack:
        clients = {name: Client(options.http, options.grpc, _TIMEOUT_S) for name in requests}
        for client in clients.values():
            stack.push_async_callback(client.close)
        for index in track(range(options.requests + _WARM_UP), "measuring", console=console, transient=True):
            for name, request in requests.items():
                started = time.perf_counter()
                status, body = await clients[name].send(request)
                elapsed_ms = (time.perf_counter() - started) * 1000
                total_ms = _total_ms(options.http, name, request, status, body)
                if index >= _WARM_UP:
                    waited[name].append(elapsed_ms)
                    inside[name].append(total_ms)
    return waited, inside


def _total_ms(address: str, name: str, request: Request, status: str, body: bytes) -> float:
    if status not in {"200", "OK"}:
        text = body[:300].decode(errors="replace")
        api_key.check(address, int(status) if status.isdecimal() else status, text)
        raise LoadTestError(f"{name}: {status} {text}")
    assert request.read is not None  # noqa: S101  # every request here has one
    return float(request.read(body).document["timing_ms"]["total"])


def table(title: str, waited: Times, inside: Times) -> Table:
    """A row for each protocol; `adds` is the median of the differences, request by request."""
    rows = Table("protocol", title=title)
    for heading in ("p50", "p95", "data plane p50", "adds p50", "ratio"):
        rows.add_column(heading, justify="right")
    for name, times in waited.items():
        adds = statistics.median(total - own for total, own in zip(times, inside[name], strict=True))
        own = statistics.median(inside[name])
        p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        rows.add_row(name, f"{p50:.2f}", f"{p95:.2f}", f"{own:.2f}", f"{adds:.2f}", f"{(own + adds) / own:.3f}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
