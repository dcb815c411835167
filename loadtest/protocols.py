"""`python -m loadtest.protocols`: what each protocol adds to the same question, in one run.

One connection for each protocol, one picture, the protocols in turn. The reply says how long the server's data plane
took (`timing_ms.total`: decode, preprocess, infer, postprocess); what the client waited beyond that is the protocol's:
encoding, transport, parsing, writing the answer.
"""

import argparse
import base64
import http.client
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tritonclient.grpc import service_pb2, service_pb2_grpc

from environment import api_key
from environment.arguments import Parser

PICTURE = Path(__file__).parent / "pictures" / "digits.jpg"
_BOUNDARY = b"nereid-boundary"
_WARM_UP = 10
_FEWEST = 2  # have a median and a percentile

Ask = Callable[[], Any]  # one question; the reply of /predict


def main() -> int:
    """Measure, and print the table."""
    parser = Parser(prog="nereid protocols", description=__doc__.partition("\n")[0])
    parser.add_argument("--http", default="localhost:8080", help="host:port (default: %(default)s)")
    parser.add_argument("--grpc", default="localhost:8081", help="host:port (default: %(default)s)")
    parser.add_argument("--model", default="digit-finder", help="a detector (default: %(default)s)")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="what to ask about (default: %(default)s)")
    parser.add_argument("--requests", type=_count, default=200, help="for each protocol (default: %(default)s)")
    options = parser.parse_args()
    console = Console(highlight=False)
    try:
        picture = options.picture.read_bytes()
    except OSError as exc:
        console.print(f"error: --picture {options.picture}: {exc.strerror}", markup=False, soft_wrap=True)
        return 1
    try:
        with grpc.insecure_channel(options.grpc, [("grpc.enable_http_proxy", 0)]) as channel:
            protocols = {
                **http_protocols(options.http, options.model, picture),
                "gRPC": grpc_protocol(channel, options.model, picture),
            }
            waited, inside = measure(protocols, options.requests, console)
    except (MeasureError, api_key.AccessError) as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    except (OSError, http.client.HTTPException) as exc:
        console.print(f"error: {options.http}: {exc}; is `make serve` running?", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    title = f"{options.picture.name} ({len(picture)} bytes) to {options.model}, {options.requests} requests each, ms"
    console.print(table(title, waited, inside))
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < _FEWEST:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from {_FEWEST}")
    return int(text)


class MeasureError(Exception):
    """An answer was none."""


def http_protocols(address: str, model: str, picture: bytes) -> dict[str, Ask]:
    """Questions over HTTP, each with a connection of its own."""
    text = base64.b64encode(picture).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
    outputs = {"outputs": [{"name": "detections"}]}
    element = len(picture).to_bytes(4, "little") + picture
    sized = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(element)}}], **outputs}
    head = json.dumps(sized).encode()
    form = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n%s\r\n--%s--\r\n' % (
        _BOUNDARY,
        picture,
        _BOUNDARY,
    )
    key = api_key.headers()
    as_json = {"Content-Type": "application/json"}

    def first_prediction(reply: Any) -> Any:
        return reply["predictions"][0]

    def first_detections(reply: Any) -> Any:
        return json.loads(reply["outputs"][0]["data"][0])

    def question(path: str, body: bytes, headers: Mapping[str, str], read: Callable[[Any], Any]) -> Ask:
        connection = http.client.HTTPConnection(address, timeout=30)

        def ask() -> Any:
            connection.request("POST", path, body, {**headers, **key})
            response = connection.getresponse()
            content = response.read()
            api_key.check(address, response.status, content.decode(errors="replace"))
            if response.status != http.client.OK:
                raise MeasureError(f"{path}: {response.status} {content[:300].decode(errors='replace')}")
            return read(json.loads(content))

        return ask

    multipart = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY.decode()}"}
    v1 = json.dumps({"instances": [{"image": {"b64": text}}]}).encode()
    v2 = json.dumps({"inputs": [{**tensor, "data": [text]}], **outputs}).encode()
    binary = {"Inference-Header-Content-Length": str(len(head))}
    infer = f"/v2/models/{model}/infer"
    return {
        "/predict, raw body": question(f"/predict/{model}", picture, {"Content-Type": "image/jpeg"}, lambda r: r),
        "/predict, multipart": question(f"/predict/{model}", form, multipart, lambda r: r),
        "v1, base64": question(f"/v1/models/{model}:predict", v1, as_json, first_prediction),
        "v2, base64": question(infer, v2, as_json, first_detections),
        "v2, binary": question(infer, head + element, binary, first_detections),
    }


def grpc_protocol(channel: grpc.Channel, model: str, picture: bytes) -> Ask:
    """The question as ModelInfer with raw contents."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.outputs.add(name="detections")
    request.raw_input_contents.append(len(picture).to_bytes(4, "little") + picture)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    key = api_key.metadata()

    def ask() -> Any:
        try:
            reply = stub.ModelInfer(request, timeout=30, metadata=key)
        except grpc.RpcError as exc:
            api_key.check("gRPC", exc.code().name, exc.details() or "")
            raise MeasureError(f"gRPC: {exc.code().name} {exc.details()}") from exc
        return json.loads(reply.raw_output_contents[0][4:])

    return ask


def measure(
    protocols: Mapping[str, Ask], requests: int, console: Console
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds that the client waited, and that the data plane took, for each protocol."""
    waited: dict[str, list[float]] = {name: [] for name in protocols}
    inside: dict[str, list[float]] = {name: [] for name in protocols}
    for index in track(range(requests + _WARM_UP), "asking", console=console, transient=True):
        for name, ask in protocols.items():
            started = time.perf_counter()
            reply = ask()
            elapsed_ms = (time.perf_counter() - started) * 1000
            if index >= _WARM_UP:
                waited[name].append(elapsed_ms)
                inside[name].append(reply["timing_ms"]["total"])
    return waited, inside


def table(title: str, waited: Mapping[str, Sequence[float]], inside: Mapping[str, Sequence[float]]) -> Table:
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
