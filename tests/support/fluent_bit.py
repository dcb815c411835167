"""The real Fluent Bit with the pipeline of manifests/logging, on files as the kubelet's runtime writes them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.support.ports import find_free_ports
from tests.support.stack import ROOT

FOLDER = ROOT / "manifests" / "logging"
NAMESPACE = "nereid"
POD = "nereid-predictor-00001-deployment-7d9f8b6c5-abcde"
_LINE_BYTES = 16384  # of containerd and CRI-O


def find_program() -> str | None:
    """Fluent Bit: of FLUENT_BIT, else of the PATH."""
    return shutil.which(os.environ.get("FLUENT_BIT") or "fluent-bit")


def missing() -> str:
    """What it lacks, with the next step; empty where it can run."""
    if find_program():
        return ""
    found = os.environ.get("FLUENT_BIT") or "no fluent-bit in PATH"
    return f"Fluent Bit: got {found}, expected its program; next: https://docs.fluentbit.io/manual/installation"


@dataclass
class LogFile:
    """The log of a container on its node, with the name that the kubelet gives it."""

    folder: Path
    container: str
    namespace: str = NAMESPACE

    @property
    def path(self) -> Path:
        """As in /var/log/containers."""
        return self.folder / f"{POD}_{self.namespace}_{self.container}-{'ab12' * 16}.log"

    def write(self, lines: Sequence[bytes | str], *, stream: str = "stderr") -> None:
        """Append lines as the runtime does: the time, the stream, P or F, and 16 KiB at most."""
        with self.path.open("ab") as file:
            for line in lines:
                rest = line.encode() if isinstance(line, str) else line
                while len(rest) > _LINE_BYTES:
                    file.write(_head(stream, "P") + rest[:_LINE_BYTES] + b"\n")
                    rest = rest[_LINE_BYTES:]
                file.write(_head(stream, "F") + rest + b"\n")

    def rotate(self) -> None:
        """As the kubelet does: another name, and a new file at the next line."""
        self.path.rename(self.path.with_suffix(".log.rotated"))


def _head(stream: str, kind: str) -> bytes:
    now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="microseconds").replace("+00:00", "000Z")
    return f"{now} {stream} {kind} ".encode()


def compose(folder: Path, output: str) -> Path:
    """The pipeline, to the letter but for where its state and its health are."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = find_free_ports(1)
    pipeline = (FOLDER / "fluent-bit.yaml").read_text()
    for there, here in {"/state/": f"{folder}/", "http_port: 2020": f"http_port: {port}"}.items():
        assert there in pipeline
        pipeline = pipeline.replace(there, here)
    (folder / "output.yaml").write_text(output)
    file = folder / "fluent-bit.yaml"
    file.write_text(pipeline)
    return file


@contextmanager
def run_fluent_bit(
    folder: Path, logs: Path, output: str, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run it until the block ends.

    Args:
        folder: for its state; its own words go to `log` there, records that it prints to `records`.
        logs: the folder of the node's log files.
        output: content of output.yaml.
        variables: of its environment, for the output.
    """
    file = compose(folder, output)
    settings = {"POD_IP": "127.0.0.1", "LOG_FILES": str(logs / f"*_{NAMESPACE}_*.log"), **(variables or {})}
    with (folder / "records").open("ab") as records, (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [find_program() or "", f"--config={file}"], env=os.environ | settings, stdout=records, stderr=log
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    if found := missing():
        sys.exit(f"error: {found}")
