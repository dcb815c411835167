"""A version that cannot be judged, or not now, does not keep out the one before."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from predictor.settings import Settings
from predictor.sync.layout import read_layout
from predictor.sync.mirror import Mirror
from predictor.sync.model import Listed, Model, Shared
from predictor.sync.status import Status
from predictor.sync.storage import FolderStorage, Object
from predictor.sync.triton import Triton
from tests.support.ports import find_free_ports
from tests.support.versions import Build, write


class Faulty(FolderStorage):
    """A folder of which one version cannot be read."""

    def __init__(self, root: Path, fault: Exception) -> None:
        super().__init__(root)
        self._fault = fault

    @contextmanager
    def open(self, source: Object) -> Iterator[Any]:
        """Anything but version 2."""
        if "/2/" in source.key:
            raise self._fault
        with super().open(source) as stream:
            yield stream


@contextmanager
def listed_model(folder: Path, fault: Exception) -> Iterator[tuple[Model, Status]]:
    """A model with two versions; where it would be loaded, nothing listens."""
    repository = folder / "repository"
    for number in (1, 2):
        write(repository, "rows", Build(number))
    (port,) = find_free_ports(1)
    settings = Settings(repository=str(repository), mirror=folder / "mirror", grpc_port=port, poll_s=0.1)
    storage, status = Faulty(repository, fault), Status(str(repository))
    triton = Triton(f"127.0.0.1:{port}", secret="", load_timeout_s=5)
    mirror = Mirror(folder / "mirror")
    shared = Shared(settings, storage=storage, triton=triton, mirror=mirror, status=status)
    shared.triton_up.set()
    model = Model("rows", shared)
    objects = storage.list()
    folders, _ = read_layout(objects)
    model.listed = Listed(folders["rows"], 0.0, datetime.now(UTC))
    yield model, status
    mirror.close()


def states(status: Status) -> dict[str, tuple[str, str | None]]:
    versions = status.model("rows").versions
    return {number: (version.state, version.reason) for number, version in versions.items()}


def staged(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in (folder / "mirror" / "staged" / "rows").iterdir()}


def test_what_nobody_thought_of_is_refused(tmp_path: Path) -> None:
    with listed_model(tmp_path, RuntimeError("boom")) as (model, status):
        model.work()
        assert states(status)["2"] == ("refused", "it cannot be judged: RuntimeError: boom")
        assert staged(tmp_path) == {"1"}, "it went on to the one before"


@pytest.mark.parametrize("fault", [OSError(36, "File name too long"), MemoryError()])
def test_what_may_pass_is_postponed_after_three_times(tmp_path: Path, fault: Exception) -> None:
    words = "file name too long" if isinstance(fault, OSError) else "MemoryError"
    with listed_model(tmp_path, fault) as (model, status):
        for _ in range(2):
            model.work()
            assert (states(status)["2"], model.is_settled) == (("available", None), False)
            assert f"{words}; tried again in" in (status.model("rows").error or "")
        model.work()
        assert states(status)["2"] == ("available", f"{words}; tried again later")
        assert model.is_settled
        assert staged(tmp_path) == {"1"}, "it went on to the one before"
