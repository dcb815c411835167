"""Threads that a config leaves open, by the CPUs that Triton may use.

The runtimes' own default is as many as the node has cores, in a container that may use two of them.
"""

from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup


def fill_threads(config: ModelConfig | None, *, cpus: float) -> Any:
    """Return a copy of a config in which threads are set; what it sets stays.

    Args:
        config: Of a version; None where it has none.
        cpus: How many Triton may use.
    """
    filled = ModelConfig()
    if config is not None:
        filled.CopyFrom(config)
    if any(group.kind == ModelInstanceGroup.KIND_GPU for group in filled.instance_group):
        return filled
    threads = str(max(int(cpus), 1))  # part of a CPU more would be throttled in the middle of a run
    if filled.backend == "openvino":
        _set_default(filled, "INFERENCE_NUM_THREADS", threads)
        _set_default(filled, "NUM_STREAMS", "1")
    else:
        _set_default(filled, "intra_op_thread_count", threads)
        _set_default(filled, "inter_op_thread_count", "1")
    return filled


def _set_default(config: Any, name: str, value: str) -> None:
    if name not in config.parameters:  # reading a key that is absent would add it
        config.parameters[name].string_value = value
