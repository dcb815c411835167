"""One model under a reconciler, with a repository in a folder and a clock that the test moves."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from predictor.settings import Settings
from predictor.synchroniser.mirror import Mirror
from predictor.synchroniser.reconciler import ModelReconciler
from predictor.synchroniser.services import Services
from predictor.synchroniser.status import Status
from predictor.synchroniser.traffic import Traffic
from predictor.synchroniser.triton_client import TritonClient
from predictor.synchroniser.uploads import ModelListing
from registry.layout import read_layout
from registry.signatures.trust import Trust
from registry.storage.reading import FolderStorage, Storage

MODEL = "rows"
_MAX_STEPS = 50


@dataclass
class Clock:
    """Monotonic time, and what the test adds to it."""

    passed_s: float = 0.0

    def __call__(self) -> float:
        """The time."""
        return time.monotonic() + self.passed_s


@dataclass
class Reconciled:
    """A reconciler and what it works with.

    Attributes:
        repository: folder of the repository.
        reconciler: of the model `rows`.
        status: of the synchroniser.
        clock: of the reconciler.
        traffic: of Triton, as the loop notes it.
    """

    repository: Path
    reconciler: ModelReconciler
    status: Status
    clock: Clock = field(default_factory=Clock)
    traffic: Traffic = field(default_factory=Traffic)

    def list(self) -> None:
        """Give the reconciler a new listing of the repository."""
        objects = list(FolderStorage(self.repository).walk())
        folders, _ = read_layout(objects)
        self.reconciler.listing = ModelListing(folders.get(MODEL), self.clock(), datetime.now(UTC))

    def reconcile(self) -> None:
        """Reconcile as the loop does: step by step, until something has to be waited for."""
        self.reconciler.reconcile()
        for _ in range(_MAX_STEPS):
            if not self.reconciler.is_due:
                return
            self.reconciler.reconcile()
        raise AssertionError("the reconciler does not come to rest")

    def list_and_reconcile(self) -> None:
        """Do both."""
        self.list()
        self.reconcile()

    def states(self) -> dict[str, tuple[str, str | None]]:
        """Return state and reason of each version in `/status`."""
        versions = self.status.model(MODEL).versions
        return {number: (version.state, version.reason) for number, version in versions.items()}

    @property
    def serving(self) -> tuple[str, ...]:
        """Versions that serve, by `/status`."""
        return self.status.model(MODEL).serving

    @property
    def error(self) -> str:
        """Error of the model in `/status`."""
        return self.status.model(MODEL).error or ""


@contextmanager
def reconciled(
    folder: Path, *, triton: str, storage: Storage | None = None, trust: Trust | None = None, **settings: Any
) -> Iterator[Reconciled]:
    """Reconcile the model of a repository.

    Args:
        folder: with the repository in `repository`; the mirror is beside it.
        triton: `host:port` of a Triton; it counts as up.
        storage: of the repository; the folder's own where None.
        trust: whose signatures are required.
        settings: of the synchroniser.
    """
    repository = folder / "repository"
    repository.mkdir(exist_ok=True)
    mirror = Mirror(folder / "mirror")
    status, clock = Status(str(repository)), Clock()
    client = TritonClient(triton, secret="", load_timeout_s=5)
    client.up.set()
    services = Services(
        Settings(repository=str(repository), mirror=folder / "mirror", **{"poll_s": 0.1, **settings}),
        storage=storage or FolderStorage(repository),
        mirror=mirror,
        triton=client,
        status=status,
        clock=clock,
        traffic=Traffic(clock),
        trust=trust,
    )
    reconciler = ModelReconciler(MODEL, services)
    try:
        yield Reconciled(repository, reconciler, status, clock, services.traffic)
    finally:
        mirror.close()
