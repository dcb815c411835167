"""The loop: look at Triton, list the repository, and have each model worked on that needs it.

Each model is worked on in a thread of a pool, so that a large download holds up nothing else.
"""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event

from predictor.contract import CANDIDATE_PREFIX
from predictor.synchroniser.errors import TritonError
from predictor.synchroniser.reconciler import Model
from predictor.synchroniser.shared import Listed, Shared
from predictor.synchroniser.status import ModelStatus, now
from registry.errors import StorageError, printable
from registry.layout import MAX_FOLDER_OBJECTS, MAX_MODELS, Listing, gather, limit_models, read_layout

log = logging.getLogger("synchroniser")

_TICK_S = 1.0  # between two looks at Triton
_WORKERS = 4  # each may need memory for one version more
_IGNORED_SHOWN = 200


class Synchroniser:
    """Makes what Triton serves what the repository holds."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._storage = shared.storage
        self._status = shared.status
        self._models: dict[str, Model] = {}
        self._wake = Event()
        self._met_triton = False
        self._triton_away = ""  # why, as it was logged last
        self._failed_requests: dict[str, int] = {}  # of requests, by model, as Triton counts them
        self._counts_failures = True
        self._first: set[str] | None = None  # models of the first listing
        self._listing: Future[Listing] | None = None
        self._listing_began = 0.0
        self._listing_since = ""
        self._next_listing = 0.0
        self._listing_failures = 0
        self._ignored: Mapping[str, str] = {}

    def stop(self) -> None:
        """Make `run` return soon."""
        self._shared.stopped.set()
        self._wake.set()

    def run(self) -> None:
        """Work until `stop`."""
        for name in self._shared.mirror.names():
            self._models[name] = Model(name, self._shared)
            log.info("%s: the mirror holds version %s", name, ", ".join(map(str, self._models[name].serving)))
        pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="model")
        lister = ThreadPoolExecutor(1, thread_name_prefix="listing")
        try:
            while not self._shared.stopped.is_set():
                self._wake.clear()
                self._look_at_triton()
                self._look_at_repository(lister)
                self._hand_out(pool)
                self._look_at_readiness()
                self._wake.wait(self._pause())
        finally:
            self._shared.stopped.set()
            for executor in (lister, pool):
                executor.shutdown(wait=False, cancel_futures=True)

    def _look_at_triton(self) -> None:
        up = self._shared.triton_up
        try:
            index = self._shared.triton.index()
        except TritonError as exc:
            # Again where the reason is another one: "restricted" after "not ready" is no Triton that is still to come.
            if up.is_set() or str(exc) != self._triton_away:
                log.warning("%s; waiting for it", exc)
            if up.is_set() or not self._triton_away:
                self._note_triton(up=False)
            self._triton_away = str(exc)
            return
        if not up.is_set():
            log.info("Triton at %s answers", self._shared.triton.url)
            self._note_triton(up=True)
        if not self._met_triton:
            self._met_triton = True
            # What a synchroniser that was killed was trying.
            for name in index:
                if name.startswith(CANDIDATE_PREFIX):
                    with suppress(TritonError):
                        self._shared.triton.unload(name)
        for model in self._models.values():
            ready = {version for version, state in index.get(model.name, {}).items() if state == "READY"}
            if model.task is None and model.loaded and not {str(version) for version in model.serving} <= ready:
                log.warning("%s: Triton has lost it", model.name)
                model.loaded = False
        self._look_at_failures()

    def _look_at_failures(self) -> None:
        """Suspect models whose requests have failed; without Triton's statistics everything else goes on."""
        try:
            failures = self._shared.triton.failures()
        except TritonError as exc:
            if self._counts_failures:
                self._counts_failures = False
                log.warning("statistics: %s; models whose requests fail are not noticed meanwhile", exc)
            return
        if not self._counts_failures:
            self._counts_failures = True
            log.info("statistics: Triton at %s gives them again", self._shared.triton.url)
        for model in self._models.values():
            if failures.get(model.name, 0) > self._failed_requests.get(model.name, 0):
                model.is_suspect = True
        self._failed_requests = failures

    def _note_triton(self, *, up: bool) -> None:
        if up:
            self._shared.triton_up.set()
        else:
            self._shared.triton_up.clear()
        self._status.metrics.triton.set(up)
        self._status.set(triton={"ok": up, "since": now()})

    def _look_at_repository(self, lister: ThreadPoolExecutor) -> None:
        if self._listing is None:
            if time.monotonic() >= self._listing_due():
                self._listing_began, self._listing_since = time.monotonic(), now()
                known = {name for name, model in self._models.items() if model.serving}
                self._listing = lister.submit(gather, self._storage.walk(), known=known)
                self._listing.add_done_callback(lambda _: self._wake.set())
            return
        if not self._listing.done():
            return
        listing, self._listing = self._listing, None
        try:
            found = listing.result()
            holds_nothing = all(item.key.endswith("/") for item in found.objects)
            if holds_nothing and any(model.serving for model in self._models.values()):
                raise StorageError(f"{self._storage.url}: the listing is empty while models serve: taken for a mistake")
            self._note_listing(found)
        except StorageError as exc:
            self._note_failed_listing(exc)
        except Exception as exc:  # a defect of ours, or of a file system's, must not end what serves
            log.exception("%s: a defect", self._storage.url)
            self._note_failed_listing(StorageError(f"{self._storage.url}: {type(exc).__name__}: {exc}"))

    def _listing_due(self) -> float:
        """When the next listing begins: after the interval, or sooner where files have had time to settle."""
        if self._listing_failures:
            return self._next_listing
        settles = (model.settles for model in self._models.values())
        # One that has passed was seen by the listing that began after it.
        return min([self._next_listing, *(at for at in settles if at is not None and at > self._listing_began)])

    def _note_failed_listing(self, error: StorageError) -> None:
        self._listing_failures += 1
        pause = self._shared.pause_after(self._listing_failures)
        self._next_listing = time.monotonic() + pause
        before = self._status.as_json()["listing"]
        # Since it began: a storage that hangs is noticed later.
        since = before["failing_since"] or self._listing_since
        self._status.set(listing={**before, "ok": False, "failing_since": since, "error": str(error)})
        self._status.metrics.listings.labels("failed").inc()
        log.warning("%s; what serves goes on serving; next try in %.0f s", error, pause)

    def _note_listing(self, found: Listing) -> None:
        if self._listing_failures:
            log.info("%s can be listed again", self._storage.url)
        self._listing_failures = 0
        self._next_listing = self._listing_began + self._shared.settings.poll_s
        self._status.set(listing={"ok": True, "at": now(), "failing_since": None, "error": None})
        self._status.metrics.listings.labels("ok").inc()
        self._status.metrics.listed.set_to_current_time()
        folders, reasons = read_layout(found.objects)
        # A key may be no UTF-8, which /status could not send to its readers.
        ignored = {printable(key): why for key, why in reasons.items()}
        too_many = limit_models(folders, self._models.keys())
        too_many |= dict.fromkeys(found.beyond, f"got more models than are listed, expected at most {MAX_MODELS}")
        reason = f"got more than {MAX_FOLDER_OBJECTS} objects, expected fewer; what serves of it goes on serving"
        overfull = dict.fromkeys(found.overfull, reason)
        rest = {"...": f"{found.left_out} more that belong nowhere"} if found.left_out else {}
        too_much = too_many | overfull
        strange = {key.removesuffix("/"): why for key, why in ignored.items() if key.endswith("/")}
        self._warn(ignored | {f"{name}/": why for name, why in too_much.items()} | rest)
        self._status.set_folders(strange | too_much, more=found.left_out)
        newest = found.newest or datetime.now(UTC)
        folders = {name: folder for name, folder in folders.items() if name not in too_many}
        within: dict[str, str] = {}  # the first reason of each folder
        for key, why in sorted(ignored.items()):
            within.setdefault(key.partition("/")[0], f"{key}: {why}")
        for name in (self._models.keys() | folders.keys()) - found.overfull:
            model = self._models.get(name)
            if model is None:
                model = self._models[name] = Model(name, self._shared)
                self._status.set_model(name, ModelStatus())
            model.listed = Listed(folders.get(name), self._listing_began, newest, within.get(name, ""))
        if not self._first:
            self._first = {name for name, folder in folders.items() if folder.versions}

    def _warn(self, ignored: Mapping[str, str]) -> None:
        for key in sorted(ignored.keys() - self._ignored.keys())[:_IGNORED_SHOWN]:
            log.warning("ignored: %s: %s", key[:200], ignored[key][:200])
        self._ignored = ignored
        shown = dict(sorted(ignored.items())[:_IGNORED_SHOWN])
        if len(ignored) > len(shown):
            shown["..."] = f"{len(ignored) - len(shown)} more"
        self._status.set(ignored=shown)

    def _hand_out(self, pool: ThreadPoolExecutor) -> None:
        for name, model in list(self._models.items()):
            if model.task is not None and model.task.done():
                model.task = None
            if model.task is None and model.needs_work():
                model.task = pool.submit(model.work)
                model.task.add_done_callback(lambda _: self._wake.set())
            elif model.is_gone:
                del self._models[name]
                self._status.set_model(name, None)

    def _look_at_readiness(self) -> None:
        if self._status.ready:
            return
        if not self._shared.triton_up.is_set():
            self._status.set_ready(f"Triton at {self._shared.triton.url}")
            return
        if self._first:
            pending = [name for name in self._first if name in self._models and not self._models[name].is_settled]
        elif (self._listing_failures or self._first is not None) and self._models:
            # The repository is away, or suddenly empty: what the mirror holds from before is better than nothing.
            pending = [name for name, model in self._models.items() if not model.loaded]
        else:
            awaited = "the repository" if self._first is None else "the first model in"
            self._status.set_ready(f"{awaited} {self._storage.url}")
            return
        # A model that fails again and again must not hold up others; where nothing serves, the pod before is better.
        if any(model.loaded for model in self._models.values()):
            pending = [name for name in pending if not self._models[name].fails]
        if pending:
            self._status.set_ready(f"models: {', '.join(sorted(pending))}")
        elif not any(model.loaded for model in self._models.values()):
            # A rollout to a repository that is wrong as a whole would replace good pods by ones that serve nothing.
            refused = ", ".join(sorted(self._models)) or "none"
            self._status.set_ready(f"a model that serves; refused: {refused}")
        else:
            self._status.set_ready(None)
            log.info("ready")

    def _pause(self) -> float:
        """Seconds until something may be due."""
        times = [time.monotonic() + _TICK_S, *(model.next_time() for model in self._models.values())]
        if self._listing is None:
            times.append(self._listing_due())
        return max(min(at for at in times if at is not None) - time.monotonic(), 0.01)
