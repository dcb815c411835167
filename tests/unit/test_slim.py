"""containers/slim.py: what it takes away, and what it leaves."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from containers.build import ROOT
from containers.slim import loads, strip

PACKAGES = f"lib/python{sysconfig.get_python_version()}/site-packages"
STUBS = f"{PACKAGES}/pytriton/tritonserver/python_backend_stubs"
GONE = (
    f"{PACKAGES}/numpy/tests/test_a.py",
    f"{PACKAGES}/numpy/include/a.h",
    f"{PACKAGES}/numpy/a.pyi",
    f"{PACKAGES}/openvino/libs/libopenvino_intel_gpu_plugin.so",
    f"{PACKAGES}/onnxruntime/capi/libonnxruntime.so.1.31.1",
    f"{PACKAGES}/pytriton/client/client.py",
    f"{PACKAGES}/pytriton/triton.py",
    f"{STUBS}/3.8/triton_python_backend_stub",
)
KEPT = (
    f"{PACKAGES}/numpy/a.py",
    f"{PACKAGES}/numpy-1.0.dist-info/licenses/LICENSE.txt",
    f"{PACKAGES}/numpy/testing/a.py",
    f"{PACKAGES}/openvino/libs/libopenvino_intel_cpu_plugin.so",
    f"{PACKAGES}/openvino/libs/libopenvino_onnx_frontend.so.2641",
    f"{PACKAGES}/onnxruntime/capi/a.py",
    f"{PACKAGES}/pytriton/tritonserver/bin/tritonserver",
    f"{STUBS}/{sysconfig.get_python_version()}/triton_python_backend_stub",
)
needs_strip = pytest.mark.skipif(not shutil.which("strip"), reason="strip is missing; next: apt-get install binutils")


def test_what_serves_stays(tmp_path: Path) -> None:
    for name in (*GONE, *KEPT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    subprocess.run([sys.executable, ROOT / "containers/slim.py", tmp_path], check=True, capture_output=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(KEPT)


@needs_strip
def test_library_is_smaller_and_loads(tmp_path: Path) -> None:
    (source,) = Path(sysconfig.get_path("purelib")).glob("rapidjson.*.so")
    library = tmp_path / source.name
    shutil.copy(source, library)
    strip(library)
    assert loads(library)
    assert library.stat().st_size < source.stat().st_size / 2
    assert [path.name for path in tmp_path.iterdir()] == [library.name]


@needs_strip
def test_library_that_cannot_be_loaded_is_not_touched(tmp_path: Path) -> None:
    library = tmp_path / "liba.so"
    library.write_bytes(b"no library")
    strip(library)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"no library"]
