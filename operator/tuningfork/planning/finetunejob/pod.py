"""What a pod says about itself, in a person's words: why it does not run yet, and how it ended.

Order matters in `ending`: the trainer's own exit status says more than the node's view of it, except where the node killed it.
A pod that vanished without a word is a disruption and not a failure, because that is what drains and lost nodes look like.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from pydantic import ValidationError

from tuningfork.api.finetunejob import JobReason, Outcome
from tuningfork.api.jobfile import EXIT_REASONS, PERMANENT, ExitCode, TerminationReport
from tuningfork.planning.finetunejob.observed import condition, is_leaving, parse_time
from tuningfork.planning.plan import Manifest
from tuningfork.planning.pods import S3_KEYS

CONTAINER = "trainer"

START_ERRORS = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
"""Waiting reasons of the kubelet that a person has to do something about."""

LOST_POD_SECONDS = 60
"""After the end of its grace period a pod that is still there belongs to a node that does not answer."""

PERMANENT_REASONS = frozenset(EXIT_REASONS[code] for code in PERMANENT)


class PodState(Enum):
    """Where a pod stands."""

    WAITING = auto()
    CANNOT_START = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(frozen=True)
class Look:
    """A pod's state with a sentence."""

    state: PodState
    message: str = ""


@dataclass(frozen=True)
class Ending:
    """How an attempt ended."""

    outcome: Outcome
    reason: JobReason
    message: str
    counted: bool = False
    exit_code: int | None = None


