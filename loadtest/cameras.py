"""`make cameras`: how many cameras a running server keeps up with.

A simulated camera has a new frame every 1/fps seconds, sends the newest one whenever its connection is free, and drops
a frame that a newer one replaced. The server keeps up where at least 99 % of the frames have a result within the limit,
and none was dropped or failed. The number of cameras is doubled and then bisected; what fails is repeated once.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from environment import api_key
from environment.arguments import Parser, count, positive
from loadtest.errors import LoadTestError
from loadtest.generator.connections import Client
from loadtest.generator.load import Plan
from loadtest.generator.requests import Request

IMAGE = Path(__file__).parent / "pictures" / "digits.jpg"
_SHARE = 0.99
_MOST = 512
_WARM_UP_S = 1.0
_TIMEOUT_S = 10.0
_WIDTH = 120  # of a file


@dataclass(frozen=True)
class Watched:
    """What became of the frames of all cameras.

    Attributes:
        cameras: how many there were.
        frames: that were due.
        dropped: that a newer one replaced.
        failed: without a result.
        in_time: share of the frames with a result within the limit.
        p50_ms, p99_ms: from the moment when a frame was there to its result; NaN where there was none.
    """

    cameras: int
    frames: int
    dropped: int
    failed: int
    in_time: float
    p50_ms: float
    p99_ms: float

    @property
    def is_kept_up(self) -> bool:
        """Whether the server keeps up with so many."""
        return self.in_time >= _SHARE and not self.dropped and not self.failed


@dataclass(frozen=True)
class Cameras:
    """Cameras that send the same image.

    Attributes:
        http: host:port.
        request: of a frame.
        fps: frames per second.
        seconds: how long they run.
        limit_ms: from a frame to its result.
    """

    http: str
    request: Request
    fps: float
    seconds: float
    limit_ms: float

    def watch(self, cameras: int) -> Watched:
        """Run so many."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._watch(cameras))

    async def _watch(self, cameras: int) -> Watched:
        begin = time.monotonic() + 0.2
        # Cameras are not in step: their frames are spread evenly.
        phases = [begin + number / cameras / self.fps for number in range(cameras)]
        each = await asyncio.gather(*map(self._run, phases))
        ages_ms = np.array([age for ages, _, _ in each for age in ages])
        dropped, failed = (sum(counts) for counts in list(zip(*each, strict=True))[1:])
        frames = len(ages_ms) + dropped + failed
        p50, p99 = np.percentile(ages_ms, (50, 99)) if len(ages_ms) else (np.nan, np.nan)
        in_time = float((ages_ms <= self.limit_ms).sum() / max(frames, 1))
        return Watched(cameras, frames, dropped, failed, in_time, float(p50), float(p99))

    async def _run(self, begin: float) -> tuple[list[float], int, int]:
        """One camera: ages of its results in ms, frames dropped, frames failed; without those of the warm-up."""
        client = Client(self.http, "", _TIMEOUT_S)
        ages_ms: list[float] = []
        dropped = failed = 0
        last, first, total = -1, round(_WARM_UP_S * self.fps), round((self.seconds + _WARM_UP_S) * self.fps)
        try:
            while (newest := max(int((time.monotonic() - begin) * self.fps), last + 1)) < total:
                due = begin + newest / self.fps
                await asyncio.sleep(max(due - time.monotonic(), 0))
                status = await self._send(client)
                if newest >= first:
                    dropped += newest - max(last + 1, first)  # not those of the warm-up
                    failed += status != "200"
                    if status == "200":
                        ages_ms.append((time.monotonic() - due) * 1000)
                last = newest
        finally:
            await client.close()
        return ages_ms, dropped, failed

    async def _send(self, client: Client) -> str:
        try:
            return (await client.send(self.request))[0]
        except (OSError, ValueError):
            return ""


def find_most(watch: Callable[[int], Watched], *, most: int = _MOST) -> list[Watched]:
    """All attempts on the way to the largest number of cameras that is kept up with."""
    attempts: list[Watched] = []

    def keeps_up(cameras: int) -> bool:
        attempts.append(watch(cameras))
        if not attempts[-1].is_kept_up:
            attempts.append(watch(cameras))  # one pause of the machine must not decide
        return attempts[-1].is_kept_up

    good, bad = 0, 1
    while bad <= most and keeps_up(bad):
        good, bad = bad, bad * 2
    while bad - good > 1 and bad <= most:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if keeps_up(middle) else (good, middle)
    return attempts


def main() -> int:
    """Search several times, and print each attempt, and the median of the results."""
    options = _parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    try:
        cameras = _cameras(options)
        found = []
        for _ in range(options.repeats):
            attempts = find_most(cameras.watch)
            console.print(draw(attempts))
            found.append(max((each.cameras for each in attempts if each.is_kept_up), default=0))
    except (LoadTestError, api_key.AccessError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    runs = f", of {', '.join(map(str, found))}" if len(found) > 1 else ""
    console.print(
        f"{options.model}: {statistics.median_low(found)} cameras at {options.fps:g} frames/s{runs}: at least"
        f" {_SHARE:.0%} of the frames within {cameras.limit_ms:g} ms, none dropped",
        highlight=False,
    )
    return 0


def draw(attempts: list[Watched]) -> Table:
    """A row for each attempt."""
    table = Table()
    for name in ("cameras", "frames", "dropped", "failed", "in time", "p50, ms", "p99, ms", "kept up"):
        table.add_column(name, justify="right")
    for each in attempts:
        shown = (each.cameras, each.frames, each.dropped, each.failed, f"{each.in_time:.1%}")
        times = (f"{each.p50_ms:.1f}", f"{each.p99_ms:.1f}", "yes" if each.is_kept_up else "no")
        table.add_row(*map(str, shown), *times)
    return table


def _cameras(options: argparse.Namespace) -> Cameras:
    """Cameras whose first frame had a result.

    Raises:
        LoadTestError: it had none.
        AccessError: the server requires a key, or another one.
    """
    if not options.picture.is_file():
        raise LoadTestError(f"{options.picture}: no such file; expected an image")
    url = options.url.rstrip("/")
    try:
        response = httpx.post(
            f"{url}/predict/{options.model}", content=options.picture.read_bytes(), trust_env=False, timeout=60,
            headers=api_key.headers() | {"Content-Type": "application/octet-stream"},
        )  # fmt: skip
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise LoadTestError(f"{url}: {exc}; next: make serve") from exc
    api_key.check(url, response.status_code, response.text)
    if response.is_error:
        raise LoadTestError(f"{url}: {response.status_code} {response.text[:300]}")
    http = urlsplit(url).netloc
    plan = Plan(http, "", options.model, image_path=str(options.picture), kinds=("predict",), is_parsed=False)
    return Cameras(http, plan.requests()[0], options.fps, options.seconds, options.limit_ms or 1000 / options.fps)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m loadtest.cameras", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the server (default: %(default)s)")
    parser.add_argument("--model", default="digit-finder", help="(default: %(default)s)")
    parser.add_argument("--picture", type=Path, default=IMAGE, help="each frame (default: %(default)s)")
    parser.add_argument("--fps", type=positive, default=5.0, help="of each camera (default: %(default)s)")
    parser.add_argument("--seconds", type=positive, default=10.0, help="of each attempt (default: %(default)s)")
    parser.add_argument("--limit-ms", type=positive, help="from a frame to its result (default: one frame period)")
    parser.add_argument("--repeats", type=count, default=3, help="of the search (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
