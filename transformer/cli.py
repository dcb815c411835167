"""Command line: the arguments that KServe's controller passes to a transformer container, under its names.

KServe's SDK has a parser for them, but it cannot be imported here: its protobufs and Triton's both register
`inference.ServerLiveRequest`, and protobuf takes a name once (kserve 0.21, tritonclient 2.73). A contract test compares
this list with the SDK's.
"""

import argparse
import math
import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

from environment.listening import join

# Options of the SDK's own model server that change nothing here; accepted, so that its manifests work.
_ACCEPTED = (
    "--max_threads", "--max_asyncio_workers", "--enable_grpc", "--enable_docs_url",
    "--enable_latency_logging", "--configure_logging", "--log_config_file", "--access_log_format", "--event-loop",
    "--protocol", "--predictor_protocol", "--predictor_use_ssl",
    "--predictor_request_timeout_seconds", "--grpc_max_send_message_length", "--grpc_max_receive_message_length",
    "--predictor_request_retries",
)  # fmt: skip

_TRITON_GRPC_PORT = 8001
# Several Tritons, as gRPC names them: requests go to each in turn.
_SEVERAL = re.compile(r"(ipv4:|ipv6:)[0-9a-fA-F.:,\[\]%]+:[0-9]+|dns:///?[^,/]+:[0-9]+")
_HOST_AND_PORT = re.compile(r"(?P<host>\[[^/\[\]]+\]|[^/:\[\]]+)(?::(?P<port>[^:]+))?")


@dataclass(frozen=True)
class Tls:
    """Certificate and key of both servers, PEM."""

    cert_file: Path
    key_file: Path


@dataclass(frozen=True)
class Arguments:
    """The command line, read.

    Attributes:
        tls: certificate and key where clients speak TLS.
        http_port, grpc_port: to listen on.
        predictor_host: `host:port` of Triton's gRPC.
        keep_alive_s: how long an HTTP connection may be without a request; None: `TRANSFORMER_KEEP_ALIVE_S`.
        ignored: options that were given and have no effect.
    """

    http_port: int
    grpc_port: int
    predictor_host: str
    tls: Tls | None
    keep_alive_s: float | None
    ignored: tuple[str, ...]


def parse(argv: list[str]) -> Arguments:
    """Read argv; exits with status 2 and a message where it is invalid."""
    parser = _make_parser()
    options = vars(parser.parse_args(argv))
    host, http_port, grpc_port = (options.pop(name) for name in ("predictor_host", "http_port", "grpc_port"))
    options.pop("model_name")
    keep_alive_s = options.pop("keep_alive_s")
    cert_file, key_file = options.pop("ssl_certfile"), options.pop("ssl_keyfile")
    if bool(cert_file) != bool(key_file):
        parser.error("--ssl_certfile and --ssl_keyfile: got one, expected both or neither")
    if options["workers"] == 1:
        options.pop("workers")
    tls = Tls(cert_file, key_file) if cert_file else None
    return Arguments(
        http_port, grpc_port, predictor_host=host, tls=tls, keep_alive_s=keep_alive_s, ignored=tuple(sorted(options))
    )


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m transformer",
        description="HTTP and gRPC server in front of Triton: preprocesses images and rows, post-processes the model's "
        "outputs. Limits and timeouts are environment variables TRANSFORMER_*: docs/configuration.md.",
        epilog="Other options of KServe's SDK are accepted and ignored.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--predictor_host",
        required=True,
        type=_host_and_port,
        metavar="HOST[:PORT]",
        help=f"Triton's gRPC; port {_TRITON_GRPC_PORT} if it has none, as KServe's controller passes it",
    )
    parser.add_argument("--http_port", type=_port, default=8080, help="v1, v2 and /predict (default: %(default)s)")
    parser.add_argument("--grpc_port", type=_port, default=8081, help="v2 over gRPC (default: %(default)s)")
    parser.add_argument("--ssl_certfile", type=Path, metavar="FILE", help="PEM certificates: both ports speak TLS")
    parser.add_argument("--ssl_keyfile", type=Path, metavar="FILE", help="PEM key of the first certificate")
    parser.add_argument(
        "--timeout-keep-alive",
        dest="keep_alive_s",
        type=_seconds,
        metavar="SECONDS",
        help="idle time after which an HTTP connection is closed (default: TRANSFORMER_KEEP_ALIVE_S)",
    )
    parser.add_argument(
        "--model_name",
        default="model",
        help="name of the InferenceService; has no effect: models have their own names",
    )
    parser.add_argument("--workers", type=int, default=1, help="has no effect: one process, scaled by replicas")
    for option in _ACCEPTED:
        parser.add_argument(option, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--enable_predictor_health_check", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of seconds over 0")
    return seconds


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a port from 1 to 65535")
    return int(text)


def _host_and_port(text: str) -> str:
    if _SEVERAL.fullmatch(text):
        return text
    # An IPv6 address without brackets has no port beside it.
    match = _HOST_AND_PORT.fullmatch(f"[{text}]" if _is_ipv6(text) else text)
    host = match["host"].strip("[]") if match else ""
    if match is None or (match["host"] != host and not _is_ipv6(host)):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected host:port of Triton's gRPC, such as localhost:8001 or [::1]:8001"
        )
    return join(host, _port(match["port"] or str(_TRITON_GRPC_PORT)))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
