"""The ONNX file of a version: where it is, and which versions of ONNX it was written for.

Everything here decides as triton-inference-server/onnxruntime_backend r24.10 does, which is built with ONNX Runtime
1.19; this backend runs a newer, faster one, so the limits of 1.19 are checked here.
"""

import os
from pathlib import Path

from predictor.backends.refusal import ModelRefusedError
from registry.judgement.onnx_file import read_versions

DEFAULT_FILENAME = "model.onnx"
# What ONNX Runtime 1.19.2 accepts, tried one by one: it refuses IR 11, ai.onnx 22 and ai.onnx.ml 6. The other domains
# have had the same version ever since.
MAX_IR_VERSION = 10
MAX_OPSETS = {"ai.onnx": 21, "ai.onnx.ml": 5}


def find_artifact(version_dir: Path, filename: str) -> Path:
    """Return the file to load.

    Args:
        version_dir: `<repository>/<model>/<version>`.
        filename: `default_model_filename`; empty for `model.onnx`. A folder means `model.onnx` inside.
            (`cc_model_filenames` is for GPUs alone.)

    Raises:
        ModelRefusedError: there is no such file.
    """
    path = version_dir / (filename or DEFAULT_FILENAME)
    if as_stored(path).is_dir():
        path = path / DEFAULT_FILENAME
    if not as_stored(path).exists():
        raise ModelRefusedError(f"unable to find '{path}'")
    return path


def as_stored(path: Path) -> Path:
    """The path for Python's own file functions: without a locale in Triton's stub, Python takes names for ASCII."""
    return Path(os.fsdecode(str(path).encode()))


def check_versions(path: Path) -> None:
    """Refuse what ONNX Runtime 1.19 refuses.

    Args:
        path: A file that ONNX Runtime has loaded, so one that is well formed.

    Raises:
        ModelRefusedError: the IR version or an opset is newer.
    """
    if path.suffix == ".ort":
        return  # not protobuf; the format is the same in both
    ir_version, opsets = read_versions(as_stored(path))
    if ir_version > MAX_IR_VERSION:
        raise ModelRefusedError(f"'{path}' has IR version {ir_version}, the oldest supported Triton reads up to 10")
    for domain, version in opsets.items():
        if version > MAX_OPSETS.get(domain, version):
            raise ModelRefusedError(
                f"'{path}' has opset {version} of {domain}, the oldest supported Triton runs up to {MAX_OPSETS[domain]}"
            )
