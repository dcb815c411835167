"""Makes the golden input Triton's warm-up, so that the first request to a version is as fast as later ones."""

from pathlib import Path
from typing import Any

import numpy as np

from registry.golden import Arrays, split_golden

_FOLDER = "warmup"  # Triton's


def add_warmup(config: Any, golden: Arrays, folder: Path) -> None:
    """Have Triton run the golden input before a version is ready; nothing where the config has a warm-up or no inputs.

    Args:
        config: `ModelConfig`, changed in place.
        golden: arrays of golden.npz.
        folder: the model's; Triton's files go into its `warmup/`.

    Raises:
        VersionRejected: they are not the model's.
    """
    if config.model_warmup or not config.max_batch_size or not config.input:
        return
    inputs, _ = split_golden(golden, config)
    rows = min(len(next(iter(inputs.values()))), config.max_batch_size)
    if len(inputs) != len(config.input) or not all(_fits(inputs, tensor) for tensor in config.input):
        return  # the trial says what is wrong
    (folder / _FOLDER).mkdir(exist_ok=True)
    sample = config.model_warmup.add(name="golden", batch_size=rows)
    for index, tensor in enumerate(config.input):
        array = inputs[tensor.name][:rows]
        file = f"golden~{index}"  # not legal for a file of the repository, so no file has it
        (folder / _FOLDER / file).write_bytes(np.ascontiguousarray(array).tobytes())
        entry = sample.inputs[tensor.name]
        entry.data_type, entry.input_data_file = tensor.data_type, file
        entry.dims.extend(array.shape[1:])


def _fits(inputs: Arrays, tensor: Any) -> bool:
    return inputs[tensor.name].dtype.kind in "biuf" and inputs[tensor.name].ndim == len(tensor.dims) + 1
