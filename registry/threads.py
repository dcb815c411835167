"""What a config leaves to the CPUs that Triton may use: instances, threads, bf16.

The runtimes' own default is as many threads as the node has cores, in a container that may use two of them.
"""

from copy import deepcopy
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

_MOST_STREAMS = 8  # each is a process in the embedded Triton, and holds its own copy of what it works on


def fit_cpus(config: ModelConfig | None, *, cpus: float, bf16: bool = True) -> Any:
    """Return a copy of a config in which instances and threads are set; what it sets stays, but for bf16.

    OpenVINO gets streams of few threads: YOLOv8n in bf16 on two cores with AMX serves 52 requests a second in two
    streams of one thread, 35 in one stream of two; on eight cores 218 in eight streams, 142 in four, 95 in one.

    Args:
        config: Of a version; None where it has none.
        cpus: How many Triton may use.
        bf16: Whether they compute bf16 in hardware. If not, FP32 takes its place: it is faster then, and exact.
    """
    filled = ModelConfig() if config is None else deepcopy(config)
    if any(group.kind == ModelInstanceGroup.KIND_GPU for group in filled.instance_group):
        return filled
    if "TARGET_DEVICE" in filled.parameters and filled.parameters["TARGET_DEVICE"].string_value.upper() != "CPU":
        return filled  # which has other options
    threads = max(int(cpus), 1)  # a thread for a part of a CPU would be throttled in the middle of a run
    instances = 1
    if filled.backend == "openvino":
        instances = min(threads, _MOST_STREAMS)
        _set_default(filled, "INFERENCE_NUM_THREADS", threads)
        _set_default(filled, "NUM_STREAMS", instances)
        if not bf16:
            filled.parameters.pop("HINT_BF16", None)
    else:
        _set_default(filled, "intra_op_thread_count", threads)
        _set_default(filled, "inter_op_thread_count", 1)
    for group in filled.instance_group:
        if group.kind == ModelInstanceGroup.KIND_CPU and not group.count:
            group.count = instances
    return filled


def _set_default(config: Any, name: str, value: int) -> None:
    if name not in config.parameters:  # reading a key that is absent would add it
        config.parameters[name].string_value = str(value)
