"""The content of /status: complete while it is short, and otherwise with counts of what is left out."""

import json
from dataclasses import replace

from predictor.synchroniser.status import ModelStatus, Status, VersionStatus


def of_versions(count: int, *, serving: tuple[str, ...] = (), staged: str = "") -> ModelStatus:
    states = dict.fromkeys(map(str, range(1, count + 1)), "refused") | dict.fromkeys(serving, "serving")
    states |= {staged: "staged"} if staged else {}
    versions = {number: VersionStatus(state, "x" * 600) for number, state in states.items()}
    return ModelStatus(serving=serving, versions=versions, state="serving" if serving else "refused")


def test_thousands_of_folders_and_versions_stay_short() -> None:
    status = Status("s3://models")
    status.set_folders({f"folder {number:05}": "x" * 600 for number in range(4000)}, more=1000)
    many = of_versions(200)  # twice what is shown of a model, 20 times what is shown of all
    for number in range(512):
        status.set_model(f"model{number:03}", many)
    content = status.as_json()
    assert len(json.dumps(content)) < 8_000_000
    assert len(content["models"]) == 1024
    assert content["more_models"] == 4000 + 1000 - 512
    listed = [len(model["versions"]) + model["more_versions"] for model in content["models"].values()]
    assert sum(listed) == 512 * 200
    assert sum(len(model["versions"]) for model in content["models"].values()) == 5000
    counts = status.metrics.registry.get_sample_value("nereid_sync_models", {"state": "refused"})
    assert counts == 512 + 5000


def test_versions_that_serve_or_are_validated_are_shown_beside_many_newer_ones() -> None:
    status = Status("s3://models")
    status.set_model("rows", of_versions(1000, serving=("1", "3"), staged="2"))
    listed = status.as_json()["models"]["rows"]
    assert list(listed["versions"]) == ["1", "2", "3", *(str(number) for number in range(904, 1001))]
    assert listed["more_versions"] == 900


def test_since_is_when_a_state_began() -> None:
    times = (f"2026-01-01T00:00:{second:02}" for second in range(60))
    status = Status("s3://models", clock=lambda: next(times))
    status.set_model("rows", of_versions(1))
    first = status.model("rows")
    assert (first.since, first.versions["1"].since) == (first.since, first.since)
    status.set_model("rows", ModelStatus(versions={"1": VersionStatus("refused", "y")}, state="refused"))
    again = status.model("rows")
    assert (again.since, again.versions["1"].since) == (first.since, first.since)
    status.set_model("rows", ModelStatus(versions={"1": VersionStatus("staged")}))
    assert (status.model("rows").since or "") > (first.since or "")
    status.set_folders({"a b": "x"}, more=0)
    since = status.as_json()["models"]["a b"]["since"]
    assert since
    status.set_folders({"a b": "y"}, more=0)
    assert status.as_json()["models"]["a b"]["since"] == since
    status.set_folders({}, more=0)
    assert "a b" not in status.as_json()["models"]


def read(status: Status, name: str) -> dict[tuple[str, ...], float]:
    families = (family for family in status.metrics.registry.collect() if family.name == name)
    return {tuple(sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_highest_version_that_serves_is_a_metric() -> None:
    status = Status("s3://models", "pod-1")
    assert status.as_json()["instance"] == "pod-1"
    for serving, expected in (((), {}), (("2", "10"), {("rows",): 10}), (("2",), {("rows",): 2}), ((), {})):
        status.set_model("rows", of_versions(12, serving=serving))
        assert read(status, "nereid_sync_serving_version") == expected
    status.set_model("rows", of_versions(12, serving=("3",)))
    status.set_model("rows", None)
    assert read(status, "nereid_sync_serving_version") == {}


def test_newest_rejected_version_of_each_model_is_a_metric() -> None:
    status = Status("s3://models")
    status.set_model("rows", of_versions(1000))
    status.set_model("digits", of_versions(9, serving=("9",)))
    assert read(status, "nereid_sync_refused_version") == {("rows", "1000"): 1, ("digits", "8"): 1}
    serving = VersionStatus("serving")
    status.set_model("rows", replace(model := status.model("rows"), versions=model.versions | {"1000": serving}))
    assert read(status, "nereid_sync_refused_version") == {("rows", "999"): 1, ("digits", "8"): 1}
    status.set_model("rows", of_versions(2, serving=("1", "2")))
    status.set_model("digits", None)
    assert read(status, "nereid_sync_refused_version") == {}
