"""One model: what the repository has of it, what serves, and the steps from the one to the other."""

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from predictor.sync.arrival import Arrivals
from predictor.sync.errors import TritonError, passes
from predictor.sync.memory import Memory
from predictor.sync.mirror import Generation
from predictor.sync.plan import choose
from predictor.sync.shared import LONGEST_PAUSE_S, Listed, Shared
from predictor.sync.staging import Request, fingerprint, golden_of, stage
from predictor.sync.status import ModelStatus, VersionStatus, now
from predictor.sync.trial import prove
from predictor.sync.triton import Died, ProcessDied, TooSlow
from predictor.sync.view import describe, join_numbers, pin_error, words_of
from registry import config as configs
from registry.config import Policy
from registry.errors import Incomplete, Passing, Refused
from registry.judgement.version import judge_config
from registry.layout import CONFIG, TEXT_BYTES, ModelFolder
from registry.storage.reading import read

log = logging.getLogger("sync")

# Of a version that Triton dies of; of one that fails for a reason that may pass, before the next one takes its place;
# of a model, before others may be ready without it.
_TRIES = 3
# Some clients' requests fail all the time, and each examination costs an answer. Who asks a model whose process is dead
# fails so much longer.
_EXAMINED_S = 10.0
_SETTLES_S = 30.0
_PATIENCE_S = 60.0  # with a model whose versions fail, before others may be ready without it
_TRIAL_S = 120.0  # of all requests of a trial, but where the first of them has engines built
_QUEUE_S = 5.0
_UNLOAD_S = 30.0  # of a candidate, which may never answer what it was asked last
_FATAL_PAUSE_S = 3600.0  # before a version is tried again that ended this process again and again
_NOTHING = Generation(Path())


