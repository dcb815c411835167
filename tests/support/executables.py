"""Executables that replace others on PATH."""

from pathlib import Path

# Logs its arguments, and keeps its ONNX file.
TRTEXEC = """#!/bin/sh
for argument; do
    echo "$argument" >> {log}
    case "$argument" in
        --onnx=*) cp "${{argument#--onnx=}}" {log}.onnx ;;
        --saveEngine=*) {act} ;;
    esac
done
"""


def put(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)
