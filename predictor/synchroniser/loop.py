"""The loop: polls Triton, lists the repository, and reconciles each model that is due.

Each model is reconciled in a thread of a pool, so that a large download blocks nothing else.
"""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from predictor.synchroniser.readiness import explain_wait
from predictor.synchroniser.reconciler import ModelReconciler
from predictor.synchroniser.repository_watch import RepositoryListing, RepositoryWatch
from predictor.synchroniser.services import Services
from predictor.synchroniser.status import ModelStatus
from predictor.synchroniser.triton_watch import TritonWatch

log = logging.getLogger("synchroniser")

_TICK_S = 1.0  # between two polls of Triton
_TICK_DOWN_S = 0.1  # while it does not respond: every model waits for it
_WORKERS = 4  # each may need memory for one version more


class Synchroniser:
    """Has Triton serve what the repository holds."""

    def __init__(self, services: Services) -> None:
        """Prepare the loop; `run` begins it."""
        self._services, self._triton, self._status = services, services.triton, services.status
        self._models: dict[str, ModelReconciler] = {}
        self._wake, self._stopped = Event(), services.stopped
        self._triton_watch = TritonWatch(self._triton, self._status, services.traffic)
        self._repository_watch = RepositoryWatch(services.storage, self._status, poll_s=services.settings.poll_s)
        self._first: set[str] | None = None  # models of the first listing

    def stop(self) -> None:
        """Make `run` return soon."""
        self._stopped.set()
        self._wake.set()

    def run(self) -> None:
        """Run until `stop`."""
        for name in self._services.mirror.names():
            self._models[name] = ModelReconciler(name, self._services)
            log.info("%s: the mirror holds version %s", name, ", ".join(map(str, self._models[name].serving)))
        pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="model")
        try:
            while not self._stopped.is_set():
                self._wake.clear()
                self._triton_watch.poll(self._models.values())
                self._poll_repository()
                self._submit(pool)
                self._update_readiness()
                self._wake.wait(self._pause_s())
        finally:
            self._stopped.set()
            self._repository_watch.close()
            pool.shutdown(wait=False, cancel_futures=True)

    def _poll_repository(self) -> None:
        listing = self._repository_watch.poll(
            known=self._models.keys(),
            serving=[name for name, model in self._models.items() if model.serving],
            settles_at=self._settles_at(),
            wake=self._wake.set,
        )
        if listing is not None:
            self._update_models(listing)

    def _update_models(self, listing: RepositoryListing) -> None:
        for name in (self._models.keys() | listing.folders.keys()) - listing.overfull:
            if name not in self._models:
                self._models[name] = ModelReconciler(name, self._services)
                self._status.set_model(name, ModelStatus())
            self._models[name].listing = listing.model(name)
        if not self._first:
            self._first = {name for name, folder in listing.folders.items() if folder.versions}

    def _submit(self, pool: ThreadPoolExecutor) -> None:
        for name, model in list(self._models.items()):
            if model.task is not None and model.task.done():
                model.task = None
            if model.task is None and model.is_due:
                model.task = pool.submit(model.reconcile)
                model.task.add_done_callback(lambda _: self._wake.set())
            elif model.is_gone:
                del self._models[name]
                self._status.set_model(name, None)

    def _update_readiness(self) -> None:
        if self._status.ready:
            return
        if not self._triton.up.is_set():
            self._status.set_ready(f"Triton at {self._triton.url}")
            return
        waiting_for = explain_wait(
            self._models,
            first=self._first,
            is_listing_failing=bool(self._repository_watch.failures),
            url=self._repository_watch.url,
        )
        self._status.set_ready(waiting_for)
        if waiting_for is None:
            log.info("ready")

    def _settles_at(self) -> list[float]:
        return [at for model in self._models.values() if (at := model.settles_at) is not None]

    def _pause_s(self) -> float:
        """Seconds until something may be due."""
        times = [
            time.monotonic() + (_TICK_S if self._triton.up.is_set() else _TICK_DOWN_S),
            self._repository_watch.next_listing(self._settles_at()),
            *(model.next_due for model in self._models.values()),
        ]
        return max(min(at for at in times if at is not None) - time.monotonic(), 0.01)