class Model:
    """Worked on by one thread at a time; the loop replaces `listed` at any time."""

    def __init__(self, name: str, shared: Shared) -> None:
        """Nothing is listed yet; the mirror may hold something from before."""
        self.name = name
        self.listed: Listed | None = None
        self.loaded = False  # Triton has what the mirror holds
        self.is_suspect = False  # requests to it have failed
        self.task: Future[None] | None = None
        self.settles: float | None = None  # a listing that begins then, and shows no change, needs work too
        self._shared = shared
        self._mirror = shared.mirror
        self._status = shared.status
        self._memory = Memory(
            self._mirror.read_refused(name), self._mirror.read_unproven(name), fatal=self._mirror.read_fatal(name)
        )
        shared.leftovers |= {(name, key) for key in self._memory.fatal}
        self._arrivals = Arrivals(shared.settings.settle_s)
        self._config: tuple[str, Any] = ("", None)  # of the model's own config.pbtxt, and its etag
        self._policy = ""
        self._doing: dict[int, str] = {}
        self._working = False
        self._fault = False  # the last run of `work` ended in a fault of ours
        self._blocked: str | None = None  # why none of its versions can be judged
        self._error: str | None = None
        self._failures = 0
        self._due: float | None = None  # the next try
        self._since = time.monotonic()
        self._lost = 0  # trials that proved nothing
        self._examinable = 0.0  # not before then
        self._handled: ModelFolder | None = None

    # For the loop

    @property
    def serving(self) -> Mapping[int, str]:
        """Fingerprints of the versions that the mirror holds, by version."""
        return self._current.prints

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of it, here or in the repository."""
        return self.task is None and self.listed is not None and self.listed.folder is None and not self.serving

    @property
    def is_settled(self) -> bool:
        """Whether it serves, or has nothing that could; a fault of ours is nothing to wait for."""
        return self.loaded or self._fault or (self.task is None and self._is_idle)

    @property
    def fails(self) -> bool:
        """Whether it has failed so often, with all that it could try, that others which serve need not wait for it."""
        if self.loaded:
            return False
        if self._fault:
            return True
        if self._lost >= _TRIES and time.monotonic() - self._since > _PATIENCE_S:
            return True  # however many it has
        if self.task is not None:
            return False
        if self.settles is not None:  # somebody may go on writing into it for ever
            return time.monotonic() - self._since > _TRIES * self._shared.settings.settle_s + _SETTLES_S
        return self._failures >= _TRIES or (self._due is None and bool(self._memory.postponed))

    def next_time(self) -> float | None:
        """Monotonic time when it may need work without a new listing."""
        if self.task is not None:
            return None
        return min((at for at in (self._due, self._postponed_until) if at is not None), default=None)

    def needs_work(self) -> bool:
        """Whether `work` has something to do."""
        if self.listed is not None:
            is_removed = self.listed.folder is None and self.serving and self._due is None
            if self.listed.folder != self._handled or is_removed:
                return True
            if self.settles is not None and self.listed.began >= self.settles:
                return True
        if self._due is not None:
            return time.monotonic() >= self._due
        if self._postponed_until is not None and time.monotonic() >= self._postponed_until:
            return True
        return bool(self.serving) and (self._is_examined_next or not self.loaded)

    def work(self) -> None:
        """Do what is needed, until nothing is left to do or something has to be waited for."""
        self._due = self.settles = None
        self._working = True
        if self.listed is not None:
            self._handled = self.listed.folder
        try:
            if self.serving and self._is_examined_next:
                self._examine()
            if self.serving and not self.loaded:
                self._load_again()
            # One step: models take turns.
            if self.listed is not None and not self._shared.stopped.is_set() and self._step(self.listed):
                self._due = time.monotonic()
            self._fault = False
        except Exception as exc:  # noqa: BLE001 - a fault of ours must not stop the other models
            self._note_failure(exc)
        finally:
            self._doing.clear()
            self._working = False
            self._show()

    # The steps

    def _step(self, listed: Listed) -> bool:
        """Plan, and do one thing; False where there is nothing to do."""
        self._handled = listed.folder
        memory, now_s = self._memory, time.monotonic()
        memory.postponed = {key: known for key, known in memory.postponed.items() if now_s < known[0]}
        self._blocked = None
        if listed.folder is None or not listed.folder.versions:
            self._remove()
            if listed.folder is not None:
                self._error = self._explain_none(listed.folder, listed.ignored)
            return False
        try:
            config, policy = self._read_shared(listed.folder)
        except Refused as exc:
            self._blocked = str(exc)
            self._error = f"{exc}; what serves goes on serving" if self.serving else str(exc)
            log.warning("%s: %s", self.name, self._error)
            return False
        settings = self._shared.settings
        requests = {
            version: Request(self.name, version, listed.folder, config, settings.profile, settings.cpus, settings.plans)
            for version in listed.folder.versions
        }
        prints = {version: fingerprint(request) for version, request in requests.items()}
        self._arrivals.note(prints, began=listed.began)
        self._forget_others(prints)
        for version, request in requests.items():
            self._judge_arrival(request, prints[version], listed)
        serving = self.serving
        unfit = memory.refused.keys() | memory.waiting.keys() | memory.postponed.keys()
        wanted = choose(prints, policy, current=serving, unfit=unfit, apart=memory.apart)
        self._show()
        if wanted == serving:
            self._failures, self._error = 0, pin_error(policy, prints) or memory.postponements(prints)
            memory.proven.clear()
            self._mirror.clean(self.name)
            self._shared.leftovers -= {(self.name, key) for key in memory.fatal}  # none of them is tried now
            return False
        self._wait_for_triton()
        proven = {version: key for version, key in wanted.items() if key in memory.proven}
        if proven and not serving:  # the others may take long
            wanted = proven
        for version in sorted(wanted, reverse=True):
            key = wanted[version]
            if key != serving.get(version) and key not in memory.proven:
                self._try(requests[version], key, listed)
                return True
        self._take(wanted, requests)
        return True

    def _take(self, wanted: Mapping[int, str], requests: Mapping[int, Request]) -> None:
        fresh = [version for version, key in wanted.items() if key != self.serving.get(version)]
        try:
            self._activate(wanted)
        except Refused as exc:  # of what was judged: nothing that could be tried again
            newest = max(wanted)
            self._refuse(requests[newest], wanted[newest], str(exc))
        except Exception as exc:
            if passes(exc) or not fresh:
                raise
            self._refuse_defect(requests[max(fresh)], wanted[max(fresh)], exc)

    def _load_again(self) -> None:
        """Load what served before: after a start of ours, or of Triton."""
        versions = join_numbers(self.serving)
        self._wait_for_triton()
        try:
            self._load(self.name)
        except Refused as exc:
            # What served yesterday, under another Triton perhaps.
            reason = f"version {versions} does not load any more: {exc}"
            if self.listed is None:
                raise Passing(reason) from exc
            log.warning("%s: %s", self.name, reason)
            self._mirror.switch(self.name, None)  # it is tried as if it were new, and so are the others
            return
        self.loaded, self._failures, self._error = True, 0, None
        log.info("%s: version %s serves", self.name, versions)

    def _examine(self) -> None:
        """Find out whether the process that runs it is dead: Triton (24.10) goes on calling it ready.

        Most requests that fail do so because of what they hold, or because they come too late out of its queue.
        """
        self.is_suspect = False
        folder, triton = self._current.folder, self._shared.triton
        try:
            for version in self.serving:
                golden = golden_of(folder, version)
                prove(triton, self.name, golden=golden, version=str(version), queue_s=_QUEUE_S)
        except ProcessDied as exc:
            log.warning("%s: %s; it is loaded anew", self.name, exc)
            # Else Triton finds that nothing has changed, and does nothing.
            triton.unload(self.name)
            self.loaded = False
        except TritonError as exc:
            # A full queue tells nothing of who works at it. Where Triton is away or has lost the model, the loop sees.
            self.is_suspect = True
            log.info("%s: cannot be examined: %s; tried again in %.0f s", self.name, exc, _EXAMINED_S)
        except Refused as exc:
            log.warning("%s: serves, and does not answer as it must: %s", self.name, exc)
        finally:
            self._examinable = time.monotonic() + _EXAMINED_S

    def _read_shared(self, folder: ModelFolder) -> tuple[Any, Policy]:
        """The model's own config.pbtxt, and its policy or the setting in its place.

        Raises:
            Refused: it is broken, or holds what must not be there.
        """
        item = folder.shared.get(CONFIG)
        if item is None:
            self._config = ("", None)
        elif item.etag != self._config[0]:
            text = read(self._shared.storage, item, limit=TEXT_BYTES)
            self._config = (item.etag, ModelConfig.FromString(judge_config(text, where=CONFIG)))
        _, config = self._config
        pins = self._shared.settings.pins.get(self.name)
        policy = configs.read_policy(config) if pins is None else Policy(latest=None, specific=frozenset(pins))
        self._policy = f"{policy}{'' if pins is None else ' (setting)'}"
        return config, policy

    def _forget_others(self, prints: Mapping[int, str]) -> None:
        """Forget what is known of versions that are no longer in the repository."""
        keys, memory = set(prints.values()), self._memory
        if memory.refused.keys() - keys:
            memory.refused = {key: reason for key, reason in memory.refused.items() if key in keys}
            self._write_refused()
        kept = keys.union(self.serving.values())
        if memory.unproven.keys() - kept:
            memory.unproven = {key: reason for key, reason in memory.unproven.items() if key in kept}
            self._mirror.write_unproven(self.name, memory.unproven)
        memory.keep(keys)

    def _judge_arrival(self, request: Request, key: str, listed: Listed) -> None:
        """Note a version that has not arrived as a whole."""
        if key in self._memory.refused or key in self.serving.values():
            return
        try:
            self._arrivals.check(request, listed)
        except Incomplete as exc:
            self._note_incomplete(request, key, listed, exc)

    def _note_incomplete(self, request: Request, key: str, listed: Listed, exc: Incomplete) -> None:
        """Wait for what is missing; refuse the version where it has not come for as long as files need to settle."""
        settles = self._arrivals.settled_at(request.version)
        if not exc.patient and listed.began >= settles:
            self._refuse(request, key, f"{exc}, for {self._shared.settings.settle_s:g} s")
            return
        self._memory.waiting[key] = str(exc)
        if not exc.patient:
            self.settles = min(self.settles or settles, settles)

    def _try(self, request: Request, key: str, listed: Listed) -> None:
        """Stage a version and prove it under a candidate's name."""
        memory, leftover = self._memory, (self.name, key)
        if memory.fatal.get(key, 0) >= _TRIES and key not in memory.left_alone:
            memory.left_alone.add(key)
            self._shared.leftovers.discard(leftover)
            reason = f"this process ended {_TRIES} times while it was tried"
            self._postpone(request.version, key, Passing(reason), for_s=_FATAL_PAUSE_S)
            return
        with self._shared.alone if self._shared.leftovers else nullcontext():
            self._mirror.write_fatal(self.name, memory.fatal, running=key)
            try:
                self._try_once(request, key, listed)
            finally:
                memory.fatal.pop(key, None)
                self._shared.leftovers.discard(leftover)
                self._mirror.write_fatal(self.name, memory.fatal)
                self._lost += key not in memory.proven

    def _try_once(self, request: Request, key: str, listed: Listed) -> None:
        version = request.version
        target = self._mirror.staging(self.name, version, key)
        total = sum(item.size for item in request.files.values())
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            self._status.metrics.downloaded.inc(size)
            self._report(version, f"downloading, {done / 1e6:.1f} of {total / 1e6:.1f} MB")

        self._report(version, "downloading")
        try:
            reserve = partial(self._mirror.reserve, target)
            stage(self._shared.storage, request, target, reserve=reserve, count=count)
            self._check_labels(request, target)
            if self.listed is not listed and self.listed is not None and self.listed.folder != listed.folder:
                return  # changed meanwhile: plan anew
            self._report(version, "trying")
            with self._offered(target) as candidate:
                self._load(candidate)
                golden, limit_s = golden_of(target, version), self._shared.settings.load_timeout_s
                if not configs.builds_engines(_read_config(target, version)):
                    limit_s = min(_TRIAL_S, limit_s)
                unproven = prove(self._shared.triton, candidate, golden=golden, limit_s=limit_s)
        except Incomplete as exc:
            self._note_incomplete(request, key, listed, exc)
        except Refused as exc:
            self._refuse(request, key, str(exc))
        except (Died, TooSlow) as exc:
            deaths = self._memory.deaths
            deaths[key] = deaths.get(key, 0) + 1
            if deaths[key] >= _TRIES:
                self._refuse(request, key, f"{exc}, {_TRIES} times while it was tried")
            elif isinstance(exc, TooSlow):  # others need not wait for it again
                self._postpone(version, key, exc, for_s=self._shared.pause_after(deaths[key]))
            else:
                raise
        except Exception as exc:  # noqa: BLE001 - nor must it keep out the version before
            if passes(exc):
                self._postpone(version, key, exc)
            else:
                self._refuse_defect(request, key, exc)
        else:
            self._memory.proven[key] = target
            self._note_proof(key, unproven)
            log.info("%s: version %d is good%s", self.name, version, f", {unproven}" if unproven else "")

    def _postpone(self, version: int, key: str, exc: Exception, *, for_s: float | None = None) -> None:
        """Let the next version take the place of one that fails again and again, and try this one later.

        Args:
            version: its number.
            key: its fingerprint.
            exc: how it failed.
            for_s: at once, for so long; None: where it has failed often.

        Raises:
            Exception: `exc`, where it has not failed so often yet.
        """
        memory = self._memory
        memory.failures[key] = memory.failures.get(key, 0) + 1
        if for_s is None and memory.failures[key] < _TRIES:
            raise exc
        pause = self._shared.pause_after(memory.failures[key]) if for_s is None else for_s
        pause *= 1 + len(memory.postponed)  # older ones have their turn before it has another one
        memory.postponed[key] = (time.monotonic() + pause, words_of(exc))
        self._failures = 0  # the next one has tries of its own
        self._status.metrics.failures.labels(self.name).inc()
        log.warning(
            "%s: version %d failed (%d): %s; others serve meanwhile, tried again in %.0f s",
            self.name, version, memory.failures[key], words_of(exc), pause,
        )  # fmt: skip

    @contextmanager
    def _offered(self, target: Path) -> Iterator[str]:
        candidate = self._mirror.offer(self.name, target)
        try:
            yield candidate
        finally:
            with suppress(TritonError):
                self._shared.triton.unload(candidate, limit_s=_UNLOAD_S)
            self._mirror.withdraw(self.name)

    def _check_labels(self, request: Request, target: Path) -> None:
        """A number that answers with some labels never answers with others: nobody could tell which they are.

        Raises:
            Refused: what serves under this number has other labels or tensors.
        """
        if request.version not in self.serving:
            return
        served, new = (_read_config(folder, request.version) for folder in (self._current.folder, target))
        if configs.meaning(served) != configs.meaning(new):
            raise Refused(
                "its labels or tensors are others than those this number serves with: a version is immutable, "
                "upload it under a new number"
            )

    def _write_refused(self) -> None:
        memory = self._memory
        lasting = {key: reason for key, reason in memory.refused.items() if key not in memory.defects}
        self._mirror.write_refused(self.name, lasting)

    def _note_proof(self, key: str, unproven: str | None) -> None:
        memory, before = self._memory, self._memory.unproven.pop(key, None)
        if unproven:
            memory.unproven[key] = unproven
        if unproven != before:
            self._mirror.write_unproven(self.name, memory.unproven)

    def _refuse_defect(self, request: Request, key: str, exc: Exception) -> None:
        """Refuse a version that fails in an unforeseen way: to try it for ever would keep out good ones.

        It may be a fault of this process all the same: the next one tries it again.
        """
        log.error("%s: version %d cannot be judged", self.name, request.version, exc_info=exc)
        self._memory.defects.add(key)
        self._refuse(request, key, f"it cannot be judged: {type(exc).__name__}: {exc}")

    def _refuse(self, request: Request, key: str, reason: str) -> None:
        self._memory.refused[key] = reason
        self._write_refused()
        self._status.metrics.refusals.labels(self.name).inc()
        log.warning("%s: version %d is refused: %s", self.name, request.version, reason)

    def _activate(self, wanted: Mapping[int, str]) -> None:
        """Rename proven versions in, config and versions together, and load them under the model's name."""
        before = self._current
        sources = {
            version: before.folder if before.prints.get(version) == key else self._memory.proven[key]
            for version, key in wanted.items()
        }
        newest = max(sources)
        contracts = {version: configs.contract(_read_config(folder, version)) for version, folder in sources.items()}
        if misfits := [version for version in sources if contracts[version] != contracts[newest]]:
            # Triton has one config for all versions of a model.
            for version in misfits:
                self._memory.apart[wanted[version]] = wanted[newest]
                reason = "its labels or tensors are others"
                log.warning("%s: version %d cannot serve beside %d: %s", self.name, version, newest, reason)
            return
        self._report(newest, "loading")
        text = configs.compose(_read_config(sources[newest], newest), versions=list(sources))
        self._mirror.switch(self.name, self._mirror.assemble(self.name, sources, wanted, text))
        try:
            self._load(self.name)
        except (Refused, TritonError) as exc:
            self._mirror.switch(self.name, before if before.prints else None)
            self._mirror.clean(self.name, keep=self._memory.proven.values())
            self._postpone(
                newest, wanted[newest], Passing(f"version {join_numbers(wanted)} was good, and does not load: {exc}")
            )
            return
        self._note_serving(wanted, before)
        self._mirror.clean(self.name)

    def _note_serving(self, wanted: Mapping[int, str], before: Generation) -> None:
        self.loaded, self._failures, self._error = True, 0, None
        self._memory.proven.clear()
        for key in wanted.values():
            self._memory.failures.pop(key, None)
        self._arrivals.settle()
        self._doing.clear()
        for version in sorted(wanted):
            if before.prints.get(version) != wanted[version]:
                seconds = time.monotonic() - self._arrivals.since(version)
                self._status.metrics.seconds.labels(self.name).observe(seconds)
                self._status.set_version(
                    self.name, version, VersionStatus("serving", since=now(), seconds_to_serve=round(seconds, 1))
                )
                log.info("%s: version %d serves, %.1f s after it was seen", self.name, version, seconds)
        if retired := before.prints.keys() - wanted.keys():
            log.info("%s: version %s is retired", self.name, join_numbers(retired))

    def _remove(self) -> None:
        """What is gone from the repository goes away."""
        if self.serving:
            self._wait_for_triton()
            self._shared.triton.unload(self.name)
            self._mirror.switch(self.name, None)
            log.info("%s: gone from the repository, and unloaded", self.name)
        self._mirror.clean(self.name)
        self._memory = Memory()
        self._mirror.write_refused(self.name, {})
        self._mirror.write_unproven(self.name, {})
        self._arrivals.forget()
        self.loaded, self._error = False, None

    def _load(self, name: str) -> None:
        loads = self._status.metrics.loads
        try:
            self._shared.triton.load(name)
        except (Refused, TritonError):
            loads.labels(self.name, "failed").inc()
            raise
        loads.labels(self.name, "ok").inc()

    def _wait_for_triton(self) -> None:
        while not self._shared.triton_up.wait(1.0):
            if self._shared.stopped.is_set():
                raise TritonError("stopped")

    def _note_failure(self, exc: Exception) -> None:
        self._failures += 1
        self._fault = not passes(exc)
        if self._fault:
            pause, words = LONGEST_PAUSE_S, f"a fault of the synchroniser, see its log: {type(exc).__name__}: {exc}"
        else:
            pause, words = self._shared.pause_after(self._failures), words_of(exc)
        self._due = time.monotonic() + pause
        self._error = f"{words}; tried again in {pause:.0f} s"
        self._status.metrics.failures.labels(self.name).inc()
        log.warning("%s: %s", self.name, self._error, exc_info=exc if self._fault else None)

    @property
    def _is_idle(self) -> bool:
        """Whether no try, no listing and no upload is waited for."""
        waits = self._due is not None or self.settles is not None or self._memory.postponed
        return not waits and self.listed is not None and self.listed.folder == self._handled

    @property
    def _postponed_until(self) -> float | None:
        return min((until for until, _ in self._memory.postponed.values()), default=None)

    @property
    def _is_examined_next(self) -> bool:
        return self.loaded and self.is_suspect and time.monotonic() >= self._examinable

    @property
    def _current(self) -> Generation:
        return self._mirror.current(self.name) or _NOTHING

    # What is told

    def _report(self, version: int, doing: str) -> None:
        self._doing[version] = doing
        self._show()

    def _show(self) -> None:
        """Tell what is known."""
        folder = self.listed.folder if self.listed is not None else None
        if folder is None and not self.serving:
            self._status.set_model(self.name, None)
            return
        serving = self.serving if self.loaded else {}
        before = self._status.model(self.name).versions
        versions = {
            version: describe(
                version,
                key=self._arrivals.key(version),
                serving=serving,
                memory=self._memory,
                doing=self._doing,
                is_listed=self.listed is not None,
                before=before.get(str(version)),
            )
            for version in {*self._arrivals.versions, *serving}
        }
        if self._blocked and folder is not None:
            blocked = VersionStatus("refused", self._blocked)
            versions |= {version: blocked for version in folder.versions if version not in serving}
        self._status.set_model(
            self.name,
            ModelStatus(
                self._policy,
                tuple(str(version) for version in sorted(serving)),
                self._error,
                {str(version): versions[version] for version in sorted(versions)},
                self._state(versions.values()),
            ),
        )

    def _state(self, versions: Collection[VersionStatus]) -> str:
        """`serving`; `loading` where it may serve by itself; else `refused`."""
        states = {version.state for version in versions}
        if "serving" in states:
            return "serving"
        may_come = self._working or states & {"incomplete", "staged"} or not self._is_idle
        return "loading" if may_come and not self._fault else "refused"

    def _explain_none(self, folder: ModelFolder, ignored: str) -> str:
        """Why a model's folder has no version: its config says what it is, or something else lies in it."""
        try:
            self._read_shared(folder)
        except Refused as exc:
            return str(exc)
        rest = f"; ignored: {ignored}" if ignored else ""
        return f"no version: expected {self.name}/1/model.onnx or the like{rest}"


def _read_config(folder: Path, version: int) -> Any:
    """The config that a staged version serves with."""
    return configs.parse((folder / str(version) / CONFIG).read_bytes(), where=CONFIG)
