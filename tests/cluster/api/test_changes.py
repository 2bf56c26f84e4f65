"""When a spec may change, on a real API server."""

from collections.abc import Iterator

import pytest

from devcluster.console import ClusterError
from support.api_objects import REMOVED, Manifest, changed, make_job, make_rollout
from support.api_server import Api
from tuningfork.api.finetunejob import FineTuneJobSpec, Phase

pytestmark = pytest.mark.cluster

OPEN = {Phase.PENDING, Phase.FAILED, Phase.REJECTED, Phase.SUSPENDED}
"""Nothing runs and nothing was registered."""
FULL = make_job(training__maxSteps=100, output__register={"model": "support"})
OTHER = {
    "model": {"uri": "s3://models/other"},
    "method": {"lora": {"rank": 16}},
    "data": {"sources": [{"name": "other", "uri": "s3://data/other.jsonl"}]},
    "training": {"maxSteps": 200},
    "evaluation": {"baseline": False},
    "compute": {"accelerators": ["cpu"]},
    "checkpoints": {"keep": 5},
    "output": {"uri": "s3://models/other"},
}
"""Another value of each field of the spec that has one."""
FREE = {"suspend": True, "retries": 5}
"""What may change at any time: how often it is tried, and whether it runs at all."""


@pytest.fixture
def job(api: Api) -> Iterator[Manifest]:
    yield api.create(FULL)
    api.delete(FULL)


def _fields(spec: type[FineTuneJobSpec]) -> set[str]:
    return {info.alias or name for name, info in spec.model_fields.items()}


def test_the_table_has_every_field_with_more_than_one_value() -> None:
    assert {*OTHER, *FREE} == _fields(FineTuneJobSpec) - {"objective"}


@pytest.mark.parametrize("phase", list(Phase))
def test_a_spec_is_fixed_while_its_job_is_on_its_way(api: Api, job: Manifest, phase: Phase) -> None:
    api.set_status(job, {"phase": str(phase)})
    change = changed(FULL, training__epochs=5)
    if phase in OPEN:
        assert api.replace(change)["spec"]["training"]["epochs"] == 5
    else:
        with pytest.raises(ClusterError, match="spec is immutable while the job runs"):
            api.replace(change)


@pytest.mark.parametrize("field", OTHER)
def test_each_field_is_fixed_while_it_trains(api: Api, job: Manifest, field: str) -> None:
    api.set_status(job, {"phase": "Training"})
    with pytest.raises(ClusterError, match="spec is immutable while the job runs"):
        api.replace(changed(FULL, **{field: OTHER[field]}))


@pytest.mark.parametrize("field", ["training__maxSteps", "output__register"])
def test_a_fixed_field_cannot_be_taken_away(api: Api, job: Manifest, field: str) -> None:
    api.set_status(job, {"phase": "Training"})
    with pytest.raises(ClusterError, match="spec is immutable while the job runs"):
        api.replace(changed(FULL, **{field: REMOVED}))


@pytest.mark.parametrize("field", FREE)
def test_a_running_job_can_be_suspended_and_given_more_retries(api: Api, job: Manifest, field: str) -> None:
    api.set_status(job, {"phase": "Training"})
    assert api.replace(changed(FULL, **{field: FREE[field]}))["spec"][field] == FREE[field]


def test_a_job_applied_twice_is_unchanged_even_while_it_trains(api: Api, job: Manifest) -> None:
    api.set_status(job, {"phase": "Training"})
    assert api.replace(FULL)["metadata"]["generation"] == job["metadata"]["generation"]


def test_a_change_of_the_spec_leaves_the_status_and_the_other_way_round(api: Api, job: Manifest) -> None:
    api.set_status(job, {"phase": "Pending", "message": "waits"})
    after = api.replace({**changed(FULL, retries=1), "status": {"phase": "Succeeded"}})
    assert (after["status"]["phase"], after["spec"]["retries"]) == ("Pending", 1)


def test_a_rollout_gets_another_version_and_another_analysis_at_any_time(api: Api) -> None:
    before = make_rollout()
    try:
        api.set_status(api.create(before), {"phase": "Progressing"})
        change = changed(before, tracks__production={"version": "support-v2"}, analysis={"interval": "5s"})
        after = api.replace(change)["spec"]
        assert (after["tracks"]["production"]["version"], after["analysis"]["interval"]) == ("support-v2", "5s")
    finally:
        api.delete(before)
