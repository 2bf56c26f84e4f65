"""A FineTuneJob's world in a few words: `make_job("a").prepared().training_pod("Running").observed()`.

Everything that a case does not mention is the ordinary course of things. Jobs, pods and ConfigMaps are made by the planner itself
and then given the status that a case wants, so that a case never repeats what the planner writes.
"""

import copy
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from support.api_objects import changed
from support.api_objects import make_job as make_manifest
from tuningfork.api import Settings
from tuningfork.api.artifacts import FileEntry, Manifest, PreparedData, Result
from tuningfork.api.finetunejob import DataStatus, EvaluationStatus, GateResult
from tuningfork.api.jobfile import ProgressReport, TerminationReport
from tuningfork.planning.finetunejob import Observed, plan_finetunejob
from tuningfork.planning.plan import Plan
from tuningfork.planning.storage import StorageError, StoredRun
from tuningfork.sizing import GIB, Offer

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
UID = "00000000-0000-0000-0000-000000000001"

SMOL = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
"""config.json of SmolLM2-135M."""

SETTINGS = Settings.model_validate(
    {"images": {"trainer": "trainer:1", "serving": "serving:1"}, "s3": {"endpoint": "http://s3:7070"}}
)
CPU_NODE = (Offer("cpu", 24 * GIB),)
DIGEST = "sha256:" + "d" * 64


def at(seconds: float) -> str:
    """A time of the API, seconds after `NOW`."""
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_prepared(**changes: Any) -> PreparedData:
    """What prepare leaves for SmolLM2-135M."""
    data = {"read": 120, "kept": 100, "removed": {"duplicate": 20}, "train": 80, "validation": 10, "test": 10}
    status = DataStatus.model_validate(data | {"tokens": 9000, "longestTokens": 256} | changes)
    return PreparedData.model_validate({"data": status.dump(), "modelConfig": SMOL, "weightBytes": 269_060_552})


def make_result(*, attempt: int = 1, accepted: bool = True, output: str = "s3://models/runs/ml/a/h") -> Result:
    """An accepted or refused result with one gate."""
    ratio = 0.5 if accepted else 0.95
    gate = GateResult(metric="perplexity", value=10 * ratio, baseline=10.0, threshold=0.9, ratio=ratio, passed=accepted)
    evaluation = EvaluationStatus(
        baseline={"perplexity": 10.0}, tuned={"perplexity": 10 * ratio}, tokens=500, gates=[gate]
    )
    return Result(
        attempt=attempt,
        uri=f"{output}/artifacts/{attempt}",
        digest=DIGEST,
        accepted=accepted,
        evaluation=evaluation,
        final_loss=1.25,
        steps=15,
        resolved={"learningRate": 0.001},
    )


def make_artifact_manifest(**files: int) -> Manifest:
    """A manifest of files by size."""
    return Manifest(kind="adapter", files={name: FileEntry(sha256="0" * 64, size=size) for name, size in files.items()})


