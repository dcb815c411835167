"""Arithmetic on the measurements of a run: medians, ratios of medians, the targets."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

CONNECTIONS = (1, 4, 8)
DEFAULT = "nereid-fp32"
QUIET = 0.1  # cores; above it, a server whose threads spin while they wait loses more than one whose threads sleep


@dataclass(frozen=True)
class Measurement:
    """One candidate, one kind of request, one number of connections, once.

    Attributes:
        candidate: its name; `bare-...` and `pipeline-...` are loops without a server, whose connections are streams.
        round: from 1.
        request: `image`, `large` or `iris`.
        connections: requests in progress at a time.
        requests_per_s: successful responses.
        p50_ms, p95_ms, p99_ms: of these.
        cpu_s_per_request: of all its processes.
        pss_mib: resident memory of all its processes, shared pages once.
        generator_cpu: cores that the generator took.
        others_cpu: cores that others took: another process, or the host of the machine.
        failures: requests that failed.
        failure: the first of them.
    """

    candidate: str
    round: int
    request: str
    connections: int
    requests_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    cpu_s_per_request: float | None
    pss_mib: float
    generator_cpu: float = 0.0
    others_cpu: float = 0.0
    failures: int = 0
    failure: str = ""


_IDENTITY = ("candidate", "round", "request", "connections", "failure")
FIGURES = tuple(item.name for item in fields(Measurement) if item.name not in _IDENTITY)


class Medians:
    """Medians over the rounds."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        groups: dict[tuple[str, str, int], list[Measurement]] = {}
        for item in measurements:
            groups.setdefault((item.candidate, item.request, item.connections), []).append(item)
        self.rows = {
            key: {figure: _median([getattr(item, figure) for item in items]) for figure in FIGURES}
            for key, items in groups.items()
        }

    def get(self, candidate: str, figure: str, connections: int, request: str = "image") -> float | None:
        """One figure; None where it was not measured."""
        return self.rows.get((candidate, request, connections), {}).get(figure)

    @property
    def disturbance(self) -> float:
        """Cores that others took: the median over all measurements."""
        return _median([row["others_cpu"] for row in self.rows.values()]) or 0.0

    def rate(self, candidate: str, connections: int) -> float | None:
        """Requests/s."""
        return self.get(candidate, "requests_per_s", connections)

    def p50(self, candidate: str, request: str = "image") -> float | None:
        """Milliseconds at one connection."""
        return self.get(candidate, "p50_ms", 1, request)

    def full(self, candidate: str) -> float | None:
        """Requests/s at full load: at that number of connections, or of streams, where there are most."""
        rates = [row["requests_per_s"] for key, row in self.rows.items() if key[:2] == (candidate, "image")]
        return max((rate for rate in rates if rate is not None), default=None)


@dataclass(frozen=True)
class Target:
    """A figure to reach.

    Attributes:
        text: which figure.
        wanted: as text.
        reached: as text.
        met: None where this run does not measure it, or was disturbed.
    """

    text: str
    wanted: str
    reached: str = "not measured in this run"
    met: bool | None = None


def ratio(of: float | None, to: float | None) -> float | None:
    """None where one of them is missing."""
    return of / to if of is not None and to else None


def limit_of(candidate: str) -> str:
    """The bare model of a configuration of Nereid."""
    return candidate.replace("nereid-", "bare-")


def pipeline_of(candidate: str) -> str:
    """The same with decoding, letterbox and NMS around it, in one process."""
    return candidate.replace("nereid-", "pipeline-")


def is_limit(candidate: str) -> bool:
    """Whether it is a loop without a server."""
    return candidate.startswith(("bare-", "pipeline-"))


def targets(medians: Medians, precisions: Mapping[str, float]) -> list[Target]:
    """Each target in this run; a run that was disturbed decides none."""
    every = _targets(medians, precisions)
    return every if medians.disturbance <= QUIET else [replace(target, met=None) for target in every]


