"""What all models work with, and what a listing shows of one."""

import threading
from dataclasses import dataclass
from datetime import datetime

from predictor.settings import Settings
from predictor.sync.mirror import Mirror
from predictor.sync.status import Status
from predictor.sync.triton import Triton
from registry.layout import ModelFolder
from registry.storage.reading import Storage

LONGEST_PAUSE_S = 60.0


class Shared:
    """What all models work with.

    Attributes:
        triton_up: set while Triton responds.
        leftovers: versions that were being tried when a process before this one ended, by model and fingerprint.
        alone: held while a version is tried and there are leftovers: the one at fault must be alone to show it.
        stopped: set when the process ends.
    """

    def __init__(self, settings: Settings, *, storage: Storage, triton: Triton, mirror: Mirror, status: Status) -> None:
        self.settings = settings
        self.storage = storage
        self.triton = triton
        self.mirror = mirror
        self.status = status
        self.triton_up = threading.Event()
        self.leftovers: set[tuple[str, str]] = set()
        self.alone = threading.Lock()
        self.stopped = threading.Event()

    def pause_after(self, failures: int) -> float:
        """Seconds until the next try, growing."""
        return float(min(max(self.settings.poll_s, 1.0) * 2 ** min(failures - 1, 16), LONGEST_PAUSE_S))


@dataclass(frozen=True)
class Listed:
    """What a listing showed of a model.

    Attributes:
        folder: None where the model is not there.
        began: monotonic time when the listing began.
        newest: of all objects of the repository: the clock of the storage is at least there.
        ignored: why something in its folder is no part of it; empty where everything is.
    """

    folder: ModelFolder | None
    began: float
    newest: datetime
    ignored: str = ""
