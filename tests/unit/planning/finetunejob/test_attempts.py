"""Attempts: what changes from one to the next, what is left behind, and what must never happen twice."""

from collections.abc import Callable
from typing import Any

import pytest

from support.jobs import CPU_NODE, JobWorld, at, make_job, preparing, training
from tuningfork.api.finetunejob import DataStatus
from tuningfork.planning.plan import ObjectRef
from tuningfork.sizing import GIB, Offer


def trainer(job: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]
    return container


def next_attempt(world: JobWorld, seconds: float) -> JobWorld:
    """The end of the attempt is seen, its pause passes, and the next one is made."""
    return world.step().at(seconds).step()


def test_accelerator_memory_that_runs_out_moves_down_one_ladder_at_the_same_effective_batch() -> None:
    world = training().spec(retries=20)
    seen = []
    for number in range(1, 6):
        sizing = world.status["sizing"]
        seen.append((sizing["microBatchSize"], sizing["gradientAccumulationSteps"], sizing["gradientCheckpointing"]))
        next_attempt(world.finished(31, says="CUDA out of memory", reason="OutOfMemory"), 400 * number)
    assert seen == [(8, 2, False), (4, 4, False), (2, 8, False), (1, 16, False), (1, 16, True)]
    assert world.status["phase"] == "Failed"


def test_the_next_accepted_accelerator_is_taken_when_the_first_has_run_out() -> None:
    cards = [Offer("nvidia-l4", 22 * GIB, ("NVIDIA-L4",)), Offer("nvidia-l40s", 45 * GIB, ("NVIDIA-L40S",))]
    world = make_job().prepared().cluster_has(*cards, *CPU_NODE)
    world.spec(compute__accelerators=["nvidia-l4", "nvidia-l40s"], training__effectiveBatchSize=1, retries=20).step()
    seen = [world.status["sizing"]["accelerator"]]
    for number in range(1, 3):
        next_attempt(world.finished(31, says="CUDA out of memory", reason="OutOfMemory"), 400 * number)
        seen.append(world.status["sizing"]["accelerator"])
    assert seen == ["nvidia-l4", "nvidia-l4", "nvidia-l40s"]


def test_host_memory_that_ran_out_is_raised_and_the_micro_batch_kept() -> None:
    world = training()
    before = trainer(world.job())["resources"]
    next_attempt(world.finished(137, container="OOMKilled"), 11)
    after = trainer(world.job())["resources"]
    assert before == {"requests": {"cpu": "500m", "memory": "9300Mi"}, "limits": {"memory": "11625Mi"}}
    assert after == {"requests": {"cpu": "500m", "memory": "13950Mi"}, "limits": {"memory": "17437Mi"}}
    assert world.status["sizing"]["microBatchSize"] == 8


def test_memory_is_never_raised_above_what_a_node_has() -> None:
    world = training().spec(retries=20)
    for number in range(1, 6):
        next_attempt(world.finished(137, container="OOMKilled"), 400 * number)
    assert trainer(world.job())["resources"]["requests"]["memory"] == "22119Mi"


@pytest.mark.parametrize(
    ("given", "resources"),
    [
        pytest.param(
            {"requests": {"cpu": "4"}},
            {"requests": {"cpu": "4", "memory": "9300Mi"}, "limits": {"memory": "11625Mi"}},
            id="cores only",
        ),
        pytest.param(
            {"requests": {"memory": "32Gi"}},
            {"requests": {"cpu": "500m", "memory": "32Gi"}, "limits": {}},
            id="more memory than our limit",
        ),
    ],
)
def test_the_administrators_resources_win_on_cpu(given: dict[str, Any], resources: dict[str, Any]) -> None:
    world = make_job().prepared()
    world.settings = world.settings.model_copy(update={"trainer_resources": given})
    assert trainer(world.step().job())["resources"] == resources


def test_the_history_tells_every_attempt() -> None:
    world = training().pod("Running").reports("train", 5, resumed_from_step=0).step()
    next_attempt(world.at(60).finished(143, disrupted="PreemptionByScheduler"), 71)
    world.pod("Running").reports("train", 9, attempt=2, resumed_from_step=5).step()
    assert world.status["attempts"] == 2
    assert world.status["runs"] == [
        {
            "attempt": 1,
            "stage": "prepare",
            "jobName": "a-e88a5-prepare-1",
            "outcome": "Succeeded",
            "counted": False,
            "exitCode": 0,
            "reason": "Succeeded",
            "message": "The trainer finished",
            "startedAt": at(0),
            "endedAt": at(0),
        },
        {
            "attempt": 1,
            "stage": "train",
            "jobName": "a-e88a5-train-1",
            "outcome": "Interrupted",
            "counted": False,
            "exitCode": 143,
            "reason": "Interrupted",
            "message": "The pod was asked to stop and saved its state: PreemptionByScheduler",
            "resumedFromStep": 0,
            "startedAt": at(0),
            "endedAt": at(60),
        },
        {
            "attempt": 2,
            "stage": "train",
            "jobName": "a-e88a5-train-2",
            "outcome": "Running",
            "counted": False,
            "reason": "",
            "message": "",
            "resumedFromStep": 5,
            "startedAt": at(71),
        },
    ]


