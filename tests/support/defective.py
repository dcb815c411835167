"""The transformer with a defect in each request: `python -m tests.support.defective`, with its arguments."""

import sys
from typing import Any

from transformer.dataplane.dataplane import DataPlane
from transformer.program import main


async def infer_images(*arguments: Any, **_: Any) -> None:
    """In place of DataPlane's: a traceback whose frames hold the request."""
    quoted = "".join(("pri", "vate"))  # in the words of the exception, and not in its source, which is reported
    raise ValueError(f"a defect at {quoted} {arguments!r}")


if __name__ == "__main__":
    DataPlane.infer_images = infer_images  # type: ignore[method-assign,assignment]
    sys.exit(main())
