"""The conditions for the readiness of the synchroniser: a pure function of its models."""

from collections.abc import Collection, Mapping
from typing import Protocol


class ModelReadiness(Protocol):
    """The state of a model that readiness depends on; see `ModelReconciler`."""

    @property
    def is_loaded(self) -> bool:
        """Whether it serves."""

    @property
    def is_settled(self) -> bool:
        """Whether it serves, or cannot."""

    @property
    def is_failing(self) -> bool:
        """Whether its versions fail repeatedly."""


def explain_wait(
    models: Mapping[str, ModelReadiness], *, first: Collection[str] | None, is_listing_failing: bool, url: str
) -> str | None:
    """Return what readiness waits for; None: nothing.

    It waits for each model of the first listing to serve or be rejected, and for at least one to serve.

    Args:
        models: by name.
        first: names of the models in the first listing that has any; empty where the repository has no model yet; None
            before the first listing.
        is_listing_failing: whether the last listing failed.
        url: of the repository.
    """
    if first:
        pending = [name for name in first if name in models and not models[name].is_settled]
    elif (is_listing_failing or first is not None) and models:
        # The repository is unavailable, or suddenly empty: what the mirror holds from before may serve.
        pending = [name for name, model in models.items() if not model.is_loaded]
    else:
        return f"{'the repository' if first is None else 'the first model in'} {url}"
    any_serves = any(model.is_loaded for model in models.values())
    # A model that fails repeatedly must not block the others; where none serves, the pod of before is better.
    if any_serves:
        pending = [name for name in pending if not models[name].is_failing]
    if pending:
        return f"models: {', '.join(sorted(pending))}"
    if not any_serves:
        # A rollout to a repository that is wrong as a whole would replace good pods by pods that serve nothing.
        return f"a model that serves; rejected: {', '.join(sorted(models)) or 'none'}"
    return None
