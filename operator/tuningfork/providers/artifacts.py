"""What lies in the object store, read as `tuningfork.api.artifacts` describes it.

A folder counts only with its manifest, and a result only with artifacts that match it. Contents are hashed once, for the
ModelVersion; a finished run is compared by the manifest's digest and the files' sizes, which needs no download.
"""

import hashlib
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from tuningfork.api.artifacts import DATA_REPORT, MANIFEST, PREPARED, RESULT, Manifest, PreparedData, Result
from tuningfork.planning.storage import ObjectNotFoundError, StoredRun, Verification

M = TypeVar("M", bound=BaseModel)


class Objects(Protocol):
    """The part of `S3` that is used here."""

    async def read(self, uri: str) -> bytes: ...

    async def sizes(self, prefix: str) -> dict[str, int]: ...

    async def sha256(self, uri: str) -> str: ...


async def read_run(objects: Objects, output: str) -> StoredRun:
    """What a run has left in its output folder so far."""
    prepared = await _read_prepared(objects, output)
    content = await _read_optional(objects, f"{output}/{RESULT}")
    if content is None:
        return StoredRun(prepared)
    try:
        result = Result.model_validate_json(content)
    except ValidationError:
        return StoredRun(prepared, problem=f"{output}/{RESULT} cannot be read as a result")
    return StoredRun(prepared, result, await _problem(objects, result.uri, result.digest))


async def verify_version(objects: Objects, uri: str, digest: str) -> Verification:
    """Hashes every file; raises ObjectNotFoundError when there is no manifest."""
    content = await objects.read(f"{uri.rstrip('/')}/{MANIFEST}")
    manifest, problem = _parse_manifest(content, uri, digest)
    if manifest is None:
        return Verification(problem=problem)
    for path, entry in manifest.files.items():
        try:
            found = await objects.sha256(f"{uri.rstrip('/')}/{path}")
        except ObjectNotFoundError:
            return Verification(problem=f"{uri}: {path} is in the manifest but not in the folder")
        if found != entry.sha256:
            return Verification(
                problem=f"{uri}: {path} has sha256 {found[:12]}..., its manifest says {entry.sha256[:12]}..."
            )
    return Verification(len(manifest.files), sum(entry.size for entry in manifest.files.values()))


async def _read_prepared(objects: Objects, output: str) -> PreparedData | None:
    """Unreadable counts as absent: it is prepared again."""
    if await _read_optional(objects, f"{output}/{PREPARED}/{MANIFEST}") is None:
        return None
    content = await _read_optional(objects, f"{output}/{PREPARED}/{DATA_REPORT}")
    try:
        return PreparedData.model_validate_json(content) if content else None
    except ValidationError:
        return None


async def _problem(objects: Objects, uri: str, digest: str) -> str:
    """What is wrong with a finished run's artifacts; empty when nothing is."""
    content = await _read_optional(objects, f"{uri}/{MANIFEST}")
    if content is None:
        return f"{uri} has no {MANIFEST}"
    manifest, problem = _parse_manifest(content, uri, digest)
    if manifest is None:
        return problem
    sizes = await objects.sizes(uri)
    for path, entry in manifest.files.items():
        if sizes.get(path) != entry.size:
            return f"{uri}: {path} has {sizes.get(path, 'no')} bytes, its manifest says {entry.size}"
    return ""


def _parse_manifest(content: bytes, uri: str, digest: str) -> tuple[Manifest | None, str]:
    """The manifest, or why it is none."""
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError:
        return None, f"{uri}/{MANIFEST} cannot be read as a manifest"
    # The bytes as stored, not the parsed model again: another writer's spelling would hash differently.
    found = content_digest(content)
    if found != digest:
        return None, f"{uri}/{MANIFEST} has digest {found[:19]}..., expected {digest[:19]}..."
    outside = [path for path in manifest.files if path.startswith("/") or ".." in path.split("/")]
    if outside:
        return None, f"{uri}/{MANIFEST} names {outside[0]!r}, which lies outside of the folder"
    return manifest, ""


def content_digest(content: bytes) -> str:
    """As `Manifest.digest`, of stored bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def _read_optional(objects: Objects, uri: str) -> bytes | None:
    try:
        return await objects.read(uri)
    except ObjectNotFoundError:
        return None
