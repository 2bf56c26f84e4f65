"""What a job says and does in each situation: phase, reason, a piece of the sentence, and what is created."""

from collections.abc import Callable

import pytest

from support.jobs import CPU_NODE, JobWorld, at, make_job, preparing, training
from tuningfork.api.finetunejob import DataStatus, JobReason
from tuningfork.planning.storage import StorageDeniedError, StorageUnavailableError
from tuningfork.sizing import GIB, Offer

T4 = Offer("nvidia-t4", 15 * GIB, ("Tesla-T4",))
EMPTY_DATA = DataStatus(read=3, kept=0, removed={"empty": 3})
SECRET = 'secret "tuningfork-s3" not found'


def lost_twice() -> JobWorld:
    world = training().finished(143, disrupted="DeletionByTaintManager").step().at(11).step()
    return world.finished(143, disrupted="DeletionByTaintManager").at(12)


def failed(times: int) -> JobWorld:
    """That many counted failures, each after its pause."""
    world = training()
    for number in range(times):
        if number:
            world.at(100 * number).step()
        world.finished(40, says="RuntimeError: disk full", reason="Failed").step()
    return world


def out_of_memory(times: int) -> JobWorld:
    world = training().spec(retries=20)
    for number in range(times):
        world.finished(31, says="CUDA out of memory", reason="OutOfMemory").step().at(400 * (number + 1)).step()
    return world


