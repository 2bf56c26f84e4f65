"""ModelVersion: "this artifact exists, with this digest, lineage and these metrics"."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tuningfork.api._base import API_VERSION, SET, ApiModel, ArtifactUri, Digest, DnsLabel, Message, Rule, map_by
from tuningfork.api._meta import Condition, ObjectMeta, Reason


class ArtifactFormat(StrEnum):
    """What the files are."""

    ADAPTER = "Adapter"


class Artifact(ApiModel):
    """Files with a manifest."""

    uri: ArtifactUri
    """Prefix that holds manifest.json and the files that it lists."""
    digest: Digest
    """sha256 of manifest.json, which has the sha256 of every file."""
    format: ArtifactFormat = ArtifactFormat.ADAPTER
    """What the files are: Adapter is a peft adapter."""


class BaseModelRef(ApiModel):
    """The model that an adapter belongs to."""

    uri: ArtifactUri
    """Where it lies."""


class JobRef(ApiModel):
    """The job that made a version."""

    name: DnsLabel
    """Its name."""
    uid: str = Field(max_length=64)
    """Its uid."""


class Lineage(ApiModel):
    """Where a version comes from."""

    job: JobRef | None = None
    """The FineTuneJob; absent for a model that was trained elsewhere."""
    data_digest: Digest | None = None
    """Of the prepared splits."""


class ModelVersionSpec(ApiModel):
    """An artifact and its origin; immutable."""

    cel_rules: ClassVar = (
        Rule("self == oldSelf", "a ModelVersion's spec is immutable; create another version instead"),
        Rule("!self.artifact.uri.startsWith('file:')", "spec.artifact.uri: a cluster reads s3:// only, not file://"),
        Rule("!self.base.uri.startsWith('file:')", "spec.base.uri: a cluster reads s3:// only, not file://"),
    )

    model: DnsLabel
    """The model that this is a version of."""
    artifact: Artifact
    """The files."""
    base: BaseModelRef
    """The model that the adapter belongs to."""
    lineage: Lineage = Lineage()
    """Where it comes from."""
    metrics: Annotated[dict[str, float], Field(max_length=64)] = {}
    """Evaluation results, by metric."""


class Stage(StrEnum):
    """The most public place where a version serves."""

    NONE = "None"
    CANARY = "Canary"
    STAGING = "Staging"
    PRODUCTION = "Production"


class VersionCondition(StrEnum):
    """Condition types of a ModelVersion."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    VERIFIED = "Verified"


class VersionReason(Reason):
    """Every reason that a condition of a ModelVersion can have."""

    Verifying = "The manifest and its files are being read."
    Verified = "Every file matches the manifest, and the manifest its digest."
    DigestMismatch = "A file or the manifest is not what the digest says; the version is never served."
    ArtifactNotFound = "There is no manifest at the artifact's URI."
    StorageDenied = "The object store refused access."
    StorageUnavailable = "The object store cannot be reached; it is tried again."


class ModelVersionStatus(ApiModel):
    """What the operator knows of the version."""

    observed_generation: int = 0
    """The metadata.generation that this status speaks of."""
    message: Message = ""
    """Where the version stands, as a sentence."""
    conditions: Annotated[list[Condition], Field(json_schema_extra=map_by("type"), max_length=16)] = []
    """Ready, Reconciling, Stalled, Verified."""
    stage: Stage = Stage.NONE
    """The most public place where it serves."""
    used_by: Annotated[list[str], Field(max_length=64, json_schema_extra=SET)] = []
    """Rollouts that name it."""
    adapter: str | None = None
    """The name that engines know it by: <version>-<first 8 of the digest>."""
    files: int | None = None
    """Files in the manifest."""
    bytes_: int | None = Field(default=None, alias="bytes")
    """Bytes of those files."""
    verified_at: str | None = Field(default=None, max_length=40)
    """When the digests were last verified."""


class ModelVersion(ApiModel):
    """A verified artifact with lineage and metrics."""

    api_version: Literal["tuningfork.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelVersion"] = "ModelVersion"
    metadata: ObjectMeta
    spec: ModelVersionSpec
    status: ModelVersionStatus | None = None


def adapter_name(version: str, digest: str) -> str:
    """The name that engines know a version by; engines cache by name, so another content must have another name."""
    return f"{version}-{digest.removeprefix('sha256:')[:8]}"
