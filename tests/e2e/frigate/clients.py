"""The clients of the dialect that are on PyPI, unmodified: `deepstack-python` and `codeproject-ai-api`.

    python clients.py <port> <key> <model> <image>

Home Assistant's components and Viseron send their requests by these two. Prints JSON: what each returned or raised.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(port: str, key: str, model: str, image: str) -> None:
    """Each client with the default model, with a model of its own, and with one that there is none of."""
    deepstack, codeproject = (importlib.import_module(f"{name}.core") for name in ("deepstack", "codeprojectai"))
    data = Path(image).read_bytes()

    def run(make: Callable[[str], Any]) -> dict[str, Any]:
        results = {}
        for name in ("", model, "nope"):
            try:
                results[name] = make(name).detect(data)
            except (deepstack.DeepstackException, codeproject.CodeProjectAIException) as exc:
                results[name] = f"{type(exc).__name__}: {exc}"
        return results

    def of_deepstack(name: str) -> Any:
        return deepstack.DeepstackObject("127.0.0.1", int(port), key, 10, 0.45, custom_model=name)

    def of_codeproject(name: str) -> Any:
        return codeproject.CodeProjectAIObject("127.0.0.1", int(port), 10, 0.45, custom_model=name)

    print(json.dumps({"deepstack-python": run(of_deepstack), "codeproject-ai-api": run(of_codeproject)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
