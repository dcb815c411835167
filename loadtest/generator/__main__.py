"""`python -m loadtest.generator`: load as a plan (JSON, the first line of standard input) says, until that is closed.

Each response is a line of JSON on standard output, written at once.
"""

import asyncio
import json
import os
import sys

import uvloop

from loadtest.generator.load import Plan
from loadtest.generator.loops import generate
from loadtest.generator.responses import Response


async def _run(plan: Plan) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stopped.set)
    await generate(plan.requests(), plan, _write, stopped)


def _write(response: Response) -> None:
    os.write(sys.stdout.fileno(), json.dumps(response).encode() + b"\n")


def main() -> None:
    """Read the plan, and run it."""
    plan = Plan(**json.loads(sys.stdin.readline()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(plan))


if __name__ == "__main__":
    main()
