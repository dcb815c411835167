"""Frames of a video file, a stream or a webcam."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from integrations.track.report import Counts, TrackError, say

Image = NDArray[np.uint8]  # height x width x 3, BGR

_OPEN_S, _READ_S = 10.0, 10.0  # a camera that sends nothing for so long is away
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_STEADY_S = 10.0  # a camera that was there for so long begins with the first pause again
_CLOSE_S = 1.0  # a camera that hangs is left to the end of the process
_QUEUE = 4  # decoded frames of a file that wait


@dataclass
class Frame:
    """One image of the video.

    Attributes:
        number: from 0, of all that were decoded.
        time_s: in the video; of a live source since 1970.
        read_at: `time.monotonic()` when it was decoded.
    """

    number: int
    time_s: float
    read_at: float
    decoded: Any

    @cached_property
    def image(self) -> Image:
        """Its pixels; converted where they are wanted, which those of a dropped frame are not."""
        pixels: Image = self.decoded.to_ndarray(format="bgr24")
        return pixels


class Source:
    """Frames, decoded in a thread: of a file each one, of a live source the newest one."""

    def __init__(self, address: str, counts: Counts, *, fps: float | None, live: bool) -> None:
        """Open it.

        Args:
            address: a file, a URL, a device, or the number of a webcam.
            counts: are kept here.
            fps: frames per second that are wanted at most; None: all.
            live: read a file at its own rate, as if it were a camera.

        Raises:
            TrackError: there is no such video.
        """
        self.name, self._address = hide_password(address), address
        self._counts, self._fps = counts, fps
        self._container = self._open()
        self._opened_at = time.monotonic()
        stream = self._container.streams.video[0]
        self._is_file = self._container.duration is not None
        self.is_live = live or not self._is_file
        stream.thread_type = "SLICE" if self.is_live else "AUTO"  # several frames at once come later, all of them
        self.rate = float(stream.average_rate or stream.base_rate or 25)
        self.frames = stream.frames
        self._waiting: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: TrackError | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self._thread.start()

    def get(self, *, unless: Callable[[], bool]) -> Frame | None:
        """The next frame; None where `unless` became true before, which `wake` has it look at, or none will come.

        Raises:
            TrackError: the source cannot be read any further.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended or unless())
            if self._waiting:
                frame = self._waiting.popleft()
                self._changed.notify_all()
                return frame
            if self._error is not None:
                raise self._error
            return None

    def wake(self) -> None:
        """Have `get` look at its condition."""
        with self._changed:
            self._changed.notify_all()

    @property
    def has_ended(self) -> bool:
        """Whether no further frame will come."""
        with self._changed:
            return self._ended and not self._waiting

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)

    def _open(self) -> Any:
        address, kind = self._address, None
        if re.fullmatch(r"\d{1,2}", address):
            address = f"/dev/video{address}"
        if address.startswith("/dev/"):
            kind = "v4l2"
        options = {"rtsp_transport": "tcp"} if address.startswith("rtsp") else {}
        try:
            container = av.open(address, format=kind, options=options, timeout=(_OPEN_S, _READ_S))
        except (av.FFmpegError, OSError, ValueError) as exc:
            raise TrackError(f"{self.name}: {reason(exc)}; expected a video file, rtsp://... or /dev/video0") from exc
        if not container.streams.video:
            container.close()
            raise TrackError(f"{self.name}: got no video stream, expected one")
        return container

    def _run(self) -> None:
        try:
            self._read()
        except TrackError as exc:
            self._error = exc
        finally:
            self._container.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read(self) -> None:
        """Read to the end; a live source that is lost is opened again."""
        while not self._stop.is_set():
            why = "no more frames"
            try:
                self._decode()
            except (av.FFmpegError, OSError) as exc:
                why = reason(exc)
                if not self.is_live:
                    raise TrackError(f"{self.name}: broken after frame {self._counts.read - 1}: {why}") from exc
            if self._is_file:
                return
            self._reconnect(why)

    def _reconnect(self, why: str) -> None:
        lost_at = time.monotonic()
        self._container.close()
        if lost_at - self._opened_at > _STEADY_S:
            self._pause_s = _FIRST_PAUSE_S
        while not self._stop.is_set():
            say(f"source: {self.name}: {why}; next attempt in {self._pause_s:g} s")
            if self._stop.wait(self._pause_s):
                return
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
            try:
                self._container = self._open()
            except TrackError as exc:
                why = reason(exc.__cause__) if exc.__cause__ else "no video stream"
                continue
            self._opened_at = time.monotonic()
            say(f"source: {self.name}: is back after {self._opened_at - lost_at:.1f} s")
            return

    def _decode(self) -> None:
        began, due_s = time.monotonic(), float("-inf")
        period_s = 1 / self._fps if self._fps else 0.0
        for decoded in self._container.decode(video=0):
            time_s = float(decoded.time or 0.0)
            pause_s = max(began + time_s - time.monotonic(), 0) if self._is_file and self.is_live else 0
            if self._stop.wait(pause_s):
                return
            at = time.monotonic()
            number, self._counts.read = self._counts.read, self._counts.read + 1
            moment_s = at if self.is_live else time_s
            if moment_s < due_s - period_s / 10:  # cameras are not that regular
                self._counts.skipped += 1
                continue
            # On a grid, so that of 30 frames/s 20 are taken, and not 15; unless there was a gap.
            due_s = (due_s if moment_s < due_s + period_s else moment_s) + period_s
            self._put(Frame(number, time.time() if self.is_live else time_s, at, decoded))

    def _put(self, frame: Frame) -> None:
        with self._changed:
            if self.is_live:
                self._counts.dropped += len(self._waiting)
                self._waiting.clear()
            else:
                self._changed.wait_for(lambda: len(self._waiting) < _QUEUE or self._stop.is_set())
            self._waiting.append(frame)
            self._changed.notify_all()


def hide_password(address: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", address)


def reason(exc: BaseException) -> str:
    text = getattr(exc, "strerror", None) or str(exc)
    return {"Invalid data found when processing input": "not a video", "Input/output error": "no data"}.get(text, text)
