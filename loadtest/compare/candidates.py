"""The servers that are compared: how each is started, the requests that it takes, and how its responses are read."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from environment import api_key
from environment.listening import find_free_ports
from loadtest.compare.agreement import Detection
from loadtest.compare.processes import CandidateError, Group, responds, start
from loadtest.generator.requests import Request, multipart, row_tensor, v1_image, v2_json

MODEL = "detector"
_PORTS = ("HTTP_PORT", "GRPC_PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT", "SYNC_PORT")
_PORT = "{port}"
_ROW = [6.3, 3.3, 6.0, 2.5]


class VersionNotServed(CandidateError):
    """A stack rejects the version that is to be measured; the message says why."""


@dataclass(frozen=True)
class Server:
    """A candidate, over HTTP.

    Attributes:
        name: short.
        title: for people.
        command: `_PORT` stands for a free port.
        variables: of its environment.
        health: path that responds once it is ready.
        find_rejected: for its port, why it will not get ready; None while it may.
        request: for an encoded image and a confidence.
        read: detections of a response.
        large: gets the large image too.
        profile: of Nereid; empty for a baseline.
    """

    name: str
    title: str
    command: Sequence[str]
    health: str
    request: Callable[[bytes, float], Request]
    read: Callable[[Any], list[Detection]]
    variables: Mapping[str, str] = field(default_factory=dict)
    find_rejected: Callable[[int], str | None] = lambda _: None
    large: bool = False
    profile: str = ""


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    port: int
    group: Group


@contextmanager
def serve(server: Server, log: Path) -> Iterator[Running]:
    """Start a server on free ports until the block ends.

    Raises:
        VersionNotServed: it rejects what it was to serve.
        CandidateError: it does not get ready.
    """
    ports = dict(zip(_PORTS, map(str, find_free_ports(len(_PORTS))), strict=True))
    port = int(ports["HTTP_PORT"])
    command = [word.replace(_PORT, str(port)) for word in server.command]
    with start(command, log, variables={**ports, **server.variables}) as group:
        health = f"http://127.0.0.1:{port}{server.health}"

        def is_ready() -> bool:
            if reason := server.find_rejected(port):
                raise VersionNotServed(reason)
            return responds(health)

        group.wait_until(is_ready)
        yield Running(port, group)


def find_rejected(port: int) -> str | None:
    """Why a stack rejects a version that it was to serve, or its model; None where it does not, or not yet."""
    with suppress(httpx.HTTPError):
        url = f"http://127.0.0.1:{port}/status"
        response = httpx.get(url, headers=api_key.headers(), timeout=5, trust_env=False)
        models = list(response.json()["models"].values()) if response.is_success else []
        versions = [version for model in models for version in model["versions"].values()]
        reasons = [version["reason"] for version in versions if version["state"] == "refused"]
        reasons += [model["error"] for model in models if model["state"] == "refused"]
        return next(iter(reasons), None)
    return None


def baselines(weights: str, exports: Mapping[str, Any], *, unpickling: bool = False) -> list[Server]:
    """What is used instead of Nereid.

    Args:
        weights: the .pt file.
        exports: exports.json.
        unpickling: whether unofficial weights are loaded too.
    """
    allowed = ["--allow-unpickling"] if unpickling else []
    onnx, openvino = exports["onnx"]["path"], exports["openvino"]["path"]
    return [
        _baseline("fastapi-pytorch", "FastAPI + Ultralytics, PyTorch", "fastapi", weights, *allowed, large=True),
        _baseline("fastapi-onnx", "FastAPI + Ultralytics, ONNX", "fastapi", onnx, large=True),
        _baseline("fastapi-openvino", "FastAPI + Ultralytics, OpenVINO", "fastapi", openvino, large=True),
        _baseline("kserve-onnx", "KServe custom predictor + Ultralytics, ONNX", "kserve", onnx),
        _baseline("litserve-onnx", "LitServe + Ultralytics, ONNX", "litserve", onnx),
    ]


def nereid(profile: str, folder: Path) -> Server:
    """The stack of `make serve` with one of its profiles.

    Args:
        profile: PROFILE of make serve.
        folder: with `repository`; the mirror comes beside it.
    """
    variables = {
        "REPOSITORY": str(folder / "repository"),
        "MIRROR": str(mirror(profile, folder)),
        "PROFILE": profile,
        "PREDICTOR_MEASURES": "false",  # what is named is measured, and nothing beside it
        "TRITON_URL": "",
        "VERBOSE": "1",  # its log is what it prints
    }
    return Server(
        name=f"nereid-{profile}",
        title=f"Nereid, {profile}",
        command=[sys.executable, "-m", "stack"],
        health="/v2/health/ready",
        find_rejected=find_rejected,
        request=_request_nereid,
        read=_read_nereid,
        variables=variables,
        large=True,
        profile=profile,
    )


def mirror(profile: str, folder: Path) -> Path:
    """Where Triton reads a profile's models from."""
    return folder / f"mirror-{profile}"


def iris_row() -> Request:
    """A row for the table model of the repository, v2 JSON."""
    return v2_json("iris", row_tensor(_ROW), _ROW)


def to_detections(objects: Sequence[Mapping[str, Any]]) -> list[Detection]:
    """Detections as the baselines return them, and exports.json holds them."""
    return [Detection(item["class"], item["confidence"], tuple(item["box"])) for item in objects]


def _baseline(name: str, title: str, module: str, weights: str, *options: str, large: bool = False) -> Server:
    v1 = module == "kserve"
    return Server(
        name=name,
        title=title,
        command=[
            *(sys.executable, "-m", f"loadtest.compare.baselines.{module}"),
            *("--port", _PORT, "--weights", weights, *options),
        ],
        health="/v2/health/ready" if v1 else "/health",
        request=_request_v1 if v1 else _request_form,
        read=_read_v1 if v1 else _read_form,
        variables={"YOLO_AUTOINSTALL": "false"},
        large=large,
    )


def _request_form(image: bytes, confidence: float) -> Request:
    return multipart("/predict", image, confidence=str(confidence))


def _read_form(document: Any) -> list[Detection]:
    return to_detections(document["detections"])


def _request_v1(image: bytes, confidence: float) -> Request:
    return v1_image(MODEL, image, parameters={"confidence": confidence})


def _read_v1(document: Any) -> list[Detection]:
    return to_detections(document["predictions"][0])


def _request_nereid(image: bytes, confidence: float) -> Request:
    return multipart(f"/predict/{MODEL}?confidence={confidence}", image)


def _read_nereid(document: Any) -> list[Detection]:
    return [
        Detection(item["class"], item["confidence"], (box["x1"], box["y1"], box["x2"], box["y2"]))
        for item in document["predictions"]
        for box in (item["box"],)
    ]
