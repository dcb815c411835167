"""Takes from a folder of an image what nothing there reads: `python3 containers/slim.py FOLDER` (needs `strip`).

Tests, headers, sources of compiled modules and symbol tables of wheels; runtimes for devices that no pod of ours has.
Licences and the sources of Python stay.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# By their names anywhere in the folder.
_FOLDERS = ("tests", "include")
_SUFFIXES = {".a", ".c", ".cc", ".cpp", ".h", ".hpp", ".pxd", ".pyi", ".pyx"}
# By their places below site-packages.
_UNUSED = (
    # Its own library for C and C++; the Python module has all of it.
    "onnxruntime/capi/libonnxruntime.so.*",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    # GPUs and NPUs, a file of figures for the GPU, and formats that no version may have: ONNX and its own are read.
    "openvino/libs/cache.json",
    "openvino/libs/libopenvino_intel_gpu_plugin.so",
    "openvino/libs/libopenvino_intel_npu_plugin.so",
    "openvino/libs/libopenvino_gguf_frontend.so.*",
    "openvino/libs/libopenvino_jax_frontend.so.*",
    "openvino/libs/libopenvino_paddle_frontend.so.*",
    "openvino/libs/libopenvino_pytorch_frontend.so.*",
    "openvino/libs/libopenvino_tensorflow*_frontend.so.*",
    # The Python API of the wheel, of which the server alone is used, and the stub for another Python with its library.
    "pytriton/[!t]*",
    "pytriton/triton.py",
    "nvidia_pytriton.libs/libpython3-*",
)
_STUBS = "pytriton/tritonserver/python_backend_stubs"
# Loads a library in a process of its own: one that was damaged may crash.
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


def main() -> None:
    """Slim the folder, and print what it had and has."""
    folder = Path(sys.argv[1])
    before = size_mb(folder)
    for path in (*find_unread(folder), *find_unused(folder)):
        remove(path)
    for path in sorted(folder.rglob("*.so*")):
        if path.is_file() and not path.is_symlink():
            strip(path)
    print(f"{folder}: {before:.0f} MB, now {size_mb(folder):.0f}")


def find_unread(folder: Path) -> Iterator[Path]:
    """Tests, headers, and sources of compiled modules."""
    for path in list(folder.rglob("*")):
        if (path.is_dir() and path.name in _FOLDERS) or (path.is_file() and path.suffix in _SUFFIXES):
            yield path


def find_unused(folder: Path) -> Iterator[Path]:
    """Parts of packages that are no part of serving on a CPU."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for packages in folder.glob("lib/python3.*/site-packages"):
        for pattern in _UNUSED:
            yield from packages.glob(pattern)
        yield from (path for path in packages.glob(f"{_STUBS}/*") if path.name != version)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder; what is inside a removed folder is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def strip(library: Path) -> None:
    """Take the symbol tables out of a library, unless it cannot be loaded then: tools of wheels rearrange ELF files."""
    stripped = library.with_name(f"{library.name}.stripped")
    done = subprocess.run(["strip", "--strip-unneeded", "-o", stripped, library], capture_output=True, check=False)
    if done.returncode == 0 and stripped.stat().st_size < library.stat().st_size and loads(stripped):
        shutil.copymode(library, stripped)
        stripped.replace(library)
    stripped.unlink(missing_ok=True)


def loads(library: Path) -> bool:
    """Whether a library can be loaded by itself, in this Python, with those of its folder."""
    found = os.environ | {"LD_LIBRARY_PATH": str(library.parent)}
    done = subprocess.run([sys.executable, "-c", _LOAD, library], env=found, capture_output=True, check=False)
    return done.returncode == 0


def size_mb(folder: Path) -> float:
    """The size of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


if __name__ == "__main__":
    main()
