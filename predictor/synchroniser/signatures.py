"""Signatures of the versions that serve: kept in the mirror, beside the manifest that they sign.

A restart verifies what the mirror holds by the keys of that day, without the repository. A version that serves goes on
when its signature in the repository is replaced or removed: it was valid, and a new one is taken over where it is too.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from predictor.synchroniser.deployment import Deployment
from predictor.synchroniser.files import replace_file
from predictor.synchroniser.services import Services
from predictor.synchroniser.staging import read_signature
from predictor.synchroniser.view import join_numbers
from registry.errors import Unsigned
from registry.layout import MANIFEST, SIGNATURE, ModelFolder, Object
from registry.signatures.judgement import Signed, find_unsigned, judge_signature
from registry.signatures.trust import Trust

log = logging.getLogger("synchroniser")


class KeptSignatures:
    """The signatures of the versions of one model that serve; without a policy nothing is looked at."""

    def __init__(self, model: str, services: Services) -> None:
        """Begin without having looked at the mirror or the repository."""
        self._model, self._storage, self._triton = model, services.storage, services.triton
        self._trust, self._stopped = services.trust, services.stopped
        self._is_mirror_verified = services.trust is None
        self._seen: dict[int, str] = {}  # etags of the signatures in the repository, by version
        self._problems: dict[int, str] = {}

    def withdraw_unsigned(self, deployment: Deployment) -> None:
        """Once, before it is loaded: unload and remove what the mirror has from before, unless it is all signed.

        Raises:
            TritonError: it could not be unloaded now.
            OSError, Defect: see `confined`.
        """
        if self._trust is None or self._is_mirror_verified:
            return
        before = deployment.current
        kept = [(_read_kept(before.folder / str(number)), self._model, number) for number in before.fingerprints]
        reason = "mirrored without PREDICTOR_SIGNED_BY" if any(None in signed for signed, *_ in kept) else None
        if reason := reason or find_unsigned(kept, self._trust):
            log.warning(
                "%s: version %s of the mirror does not serve: %s",
                self._model,
                join_numbers(before.fingerprints),
                reason,
            )
            self._triton.wait_until_up(self._stopped)
            deployment.unload()  # Triton serves on when this process alone is started again
            deployment.discard()
        self._is_mirror_verified = True

    def update(self, folder: Path, versions: Sequence[int], listed: ModelFolder) -> str | None:
        """Take over new signatures of versions that serve, and return what is wrong with those of the repository.

        Args:
            folder: of the generation that serves.
            versions: those in it that the repository has unchanged.
            listed: the model in the repository.

        Raises:
            StorageError: one could not be read now.
        """
        if self._trust is None:
            return None
        self._problems = {number: why for number, why in self._problems.items() if number in versions}
        for number in versions:
            item = listed.signatures.get(number)
            if (etag := "" if item is None else item.etag) != self._seen.get(number):
                self._problems.pop(number, None)
                self._update(folder / str(number), number, item, self._trust)
                self._seen[number] = etag
        return "; ".join(f"version {number} {why}" for number, why in sorted(self._problems.items())) or None

    def _update(self, version: Path, number: int, item: Object | None, trust: Trust) -> None:
        kept, manifest = _read_kept(version)
        try:
            signature = read_signature(self._storage, item)
            if signature is not None and signature == kept:
                return
            signer = judge_signature((signature, manifest), trust, model=self._model, version=number)
        except Unsigned as exc:
            self._problems[number] = f"serves with the signature from before; a fresh instance rejects it: {exc}"
            log.warning("%s: version %d %s", self._model, number, self._problems[number])
            return
        assert signature is not None, "it was verified"  # noqa: S101
        replace_file(version / SIGNATURE, signature)
        log.info("%s: version %d is signed by %s now", self._model, number, signer)


def _read_kept(version: Path) -> Signed:
    def read_file(name: str) -> bytes | None:
        try:
            return (version / name).read_bytes()
        except FileNotFoundError:
            return None

    return read_file(SIGNATURE), read_file(MANIFEST)
