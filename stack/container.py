"""The stack in a container of its own (containers/Dockerfile: standalone); `serve` is how SageMaker starts it.

Without an argument it is `nereid serve`, whose options it takes.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from environment.stopping import end_at_sigterm
from registry.errors import StorageError
from registry.layout import ModelFolder, read_layout
from registry.storage.reading import open_storage
from stack import __main__ as program
from stack.settings import StackError

# Where SageMaker unpacks ModelDataUrl, once and for all: nothing changes there.
MODEL = "/opt/ml/model"
_NEXT = "next: tar -C <the folder that has the models' folders> -czf model.tar.gz ."
_OTHER_PORTS = ("GRPC_PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT", "SYNC_PORT")


def main() -> int:
    """Run the stack; exit statuses are those of `nereid serve`."""
    end_at_sigterm()
    arguments = sys.argv[1:]
    if arguments[:1] != ["serve"]:
        return program.main(arguments)
    try:
        os.environ |= compose_sagemaker(os.environ)
        if os.environ["REPOSITORY"] == MODEL:
            check_unpacked(Path(MODEL))
    except (StackError, StorageError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return program.main(arguments[1:])


def compose_sagemaker(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the stack that SageMaker's contract decides; what the user sets counts more, but for the port.

    https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html

    Raises:
        StackError: the range of ports is invalid, or too small.
    """
    port = environ.get("SAGEMAKER_BIND_TO_PORT") or "8080"
    defaults = {"REPOSITORY": MODEL, "TRANSFORMER_SAGEMAKER": "true"}
    if (environ.get("REPOSITORY") or MODEL) == MODEL:
        defaults |= {"POLL_S": "inf", "SETTLE_S": "0"}
    variables = {name: environ.get(name) or value for name, value in defaults.items()}
    return variables | {"HTTP_PORT": port} | _choose_ports(environ.get("SAGEMAKER_SAFE_PORT_RANGE", ""), port)


def _choose_ports(allowed: str, taken: str) -> dict[str, str]:
    """Ports for what is not SageMaker's, where several containers share an instance's.

    Args:
        allowed: `<first>-<last>`; empty for any.
        taken: SageMaker's own.
    """
    if not allowed:
        return {}
    first, _, last = allowed.partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        raise StackError(f"SAGEMAKER_SAFE_PORT_RANGE: got {allowed!r}, expected <first>-<last>")
    ports = [str(port) for port in range(int(first), int(last) + 1) if str(port) != taken][: len(_OTHER_PORTS)]
    if len(ports) < len(_OTHER_PORTS):
        raise StackError(f"SAGEMAKER_SAFE_PORT_RANGE: got {allowed!r}, expected {len(_OTHER_PORTS)} ports or more")
    return dict(zip(_OTHER_PORTS, ports, strict=True))


def check_unpacked(folder: Path) -> None:
    """Check that what was unpacked is a model repository: it will be no other one later.

    Raises:
        StackError: it is something else; the message says what.
    """
    if not folder.is_dir():
        raise StackError(f"{folder}: no such folder, expected what ModelDataUrl points to; or set REPOSITORY=s3://...")
    models = _read(folder)
    if any(model.versions for model in models.values()):
        return
    if any(name.isdecimal() for name in models):
        raise StackError(f"{folder}: got the folder of one model, expected it inside another one; {_NEXT}")
    for name in models:
        if any(model.versions for model in _read(folder / name).values()):
            raise StackError(f"{folder}: got the models below {name}/, expected them here; {_NEXT}")
    got = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    raise StackError(f"{folder}: got {got}, expected <model>/<version>/model.onnx; {_NEXT}")


def _read(folder: Path) -> dict[str, ModelFolder]:
    return read_layout(open_storage(str(folder)).walk())[0]


if __name__ == "__main__":
    sys.exit(main())
