"""Programs that stand in for others on PATH."""

from pathlib import Path

# Writes what it was asked, and keeps the ONNX file it was given.
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
