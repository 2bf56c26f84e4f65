"""FineTuneJob in the runtime: what is observed for its plan. Every decision is in `tuningfork.planning.finetunejob`."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from tuningfork.api import API_VERSION, FineTuneJob, Settings
from tuningfork.api._meta import LABEL_JOB
from tuningfork.api.artifacts import output_prefix, spec_hash
from tuningfork.api.finetunejob import Outcome
from tuningfork.control.controller import Key, Outside, Resource, Store, Watched
from tuningfork.control.intake import ProgressBoard
from tuningfork.planning.finetunejob import Observed, is_settled, plan_finetunejob
from tuningfork.planning.finetunejob.observed import is_finished, owned_by
from tuningfork.planning.finetunejob.world import read_status
from tuningfork.planning.plan import Manifest, Plan
from tuningfork.planning.storage import StorageError, StorageUnavailableError, StoredRun
from tuningfork.providers.artifacts import Objects, read_run
from tuningfork.providers.s3 import S3
from tuningfork.sizing import discover

FINETUNEJOB: Final = Resource(API_VERSION, "FineTuneJob", "finetunejobs")
MODELVERSION: Final = Resource(API_VERSION, "ModelVersion", "modelversions")
JOB: Final = Resource("batch/v1", "Job", "jobs")
POD: Final = Resource("v1", "Pod", "pods")
CONFIG_MAP: Final = Resource("v1", "ConfigMap", "configmaps")
NODE: Final = Resource("v1", "Node", "nodes")

READ_SECONDS: Final = 30
"""Of the output folder: a handful of small objects and a list."""


class FineTuneJobController:
    """Observes and plans; see `tuningfork.control.controller.Controller`."""

    resource = FINETUNEJOB
    watched: tuple[Watched, ...] = (
        Watched(JOB, LABEL_JOB, lambda child: _by_label(child)),
        Watched(POD, LABEL_JOB, lambda child: _by_label(child)),
        Watched(CONFIG_MAP, LABEL_JOB, lambda child: _by_label(child)),
        Watched(MODELVERSION, None, lambda version: _by_lineage(version)),
        # Nodes wake nobody: their status changes all the time, and a job that nothing fits looks again by itself.
        Watched(NODE, None, lambda node: []),
    )

    def __init__(
        self,
        settings: Settings,
        store: Store,
        outside: Outside,
        progress: ProgressBoard,
        ca_pem: Callable[[], str],
        objects: Objects | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._outside = outside
        self._progress = progress
        self._ca_pem = ca_pem
        self._objects = objects or S3(settings.s3)

    def observe(self, parent: Manifest) -> Observed:
        if is_settled(parent):
            return Observed(parent, self._settings)
        namespace, name = parent["metadata"]["namespace"], parent["metadata"]["name"]
        label = {LABEL_JOB: name}
        jobs = self._owned("Job", parent)
        progress, at = self._progress.latest(namespace, name) or (None, None)
        return Observed(
            parent=parent,
            settings=self._settings,
            jobs=jobs,
            pods=tuple(self._store.list("Pod", namespace, label)),
            config_maps=self._owned("ConfigMap", parent),
            versions=tuple(self._store.list("ModelVersion", namespace)),
            offers=discover(self._store.list("Node")),
            stored=self._read_output(parent, jobs),
            progress=progress,
            progress_at=at,
            intake_ca=self._ca_pem(),
        )

    def plan(self, observed: Observed, now: datetime) -> Plan:
        return plan_finetunejob(observed, now)

    def _owned(self, kind: str, parent: Manifest) -> tuple[Manifest, ...]:
        metadata = parent["metadata"]
        found = self._store.list(kind, metadata["namespace"], {LABEL_JOB: metadata["name"]})
        return tuple(child for child in found if owned_by(child, parent))

    def _read_output(self, parent: Manifest, jobs: tuple[Manifest, ...]) -> StoredRun | StorageError | None:
        """Read once for each set of attempts that are over: nothing else of ours changes what lies there."""
        try:
            job = FineTuneJob.model_validate({**parent, "status": None})
        except ValidationError:
            return None
        meta = job.metadata
        output = output_prefix(job.spec.output.uri, meta.namespace, meta.name, spec_hash(job.spec))
        reading = self._outside.latest(
            ("output", meta.uid, output, meta.generation, _over(parent, jobs)),
            Key(self.resource.kind, meta.namespace, meta.name),
            lambda: read_run(self._objects, output),
            max_age=math.inf,
            timeout=READ_SECONDS,
        )
        if reading is None:
            return None
        return _answer(reading.value, reading.error)


def _over(parent: Manifest, jobs: tuple[Manifest, ...]) -> frozenset[str]:
    """Finished Jobs, and ended attempts that have none any more: a Job may be deleted, and what it left must not be forgotten."""
    finished = {job["metadata"]["name"]: job["metadata"]["uid"] for job in jobs if is_finished(job)}
    ended = {run.job_name for run in read_status(parent).runs if run.outcome != Outcome.RUNNING}
    return frozenset(finished.values()) | (ended - finished.keys())


def _answer(value: StoredRun | None, error: Exception | None) -> StoredRun | StorageError | None:
    if error is None or isinstance(error, StorageError):
        return error or value
    return StorageUnavailableError(str(error) or type(error).__name__)


def _by_label(child: Manifest) -> list[Key]:
    metadata = child["metadata"]
    return [Key(FINETUNEJOB.kind, metadata["namespace"], metadata["labels"][LABEL_JOB])]


def _by_lineage(version: Manifest) -> list[Key]:
    job = version["spec"].get("lineage", {}).get("job")
    return [Key(FINETUNEJOB.kind, version["metadata"]["namespace"], job["name"])] if job else []
