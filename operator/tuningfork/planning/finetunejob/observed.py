"""What is known of a FineTuneJob when its plan is made."""

from dataclasses import dataclass
from datetime import UTC, datetime

from tuningfork.api import Settings
from tuningfork.api._base import GROUP
from tuningfork.api.jobfile import ProgressReport
from tuningfork.planning.plan import Manifest
from tuningfork.planning.storage import StorageError, StoredRun
from tuningfork.sizing import Offer

LABEL_SPEC_HASH = f"{GROUP}/spec-hash"
"""On a job's children: the spec that they belong to. Children of another spec are leftovers."""
ANNOTATION_SIZING = f"{GROUP}/sizing"
"""On a training Job: the sizing that it was made with, so that nothing depends on a status that was not written."""

PREPARE = "prepare"
TRAIN = "train"


@dataclass(frozen=True)
class Observed:
    """Everything that the plan depends on, besides the time."""

    parent: Manifest
    settings: Settings
    jobs: tuple[Manifest, ...] = ()
    """Of this parent, by owner reference."""
    pods: tuple[Manifest, ...] = ()
    """With the parent's label."""
    config_maps: tuple[Manifest, ...] = ()
    """Of this parent, by owner reference."""
    versions: tuple[Manifest, ...] = ()
    """All ModelVersions of the namespace."""
    offers: tuple[Offer, ...] = ()
    """What the cluster's nodes have."""
    stored: StoredRun | StorageError | None = None
    """The output folder; None: not read yet."""
    progress: ProgressReport | None = None
    """The newest post of the pod."""
    progress_at: datetime | None = None
    """When it came."""
    intake_ca: str = ""
    """PEM of the intake's certificate authority."""


def condition(child: Manifest, type_: str) -> Manifest | None:
    """A child's condition when it is True."""
    conditions = child.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == type_ and c["status"] == "True"), None)


def is_finished(job: Manifest) -> bool:
    """Whether a batch/v1 Job is over, pods included."""
    return bool(condition(job, "Complete") or condition(job, "Failed"))


def is_leaving(child: Manifest) -> bool:
    """Whether its deletion has begun."""
    return "deletionTimestamp" in child["metadata"]


def owned_by(child: Manifest, parent: Manifest) -> bool:
    """By uid: a predecessor of the same name had other children."""
    return any(ref["uid"] == parent["metadata"]["uid"] for ref in child["metadata"].get("ownerReferences", ()))


def timestamp(at: datetime) -> str:
    """As the API writes times."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """A time that the API wrote."""
    return datetime.fromisoformat(text)