def pod_of(job: Manifest, pods: tuple[Manifest, ...]) -> Manifest | None:
    """The Job's pod; the newest, should there ever be two."""
    own = [
        pod
        for pod in pods
        if any(ref["uid"] == job["metadata"]["uid"] for ref in pod["metadata"].get("ownerReferences", ()))
    ]
    return max(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


def has_ended(pod: Manifest) -> bool:
    """Whether its containers are over."""
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def lost_in(pod: Manifest | None, now: datetime) -> float | None:
    """Seconds until a pod that is being deleted counts as lost, 0 or less once it does; None for any other pod.

    Nobody but the kubelet says that a pod is over. Where its node is gone the pod says Running for ever, and its Job stays active.
    """
    if pod is None or has_ended(pod) or not is_leaving(pod):
        return None
    until = parse_time(pod["metadata"]["deletionTimestamp"])  # the end of its grace period
    return LOST_POD_SECONDS - (now - until).total_seconds()


def is_lost(pod: Manifest | None, now: datetime) -> bool:
    """Whether the pod's node does not answer."""
    left = lost_in(pod, now)
    return left is not None and left <= 0


def look_at(pod: Manifest | None, secret_name: str) -> Look:
    """Why the pod does not run, or that it does."""
    if pod is None:
        return Look(PodState.WAITING, "The Job has no pod yet; `kubectl describe job` shows why if this lasts")
    status = pod.get("status", {})
    waiting = _container(pod).get("state", {}).get("waiting", {})
    if waiting.get("reason") in START_ERRORS:
        return Look(PodState.CANNOT_START, _start_error(pod, waiting, secret_name))
    match status.get("phase", "Pending"):
        case "Running":
            return Look(PodState.RUNNING)
        case "Succeeded" | "Failed":
            return Look(PodState.ENDED)
    unscheduled = next(
        (c for c in status.get("conditions") or [] if c["type"] == "PodScheduled" and c["status"] == "False"), None
    )
    if unscheduled:
        return Look(PodState.WAITING, f"Waiting for a node: {unscheduled.get('message') or unscheduled.get('reason')}")
    node = pod.get("spec", {}).get("nodeName", "")
    return Look(PodState.WAITING, f"The pod starts on node {node}" if node else "Waiting for the scheduler")


def ending(job: Manifest, pod: Manifest | None) -> Ending:
    """How the Job's attempt ended; the Job is Complete or Failed."""
    if condition(job, "Complete"):
        report = last_words(pod)
        text = report.message if report else "The trainer finished"
        return Ending(Outcome.SUCCEEDED, JobReason.Succeeded, text, exit_code=0)
    if pod is None:
        return _interrupted("The pod vanished without a word, as when its node is lost or drained")
    terminated = _container(pod).get("state", {}).get("terminated")
    reason = pod.get("status", {}).get("reason", "")
    if reason == "Evicted":
        return _interrupted(f"The pod was evicted: {pod['status'].get('message', 'no reason given')}", terminated)
    if terminated is None:
        return _without_container(job, pod)
    code = int(terminated.get("exitCode", 0))
    if terminated.get("reason") == "OOMKilled":
        return Ending(
            Outcome.FAILED,
            JobReason.OutOfMemory,
            "The pod needed more host memory than its limit (OOMKilled); the next attempt gets more",
            counted=True,
            exit_code=code,
        )
    if code in EXIT_REASONS:
        return _by_exit_code(ExitCode(code), terminated, pod)
    disruption = condition(pod, "DisruptionTarget")
    if disruption or is_leaving(pod):
        why = disruption.get("message") or disruption.get("reason") if disruption else "it was deleted"
        return _interrupted(f"The pod was stopped: {why}", terminated)
    return _unknown_exit(code, terminated, pod)


def last_words(pod: Manifest | None) -> TerminationReport | None:
    """The trainer's report in a pod that ended."""
    terminated = _container(pod).get("state", {}).get("terminated") if pod else None
    return _report(terminated) if terminated else None


def _by_exit_code(code: ExitCode, terminated: Manifest, pod: Manifest) -> Ending:
    reason = EXIT_REASONS[code]
    if code == ExitCode.OK:  # the Job failed all the same: another container or a deadline
        return _unknown_exit(code, terminated, pod)
    if code == ExitCode.INTERRUPTED:
        disruption = condition(pod, "DisruptionTarget")
        why = f": {disruption.get('message') or disruption.get('reason')}" if disruption else ""
        return _interrupted(f"The pod was asked to stop and saved its state{why}", terminated)
    report = _report(terminated)
    message = report.message if report else reason.value
    if code == ExitCode.REJECTED:
        return Ending(Outcome.REJECTED, reason, message, exit_code=code)
    return Ending(Outcome.FAILED, reason, message, counted=True, exit_code=code)


def _unknown_exit(code: int, terminated: Manifest, pod: Manifest) -> Ending:
    """An exit status that is not the trainer's: the interpreter, the shell or a signal."""
    report = _report(terminated)
    words = report.message if report else str(terminated.get("message") or "").strip()[:300]
    signal = f", killed by signal {code - 128}" if code > 128 else ""
    last = f": {words}" if words else f"; see `kubectl logs {pod['metadata']['name']}`"
    return Ending(
        Outcome.FAILED,
        JobReason.PodStartFailed
        if terminated.get("reason") in {"StartError", "ContainerCannotRun"}
        else JobReason.Failed,
        f"The trainer ended with exit status {code}{signal}{last}",
        counted=True,
        exit_code=code,
    )


def _without_container(job: Manifest, pod: Manifest) -> Ending:
    """The Job failed and its container never said how: a deadline counts, everything else was done to the pod."""
    failed = condition(job, "Failed") or {}
    if "DeadlineExceeded" in (failed.get("reason"), pod.get("status", {}).get("reason")):
        return Ending(Outcome.FAILED, JobReason.Failed, "The Job exceeded its deadline", counted=True)
    status: dict[str, Any] = pod.get("status", {})
    disruption = condition(pod, "DisruptionTarget") or {}
    why = disruption.get("message") or status.get("message") or status.get("reason") or "it vanished without a word"
    return _interrupted(f"The pod was lost: {why}")


def _interrupted(message: str, terminated: Manifest | None = None) -> Ending:
    code = terminated.get("exitCode") if terminated else None
    return Ending(Outcome.INTERRUPTED, JobReason.Interrupted, message, exit_code=code)


def _report(terminated: Manifest) -> TerminationReport | None:
    """The trainer's last words; None when something else wrote them."""
    try:
        return TerminationReport.model_validate_json(terminated.get("message") or "")
    except ValidationError:
        return None


def _container(pod: Manifest) -> Manifest:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return next((s for s in statuses if s["name"] == CONTAINER), {})


def _start_error(pod: Manifest, waiting: Manifest, secret_name: str) -> str:
    said = waiting.get("message") or waiting["reason"]
    if f'secret "{secret_name}" not found' in said:
        namespace = pod["metadata"]["namespace"]
        return (
            f"The pod cannot start: Secret {secret_name} is missing in namespace {namespace};"
            f" create it with the keys {' and '.join(S3_KEYS)}"
        )
    if "image" in said.lower() or "Image" in waiting["reason"]:
        return f"The pod cannot start: its image cannot be used ({waiting['reason']}): {said}"
    return f"The pod cannot start ({waiting['reason']}): {said}"
