"""A model comes to serve what its repository wants, and no failing version keeps out the one before."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from predictor.synchroniser.status import Profiles
from registry.layout import Object
from registry.storage.reading import FolderStorage
from tests.support.ports import find_free_ports
from tests.support.reconciled import Reconciled, reconciled
from tests.support.triton_stub import TritonStub, start_triton_stub
from tests.support.versions import Build, reseal, write

ALL = "version_policy { all {} }"
DEAD = (grpc.StatusCode.INTERNAL, "Stub process 'rows_0' is not healthy.")


class FaultyStorage(FolderStorage):
    """A folder of which some files cannot be read."""

    def __init__(self, root: Path, fault: Exception, where: tuple[str, ...] = ("/2/",)) -> None:
        super().__init__(root)
        self._fault, self._where = fault, where

    @contextmanager
    def open(self, source: Object) -> Iterator[Any]:
        """Open an object, unless its key is at fault."""
        if any(part in source.key for part in self._where):
            raise self._fault
        with super().open(source) as stream:
            yield stream


class FatalStorage(FolderStorage):
    """A folder of which two versions end the process that reads them, as the kernel does where memory is short."""

    @contextmanager
    def open(self, source: Object) -> Iterator[Any]:
        """Version 1 alone."""
        if "/2/" in source.key or "/3/" in source.key:
            os.kill(os.getpid(), signal.SIGKILL)
        with super().open(source) as stream:
            yield stream


@contextmanager
def stubbed(folder: Path, **settings: Any) -> Iterator[tuple[Reconciled, TritonStub]]:
    """A model with one version, and a Triton that loads what is requested."""
    if not (folder / "repository" / "rows" / "1").exists():
        write(folder / "repository", "rows", Build(1))
    stub = TritonStub(folder / "mirror")
    with start_triton_stub(stub) as url, reconciled(folder, triton=url, **settings) as model:
        yield model, stub


@contextmanager
def faulty(folder: Path, fault: Exception, *, versions: int = 2, **where: Any) -> Iterator[Reconciled]:
    """A model with a version 2 that cannot be read; where version 1 would be loaded, nothing listens."""
    repository = folder / "repository"
    for number in range(1, versions + 1):
        write(repository, "rows", Build(number))
    (port,) = find_free_ports(1)
    storage = FaultyStorage(repository, fault, **where)
    with reconciled(folder, triton=f"127.0.0.1:{port}", storage=storage) as model:
        model.list()
        yield model


def staged(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in (folder / "mirror" / "staged" / "rows").iterdir()}


def test_newest_version_serves_and_replaces_the_one_before(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        model.list_and_reconcile()
        assert (model.serving, model.states(), stub.versions("rows")) == (("1",), {"1": ("serving", None)}, [1])
        write(model.repository, "rows", Build(2))
        model.list_and_reconcile()
        assert (model.serving, stub.versions("rows")) == (("2",), [2])
        assert model.states() == {"1": ("available", None), "2": ("serving", None)}
        known = model.status.model("rows").versions["2"]
        assert known.seconds_to_serve is not None
        assert (model.reconciler.is_settled, model.reconciler.is_failing) == (True, False)
        assert not list((tmp_path / "mirror" / "trial").iterdir())
        assert "candidate~rows" not in stub.loaded


def test_candidate_is_validated_before_the_model_is_loaded(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        model.list_and_reconcile()
        infer = stub.calls.index("ModelInfer candidate~rows")
        assert infer < stub.calls.index("RepositoryModelLoad rows")
        assert "ModelInfer rows" not in stub.calls


def test_version_with_other_outputs_is_rejected_once_and_the_one_before_serves(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        model.list_and_reconcile()
        write(model.repository, "rows", Build(2))
        stub.wrong.add(2)
        model.list_and_reconcile()
        assert (model.serving, stub.versions("rows"), model.states()["2"][0]) == (("1",), [1], "refused")
        assert "golden input" in (model.states()["2"][1] or "")
        count = len(stub.calls)
        model.list_and_reconcile()
        assert len(stub.calls) == count
        assert model.status.metrics.registry.get_sample_value("nereid_sync_refusals_total", {"model": "rows"}) == 1


def test_rejection_outlives_the_process(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        stub.wrong.add(1)
        model.list_and_reconcile()
        assert model.states()["1"][0] == "refused"
    with stubbed(tmp_path) as (model, stub):
        model.list_and_reconcile()
        assert (model.states()["1"][0], stub.calls) == ("refused", [])


def test_version_before_serves_again_where_the_newest_is_removed(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        write(model.repository, "rows", Build(2))
        model.list_and_reconcile()
        assert model.serving == ("2",)
        shutil.rmtree(model.repository / "rows" / "2")
        model.list_and_reconcile()
        assert (model.serving, stub.versions("rows")) == (("1",), [1])


def test_model_that_is_removed_is_unloaded(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        model.list_and_reconcile()
        shutil.rmtree(model.repository / "rows")
        model.list_and_reconcile()
        assert (stub.loaded, model.reconciler.is_gone, model.states()) == ({}, True, {})
        assert not (tmp_path / "mirror" / "models" / "rows").exists()


def test_next_process_loads_what_served_without_another_trial(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, _):
        model.list_and_reconcile()
    with stubbed(tmp_path) as (model, stub):
        model.reconcile()
        assert (model.serving, stub.calls) == (("1",), ["RepositoryModelLoad rows"])
        model.list_and_reconcile()
        assert stub.calls == ["RepositoryModelLoad rows"]


def test_model_that_triton_has_lost_is_loaded_again(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        model.list_and_reconcile()
        stub.loaded.clear()
        model.reconciler.mark_lost()
        assert model.reconciler.is_due
        model.reconcile()
        assert (model.serving, stub.versions("rows")) == (("1",), [1])


def test_model_whose_process_is_dead_is_loaded_again(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        model.list_and_reconcile()
        stub.failures["ModelInfer rows"] = DEAD
        model.reconciler.suspect()
        stub.calls.clear()
        model.reconcile()
        assert stub.calls[-2:] == ["RepositoryModelUnload rows", "RepositoryModelLoad rows"]
        assert model.serving == ("1",)


def test_model_that_passes_an_examination_is_not_loaded_again(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        model.list_and_reconcile()
        model.reconciler.suspect()
        stub.calls.clear()
        model.reconcile()
        assert "ModelInfer rows" in stub.calls
        assert "RepositoryModelLoad rows" not in stub.calls
        model.reconciler.suspect()
        assert not model.reconciler.is_due, "not again at once"
        model.clock.passed_s += 11
        assert model.reconciler.is_due


def test_versions_with_other_labels_do_not_serve_together(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        write(model.repository, "rows", Build(2))
        (model.repository / "rows" / "config.pbtxt").write_text(ALL)
        model.list_and_reconcile()
        assert stub.versions("rows") == [2]
        reason = "its labels or tensors differ from those of the newer version"
        assert model.states() == {"1": ("available", reason), "2": ("serving", None)}


def test_valid_version_that_does_not_load_leaves_the_one_before(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        model.list_and_reconcile()
        write(model.repository, "rows", Build(2))
        stub.failures["RepositoryModelLoad rows"] = (grpc.StatusCode.INVALID_ARGUMENT, "no")
        model.list_and_reconcile()
        assert (model.serving, list(model.reconciler.serving)) == (("1",), [1])
        assert "version 2 is valid, and does not load: no; tried again in" in model.error
        del stub.failures["RepositoryModelLoad rows"]
        model.clock.passed_s += 60
        model.reconcile()
        assert model.serving == ("2",)


def test_version_that_does_not_load_beside_the_one_that_serves_is_postponed_with_growing_pauses(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, stub):
        write(model.repository, "rows", Build(1), number=2)
        model.list_and_reconcile()
        (model.repository / "rows" / "config.pbtxt").write_text(ALL)
        stub.failures["RepositoryModelLoad rows"] = (grpc.StatusCode.INVALID_ARGUMENT, "no")
        model.list()
        for _ in range(3):
            model.reconcile()
            model.clock.passed_s += 60
        assert (model.serving, model.states()["1"][0]) == (("2",), "available")
        assert "version 1, 2 is valid, and does not load: no; tried again later" in (model.states()["1"][1] or "")
        count = stub.calls.count("RepositoryModelLoad rows")
        del stub.failures["RepositoryModelLoad rows"]
        model.reconcile()
        assert stub.calls.count("RepositoryModelLoad rows") == count + 1
        assert model.serving == ("1", "2")


def test_unforeseen_failure_rejects_the_version(tmp_path: Path) -> None:
    with faulty(tmp_path, RuntimeError("boom")) as model:
        model.reconcile()
        assert model.states()["2"] == ("refused", "it cannot be judged: RuntimeError: boom")
        assert staged(tmp_path) == {"1"}, "it went on to the one before"


@pytest.mark.parametrize(
    "fault", [FileNotFoundError(2, "No such file or directory"), OSError(36, "File name too long"), KeyError("x")]
)
def test_defect_is_not_taken_for_a_transient_failure(tmp_path: Path, fault: Exception) -> None:
    with faulty(tmp_path, fault) as model:
        model.reconcile()
        state, reason = model.states()["2"]
        assert (state, (reason or "").partition(":")[0]) == ("refused", "it cannot be judged")
        assert staged(tmp_path) == {"1"}, "it went on to the one before"


@pytest.mark.parametrize("fault", [FileNotFoundError(2, "No such file or directory"), ZeroDivisionError()])
def test_defect_outside_a_trial_blocks_no_readiness(tmp_path: Path, fault: Exception) -> None:
    with faulty(tmp_path, fault, where=("rows/config.pbtxt",)) as model:
        model.reconcile()
        assert (model.reconciler.is_settled, model.reconciler.is_failing) == (True, True)
        assert model.status.model("rows").state == "refused"
        assert f"a fault of the synchroniser, see its log: {type(fault).__name__}" in model.error
        assert not model.reconciler.is_due
        model.clock.passed_s += 61
        assert model.reconciler.is_due, "it is tried again all the same"


def test_defect_of_an_activation_rejects_the_newest_version(tmp_path: Path) -> None:
    with stubbed(tmp_path) as (model, _):
        # Where a generation's folder belongs lies a file.
        (tmp_path / "mirror" / "generations" / "rows").write_text("")
        model.list_and_reconcile()
        state, reason = model.states()["1"]
        assert (state, (reason or "").partition(":")[0]) == ("refused", "it cannot be judged")
        assert (model.reconciler.is_settled, model.status.model("rows").state) == (True, "refused")


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), MemoryError()])
def test_transient_failure_postpones_the_version_after_three_attempts(tmp_path: Path, fault: Exception) -> None:
    words = "no space left on device" if isinstance(fault, OSError) else "MemoryError"
    with faulty(tmp_path, fault) as model:
        for _ in range(2):
            model.reconcile()
            assert model.states()["2"] == ("available", None)
            assert (model.reconciler.is_settled, model.reconciler.is_failing) == (False, False)
            assert f"{words}; tried again in" in model.error
        model.reconcile()
        assert model.states()["2"] == ("available", f"{words}; tried again later")
        assert staged(tmp_path) == {"1"}, "it went on to the one before"
        # Which has attempts of its own: nothing listens where it would be loaded.
        assert (model.reconciler.is_settled, model.reconciler.is_failing) == (False, False)
        for _ in range(3):
            model.reconcile()
        assert (model.reconciler.is_settled, model.reconciler.is_failing) == (False, True)


def test_version_that_could_not_be_judged_is_tried_by_the_next_process(tmp_path: Path) -> None:
    with faulty(tmp_path, RuntimeError("boom")) as model:
        model.reconcile()
        assert model.states()["2"][0] == "refused"
    assert not (tmp_path / "mirror" / "refused" / "rows.json").exists()


def reconcile_fatal(folder: Path) -> None:
    (port,) = find_free_ports(1)
    storage = FatalStorage(folder / "repository")
    with reconciled(folder, triton=f"127.0.0.1:{port}", storage=storage) as model:
        model.list_and_reconcile()
        for version in ("2", "3"):
            reason = "this process ended 3 times during its trial; tried again later"
            assert model.states()[version] == ("available", reason)
        assert staged(folder) == {"1"}, "it went on to the one before"


def test_versions_that_end_the_process_repeatedly_keep_out_no_other(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(tmp_path / "repository", "rows", Build(number))
    context = multiprocessing.get_context("forkserver")
    # Modules that take seconds to import, once for all eight tests.
    context.set_forkserver_preload(["tests.support.reconciled", "tests.support.triton_stub", "tests.support.versions"])
    statuses = []
    for _ in range(8):
        process = context.Process(target=reconcile_fatal, args=(tmp_path,))
        process.start()
        process.join()
        statuses.append(process.exitcode)
    assert statuses == [-signal.SIGKILL] * 6 + [0, 0]


def test_upload_without_end_blocks_no_readiness(tmp_path: Path) -> None:
    with faulty(tmp_path, RuntimeError()) as model:
        shutil.rmtree(model.repository / "rows")
        (model.repository / "rows" / "1").mkdir(parents=True)
        (model.repository / "rows" / "1" / "model.onnx").write_bytes(b"more and more")
        model.list_and_reconcile()
        assert (model.reconciler.is_settled, model.reconciler.is_failing) == (False, False)
        model.clock.passed_s += 3 * 10 + 31
        assert (model.reconciler.is_settled, model.reconciler.is_failing) == (False, True)


def test_version_that_changes_repeatedly_has_to_settle(tmp_path: Path) -> None:
    with faulty(tmp_path, OSError(5, "Input/output error")) as model:
        for number in range(5):
            path = model.repository / "rows" / "2" / "parity.json"
            path.write_bytes(path.read_bytes() + b" ")
            model.list_and_reconcile()
            assert model.states()["2"][0] == ("available" if number < 3 else "incomplete")
        assert model.states()["2"][1] == "changed 3 times or more: waits 10 s for more files"
        assert staged(tmp_path) == {"1"}, "it went on to the one before"


def test_postponed_version_is_not_due_while_the_config_is_invalid(tmp_path: Path) -> None:
    with faulty(tmp_path, OSError(28, "No space left on device")) as model:
        for _ in range(6):  # and the one before fails, for nothing listens where it would be loaded
            model.reconcile()
        (model.repository / "rows" / "config.pbtxt").write_text("version_policy {")
        model.list()
        assert model.reconciler.is_due
        model.clock.passed_s += 600
        model.reconcile()
        assert (model.reconciler.is_due, model.reconciler.next_due) == (False, None)


def profile_of(model: Reconciled) -> Profiles:
    profile = model.status.model("rows").versions["1"].profile
    assert profile is not None
    return profile


def wait_for_quiet(model: Reconciled) -> None:
    """As if no client had sent a request for longer than any pause."""
    model.status.set_ready(None)
    model.clock.passed_s += 120


def test_profiles_are_measured_once_all_is_quiet(tmp_path: Path) -> None:
    with stubbed(tmp_path, profile="auto") as (model, _):
        model.list_and_reconcile()
        assert not model.reconciler.is_due, "a client may be waiting"
        wait_for_quiet(model)
        model.reconcile()
        assert "not the embedded one" in str(profile_of(model).measured["openvino"])
        assert (profile_of(model).chosen, model.states()) == ("fp32", {"1": ("serving", None)})


def test_model_whose_config_is_spoiled_while_it_waits_to_be_measured_comes_to_rest(tmp_path: Path) -> None:
    with stubbed(tmp_path, profile="auto") as (model, _):
        model.list_and_reconcile()
        (model.repository / "rows" / "config.pbtxt").write_text("nothing {")
        model.list()
        wait_for_quiet(model)
        model.reconcile()
        assert "config.pbtxt" in model.error


def test_profile_that_ends_in_no_result_is_given_up_after_three_attempts(tmp_path: Path) -> None:
    write(tmp_path / "repository", "rows", Build(1))
    version = tmp_path / "repository" / "rows" / "1"
    (version / "fast.pbtxt").write_text('backend: "onnxruntime" instance_group { count: 2 kind: KIND_CPU }')
    reseal(version)
    with stubbed(tmp_path, profile="fast") as (model, stub):
        model.list_and_reconcile()
        stub.failures["RepositoryModelLoad candidate~rows"] = (grpc.StatusCode.UNAVAILABLE, "out of memory")
        for _ in range(3):
            wait_for_quiet(model)
            model.reconcile()
            assert not profile_of(model).measured
    # Another process goes on counting: this one may have been ended by the attempt.
    with stubbed(tmp_path, profile="fast") as (model, stub):
        model.list_and_reconcile()
        wait_for_quiet(model)
        model.reconcile()
        assert profile_of(model).measured == {"fp32": "3 attempts to measure it ended without a result"}
        assert (profile_of(model).chosen, model.serving) == ("fast", ("1",))
        assert "RepositoryModelLoad candidate~rows" not in stub.calls


def test_triton_without_counts_is_not_taken_for_quiet(tmp_path: Path) -> None:
    with stubbed(tmp_path, profile="auto") as (model, _):
        model.list_and_reconcile()
        wait_for_quiet(model)
        assert model.reconciler.is_due
        model.traffic.note_unknown()
        assert not model.reconciler.is_due


def test_nothing_is_measured_where_the_setting_says_so(tmp_path: Path) -> None:
    with stubbed(tmp_path, profile="auto", measures=False) as (model, _):
        model.list_and_reconcile()
        wait_for_quiet(model)
        assert not model.reconciler.is_due
        assert model.status.model("rows").versions["1"].profile is None
