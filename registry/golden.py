"""golden.npz: one small input of a version and the outputs it must give."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import VersionRejected

Arrays = Mapping[str, NDArray[Any]]

MAX_ARRAYS = 256  # inputs and outputs of one model
MAX_ROWS = 256  # each batch of them is one request of the trial
_KINDS = "biufS"  # of NumPy: what Triton has a datatype for
_LARGEST_BYTES = 64 * 2**20  # unpacked: three images of 1280 x 1280 in FP32, and a detector's outputs for them


def read_golden(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays by tensor name, each with its batch dimension.

    Raises:
        VersionRejected: it is invalid, or larger unpacked than the limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if len(entries) > MAX_ARRAYS or len({entry.filename for entry in entries}) < len(entries):
            raise VersionRejected(f"{path.name}: got {len(entries)} arrays, expected at most {MAX_ARRAYS}, each once")
        size = sum(entry.file_size for entry in entries)
        if size > _LARGEST_BYTES:
            raise VersionRejected(f"{path.name}: got {size} bytes unpacked, expected at most {_LARGEST_BYTES}")
        with np.load(path, allow_pickle=False) as arrays:
            content = dict(arrays)
    except (VersionRejected, MemoryError):
        raise
    except Exception as exc:  # zipfile, zlib, NumPy and its tokenizer raise a dozen classes
        raise VersionRejected(f"{path.name}: cannot be read: {exc}") from exc
    for name, array in content.items():
        _check_array(array, f"{path.name}: {name!r}")
    return content


def _check_array(array: Any, where: str) -> None:
    if not isinstance(array, np.ndarray):  # NumPy returns the bytes of an entry that is not an array
        raise VersionRejected(f"{where}: got {len(array)} bytes, expected an array")
    if array.dtype.kind not in _KINDS or not array.ndim:
        got = f"{array.dtype}, shape {list(array.shape)}"
        raise VersionRejected(f"{where}: got {got}, expected numbers or bytes with a batch dimension")


def write_golden(path: Path, arrays: Arrays, *, compressed: bool = False) -> None:
    """Write a file that `read_golden` reads, in place of the old one."""
    new = path.with_suffix(".new")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    new.replace(path)


def split_golden(arrays: Arrays, config: Any) -> tuple[Arrays, Arrays]:
    """Inputs and expected outputs, as the config names them.

    Raises:
        VersionRejected: either is missing.
    """
    inputs = {tensor.name: arrays[tensor.name] for tensor in config.input if tensor.name in arrays}
    outputs = {name: array for name, array in arrays.items() if name not in inputs}
    if not inputs or not outputs:
        raise VersionRejected(f"golden.npz: got {sorted(arrays)}, expected the model's inputs and outputs")
    if empty := [name for name, array in inputs.items() if not len(array)]:
        raise VersionRejected(f"golden.npz: {empty[0]!r}: got no item, expected one or more")
    if config.max_batch_size and (long := [name for name, array in inputs.items() if len(array) > MAX_ROWS]):
        raise VersionRejected(f"golden.npz: {long[0]!r}: got {len(inputs[long[0]])} items, expected at most {MAX_ROWS}")
    return inputs, outputs
