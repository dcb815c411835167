"""Watches the model repository: lists it on a schedule, in a thread of its own."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from environment.log_lines import printable
from predictor.synchroniser.retries import pause_after
from predictor.synchroniser.status import Status, now
from predictor.synchroniser.uploads import ModelListing
from registry.errors import StorageError
from registry.layout import ModelFolder, read_layout
from registry.listing import MAX_FOLDER_OBJECTS, MAX_MODELS, Listing, gather, limit_models
from registry.storage.reading import Storage

log = logging.getLogger("synchroniser")

_MAX_IGNORED = 200  # files that the log and /status name


@dataclass(frozen=True)
class RepositoryListing:
    """A listing of the repository.

    Attributes:
        folders: models by name.
        overfull: folders with too many objects: unknown, so their models stay as they are.
        began: monotonic time when the listing began.
        newest: modification time of the newest object.
        ignored: why a file of a folder is ignored, by the folder: the first reason.
    """

    folders: Mapping[str, ModelFolder]
    overfull: Set[str]
    began: float
    newest: datetime
    ignored: Mapping[str, str]

    def model(self, name: str) -> ModelListing:
        """Return the listing of one model."""
        return ModelListing(self.folders.get(name), self.began, self.newest, self.ignored.get(name, ""))


class RepositoryWatch:
    """Lists the repository; used in the loop's thread.

    Attributes:
        url: of the repository.
        failures: failed listings in a row.
    """

    def __init__(self, storage: Storage, status: Status, *, poll_s: float) -> None:
        """Begin with a listing that is due at once."""
        self.url = storage.url
        self.failures = 0
        self._storage, self._status, self._poll_s = storage, status, poll_s
        self._lister = ThreadPoolExecutor(1, thread_name_prefix="listing")
        self._listing: Future[Listing] | None = None
        self._began = 0.0
        self._began_utc = ""
        self._next = 0.0
        self._ignored: Mapping[str, str] = {}

    def close(self) -> None:
        """Let the thread end."""
        self._lister.shutdown(wait=False, cancel_futures=True)

    def next_listing(self, settles_at: Collection[float]) -> float | None:
        """Return the monotonic time of the next listing; None while one is in progress.

        Args:
            settles_at: when uploads have had the time to settle: a listing is due then.
        """
        if self._listing is not None:
            return None
        if self.failures:
            return self._next
        # A listing that began after such a time has seen the upload settled.
        return min([self._next, *(at for at in settles_at if at > self._began)])

    def poll(
        self,
        *,
        known: Collection[str],
        serving: Collection[str],
        settles_at: Collection[float],
        wake: Callable[[], None],
    ) -> RepositoryListing | None:
        """Begin a listing that is due, or return one that has ended.

        Args:
            known: models of before, which stay where there are too many.
            serving: models that serve.
            settles_at: as in `next_listing`.
            wake: called when a listing has ended.
        """
        if self._listing is None:
            due = self.next_listing(settles_at)
            if due is not None and time.monotonic() >= due:
                self._began, self._began_utc = time.monotonic(), now()
                self._listing = self._lister.submit(gather, self._storage.walk(), known=set(serving))
                self._listing.add_done_callback(lambda _: wake())
            return None
        if not self._listing.done():
            return None
        listing, self._listing = self._listing, None
        try:
            found = listing.result()
            if serving and all(item.key.endswith("/") for item in found.objects):
                raise StorageError(f"{self.url}: the listing is empty while models serve: taken for a mistake")
            return self._read(found, known)
        except StorageError as exc:
            self._note_failure(exc)
        except Exception as exc:  # a defect, of this program or a file system, must not end what serves
            log.exception("%s: a defect", self.url)
            self._note_failure(StorageError(f"{self.url}: {type(exc).__name__}: {exc}"))
        return None

    def _read(self, found: Listing, known: Collection[str]) -> RepositoryListing:
        if self.failures:
            log.info("%s can be listed again", self.url)
        self.failures = 0
        self._next = self._began + self._poll_s
        self._status.set_listed()
        folders, reasons = read_layout(found.objects)
        ignored = {printable(key): why for key, why in reasons.items()}  # a key may be invalid UTF-8, unlike JSON
        too_many = limit_models(folders, known)
        too_many |= dict.fromkeys(found.beyond, f"got more models than are listed, expected at most {MAX_MODELS}")
        self._report(found, ignored, too_many)
        within: dict[str, str] = {}
        for key, why in sorted(ignored.items()):
            within.setdefault(key.partition("/")[0], f"{key}: {why}")
        return RepositoryListing(
            folders={name: folder for name, folder in folders.items() if name not in too_many},
            overfull=found.overfull,
            began=self._began,
            newest=found.newest or datetime.now(UTC),
            ignored=within,
        )

    def _report(self, found: Listing, ignored: Mapping[str, str], too_many: Mapping[str, str]) -> None:
        """Show in the log and in `/status` what is ignored."""
        reason = f"got more than {MAX_FOLDER_OBJECTS} objects, expected fewer; what serves of it goes on serving"
        too_much = {**too_many, **dict.fromkeys(found.overfull, reason)}
        strange = {key.removesuffix("/"): why for key, why in ignored.items() if key.endswith("/")}
        rest = {"...": f"{found.left_out} more that belong to no model"} if found.left_out else {}
        self._warn({**ignored, **{f"{name}/": why for name, why in too_much.items()}, **rest})
        self._status.set_folders({**strange, **too_much}, more=found.left_out)

    def _warn(self, ignored: Mapping[str, str]) -> None:
        for key in sorted(ignored.keys() - self._ignored.keys())[:_MAX_IGNORED]:
            log.warning("ignored: %s: %s", key[:200], ignored[key][:200])
        self._ignored = ignored
        shown = dict(sorted(ignored.items())[:_MAX_IGNORED])
        if len(ignored) > len(shown):
            shown["..."] = f"{len(ignored) - len(shown)} more"
        self._status.set(ignored=shown)

    def _note_failure(self, error: StorageError) -> None:
        self.failures += 1
        pause_s = pause_after(self.failures, poll_s=self._poll_s)
        self._next = time.monotonic() + pause_s
        self._status.set_listing_failed(str(error), began=self._began_utc)
        log.warning("%s; what serves goes on serving; next try in %.0f s", error, pause_s)
