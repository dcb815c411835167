"""`python -m integrations.track <source> <model>`: track until the source ends or Ctrl-C."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from integrations import track
from integrations.track.report import CONSOLE, Counts, TrackError, say
from integrations.track.run import Run
from integrations.track.source import Source


def main() -> int:
    """Track until the source ends or Ctrl-C; 0 where it did."""
    options = _parser().parse_args()
    counts = Counts()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    status = 0
    with ExitStack() as stack:
        try:
            run = Run(options, counts, stack)
            progress = stack.enter_context(_progress(run.source))
            task = progress.add_task(run.source.name, total=run.source.frames or None)
            for _ in run.frames():
                progress.update(task, completed=counts.read)
            progress.update(task, completed=counts.read)
        except KeyboardInterrupt:
            say("stopped")
        except TrackError as exc:
            say(f"error: {exc}")
            status = 1
        except BrokenPipeError:
            say("stopped: what read the JSON lines has ended")
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if counts.read:
        say(counts.summary())
    return status


def _progress(source: Source) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=CONSOLE, disable=source.is_live or not CONSOLE.is_terminal, transient=True)


def _number(least: float, most: float, kind: type = float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from {least:g} to {most:g}")
        return value

    return read


def _size(text: str) -> str:
    if text in {"model", "full"} or (text.isdecimal() and int(text) >= 32):
        return text
    raise argparse.ArgumentTypeError(f"got {text!r}, expected model, full or pixels from 32")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m integrations.track", description=(track.__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("source", help="video file, rtsp://user:password@host/path, /dev/video0, or 0 for that")
    parser.add_argument("model", help="name of a model that finds objects")
    parser.add_argument("--url", default="http://localhost:8080", help="of the server (default: %(default)s)")
    parser.add_argument("--jsonl", metavar="FILE", help="write a line of JSON for each frame; -: standard output")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="write the video with boxes and tracks: out.mp4")
    parser.add_argument("--fps", type=_number(0.01, 1000), help="frames per second that are sent (default: all)")
    parser.add_argument("--live", action="store_true", help="read a file at its own rate, newest frame only")
    parser.add_argument(
        "--in-flight", type=_number(1, 64, int), default=2, help="requests at once (default: %(default)s)"
    )
    parser.add_argument(
        "--size", type=_size, default="model",
        help="longest side that is sent: the model's own (default), full, or pixels; none is enlarged",
    )  # fmt: skip
    parser.add_argument("--quality", type=_number(1, 100, int), default=90, help="of the JPEG (default: %(default)s)")
    parser.add_argument("--classes", help="names, separated by commas (default: all)")
    parser.add_argument(
        "--confidence", type=_number(0, 1), default=0.1,
        help="of boxes that the server returns; ByteTrack keeps tracks by weak ones (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--new-track", type=_number(0, 1), default=0.5, help="confidence that begins a track (default: %(default)s)"
    )
    parser.add_argument("--max-detections", type=_number(1, 1000, int), default=300, help="(default: %(default)s)")
    parser.add_argument("--tracker", choices=("bytetrack", "sort", "ocsort"), default="bytetrack")
    parser.add_argument(
        "--lost", type=_number(0, 3600), default=1.0, metavar="SECONDS",
        help="for which a track outlives its object (default: %(default)s)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    os._exit(ended)  # without the threads of requests and of a camera that hang
