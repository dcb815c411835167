"""A source on its way to the outputs."""

import argparse
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from integrations.track.outputs import Drawing, Lines
from integrations.track.report import Counts
from integrations.track.server import Server
from integrations.track.source import Frame, Source
from integrations.track.tracks import Tracks

Output = Drawing | Lines
Sent = tuple[Frame, "Future[tuple[dict[str, Any], float] | None]"]


class Run:
    """A source on its way to the outputs."""

    def __init__(self, options: argparse.Namespace, counts: Counts, stack: ExitStack) -> None:
        """Open everything; the stack closes it.

        Raises:
            TrackError: of the source, the server or an output.
        """
        self._counts, self._in_flight = counts, options.in_flight
        self._server = Server(options)
        stack.callback(self._server.close)
        self.source = Source(options.source, counts, fps=options.fps, live=options.live)
        stack.callback(self.source.close)
        rate = min(options.fps or self.source.rate, self.source.rate)
        self._tracks = Tracks(options, rate)
        self._outputs: list[Output] = []
        if options.jsonl:
            self._outputs.append(Lines(options.jsonl))
        if options.draw:
            self._outputs.append(Drawing(options.draw, rate))
        for output in self._outputs:
            stack.callback(output.close)
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(options.in_flight, thread_name_prefix="request")
        stack.callback(self._pool.shutdown, wait=False, cancel_futures=True)  # a request may hang
        stack.callback(self._server.stop)
        stack.callback(self._stopped.set)

    def frames(self) -> Iterator[None]:
        """Track until the source ends; yields after each frame.

        Raises:
            TrackError: the source or the server cannot go on.
        """
        sent: deque[Sent] = deque()
        while sent or not self.source.has_ended:
            if len(sent) == self._in_flight or (sent and (sent[0][1].done() or self.source.has_ended)):
                self._finish(*sent.popleft())
                yield
            elif frame := self.source.get(unless=lambda: bool(sent) and sent[0][1].done()):
                self._send(frame, sent)

    def _send(self, frame: Frame, sent: deque[Sent]) -> None:
        if self.source.is_live and self._server.is_away:
            self._counts.failed += 1
            return
        until = None if self.source.is_live else self._stopped.is_set
        future = self._pool.submit(lambda: self._server.infer(frame.image, until=until))
        future.add_done_callback(lambda _: self.source.wake())
        sent.append((frame, future))

    def _finish(self, frame: Frame, future: "Future[tuple[dict[str, Any], float] | None]") -> None:
        result = future.result()
        if result is None:
            self._counts.failed += 1
            return
        document, latency_ms = result
        self._counts.sent += 1
        self._counts.latencies_ms.append(latency_ms)
        self._counts.ages_ms.append((time.monotonic() - frame.read_at) * 1000)
        moment_s = frame.read_at if self.source.is_live else frame.time_s
        tracked = self._tracks.update(document["predictions"], moment_s)
        self._counts.add_tracks(each["tracker_id"] for each in tracked)
        time_s = round(frame.time_s, 3)
        line = {"frame": frame.number, "time": time_s, "image": document["image"], "predictions": tracked}
        for output in self._outputs:
            output.write(frame, line)
