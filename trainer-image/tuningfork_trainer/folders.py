"""Folders with a manifest: complete once manifest.json exists, and what it says is checked on every way in.

Files are uploaded first, the manifest last; when a folder is removed the manifest goes first. Whatever dies in between leaves a
folder that does not exist for a reader.
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from tuningfork.api.artifacts import MANIFEST, FileEntry, Manifest
from tuningfork_trainer.errors import DigestMismatch, ObjectNotFound
from tuningfork_trainer.store import ObjectStore


def save_folder(store: ObjectStore, folder: Path, kind: str, attributes: dict[str, Any]) -> Manifest:
    """Uploads a folder into the store's root. What stood there under a manifest stops existing first."""
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    files.pop(MANIFEST, None)
    manifest = Manifest(kind=kind, files={name: _entry(p) for name, p in files.items()}, attributes=attributes)
    store.delete([MANIFEST])
    for name, path in files.items():
        store.upload(path, name)
    store.write(MANIFEST, manifest.canonical())
    return manifest


def read_manifest(store: ObjectStore) -> Manifest | None:
    """The manifest at the store's root; None when the folder is not complete."""
    try:
        raw = store.read(MANIFEST)
    except ObjectNotFound:
        return None
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise DigestMismatch(f"{store.uri}/{MANIFEST} is no manifest: {error.errors()[0]['msg']}") from error
    for name in manifest.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DigestMismatch(f"{store.uri}/{MANIFEST} lists {name!r}, which lies outside its folder")
    return manifest


def fetch_folder(store: ObjectStore, manifest: Manifest, target: Path) -> None:
    """Downloads the manifest's files; those that are here already and equal are not fetched again."""
    for name, entry in manifest.files.items():
        path = target / name
        if path.is_file() and _entry(path) == entry:
            continue
        fetch_file(store, name, entry, path)


def fetch_file(store: ObjectStore, name: str, entry: FileEntry | None, target: Path) -> None:
    """Downloads one file; it stays only when it is what the manifest says."""
    store.download(name, target)
    try:
        verify(target, entry, f"{store.uri}/{name}")
    except DigestMismatch:
        target.unlink()
        raise


def verify(path: Path, entry: FileEntry | None, uri: str) -> None:
    """Raises `DigestMismatch` unless the file is what its manifest says."""
    if entry is None or (found := _entry(path)) == entry:
        return
    raise DigestMismatch(
        f"{uri}: the manifest says {entry.size} bytes with sha256 {entry.sha256[:12]}, found {found.size} bytes with "
        f"{found.sha256[:12]}"
    )


def remove_folder(store: ObjectStore) -> None:
    """Deletes everything, the manifest first."""
    store.delete([MANIFEST])
    store.delete(store.sizes())


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)
