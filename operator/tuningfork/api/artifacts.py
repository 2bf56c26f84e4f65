"""How results lie in the object store, and the manifest that makes them visible.

Below ``<output.uri>/<namespace>/<name>/<spec hash>``::

    prepared/              train.jsonl, validation.jsonl, test.jsonl, removed.jsonl, data.json, manifest.json
    checkpoints/<attempt>/step-<n>/    files, manifest.json
    artifacts/<attempt>/   the adapter's files, report.json, manifest.json
    result.json            which attempt's artifacts count: written once with If-None-Match, last of all

A folder exists once its manifest.json does: it is written last and holds the sha256 of every other file. A lost attempt that
goes on writing changes nothing, because it writes under its own number and result.json exists already.
"""

import hashlib
import json
from typing import Annotated, Any

from pydantic import Field

from tuningfork.api._base import ApiModel, Digest
from tuningfork.api.finetunejob import DataStatus, EvaluationStatus, FineTuneJobSpec

MANIFEST = "manifest.json"
PREPARED = "prepared"
CHECKPOINTS = "checkpoints"
ARTIFACTS = "artifacts"
RESULT = "result.json"
DATA_REPORT = "data.json"


class FileEntry(ApiModel):
    """A file of a manifest."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]
    """Bytes."""


class Manifest(ApiModel):
    """manifest.json: every file of a folder."""

    kind: str
    """prepared, checkpoint or adapter."""
    files: dict[str, FileEntry]
    """By path relative to the folder."""
    attributes: dict[str, Any] = {}
    """What a reader needs without opening the files, such as a checkpoint's step."""

    def canonical(self) -> bytes:
        """The bytes that are stored and hashed: sorted keys, no spaces."""
        return json.dumps(self.dump(), sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> Digest:
        return f"sha256:{hashlib.sha256(self.canonical()).hexdigest()}"


class PreparedData(ApiModel):
    """data.json: what prepare found, and what sizing needs to know of the model."""

    data: DataStatus
    model_config_: Annotated[dict[str, Any], Field(alias="modelConfig")]
    """The base model's config.json."""
    weight_bytes: int
    """Bytes of its safetensors files."""


class Result(ApiModel):
    """result.json: the end of a run."""

    attempt: int
    uri: str
    """The folder of its artifacts."""
    digest: Digest
    """Of that folder's manifest."""
    accepted: bool
    """Whether every gate passed."""
    evaluation: EvaluationStatus
    data_digest: Digest | None = None
    final_loss: float | None = None
    """Mean training loss of the last logged step, nats a token."""
    steps: int = 0
    resolved: dict[str, Any] = {}
    """Every value that was defaulted or derived."""


def spec_hash(spec: FineTuneJobSpec) -> str:
    """Hash of what decides the result: 10 hex digits. Compute, suspend and retries decide only where and how often it runs."""
    deciding = spec.dump()
    for field in ("compute", "suspend", "retries", "checkpoints"):
        deciding.pop(field, None)
    deciding.get("output", {}).pop("register", None)
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:10]


def output_prefix(uri: str, namespace: str, name: str, hash_: str) -> str:
    """Where this spec's results lie."""
    return "/".join([uri.rstrip("/"), namespace, name, hash_])
