"""A call to a model whose versions are swapped while it is made."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.support.described import CLASSIFIER
from transformer.admission import Deadline
from transformer.dataplane.swap import SWAP_TRIES, SwapSafeCall
from transformer.errors import InvalidRequest, ModelNotFound, PredictorUnavailable, VersionsChanging
from transformer.triton.infer_options import InferOptions
from transformer.triton.model import Model
from transformer.triton.status import TensorRejected

OLD = replace(CLASSIFIER, version="1")
RENAMED = replace(OLD, version="2", names={0: "x", 1: "y"})
RESIZED = replace(OLD, version="2", input_wh=(32, 32))

Response = str | Exception


class Repository:
    """Versions of a model: Triton serves one of them, and a description may be of an older one."""

    def __init__(self, described: Model, *served: Model) -> None:
        self.described = described
        self.by_version = {model.version: model for model in (described, *served)}
        self.served = (described, *served)[-1]
        self.forgotten = 0

    async def model(self, name: str, version: str, deadline: Deadline) -> Model:  # noqa: ARG002
        self.described = self.served
        return self.described

    async def responded(self, model: Model, version: str, *, responded: str, deadline: Deadline) -> Model:  # noqa: ARG002
        if responded not in self.by_version:
            raise ModelNotFound(f"version {responded}")
        self.described = self.by_version[responded]
        return self.described

    def forget(self, model: Model, version: str) -> None:  # noqa: ARG002
        self.forgotten += 1

    async def is_current(self, model: Model, version: str) -> bool:  # noqa: ARG002
        return model.version == self.served.version


def run(repository: Repository, *responses: Response | set[str]) -> tuple[Model, str, list[str]]:
    """Model and result of a call, and the versions that tensors were made for; the responses come one by one."""
    given = iter(responses)
    made_for: list[str] = []

    async def call(model: Model) -> tuple[str, set[str]]:
        made_for.append(model.version)
        response = next(given)
        if isinstance(response, Exception):
            raise response
        return f"of {model.version}", response if isinstance(response, set) else {response}

    async def main() -> tuple[Model, str]:
        options = InferOptions(Deadline.after(20))
        return await SwapSafeCall(repository, repository.described, options).run(call)

    model, result = asyncio.run(main())
    return model, result, made_for


def test_call_without_a_swap_is_made_once_and_describes_nothing() -> None:
    repository = Repository(OLD)
    assert run(repository, "1") == (OLD, "of 1", ["1"])
    assert not repository.forgotten


def test_response_of_a_new_version_that_takes_the_same_tensors_has_its_labels() -> None:
    assert run(Repository(OLD, RENAMED), "2") == (RENAMED, "of 1", ["1"])


def test_call_is_repeated_where_the_new_version_takes_other_tensors() -> None:
    assert run(Repository(OLD, RESIZED), "2", "2") == (RESIZED, "of 2", ["1", "2"])


def test_call_is_repeated_where_the_new_version_rejects_the_tensors() -> None:
    assert run(Repository(OLD, RESIZED), TensorRejected("m: x"), "2") == (RESIZED, "of 2", ["1", "2"])


def test_call_is_repeated_where_parts_were_of_several_versions() -> None:
    assert run(Repository(OLD, RENAMED), {"1", "2"}, "2") == (RENAMED, "of 2", ["1", "2"])


def test_call_is_repeated_where_the_version_that_responded_is_gone_again() -> None:
    assert run(Repository(OLD, RENAMED), "7", "2") == (RENAMED, "of 2", ["1", "2"])


def test_tensors_that_the_described_version_rejects_are_an_error() -> None:
    repository = Repository(OLD)
    with pytest.raises(TensorRejected):
        run(repository, TensorRejected("m: x"))
    assert repository.forgotten == 1


@pytest.mark.parametrize("error", [PredictorUnavailable("away"), ModelNotFound("gone")])
def test_error_of_triton_is_raised_and_the_description_forgotten(error: Exception) -> None:
    repository = Repository(OLD, RENAMED)
    with pytest.raises(type(error)):
        run(repository, error)
    assert repository.forgotten == 1


def test_error_of_the_client_is_raised_and_nothing_forgotten() -> None:
    repository = Repository(OLD)
    with pytest.raises(InvalidRequest):
        run(repository, InvalidRequest("no"))
    assert not repository.forgotten


def test_swaps_without_end_are_an_error() -> None:
    responses: Sequence[set[str]] = [{"1", "2"}] * SWAP_TRIES
    with pytest.raises(VersionsChanging):
        run(Repository(OLD, RENAMED), *responses)


def test_later_calls_of_a_request_begin_with_the_version_that_responded() -> None:
    made_for: list[str] = []

    async def call(model: Model) -> tuple[None, set[str]]:
        made_for.append(model.version)
        return None, {"2"}

    async def main() -> None:
        repository = Repository(OLD, RESIZED)
        calls = SwapSafeCall(repository, OLD, InferOptions(Deadline.after(20)))
        await calls.run(call)
        await calls.run(call)

    asyncio.run(main())
    assert made_for == ["1", "2", "2"]
