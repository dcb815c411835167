"""Who is compared: how each is started, asked and understood."""

import base64
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from loadtest.compare.agreement import Detection
from loadtest.compare.generator import Question, form
from loadtest.compare.processes import Group, answers, find_free_ports, start

MODEL = "detector"
_PORTS = ("HTTP_PORT", "GRPC_PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT", "SYNC_PORT")
_PORT = "{port}"


@dataclass(frozen=True)
class Server:
    """A candidate that answers over HTTP.

    Attributes:
        name: short.
        title: for people.
        command: `_PORT` stands for a free port.
        variables: of its environment.
        health: path that answers once it is ready.
        ask: the question about a picture at a confidence.
        read: detections of an answer.
        large: asked about the large picture too.
        profile: of Nereid; empty for a baseline.
    """

    name: str
    title: str
    command: Sequence[str]
    health: str
    ask: Callable[[bytes, float], Question]
    read: Callable[[Any], list[Detection]]
    variables: Mapping[str, str] = field(default_factory=dict)
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
        CandidateError: it does not get ready.
    """
    ports = dict(zip(_PORTS, map(str, find_free_ports(len(_PORTS))), strict=True))
    port = int(ports["HTTP_PORT"])
    command = [word.replace(_PORT, str(port)) for word in server.command]
    with start(command, log, variables={**ports, **server.variables}) as group:
        group.wait_until(lambda: answers(f"http://127.0.0.1:{port}{server.health}"))
        yield Running(port, group)


def baselines(weights: str, exports: Mapping[str, Any], *, unpickling: bool = False) -> list[Server]:
    """What is used in Nereid's place.

    Args:
        weights: the .pt file.
        exports: exports.json.
        unpickling: whether weights that are not official are loaded too.
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
        "TRITON_URL": "",
        "VERBOSE": "1",  # its log is what it prints
    }
    return Server(
        name=f"nereid-{profile}",
        title=f"Nereid, {profile}",
        command=[sys.executable, "-m", "stack"],
        health="/v2/health/ready",
        ask=_ask_nereid,
        read=_read_nereid,
        variables=variables,
        large=True,
        profile=profile,
    )


def mirror(profile: str, folder: Path) -> Path:
    """Where Triton reads a profile's models from."""
    return folder / f"mirror-{profile}"


def rows(count: int = 1) -> Question:
    """The table model of the repository, v2 JSON."""
    tensor = {"name": "features", "datatype": "FP32", "shape": [count, 4], "data": [6.3, 3.3, 6.0, 2.5] * count}
    return Question("/v2/models/iris/infer", "application/json", json.dumps({"inputs": [tensor]}).encode())


def to_detections(objects: Sequence[Mapping[str, Any]]) -> list[Detection]:
    """What the baselines answer, and exports.json holds."""
    return [Detection(item["class"], item["confidence"], tuple(item["box"])) for item in objects]


def _baseline(name: str, title: str, module: str, weights: str, *options: str, large: bool = False) -> Server:
    v1 = module == "kserve"
    return Server(
        name=name,
        title=title,
        command=[
            *(sys.executable, "-m", f"loadtest.baselines.{module}"),
            *("--port", _PORT, "--weights", weights, *options),
        ],
        health="/v2/health/ready" if v1 else "/health",
        ask=_ask_v1 if v1 else partial(_ask_form, "/predict"),
        read=_read_v1 if v1 else _read_form,
        variables={"YOLO_AUTOINSTALL": "false"},
        large=large,
    )


def _ask_form(path: str, picture: bytes, confidence: float) -> Question:
    return form(path, picture, confidence=str(confidence))


def _read_form(reply: Any) -> list[Detection]:
    return to_detections(reply["detections"])


def _ask_v1(picture: bytes, confidence: float) -> Question:
    instance = {"image": {"b64": base64.b64encode(picture).decode()}}
    body = {"instances": [instance], "parameters": {"confidence": confidence}}
    return Question(f"/v1/models/{MODEL}:predict", "application/json", json.dumps(body).encode())


def _read_v1(reply: Any) -> list[Detection]:
    return to_detections(reply["predictions"][0])


def _ask_nereid(picture: bytes, confidence: float) -> Question:
    return form(f"/predict/{MODEL}?confidence={confidence}", picture)


def _read_nereid(reply: Any) -> list[Detection]:
    return [
        Detection(item["class"], item["confidence"], (box["x1"], box["y1"], box["x2"], box["y2"]))
        for item in reply["predictions"]
        for box in (item["box"],)
    ]