class JobWorld:
    """Builds an `Observed`; each method is a sentence about the world and returns the builder."""

    def __init__(self, name: str) -> None:
        self.parent = make_manifest(name, training__effectiveBatchSize=16, compute__accelerators=["cpu"])
        self.parent["spec"]["output"]["register"] = {"model": "support"}
        self.parent["metadata"] |= {
            "namespace": "ml",
            "uid": UID,
            "generation": 1,
            "creationTimestamp": at(-60),
        }
        self.settings = SETTINGS
        self.children: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.offers: Sequence[Offer] = CPU_NODE
        self.stored: StoredRun | StorageError | None = StoredRun()
        self.progress: tuple[ProgressReport, datetime] | None = None
        self.now = NOW

    # What the user writes

    def spec(self, **changes: Any) -> "JobWorld":
        """Changes the spec, and with it the generation."""
        self.parent = changed(self.parent, **changes)
        self.parent["metadata"]["generation"] += 1
        return self

    # What the world outside says

    def at(self, seconds: float) -> "JobWorld":
        """Moves the time."""
        self.now = NOW + timedelta(seconds=seconds)
        return self

    def cluster_has(self, *offers: Offer) -> "JobWorld":
        self.offers = offers
        return self

    def store_says(self, stored: StoredRun | StorageError | None) -> "JobWorld":
        self.stored = stored
        return self

    def prepared(self, **data: Any) -> "JobWorld":
        self.stored = StoredRun(make_prepared(**data))
        return self

    def with_result(self, *, accepted: bool = True, attempt: int = 1, problem: str = "") -> "JobWorld":
        self.stored = StoredRun(make_prepared(), make_result(accepted=accepted, attempt=attempt), problem)
        return self

    def reports(
        self, stage: str, step: int = 0, *, attempt: int = 1, after: float | None = None, **more: Any
    ) -> "JobWorld":
        """The pod's newest post, which came now or that many seconds after `NOW`."""
        report = ProgressReport(
            namespace="ml", job=self.name, attempt=attempt, stage=stage, step=step, total_steps=15, **more
        )
        self.progress = (report, self.now if after is None else NOW + timedelta(seconds=after))
        return self

    def version_exists(self, name: str, *, job_uid: str = "another", digest: str = "sha256:" + "e" * 64) -> "JobWorld":
        self.versions.append(
            {
                "apiVersion": "tuningfork.dev/v1alpha1",
                "kind": "ModelVersion",
                "metadata": {"name": name, "namespace": "ml", "labels": {"tuningfork.dev/job-uid": job_uid}},
                "spec": {"model": "support", "artifact": {"uri": "s3://x", "digest": digest}},
            }
        )
        return self

    # What Kubernetes makes of our children

    def step(self) -> "JobWorld":
        """Plans and carries the plan out, as the executor and Kubernetes' watch would."""
        self.carry_out(self.plan())
        return self

    def carry_out(self, plan: Plan) -> None:
        for ref in plan.delete:
            self.children.pop((ref.kind, ref.name), None)
        for manifest in (*plan.create, *plan.apply):
            key = (manifest["kind"], manifest["metadata"]["name"])
            if manifest["kind"] == "ModelVersion":
                self.versions.append(manifest)
                continue
            live = copy.deepcopy(manifest)
            live["metadata"] |= {"uid": f"uid-{key[1]}", "creationTimestamp": self.clock()}
            self.children[key] = self.children.get(key, live) if manifest in plan.create else live
        if plan.status is not None:
            self.parent = {**self.parent, "status": plan.status}

    def job(self) -> dict[str, Any]:
        """The newest batch/v1 Job."""
        return [child for (kind, _), child in self.children.items() if kind == "Job"][-1]

    def pod(self, phase: str = "Pending", **status: Any) -> "JobWorld":
        """Gives the newest Job a pod of this phase; ``status`` is merged."""
        job = self.job()
        name = job["metadata"]["name"] + "-x"
        self.pods = [p for p in self.pods if p["metadata"]["name"] != name]
        owner = {"uid": job["metadata"]["uid"], "kind": "Job", "name": job["metadata"]["name"]}
        self.pods.append(
            {
                "metadata": {
                    "name": name,
                    "namespace": "ml",
                    "labels": dict(job["metadata"]["labels"]),
                    "ownerReferences": [owner],
                    "creationTimestamp": self.clock(),
                },
                "spec": {"nodeName": "node-1"},
                "status": {"phase": phase, **status},
            }
        )
        return self

    def pod_cannot_start(self, reason: str, message: str) -> "JobWorld":
        return self.pod(containerStatuses=[_container(waiting={"reason": reason, "message": message})])

    def pod_unscheduled(self, message: str) -> "JobWorld":
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        return self.pod(conditions=[condition])

    def pod_gone(self) -> "JobWorld":
        self.pods = []
        return self

    def finished(
        self,
        code: int = 0,
        *,
        says: str = "",
        reason: str = "",
        disrupted: str = "",
        container: str = "Error",
        raw: str = "",
        data: DataStatus | None = None,
    ) -> "JobWorld":
        """The newest Job ends with this exit status and these last words."""
        report = TerminationReport(reason=reason, message=says, stage="train", data=data)
        message = raw or (report.model_dump_json(by_alias=True, exclude_none=True) if says else "")
        terminated = {"exitCode": code, "reason": "Completed" if code == 0 else container, "message": message}
        conditions = [{"type": "DisruptionTarget", "status": "True", "reason": disrupted}] if disrupted else []
        self.pod(
            "Failed" if code else "Succeeded",
            containerStatuses=[_container(terminated=terminated)],
            conditions=conditions,
        )
        return self.job_over("Failed" if code else "Complete")

    def job_over(self, type_: str = "Failed", reason: str = "PodFailurePolicy") -> "JobWorld":
        condition = {"type": type_, "status": "True", "reason": reason, "lastTransitionTime": self.clock()}
        self.job()["status"] = {"conditions": [condition]}
        return self

    def job_deleted(self) -> "JobWorld":
        name = self.job()["metadata"]["name"]
        del self.children["Job", name]
        return self

    # The end of a sentence

    def observed(self) -> Observed:
        progress, when = self.progress or (None, None)
        return Observed(
            parent=copy.deepcopy(self.parent),
            settings=self.settings,
            jobs=tuple(c for (kind, _), c in self.children.items() if kind == "Job"),
            pods=tuple(self.pods),
            config_maps=tuple(c for (kind, _), c in self.children.items() if kind == "ConfigMap"),
            versions=tuple(self.versions),
            offers=tuple(self.offers),
            stored=self.stored,
            progress=progress,
            progress_at=when,
            intake_ca="-----BEGIN CERTIFICATE-----\n",
        )

    def plan(self) -> Plan:
        return plan_finetunejob(self.observed(), self.now)

    @property
    def name(self) -> str:
        return str(self.parent["metadata"]["name"])

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.parent["status"]
        return status

    def clock(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")


def make_job(name: str = "a") -> JobWorld:
    """A FineTuneJob that was just created in a cluster with one CPU node."""
    return JobWorld(name)


def preparing() -> JobWorld:
    """Its prepare Job exists."""
    return make_job().step()


def training() -> JobWorld:
    """Prepared and sized; the first training Job exists."""
    return preparing().finished(0).prepared().step()


def _container(**state: Any) -> dict[str, Any]:
    return {"name": "trainer", "state": state}
