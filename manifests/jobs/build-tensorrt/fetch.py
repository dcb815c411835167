"""Lay a version of the repository out for `python -m export tensorrt`; runs in the image nereid/export.

MODEL, VERSION (empty: the newest complete one) and REPOSITORY come from the environment; the argument is the folder for
models. The version found is left in the file `version` beside them.
"""

import os
import shutil
import sys
from pathlib import Path

from export.errors import ExportError
from export.remote.layout import read_model
from export.remote.storage import Storage, open_storage
from export.versions import read_complete


def main() -> int:
    """0 when the version is there and every digest fits."""
    try:
        storage = open_storage(os.environ["REPOSITORY"])
        number = fetch(storage, os.environ["MODEL"], os.environ.get("VERSION", ""), Path(sys.argv[1]))
    except ExportError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print(f"{os.environ['MODEL']} {number} from {storage.address}")
    return 0


def fetch(storage: Storage, model: str, version: str, target: Path) -> int:
    """Copy one version; its number.

    Args:
        storage: the repository.
        model: name of the model.
        version: number, or empty.
        target: a local repository; what an earlier try left there is removed.

    Raises:
        ExportError: there is no such version, or what came is not what its manifest lists.
    """
    complete = read_model(storage, model).complete
    wanted = [number for number in complete if version in {"", str(number)}]
    if not wanted:
        got = ", ".join(map(str, complete)) or "none"
        raise ExportError(f"{storage.address}: {model} {version}: got complete versions {got}, expected it among them")
    number = wanted[-1]
    shutil.rmtree(target, ignore_errors=True)
    prefix = f"{model}/{number}/"
    for entry in storage.entries(prefix):
        content = storage.get(entry.key)
        if content is not None:
            path = target / entry.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.data)
    if read_complete(target / prefix) is None:
        raise ExportError(
            f"{storage.address}/{prefix}: what came does not fit its manifest.json; next: publish it again"
        )
    target.with_name("version").write_text(str(number))
    return number


if __name__ == "__main__":
    sys.exit(main())
