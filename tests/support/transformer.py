"""The transformer as a process, and requests to it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.error_codes import Rejection, event_hooks, rejection
from tests.support.ports import find_free_ports
from tests.support.stack import ROOT, Stack, wait_until

DIGITS = (ROOT / "loadtest" / "pictures" / "digits.jpg").read_bytes()


@dataclass(frozen=True)
class Transformer:
    """A running transformer."""

    http: httpx.Client
    grpc: grpc.Channel
    http_port: int
    grpc_port: int
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def start_transformer(
    predictor_host: str,
    log: Path,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    module: str = "transformer",
) -> Iterator[Transformer]:
    """Start the transformer like KServe's controller: its own arguments first, then those that the controller adds.

    Args:
        predictor_host: `host:port` of Triton's gRPC.
        log: file for its output.
        arguments: of its command line.
        variables: of its environment.
        module: the transformer, or a module that runs it.
    """
    http_port, grpc_port = find_free_ports(2)
    added = ["--model_name", "finder", "--predictor_host", predictor_host, "--http_port", str(http_port)]
    url = f"http://127.0.0.1:{http_port}"
    command = [sys.executable, "-m", module, *arguments, f"--grpc_port={grpc_port}", *added]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | (variables or {}), stdout=output, stderr=output)
    try:
        with (
            httpx.Client(base_url=url, trust_env=False, timeout=60, event_hooks=event_hooks(url)) as http,
            grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
        ):
            wait_until(lambda: is_live(http, process, log), log=log)
            yield Transformer(http, channel, http_port, grpc_port, process, log)
            time.sleep(0.1)  # it writes log lines in batches
    finally:
        process.kill()
        process.wait()


def is_live(http: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text(errors="replace")
    try:
        return http.get("/v2/health/live").status_code in {200, 401}  # 401 where probes need an API key too
    except httpx.TransportError:
        return False


def infer_message(model: str, *images: bytes) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    tensor.contents.bytes_contents.extend(images)
    return request


REFLECTION = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def open_reflection(channel: grpc.Channel) -> Any:
    """A reflection stream that gets one response and is then held open."""
    held = threading.Event()

    def requests() -> Iterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        held.wait()

    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    stream = stub.ServerReflectionInfo(requests())
    assert len(next(stream).list_services_response.service) == 3
    stream.add_callback(held.set)
    return stream


class Silent(grpc.GenericRpcHandler):
    """Accepts every call and never responds."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def service(self, _: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda *_: self.end.wait(20))


@contextmanager
def silent_triton(threads: ThreadPoolExecutor) -> Iterator[int]:
    """A Triton that hangs; yields its port."""
    handler = Silent()
    server = grpc.server(threads, handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        handler.end.set()
        server.stop(0).wait()


def infer_rejection(channel: grpc.Channel, request: Any) -> Rejection:
    """The error of ModelInfer."""
    return rejection(service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer, request, timeout=30)


def make_key(name: str, file: Path) -> str:
    command = [sys.executable, "-m", "transformer.auth", name, str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def suspended(stack: Stack) -> Iterator[psutil.Process]:
    """Suspend Triton while the block runs."""
    triton = stack.part("tritonserver")
    triton.suspend()
    try:
        yield triton
    finally:
        triton.resume()


def gauge(server: Transformer | Stack, line: str) -> float:
    """A metric's value; 0 where it has no sample yet."""
    lines = server.http.get("/metrics").text.splitlines()
    return next((float(found.rpartition(" ")[2]) for found in lines if found.startswith(line + " ")), 0.0)


def call_raw(channel: grpc.Channel, method: str, message: bytes, key: str = "") -> grpc.StatusCode:
    """Call any method with bytes; returns the code, OK after the first response."""
    call: Any = channel.stream_stream(method)
    stream = call(iter([message]), metadata=[("x-api-key", key)] if key else None, timeout=30)
    with suppress(grpc.RpcError):
        next(stream)
        stream.cancel()
        return grpc.StatusCode.OK
    code: grpc.StatusCode = stream.code()
    return code