def test_an_attempt_that_the_watch_has_not_shown_yet_is_created_again_under_the_same_name() -> None:
    world = preparing().finished(0).prepared()
    first = world.plan()
    world.parent = {**world.parent, "status": first.status}
    again = world.plan()
    names = [[child["metadata"]["name"] for child in plan.create] for plan in (first, again)]
    assert names == [["a-e88a5-train-1", "a-e88a5-train-1"]] * 2


def test_a_lost_status_is_made_anew_from_the_children() -> None:
    world = training().pod("Running").reports("train", 3).step()
    whole = world.status
    del world.parent["status"]
    world.step()
    assert _without_order(world.status) == _without_order(whole)


def _without_order(status: dict[str, Any]) -> dict[str, Any]:
    return status | {"conditions": sorted(status["conditions"], key=lambda c: str(c["type"]))}


def test_another_spec_starts_afresh_and_removes_what_belongs_to_the_old_one() -> None:
    world = failed_for_good().spec(training__seed=7).store_says(None)
    plan = world.plan()
    assert sorted(plan.delete) == [
        ObjectRef("batch/v1", "Job", "ml", "a-e88a5-prepare-1", "uid-a-e88a5-prepare-1"),
        ObjectRef("v1", "ConfigMap", "ml", "a-e88a5-prepare-1", "uid-a-e88a5-prepare-1"),
    ]
    world.carry_out(plan)
    assert (world.status["phase"], world.status["runs"], world.status["attempts"]) == ("Pending", [], 0)


def failed_for_good() -> JobWorld:
    return preparing().finished(21, says="gone", reason="DataNotFound").step()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"compute__accelerators": []}, id="other accelerators"),
        pytest.param({"retries": 5}, id="more retries"),
    ],
)
def test_a_failed_job_tries_again_when_its_owner_changes_anything(changes: dict[str, Any]) -> None:
    world = failed_for_good().spec(**changes)
    world.stored = preparing().stored
    world.step()
    assert (world.status["phase"], world.job()["metadata"]["name"]) == ("Preparing", "a-e88a5-prepare-2")
    assert [run["counted"] for run in world.status["runs"]] == [False]


def test_counts_of_removed_rows_are_shown_when_nothing_survived() -> None:
    data = DataStatus(read=3, kept=0, removed={"empty": 3})
    world = preparing().finished(22, says="nothing left", reason="DataUnusable", data=data).step()
    assert world.status["data"] == data.dump()


def test_a_pod_on_a_node_that_does_not_answer_is_not_waited_for() -> None:
    world = training().pod("Running").step().job_deleted().step()
    world.pods[-1]["metadata"]["deletionTimestamp"] = at(120)
    waiting = world.at(179).plan()
    assert (waiting.create, waiting.requeue_after) == ((), 60)
    names = [child["metadata"]["name"] for child in world.at(181).plan().create]
    assert names == ["a-e88a5-train-2", "a-e88a5-train-2"]


def on_a_lost_node() -> JobWorld:
    """The taint manager deletes the pod with a grace of two minutes, and no kubelet is there to end it."""
    world = training().pod("Running").reports("train", 5).step()
    world.pods[-1]["metadata"]["deletionTimestamp"] = at(120)
    return world


def test_a_pod_that_is_being_deleted_may_still_end_by_itself() -> None:
    plan = on_a_lost_node().at(170).plan()
    assert (plan.delete, plan.requeue_after) == ((), 10)
    assert plan.status is not None
    assert plan.status["phase"] == "Training"


def test_the_job_of_a_pod_whose_node_does_not_answer_is_deleted_and_the_next_attempt_is_not_counted() -> None:
    world = on_a_lost_node()
    name = "a-e88a5-train-1"
    plan = world.at(180).plan()
    assert plan.delete == (ObjectRef("batch/v1", "Job", "ml", name, f"uid-{name}"),)
    assert plan.create == ()
    assert [event.message for event in plan.events if event.type == "Warning"] == [
        "Train attempt 1: The pod's node does not answer"
    ]
    world.carry_out(plan)
    assert (world.status["phase"], world.status["runs"][-1]["counted"]) == ("Queued", False)
    assert world.status["message"] == (
        f"The pod's node does not answer. Next attempt at {at(190)}; not counted as a retry"
    )
    names = [child["metadata"]["name"] for child in world.at(190).plan().create]
    assert names == ["a-e88a5-train-2", "a-e88a5-train-2"]


def test_a_lost_attempt_that_the_watch_still_shows_is_not_taken_for_the_next_one() -> None:
    world = on_a_lost_node().at(180)
    lost = world.job()
    world.step().at(190).step().pod("Running")
    world.children = {("Job", lost["metadata"]["name"]): lost, **world.children}
    plan = world.plan()
    assert plan.create == ()
    assert plan.status is not None
    assert plan.status["phase"] == "Training"


