"""Whatever happens in whatever order: plans converge, never run two attempts at once, and never lie about a running pod."""

from collections.abc import Callable
from typing import Any

import kubernetes_validate
from hypothesis import given, settings
from hypothesis import strategies as st

from support.jobs import CPU_NODE, JobWorld, make_job
from tuningfork.api import FineTuneJobStatus
from tuningfork.api.finetunejob import JobReason
from tuningfork.planning.finetunejob.observed import is_finished
from tuningfork.planning.storage import StorageUnavailableError, StoredRun
from tuningfork.sizing import GIB, Offer

Happening = Callable[[JobWorld], object]


def _with_job(happening: Happening) -> Happening:
    """Only where a Job is on its way."""

    def act(world: JobWorld) -> None:
        if any(kind == "Job" for kind, _ in world.children) and not is_finished(world.job()):
            happening(world)

    return act


HAPPENINGS: dict[str, Happening] = {
    "time passes": lambda w: w.at((w.now - _start(w)).total_seconds() + 17),
    "much time passes": lambda w: w.at((w.now - _start(w)).total_seconds() + 400),
    "the pod waits": _with_job(lambda w: w.pod_unscheduled("0/1 nodes")),
    "the pod runs": _with_job(lambda w: w.pod("Running")),
    "the pod reports": lambda w: w.reports("train", 4, attempt=max(1, w.status.get("attempts", 1))),
    "the pod fails": _with_job(lambda w: w.finished(40, says="no", reason="Failed")),
    "the pod runs out of memory": _with_job(lambda w: w.finished(31, says="oom", reason="OutOfMemory")),
    "the pod is evicted": _with_job(lambda w: w.finished(143, disrupted="EvictionByEvictionAPI")),
    "the data is wrong": _with_job(lambda w: w.finished(22, says="no rows", reason="DataUnusable")),
    "the pod finishes": _with_job(lambda w: w.finished(0)),
    "the Job vanishes": _with_job(lambda w: w.job_deleted().pod_gone()),
    "the pod is being deleted": _with_job(
        lambda w: [p["metadata"].update(deletionTimestamp=w.clock()) for p in w.pods]
    ),
    "the pods are gone": lambda w: w.pod_gone(),
    "data is prepared": lambda w: w.prepared(),
    "a result lies there": lambda w: w.with_result(),
    "a refused result lies there": lambda w: w.with_result(accepted=False),
    "the store goes away": lambda w: w.store_says(StorageUnavailableError("no route")),
    "the store is empty": lambda w: w.store_says(StoredRun()),
    "the user suspends": lambda w: w.spec(suspend=True),
    "the user resumes": lambda w: w.spec(suspend=False),
    "the user changes the seed": lambda w: w.spec(training__seed=7),
    "the user wants a GPU": lambda w: w.spec(compute__accelerators=["nvidia-l4"]),
    "a GPU comes": lambda w: w.cluster_has(Offer("nvidia-l4", 22 * GIB, ("NVIDIA-L4",)), *CPU_NODE),
    "somebody takes the name": lambda w: w.version_exists("support-v1"),
    "the status is lost": lambda w: w.parent.pop("status", None) and w.parent.update(status={}),
}


def _start(world: JobWorld) -> Any:
    return make_job().now


@given(st.lists(st.sampled_from(sorted(HAPPENINGS)), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_history_leads_to_a_plan_that_settles(happenings: list[str]) -> None:
    world = make_job().step()
    for happening in happenings:
        HAPPENINGS[happening](world)
        world.step()
        _check(world)
    world.step().step()  # a Job may start, a version may be made and then be found
    plan = world.plan()
    assert (plan.delete, plan.create, plan.apply) == ((), (), ()), plan.why
    assert plan.status in (None, world.status), plan.why


def _check(world: JobWorld) -> None:
    status = FineTuneJobStatus.model_validate(world.status)
    jobs = [child for (kind, _), child in world.children.items() if kind == "Job"]
    assert sum(not is_finished(job) for job in jobs) <= 1, "two attempts at once"
    assert all(c.reason in JobReason.__members__ for c in status.conditions)
    if status.phase.value in {"Training", "Evaluating"}:
        assert world.pods, "says that it trains without a pod"
        assert world.pods[-1]["status"]["phase"] != "Pending", "says that it trains with a waiting pod"
    numbers = [(run.stage, run.attempt) for run in status.runs]
    assert len(numbers) == len(set(numbers)), "an attempt's number was used twice"


@given(st.sampled_from(["cpu", "nvidia-l4"]), st.booleans())
@settings(max_examples=4, deadline=None)
def test_children_are_valid_kubernetes_objects(accelerator: str, prepared: bool) -> None:
    world = make_job().spec(compute__accelerators=[accelerator])
    world.cluster_has(Offer("nvidia-l4", 22 * GIB, ("NVIDIA-L4",)), *CPU_NODE)
    if prepared:
        world.prepared()
    for child in world.plan().create:
        kubernetes_validate.validate(child, "1.34", strict=True)
