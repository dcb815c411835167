"""Examines a model that serves and whose requests fail: its process may be dead."""

import logging
from collections.abc import Callable

from predictor.synchroniser.deployment import Deployment
from predictor.synchroniser.errors import ModelProcessDied, TritonError
from registry.errors import VersionRejected

log = logging.getLogger("synchroniser")

# Requests of some clients fail all the time, and each examination costs a response. The requests to a model whose
# process is dead fail for so much longer.
_PAUSE_S = 10.0


class Examination:
    """The examinations of one model.

    Attributes:
        is_suspect: whether requests to the model have failed since the last one.
    """

    def __init__(self, model: str, deployment: Deployment, clock: Callable[[], float]) -> None:
        """Begin without suspicion; the first examination may be at once."""
        self.is_suspect = False
        self._model, self._deployment, self._clock = model, deployment, clock
        self._not_before = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the model is suspect, and the last examination long enough ago."""
        return self._deployment.is_loaded and self.is_suspect and self._clock() >= self._not_before

    def run(self) -> None:
        """Find out whether Triton's process of the model is dead, and unload the model then.

        Triton (24.10) keeps reporting such a model as ready. Most failed requests have other causes: invalid inputs, or
        an exceeded deadline.

        Raises:
            TritonError: the model could not be unloaded.
        """
        self.is_suspect = False
        try:
            self._deployment.validate()
        except ModelProcessDied as exc:
            log.warning("%s: %s; it is loaded again", self._model, exc)
            self._deployment.unload()  # otherwise Triton sees no change, and does nothing
        except TritonError as exc:
            # A full queue says nothing about the process. The loop notices where Triton is down or lost the model.
            self.is_suspect = True
            log.info("%s: cannot be examined: %s; tried again in %.0f s", self._model, exc, _PAUSE_S)
        except VersionRejected as exc:
            log.warning("%s: serves, and its outputs are invalid: %s", self._model, exc)
        finally:
            self._not_before = self._clock() + _PAUSE_S
