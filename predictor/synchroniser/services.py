"""Services that the reconcilers of all models share."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from predictor.settings import Settings
from predictor.synchroniser.isolation import Isolation
from predictor.synchroniser.mirror import Mirror
from predictor.synchroniser.status import Status
from predictor.synchroniser.traffic import Traffic
from predictor.synchroniser.triton_client import TritonClient
from registry.signatures.trust import Trust
from registry.storage.reading import Storage


@dataclass(frozen=True)
class Services:
    """The services of one synchroniser.

    Attributes:
        settings: of the synchroniser.
        storage: of the repository.
        mirror: of the repository, on this disk.
        triton: that serves the mirror.
        status: of the synchroniser, with its metrics.
        trust: whose signatures are required; None: signatures are not looked at.
        isolation: of trials.
        traffic: of Triton.
        measuring: held while a profile is measured, one at a time.
        stopped: set where the synchroniser ends.
        clock: monotonic time.
    """

    settings: Settings
    storage: Storage
    mirror: Mirror
    triton: TritonClient
    status: Status
    trust: Trust | None = None
    isolation: Isolation = field(default_factory=Isolation)
    traffic: Traffic = field(default_factory=Traffic)
    measuring: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
