"""Watches Triton: whether it responds, which models it has lost, and whose requests fail."""

import logging
from collections.abc import Iterable
from contextlib import suppress

from predictor.synchroniser.errors import TritonError
from predictor.synchroniser.reconciler import ModelReconciler
from predictor.synchroniser.status import Status
from predictor.synchroniser.traffic import Traffic
from predictor.synchroniser.triton_client import Requests, TritonClient
from predictor.triton_conventions import CANDIDATE_PREFIX

log = logging.getLogger("synchroniser")


class TritonWatch:
    """Polls Triton, in the loop's thread."""

    def __init__(self, triton: TritonClient, status: Status, traffic: Traffic) -> None:
        """Begin before the first response."""
        self._triton, self._status, self._traffic = triton, status, traffic
        self._has_responded = False
        self._failure = ""  # as it was logged last
        self._requests: dict[str, Requests] = {}  # by model
        self._has_statistics = True

    def poll(self, models: Iterable[ModelReconciler]) -> None:
        """Mark the models that Triton has lost, or whose requests have failed since the last poll."""
        models = list(models)
        was_up = self._triton.up.is_set()
        try:
            index = self._triton.index()
        except TritonError as exc:
            self._traffic.note_unknown()
            self._note_failure(exc, was_up=was_up)
            return
        if not was_up:
            log.info("Triton at %s responds", self._triton.url)
            self._status.set_triton(up=True)
        if not self._has_responded:
            self._has_responded = True
            self._unload_candidates(index)
        for model in models:
            ready = {version for version, state in index.get(model.name, {}).items() if state == "READY"}
            if model.task is None and model.is_loaded and not {str(version) for version in model.serving} <= ready:
                log.warning("%s: Triton has lost it", model.name)
                model.mark_lost()
        self._suspect(models)

    def _note_failure(self, exc: TritonError, *, was_up: bool) -> None:
        # Logged again for another reason: "restricted" after "not ready" says that waiting does not help.
        if was_up or str(exc) != self._failure:
            log.warning("%s; waiting for it", exc)
        if was_up or not self._failure:
            self._status.set_triton(up=False)
        self._failure = str(exc)

    def _unload_candidates(self, index: Iterable[str]) -> None:
        """Unload the candidates of a synchroniser that was killed."""
        for name in index:
            if name.startswith(CANDIDATE_PREFIX):
                with suppress(TritonError):
                    self._triton.unload(name)

    def _suspect(self, models: Iterable[ModelReconciler]) -> None:
        """Suspect models whose requests have failed; without Triton's statistics everything else works."""
        try:
            requests = self._triton.count_requests()
        except TritonError as exc:
            self._traffic.note_unknown()
            if self._has_statistics:
                self._has_statistics = False
                log.warning("statistics: %s; models whose requests fail are not noticed meanwhile", exc)
            return
        if not self._has_statistics:
            self._has_statistics = True
            log.info("statistics: Triton at %s gives them again", self._triton.url)
        none = Requests(0, 0)
        for model in models:
            if requests.get(model.name, none).failed > self._requests.get(model.name, none).failed:
                model.suspect()
        self._requests = requests
        self._traffic.note(requests)
