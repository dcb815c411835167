"""Converts `config.pbtxt` to the properties of a compiled model, by the rules of the C++ backend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from predictor.backends.errors import ModelRejectedError

Properties = dict[str, Any]

_HINTS = ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")
_STREAMS = {"auto": -1, "numa": -2}  # OpenVINO's values


@dataclass(frozen=True)
class Forms:
    """How one instance of a model is compiled: each instance is a process of its own here, with one stream.

    The C++ backend compiles a model once, with NUM_STREAMS streams that share INFERENCE_NUM_THREADS threads.

    Attributes:
        shared: properties with this instance's share of the threads.
        alone: with all of them, for a request while other instances are idle; None where the share is all.
        threads, share: of the model, and of this instance.
    """

    shared: Properties
    alone: Properties | None = None
    threads: int = 0
    share: int = 0

    def is_alone(self, busy: int) -> bool:
        """Whether a request gets all threads.

        With a share each it would leave half of them idle, or more: two requests on four cores take 32 ms each with
        all four threads, and 38 with one (YOLOv8n in bf16); four take 57, and 45.

        Args:
            busy: instances that run a request, this one included.
        """
        return 2 * busy * self.share <= self.threads


def compose_forms(config: Mapping[str, Any]) -> Forms:
    """Return the properties of one instance of a model, from its parameters.

    Args:
        config: ModelConfig as JSON.

    Raises:
        ModelRejectedError: the C++ backend rejects a value, or only that backend supports the parameter.
    """
    parameters = {name: value.get("string_value", "") for name, value in config.get("parameters", {}).items()}
    if parameters.get("CPU_EXTENSION_PATH"):
        raise ModelRejectedError(
            "CPU_EXTENSION_PATH: not supported by the embedded backend; serve this model from NVIDIA's image"
        )
    properties: Properties = {}
    for name, read in _READERS.items():
        if text := parameters.get(name, ""):
            properties |= read(name, text.lower())
    instances = sum(max(int(group.get("count", 1)), 1) for group in config["instance_group"]) or 1
    streams = properties.get("NUM_STREAMS")
    if not isinstance(streams, int) or min(streams, instances) <= 1:
        return Forms(properties)
    properties["NUM_STREAMS"] = 1
    if not (threads := properties.get("INFERENCE_NUM_THREADS", 0)):
        return Forms(properties)
    share = max(threads // min(streams, instances), 1)
    shared = {**properties, "INFERENCE_NUM_THREADS": share}
    return Forms(shared, properties if share < threads else None, threads, share)


def read_device(config: Mapping[str, Any]) -> str:
    """Return the model's device in capitals, as in the C++ backend; the default is CPU."""
    text: str = config.get("parameters", {}).get("TARGET_DEVICE", {}).get("string_value", "")
    return text.upper() or "CPU"


def is_set(config: Mapping[str, Any], name: str) -> bool:
    """Whether a parameter is YES, in upper or lower case; other values count as NO, as in the C++ backend."""
    text: str = config.get("parameters", {}).get(name, {}).get("string_value", "")
    return text.lower() == "yes"


def _read_count(name: str, text: str) -> Properties:
    if not text.isdecimal():
        raise ModelRejectedError(f"parameter '{name}' must be a non-negative number, got '{text}'")
    return {name: int(text)}


def _read_bf16(name: str, text: str) -> Properties:
    if text != "yes":
        raise ModelRejectedError(f"parameter '{name}' must be YES, got '{text}'")
    return {"INFERENCE_PRECISION_HINT": "bf16"}


def _read_precision(name: str, text: str) -> Properties:
    if text != "f32":
        raise ModelRejectedError(f"parameter '{name}' must be f32, got '{text}'")
    return {name: text}


def _read_streams(name: str, text: str) -> Properties:
    if text in _STREAMS:
        return {name: _STREAMS[text]}
    if not text.isdecimal():
        raise ModelRejectedError(f"parameter '{name}' must be AUTO, NUMA or a number, got '{text}'")
    return {name: int(text)}


def _read_hint(name: str, text: str) -> Properties:
    if text.upper() not in _HINTS:
        raise ModelRejectedError(f"parameter '{name}' must be one of {', '.join(_HINTS)}, got '{text}'")
    return {name: text.upper()}


_READERS: Mapping[str, Callable[[str, str], Properties]] = {
    "INFERENCE_NUM_THREADS": _read_count,
    "COMPILATION_NUM_THREADS": _read_count,
    "HINT_BF16": _read_bf16,
    "INFERENCE_PRECISION_HINT": _read_precision,  # the embedded backend's alone: OpenVINO would take bf16 where it can
    "NUM_STREAMS": _read_streams,
    "PERFORMANCE_HINT": _read_hint,
}