CASES = [
    # Before anything runs
    pytest.param(make_job, "Preparing", "Preparing", "takes no accelerator", id="a new job prepares its data first"),
    pytest.param(
        lambda: make_job().store_says(None), "Pending", "Pending", "earlier results", id="nothing starts unread"
    ),
    pytest.param(
        lambda: make_job().store_says(StorageUnavailableError("connection refused")),
        "Pending",
        "StorageUnavailable",
        "connection refused. It is tried again",
        id="a silent store keeps a new job pending",
    ),
    pytest.param(
        lambda: make_job().store_says(StorageDeniedError("no")),
        "Pending",
        "StorageDenied",
        "cannot read the job's output: no",
        id="a refusing store is said to refuse",
    ),
    pytest.param(
        lambda: make_job().with_result().version_exists("support-v1", digest="sha256:" + "d" * 64),
        "Succeeded",
        "Succeeded",
        "registered as support-v1",
        id="the same job created again succeeds at once",
    ),
    pytest.param(
        lambda: make_job().spec(suspend=True), "Suspended", "Suspended", "nothing runs", id="suspended before it began"
    ),
    # Preparing
    pytest.param(
        lambda: preparing().pod_unscheduled("0/1 nodes are available: 1 Insufficient memory."),
        "Preparing",
        "Preparing",
        "0/1 nodes are available: 1 Insufficient memory.",
        id="prepare waits with the scheduler's words",
    ),
    pytest.param(
        lambda: preparing().pod_cannot_start("CreateContainerConfigError", SECRET),
        "Preparing",
        "PodStartFailed",
        "Secret tuningfork-s3 is missing in namespace ml; create it with the keys AWS_ACCESS_KEY_ID",
        id="a missing secret is named with its keys",
    ),
    pytest.param(
        lambda: preparing().finished(21, says="s3://data/support.jsonl does not exist", reason="DataNotFound"),
        "Failed",
        "DataNotFound",
        "s3://data/support.jsonl does not exist",
        id="missing data is never retried",
    ),
    pytest.param(
        lambda: preparing().finished(22, says="no example survived: 3 empty", reason="DataUnusable", data=EMPTY_DATA),
        "Failed",
        "DataUnusable",
        "no example survived",
        id="unusable data is never retried",
    ),
    pytest.param(
        lambda: preparing().finished(25, says="403 on s3://data", reason="StorageDenied"),
        "Failed",
        "StorageDenied",
        "403 on s3://data",
        id="a bucket that refuses the pod is never retried",
    ),
    pytest.param(
        lambda: preparing().finished(0),
        "Preparing",
        "Retrying",
        "no prepared data in s3://models/runs/ml/a/",
        id="prepare that left nothing is retried",
    ),
    pytest.param(
        lambda: preparing().finished(0).store_says(None),
        "Preparing",
        "Preparing",
        "takes no accelerator",
        id="prepare's report is waited for",
    ),
    # Sizing and waiting
    pytest.param(
        lambda: preparing().finished(0).prepared(),
        "Queued",
        "Queued",
        "micro batch 8 x 2",
        id="prepared data is sized and a training Job made",
    ),
    pytest.param(
        lambda: make_job().prepared().spec(compute__accelerators=["nvidia-h200"]),
        "Queued",
        "NothingFits",
        "asks for nvidia-h200; available: cpu",
        id="an accelerator that the cluster lacks is waited for",
    ),
    pytest.param(
        lambda: (
            make_job()
            .prepared(longestTokens=100_000)
            .spec(training__maxSequenceLength=100_000, compute__accelerators=["nvidia-t4"])
            .cluster_has(T4, *CPU_NODE)
        ),
        "Queued",
        "NothingFits",
        "nvidia-t4 needs",
        id="a run that fits nowhere says what it needs",
    ),
    pytest.param(
        lambda: make_job().prepared().spec(method__lora={"targetModules": ["qproj"]}),
        "Failed",
        "InvalidSpec",
        "spec.method.lora.targetModules: 'qproj' is no linear layer",
        id="an unknown target module names field, value and fix",
    ),
    pytest.param(
        lambda: training().pod_unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
        "Queued",
        "Queued",
        "Insufficient nvidia.com/gpu",
        id="a pod that waits is queued and not training",
    ),
    pytest.param(
        lambda: training().pod_cannot_start("ImagePullBackOff", "Back-off pulling image trainer:1"),
        "Queued",
        "PodStartFailed",
        "its image cannot be used (ImagePullBackOff): Back-off pulling image trainer:1",
        id="an image that cannot be pulled is named",
    ),
    # Running
    pytest.param(
        lambda: training().pod("Running"), "Training", "Training", "fetches the model", id="training before any report"
    ),
    pytest.param(
        lambda: training().pod("Running").reports("train", 3),
        "Training",
        "Training",
        "Step 3 of 15",
        id="training reports steps",
    ),
    pytest.param(
        lambda: training().pod("Running").reports("evaluate", 15),
        "Evaluating",
        "Evaluating",
        "measured on the test split",
        id="evaluating after training",
    ),
    pytest.param(
        lambda: training().pod("Running").reports("export", 15),
        "Exporting",
        "Exporting",
        "being written",
        id="exporting after evaluating",
    ),
    pytest.param(
        lambda: training().pod("Running").reports("evaluate", 15, attempt=7),
        "Training",
        "Training",
        "fetches the model",
        id="a report of another attempt is not ours",
    ),
    pytest.param(
        lambda: training().pod("Running").reports("train", 3).step().store_says(StorageUnavailableError("down")),
        "Training",
        "Training",
        "Step 3 of 15",
        id="a silent store does not disturb a running pod",
    ),
    # Endings
    pytest.param(
        lambda: training().finished(40, says="RuntimeError: disk full", reason="Failed"),
        "Queued",
        "Retrying",
        f"RuntimeError: disk full. Next attempt at {at(10)}; 1 of 2 retries used",
        id="a failure is retried after ten seconds",
    ),
    pytest.param(lambda: failed(2), "Queued", "Retrying", f"{at(120)}; 2 of 2", id="the second pause is twice as long"),
    pytest.param(
        lambda: failed(3),
        "Failed",
        "RetriesExhausted",
        "3 failures with spec.retries 2; the last: RuntimeError: disk full",
        id="more failures than retries are the end",
    ),
    pytest.param(
        lambda: failed(3).spec(retries=3),
        "Queued",
        "Queued",
        "Waiting to be scheduled",
        id="more retries after the end go on at once",
    ),
    pytest.param(
        lambda: training().finished(24, says="config.json has no hidden_size", reason="ModelUnusable"),
        "Failed",
        "ModelUnusable",
        "config.json has no hidden_size",
        id="a model that does not load is never retried",
    ),
    pytest.param(
        lambda: training().finished(30, says="s3 did not answer", reason="StorageUnavailable"),
        "Queued",
        "Retrying",
        "s3 did not answer. Next attempt",
        id="a store that went away in the pod is retried",
    ),
    pytest.param(
        lambda: training().finished(143, disrupted="EvictionByEvictionAPI"),
        "Queued",
        "Interrupted",
        "EvictionByEvictionAPI. Next attempt at 2026-01-01T12:00:10Z; not counted",
        id="a drained node is not counted",
    ),
    pytest.param(lost_twice, "Queued", "Interrupted", "not counted", id="two interruptions are not counted either"),
    pytest.param(
        lambda: training().pod("Failed", reason="Evicted", message="node was low on memory").job_over(),
        "Queued",
        "Interrupted",
        "evicted: node was low on memory",
        id="an evicted pod is not counted",
    ),
    pytest.param(
        lambda: training().job_over(),
        "Queued",
        "Interrupted",
        "vanished without a word",
        id="a pod that vanished is a disruption",
    ),
    pytest.param(
        lambda: training().pod("Running").step().job_deleted().pod_gone(),
        "Queued",
        "Interrupted",
        "The Job is gone",
        id="a Job that somebody deleted is a disruption",
    ),
    pytest.param(
        lambda: training().finished(137, container="OOMKilled"),
        "Queued",
        "Retrying",
        "more host memory than its limit (OOMKilled)",
        id="OOMKilled means host memory",
    ),
    pytest.param(
        lambda: training().finished(137),
        "Queued",
        "Retrying",
        "exit status 137, killed by signal 9",
        id="a kill without a reason is counted",
    ),
    pytest.param(
        lambda: training().finished(1, raw="ModuleNotFoundError: torch"),
        "Queued",
        "Retrying",
        "exit status 1: ModuleNotFoundError: torch",
        id="other last words are passed on",
    ),
    pytest.param(
        lambda: training().finished(1), "Queued", "Retrying", "see `kubectl logs a-", id="no last words: where to look"
    ),
    pytest.param(
        lambda: training().pod("Failed").job_over(reason="DeadlineExceeded"),
        "Queued",
        "Retrying",
        "exceeded its deadline",
        id="a deadline is counted",
    ),
    pytest.param(
        lambda: training().finished(0),
        "Queued",
        "Retrying",
        "exit status 0 but there is no result.json",
        id="a finished Job without a result is no success",
    ),
    # Memory
    pytest.param(
        lambda: out_of_memory(5), "Failed", "OutOfMemory", "Memory ran out at the smallest", id="then memory is out"
    ),
    # Results
    pytest.param(
        lambda: training().finished(0).with_result(),
        "Exporting",
        "Exporting",
        "ModelVersion support-v1 is being registered",
        id="an accepted result is registered",
    ),
    pytest.param(
        lambda: training().finished(0).with_result().version_exists("support-v9").version_exists("support-v10"),
        "Exporting",
        "Exporting",
        "ModelVersion support-v11",
        id="numbers go on after the highest",
    ),
    pytest.param(
        lambda: training().finished(10, says="no", reason="GateFailed").with_result(accepted=False),
        "Rejected",
        "GateFailed",
        "perplexity 9.5 against 10 of the baseline, ratio 0.95, at most 0.9 is accepted",
        id="a failed gate is an honest no with numbers",
    ),
    pytest.param(
        lambda: training().finished(0).with_result(problem="adapter.safetensors has 3 bytes"),
        "Failed",
        "ArtifactInvalid",
        "adapter.safetensors has 3 bytes. Delete s3://models/runs/ml/a",
        id="artifacts that do not match are never registered",
    ),
    pytest.param(
        lambda: training().finished(0).store_says(StorageUnavailableError("no route")),
        "Queued",
        "StorageUnavailable",
        "no route. It is tried again",
        id="a silent store after the end is waited for",
    ),
    pytest.param(
        lambda: (
            training()
            .pod("Running")
            .step()
            .finished(30, says="s3 is away")
            .store_says(StorageUnavailableError("no route"))
        ),
        "Queued",
        "StorageUnavailable",
        "no route. It is tried again",
        id="nothing trains while a silent store is waited for",
    ),
    # Suspending
    pytest.param(
        lambda: training().pod("Running").step().spec(suspend=True).step().step(),
        "Suspended",
        "Suspended",
        "saves a checkpoint and stops",
        id="suspended while the pod still stops",
    ),
    pytest.param(
        lambda: training().pod("Running").step().spec(suspend=True).step().pod_gone(),
        "Suspended",
        "Suspended",
        "nothing runs",
        id="suspended",
    ),
    pytest.param(
        lambda: training().pod("Running").step().spec(suspend=True).step().pod_gone().step().spec(suspend=False),
        "Queued",
        "Queued",
        "Waiting to be scheduled",
        id="resumed without a pause",
    ),
    pytest.param(
        lambda: training().pod("Running").step().spec(suspend=True).step().spec(suspend=False),
        "Queued",
        "Retrying",
        "Waiting for pod a-",
        id="resumed before the pod stopped waits for it",
    ),
]


@pytest.mark.parametrize(("build", "phase", "reason", "sentence"), CASES)
def test_a_job_says_what_is_the_matter(build: Callable[[], JobWorld], phase: str, reason: str, sentence: str) -> None:
    world = build().step()
    ready = next(c for c in world.status["conditions"] if c["type"] == "Ready")
    assert (world.status["phase"], ready["reason"]) == (phase, reason), world.status["message"]
    assert sentence in world.status["message"]
    assert reason in JobReason.__members__
    assert world.status["observedGeneration"] == world.parent["metadata"]["generation"]