def _targets(medians: Medians, precisions: Mapping[str, float]) -> list[Target]:
    """Each target.

    Args:
        medians: of the run.
        precisions: mAP50-95 by candidate; empty without labels.
    """
    ours = sorted({key[0] for key in medians.rows if key[0].startswith("nereid-")})
    close = _fastest(medians, [name for name in ours if _within(precisions, name, 0.005)])
    int8 = _fastest(medians, [name for name in ours if "int8" in name and _within(precisions, name, 0.02)])
    fastest = _fastest(medians, ours)
    pytorch, onnx, openvino = (f"fastapi-{name}" for name in ("pytorch", "onnx", "openvino"))
    large = {
        name: ratio(
            beyond(medians, name, limit_of(name), "large"),
            beyond(medians, onnx if name == DEFAULT else openvino, limit_of(name), "large"),
        )
        for name in ours
    }
    return [
        _rate("default configuration, requests/s at 4 connections / FastAPI + Ultralytics ONNX",
              medians, DEFAULT, onnx, 1.15),
        _rate("the same / FastAPI + Ultralytics PyTorch", medians, DEFAULT, pytorch, 2.0),
        _at_most("the same, p50 at 1 connection / FastAPI + Ultralytics ONNX",
                 {DEFAULT: ratio(medians.p50(DEFAULT), medians.p50(onnx))}, 1.0, ""),
        _rate("fastest configuration with mAP50-95 within 0.005 of FP32 / FastAPI + Ultralytics OpenVINO",
              medians, close, openvino, 1.2),
        _rate("int8 configuration with mAP50-95 within 0.02 of FP32 / the same", medians, int8, openvino, 1.5),
        _at_least("fastest configuration / bare model of that configuration, at full load",
                  fastest, ratio(medians.full(fastest), medians.full(limit_of(fastest))), 0.75),
        _at_most("end to end minus bare model, 1 connection, p50",
                 {name: beyond(medians, name, limit_of(name)) for name in ours}, 7.0, " ms"),
        _at_least("fastest configuration / its pipeline in one process, at full load",
                  fastest, ratio(medians.full(fastest), medians.full(pipeline_of(fastest))), 0.9),
        _at_most("end to end minus the pipeline in one process, 1 connection, p50",
                 {name: beyond(medians, name, pipeline_of(name)) for name in ours}, 5.0, " ms"),
        _at_most("12-megapixel JPEG, end to end minus bare model, p50 / FastAPI + Ultralytics in the same runtime",
                 large, 0.5, ""),
        _at_most("iris, 1 row, v2 JSON, p50 at 1 connection",
                 {name: medians.p50(name, "iris") for name in ours}, 3.0, " ms"),
        _at_most("p99 / p50 at 8 connections",
                 {name: ratio(medians.get(name, "p99_ms", 8), medians.get(name, "p50_ms", 8)) for name in ours},
                 2.0, ""),
    ]  # fmt: skip


def beyond(medians: Medians, candidate: str, bare: str, request: str = "image") -> float | None:
    """Milliseconds at one connection minus those of the bare model."""
    whole, model = medians.p50(candidate, request), medians.p50(bare)
    return whole - model if whole is not None and model is not None else None


def _median(values: Sequence[float | None]) -> float | None:
    """None where one is missing: a round without a response has no latency, and must not look better than it was."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known and len(known) == len(values) else None


def _fastest(medians: Medians, names: Sequence[str]) -> str:
    return max(names, key=lambda name: medians.rate(name, 4) or 0.0, default="")


def _within(precisions: Mapping[str, float], name: str, tolerance: float) -> bool:
    if DEFAULT not in precisions or name not in precisions:
        return False
    return precisions[name] >= precisions[DEFAULT] - tolerance


def _rate(text: str, medians: Medians, ours: str, theirs: str, least: float) -> Target:
    return _at_least(text, ours, ratio(medians.rate(ours, 4), medians.rate(theirs, 4)), least)


def _at_least(text: str, name: str, reached: float | None, least: float) -> Target:
    wanted = f"at least {least:g}"
    return (
        Target(text, wanted) if reached is None else Target(text, wanted, f"{reached:.2f} ({name})", reached >= least)
    )


def _at_most(text: str, reached: Mapping[str, float | None], most: float, unit: str) -> Target:
    """Met where every measured configuration meets it."""
    wanted = f"at most {most:g}{unit}"
    known = {name: value for name, value in reached.items() if value is not None}
    if not known:
        return Target(text, wanted)
    text_of_each = ", ".join(f"{value:.2f}{unit} ({name})" for name, value in known.items())
    return Target(text, wanted, text_of_each, all(value <= most for value in known.values()))
