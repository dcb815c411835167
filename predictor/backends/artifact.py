"""The model file of a version: its path, and the ONNX versions that it was written for.

The decisions are those of triton-inference-server/onnxruntime_backend r24.10, which is built with ONNX Runtime 1.19.
This backend runs a newer, faster version, so the limits of 1.19 are checked here.
"""

import os
from pathlib import Path

from predictor.backends.errors import ModelRejectedError
from registry.judgement.onnx_file import read_versions

DEFAULT_FILENAME = "model.onnx"
# The limits of ONNX Runtime 1.19.2, found by trial: it rejects IR 11, ai.onnx 22 and ai.onnx.ml 6. The other domains
# have kept their versions since.
MAX_IR_VERSION = 10
MAX_OPSETS = {"ai.onnx": 21, "ai.onnx.ml": 5}


def find_artifact(version_dir: Path, filename: str) -> Path:
    """Return the file to load.

    Args:
        version_dir: `<repository>/<model>/<version>`.
        filename: `default_model_filename`; empty for `model.onnx`. A folder means `model.onnx` inside.
            (`cc_model_filenames` is for GPUs only.)

    Raises:
        ModelRejectedError: the file is missing.
    """
    path = version_dir / (filename or DEFAULT_FILENAME)
    if as_stored(path).is_dir():
        path = path / DEFAULT_FILENAME
    if not as_stored(path).exists():
        raise ModelRejectedError(f"unable to find '{path}'")
    return path


def as_stored(path: Path) -> Path:
    """Return the path for Python's file functions: Triton's stub sets no locale, so Python decodes names as ASCII."""
    return Path(os.fsdecode(str(path).encode()))


def check_versions(path: Path) -> None:
    """Reject a file that ONNX Runtime 1.19 rejects.

    Args:
        path: A well-formed file: ONNX Runtime has loaded it.

    Raises:
        ModelRejectedError: the IR version or an opset is newer.
    """
    if path.suffix == ".ort":
        return  # not protobuf; both versions have the same format
    ir_version, opsets = read_versions(as_stored(path))
    if ir_version > MAX_IR_VERSION:
        raise ModelRejectedError(f"'{path}' has IR version {ir_version}, the oldest supported Triton reads up to 10")
    for domain, version in opsets.items():
        if version > MAX_OPSETS.get(domain, version):
            raise ModelRejectedError(
                f"'{path}' has opset {version} of {domain}, the oldest supported Triton runs up to {MAX_OPSETS[domain]}"
            )
