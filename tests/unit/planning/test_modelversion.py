"""What a ModelVersion says of its files, its stage and its users."""

from datetime import UTC, datetime
from typing import Any

import pytest

from support.api_objects import make_version
from tuningfork.api.modelversion import Stage, VersionReason
from tuningfork.planning.modelversion import Observed, is_verified, plan_modelversion, stage_of, versions_of
from tuningfork.planning.plan import Event, Manifest, Plan
from tuningfork.planning.storage import (
    ObjectNotFoundError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
    Verification,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GOOD = Verification(files=3, bytes=2_500_000)
BAD = Verification(problem="s3://models/runs/1: adapter.safetensors has sha256 1234...")


def make_parent(status: Manifest | None = None) -> Manifest:
    parent = make_version("support-v1")
    parent["metadata"] |= {"namespace": "ml", "uid": "u", "generation": 1}
    return parent | ({"status": status} if status else {})


def make_rollout(name: str = "support", **status: Any) -> Manifest:
    steps = [{"track": track} for track in ("canary", "staging", "production")]
    return {"metadata": {"name": name}, "spec": {"tracks": {}, "strategy": {"steps": steps}}, "status": status}


def plan(seen: Verification | StorageError | None, status: Manifest | None = None, *rollouts: Manifest) -> Plan:
    return plan_modelversion(Observed(make_parent(status), seen, rollouts), NOW)


def status_of(plan: Plan) -> Manifest:
    assert plan.status is not None
    return plan.status


@pytest.mark.parametrize(
    ("seen", "reason", "verified", "ready", "reconciling", "stalled", "sentence"),
    [
        pytest.param(None, "Verifying", "Unknown", "False", "True", "False", "is being read", id="being read"),
        pytest.param(GOOD, "Verified", "True", "True", "False", "False", "3 files, 2.5 MB", id="everything matches"),
        pytest.param(BAD, "DigestMismatch", "False", "False", "False", "True", "never served", id="a changed file"),
        pytest.param(
            ObjectNotFoundError("there is no s3://models/runs/1/manifest.json"),
            "ArtifactNotFound",
            "False",
            "False",
            "True",
            "True",
            "spec.artifact.uri: there is no s3://models/runs/1/manifest.json",
            id="no manifest",
        ),
        pytest.param(
            StorageDeniedError("AccessDenied"),
            "StorageDenied",
            "Unknown",
            "False",
            "True",
            "True",
            "may not read s3://models/runs/1: AccessDenied",
            id="access refused",
        ),
        pytest.param(
            StorageUnavailableError("timed out"),
            "StorageUnavailable",
            "Unknown",
            "False",
            "True",
            "False",
            "timed out. It is tried again",
            id="no answer is unknown and not false",
        ),
    ],
)
def test_verification_is_told_truthfully(
    seen: Verification | StorageError | None,
    reason: str,
    verified: str,
    ready: str,
    reconciling: str,
    stalled: str,
    sentence: str,
) -> None:
    status = status_of(plan(seen))
    found = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert found == {
        "Ready": (ready, reason),
        "Reconciling": (reconciling, reason),
        "Stalled": (stalled, reason),
        "Verified": (verified, reason),
    }
    assert reason in VersionReason.__members__
    assert sentence in status["message"]


def test_what_was_verified_is_never_read_again() -> None:
    status = status_of(plan(GOOD))
    assert is_verified(make_parent(status))
    later = plan(StorageUnavailableError("no route"), status)
    assert (later.status, later.events) == (status, ())
    assert (status["files"], status["bytes"], status["verifiedAt"]) == (3, 2_500_000, "2026-01-01T12:00:00Z")


def test_a_plan_on_its_own_result_changes_nothing() -> None:
    for seen in (None, GOOD, BAD, StorageUnavailableError("x"), ObjectNotFoundError("x"), StorageDeniedError("x")):
        status = status_of(plan(seen))
        again = plan(seen, status)
        assert (again.status, again.events) == (status, ())


def test_a_verdict_is_an_event_once() -> None:
    first = plan(BAD)
    assert [(e.type, e.reason) for e in first.events] == [("Warning", "DigestMismatch")]
    assert plan(GOOD).events == (Event("Normal", "Verified", "Every file matches its digest: 3 files, 2.5 MB"),)
    assert plan(None).events == ()


def test_the_engines_name_holds_the_digest() -> None:
    assert status_of(plan(None))["adapter"] == "support-v1-aaaaaaaa"


STABLE = {"stable": {"version": "support-v1"}}


def candidate(step: int, weight: int = 10) -> Manifest:
    return {"candidate": {"version": "support-v1", "step": step, "weight": weight}}


def pin(name: str, weight: int = 10) -> Manifest:
    return {"tracks": [{"name": name, "version": "support-v1", "slice": "pin", "weight": weight}]}


@pytest.mark.parametrize(
    ("statuses", "stage"),
    [
        pytest.param([], Stage.NONE, id="nobody"),
        pytest.param([STABLE], Stage.PRODUCTION, id="stable"),
        pytest.param([pin("canary")], Stage.CANARY, id="a pin on canary"),
        pytest.param([pin("canary", 0)], Stage.NONE, id="a pin without weight"),
        pytest.param([candidate(0)], Stage.CANARY, id="a candidate on canary"),
        pytest.param([candidate(1)], Stage.STAGING, id="a candidate on staging"),
        pytest.param([candidate(2)], Stage.STAGING, id="a candidate on production's track"),
        pytest.param([candidate(3)], Stage.NONE, id="a candidate on a step that was just taken out"),
        pytest.param([candidate(2, 0)], Stage.NONE, id="a candidate without weight"),
        pytest.param([pin("canary"), STABLE], Stage.PRODUCTION, id="the most public of two rollouts"),
    ],
)
def test_the_stage_is_the_most_public_place_with_traffic(statuses: list[Manifest], stage: Stage) -> None:
    assert stage_of("support-v1", [make_rollout(**status) for status in statuses]) == stage


def test_a_rollout_uses_what_its_spec_and_its_status_name() -> None:
    rollout = make_rollout(stable={"version": "v2"}, previous={"version": "v1"}, candidate=None)
    rollout["spec"]["tracks"] = {"production": {"version": "v3"}, "staging": {"version": "v4", "weight": 5}}
    assert versions_of(rollout) == {"v1", "v2", "v3", "v4"}


def test_users_are_listed_by_name() -> None:
    status = status_of(plan(GOOD, None, make_rollout("a", **STABLE), make_rollout("b"), make_rollout("c", **STABLE)))
    assert (status["usedBy"], status["stage"]) == (["a", "c"], "Production")