def test_progress_is_written_at_most_every_five_seconds_but_a_new_stage_at_once() -> None:
    world = training().pod("Running").reports("train", 3, after=0).step()
    soon = world.at(2).reports("train", 4, after=2).plan()
    assert soon.status is not None
    assert (soon.status["progress"]["step"], soon.requeue_after) == (3, 3)
    stage = world.reports("evaluate", 15, after=2).plan().status
    assert stage is not None
    assert stage["phase"] == "Evaluating"
    later = world.at(5).reports("train", 6, after=5).plan().status
    assert later is not None
    assert later["progress"] == {
        "stage": "train",
        "step": 6,
        "totalSteps": 15,
        "percent": 40,
        "updatedAt": at(5),
    }


def after_another_spec() -> JobWorld:
    """The first attempt of another spec trained before."""
    world = training().pod("Running").reports("train", 9, resumed_from_step=5).step()
    world.at(60).pod_gone().spec(training__seed=7).step()
    return world.at(61).pod("Running")


def after_prepare() -> JobWorld:
    """The first attempt to prepare reported before."""
    world = preparing().pod("Running").reports("fetch", 9, resumed_from_step=5).step()
    return world.at(60).finished(0).prepared().step().at(61).pod("Running")


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(after_another_spec, id="of another spec"),
        pytest.param(after_prepare, id="of the prepare pod"),
    ],
)
def test_a_report_from_before_the_job_was_made_is_not_its_own(build: Callable[[], JobWorld]) -> None:
    world = build().step()
    assert world.status["message"] == "The pod runs and fetches the model and the data"
    assert world.status.get("progress", {}).get("step", 0) == 0
    assert "resumedFromStep" not in world.status["runs"][-1]
    world.reports("train", 2, resumed_from_step=0).step()
    assert world.status["message"] == "Step 2 of 15"
    assert world.status["runs"][-1]["resumedFromStep"] == 0


def test_the_certificate_in_a_running_pod_follows_the_intake() -> None:
    world = training().pod("Running").step()
    name = world.job()["metadata"]["name"]
    world.children["ConfigMap", name]["data"]["ca.crt"] = "old"
    applied = world.plan().apply
    assert [(child["metadata"]["name"], child["data"]["ca.crt"]) for child in applied] == [
        (name, "-----BEGIN CERTIFICATE-----\n")
    ]


def succeeded() -> JobWorld:
    return training().finished(0).with_result().step().step()


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(succeeded, id="succeeded"),
        pytest.param(failed_for_good, id="failed"),
        pytest.param(lambda: training().finished(10).with_result(accepted=False).step(), id="rejected"),
    ],
)
def test_a_job_that_is_over_causes_no_write_and_is_not_looked_at_again(build: Callable[[], JobWorld]) -> None:
    plan = build().plan()
    assert (plan.delete, plan.create, plan.apply, plan.status, plan.events, plan.requeue_after) == (
        (),
        (),
        (),
        None,
        (),
        None,
    )


def test_a_version_that_somebody_deleted_after_success_is_not_made_again() -> None:
    world = succeeded().spec(retries=5)
    world.versions = []
    plan = world.plan()
    assert (plan.create, plan.status and plan.status["phase"]) == ((), "Succeeded")


def test_without_register_the_files_are_kept_and_no_version_is_made() -> None:
    world = make_job().with_result()
    del world.parent["spec"]["output"]["register"]
    plan = world.plan()
    assert plan.create == ()
    assert plan.status is not None
    assert plan.status["phase"] == "Succeeded"
    assert "the artifacts lie in s3://models/runs" in plan.status["message"]


def test_the_version_has_the_results_lineage_and_outlives_the_job() -> None:
    (version,) = training().finished(0).with_result().plan().create
    assert version == {
        "apiVersion": "tuningfork.dev/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {
            "name": "support-v1",
            "namespace": "ml",
            "labels": {
                "tuningfork.dev/job": "a",
                "tuningfork.dev/job-uid": "00000000-0000-0000-0000-000000000001",
                "tuningfork.dev/model": "support",
            },
        },
        "spec": {
            "model": "support",
            "artifact": {
                "uri": "s3://models/runs/ml/a/h/artifacts/1",
                "digest": "sha256:" + "d" * 64,
                "format": "Adapter",
            },
            "base": {"uri": "s3://models/base"},
            "lineage": {"job": {"name": "a", "uid": "00000000-0000-0000-0000-000000000001"}},
            "metrics": {"perplexity": 5.0, "baseline.perplexity": 10.0, "finalLoss": 1.25},
        },
    }


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    world = training()
    world.parent["metadata"]["deletionTimestamp"] = at(0)
    plan = world.plan()
    assert (plan.delete, plan.create, plan.apply, plan.status) == ((), (), (), None)
