"""The objects that a FineTuneJob owns: a Job with its ConfigMap for each attempt, and the ModelVersion at the end.

A Job is created once and never applied again: a forced re-apply was measured to re-suspend an admitted Job, and to be refused after
node selectors were injected. Its ConfigMap is kept equal, because the intake's certificate may change under a running pod. A
ModelVersion outlives its job and has no owner reference.
"""

import math
from typing import Any, Final

import yaml

from tuningfork.api import API_VERSION, FineTuneJob, JobFile, Settings
from tuningfork.api._meta import (
    LABEL_ATTEMPT,
    LABEL_COMPONENT,
    LABEL_JOB,
    LABEL_JOB_UID,
    LABEL_MODEL,
    LABEL_STAGE,
    ObjectMeta,
    derived_name,
)
from tuningfork.api.artifacts import Result
from tuningfork.api.finetunejob import Sizing
from tuningfork.api.jobfile import INTAKE_AUDIENCE, Intake, RunContext
from tuningfork.api.modelversion import Artifact, BaseModelRef, JobRef, Lineage, ModelVersionSpec
from tuningfork.planning.finetunejob.attempt import Attempt
from tuningfork.planning.finetunejob.observed import ANNOTATION_SIZING, LABEL_SPEC_HASH, PREPARE, TRAIN, Observed
from tuningfork.planning.finetunejob.pod import CONTAINER
from tuningfork.planning.plan import Manifest
from tuningfork.planning.pods import build_container, build_pod_template, env_list, owner_reference
from tuningfork.sizing import CPU, GIB, GPU_RESOURCE, LABEL_PRODUCT, MIB, Offer

GRACE_SECONDS: Final = 120
"""Between SIGTERM and SIGKILL: one optimizer step, a LoRA checkpoint and its upload."""

MEMORY_REQUEST = 1.2
MEMORY_LIMIT = 1.5
"""Of the estimate, for CPU runs."""
MEMORY_RAISE = 1.5
"""After each OOMKilled, up to the largest node."""
NODE_SHARE = 0.9
"""Of a node's memory; what runs on every node needs its part."""

JOB_MOUNT = "/etc/tuningfork"
TOKEN_MOUNT = "/var/run/tuningfork"  # noqa: S105 - a path
TOKEN_FILE = "intake-token"  # noqa: S105 - a file name
CA_KEY = "ca.crt"
JOB_KEY = "job.yaml"
WORK_MOUNT = "/work"


def build_config_map(observed: Observed, job: FineTuneJob, attempt: Attempt) -> Manifest:
    """The job file, and the certificate that the trainer checks the intake against."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(observed.parent, job, attempt),
        "data": {
            JOB_KEY: yaml.safe_dump(_job_file(observed.settings, job, attempt).dump(), sort_keys=True),
            CA_KEY: observed.intake_ca,
        },
    }


def build_job(observed: Observed, job: FineTuneJob, attempt: Attempt) -> Manifest:
    """The batch/v1 Job of an attempt: one pod, never restarted in place, failing at once."""
    metadata = _metadata(observed.parent, job, attempt)
    if attempt.sizing:
        metadata["annotations"] = {ANNOTATION_SIZING: attempt.sizing.model_dump_json(by_alias=True, exclude_none=True)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podFailurePolicy": {
                # The first rule that matches decides, so that an eviction is never taken for the exit status that it caused.
                "rules": [
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": [0]},
                    },
                ]
            },
            "template": _pod_template(observed, job, attempt),
        },
    }


def build_version(job: FineTuneJob, model: str, number: int, result: Result) -> Manifest:
    """The ModelVersion of an accepted result."""
    evaluation = result.evaluation
    measured = {**evaluation.tuned, **{f"baseline.{name}": value for name, value in evaluation.baseline.items()}}
    if result.final_loss is not None:
        measured["finalLoss"] = result.final_loss
    spec = ModelVersionSpec(
        model=model,
        artifact=Artifact(uri=result.uri, digest=result.digest),
        base=BaseModelRef(uri=job.spec.model.uri),
        lineage=Lineage(
            job=JobRef(name=job.metadata.name, uid=job.metadata.uid), data_digest=result.data_digest or None
        ),
        metrics={name: value for name, value in measured.items() if math.isfinite(value)},
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelVersion",
        "metadata": {
            "name": derived_name((model, f"v{number}"), 50),
            "namespace": job.metadata.namespace,
            "labels": {
                LABEL_JOB_UID: job.metadata.uid,
                LABEL_JOB: job.metadata.name,
                LABEL_MODEL: model,
            },
        },
        "spec": spec.dump(),
    }


def _labels(job: FineTuneJob, attempt: Attempt) -> dict[str, str]:
    return {
        LABEL_JOB: job.metadata.name,
        LABEL_STAGE: attempt.stage,
        LABEL_ATTEMPT: str(attempt.number),
        LABEL_SPEC_HASH: attempt.spec_hash,
        LABEL_COMPONENT: CONTAINER,
    }


def _metadata(parent: Manifest, job: FineTuneJob, attempt: Attempt) -> Manifest:
    return {
        "name": attempt.job_name(job.metadata.name),
        "namespace": job.metadata.namespace,
        "labels": _labels(job, attempt),
        "ownerReferences": [owner_reference(parent)],
    }


def _job_file(settings: Settings, job: FineTuneJob, attempt: Attempt) -> JobFile:
    sizing = attempt.sizing
    return JobFile(
        metadata=ObjectMeta(name=job.metadata.name, namespace=job.metadata.namespace, uid=job.metadata.uid),
        spec=job.spec,
        run=RunContext(
            attempt=attempt.number,
            output=attempt.output,
            micro_batch_size=sizing.micro_batch_size if sizing else None,
            gradient_checkpointing=sizing.gradient_checkpointing if sizing else None,
            intake=Intake(
                url=f"https://{settings.service_name}.{settings.namespace}.svc:9443/v1/progress",
                ca_file=f"{JOB_MOUNT}/{CA_KEY}",
                token_file=f"{TOKEN_MOUNT}/{TOKEN_FILE}",
            ),
        ),
    )


def _pod_template(observed: Observed, job: FineTuneJob, attempt: Attempt) -> Manifest:
    settings = observed.settings
    verb = "prepare" if attempt.stage == PREPARE else "run"
    container = build_container(
        settings,
        CONTAINER,
        settings.images.trainer,
        ["tuningfork-trainer", verb, "--job", f"{JOB_MOUNT}/{JOB_KEY}", "--workdir", WORK_MOUNT],
        env=env_list({"HOME": WORK_MOUNT, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}),
        mounts=[
            {"name": "work", "mountPath": WORK_MOUNT},
            {"name": "job", "mountPath": JOB_MOUNT, "readOnly": True},
            {"name": "intake-token", "mountPath": TOKEN_MOUNT, "readOnly": True},
        ],
        resources=_resources(settings, attempt, observed.offers),
        s3=True,
    )
    token = {"serviceAccountToken": {"audience": INTAKE_AUDIENCE, "expirationSeconds": 3600, "path": TOKEN_FILE}}
    return build_pod_template(
        settings,
        [container],
        labels=_labels(job, attempt),
        volumes=[
            {"name": "work", "emptyDir": {}},
            {"name": "job", "configMap": {"name": attempt.job_name(job.metadata.name)}},
            {"name": "intake-token", "projected": {"sources": [token]}},
        ],
        restart_policy="Never",
        grace_seconds=GRACE_SECONDS,
        affinity=_affinity(attempt.sizing, observed.offers),
    )


def _resources(settings: Settings, attempt: Attempt, offers: tuple[Offer, ...]) -> Manifest:
    """CPU runs by the estimate, GPU runs by what passes through host memory; the administrator's figures win on CPU."""
    raised = MEMORY_RAISE**attempt.memory_raises
    sizing = attempt.sizing
    if attempt.stage == TRAIN and sizing and sizing.accelerator != CPU:
        memory = (8 * GIB + 2 * sizing.breakdown.get("weights", 0)) * raised
        return {
            "requests": {"cpu": "1", "memory": _mebibytes(memory)},
            "limits": {"memory": _mebibytes(2 * memory), GPU_RESOURCE: str(sizing.count)},
        }
    most = next((o.usable_bytes * NODE_SHARE for o in offers if o.accelerator == CPU), math.inf)
    request, limit = (
        (sizing.per_gpu_bytes * MEMORY_REQUEST, sizing.per_gpu_bytes * MEMORY_LIMIT) if sizing else (GIB, 4 * GIB)
    )
    chosen = {
        "requests": {"cpu": "500m", "memory": _mebibytes(min(request * raised, most))},
        "limits": {"memory": _mebibytes(min(limit * raised, most))},
    }
    return _overridden(chosen, settings.trainer_resources)


def _overridden(chosen: dict[str, dict[str, str]], given: dict[str, Any]) -> Manifest:
    """What the administrator gives replaces our request *and* limit of that resource: one of each could contradict."""
    decided = {resource for amounts in given.values() for resource in amounts}
    kept = {kind: {r: amount for r, amount in c.items() if r not in decided} for kind, c in chosen.items()}
    return {kind: {**kept.get(kind, {}), **given.get(kind, {})} for kind in {**kept, **given}}


def _mebibytes(size: float) -> str:
    return f"{math.ceil(size / MIB)}Mi"


def _affinity(sizing: Sizing | None, offers: tuple[Offer, ...]) -> Manifest | None:
    """Only nodes with the chosen accelerator, by the label of NVIDIA's GPU feature discovery."""
    products = next((o.products for o in offers if sizing and o.accelerator == sizing.accelerator), ())
    if not products:
        return None
    term = {"matchExpressions": [{"key": LABEL_PRODUCT, "operator": "In", "values": list(products)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
