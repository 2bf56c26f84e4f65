"""Reads folders from the object store and verifies them before anybody may use them.

A folder appears under its final name only when every byte was verified: it is written beside and renamed. S3 settings come from
the environment as boto3 and its tools know them (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
"""

import fnmatch
import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from tuningfork.api.artifacts import MANIFEST, FileEntry, Manifest

CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""What an engine reads of a base model: never pickles, never other runtimes' copies of the weights."""
CHUNK = 1024**2


class StoreError(Exception):
    """Worth another try; the message says what could not be read."""


class VerificationError(StoreError):
    """The bytes are not what was declared; a sentence for the status. Never loaded."""


class Folder(Protocol):
    """A folder in a store."""

    uri: str

    def names(self) -> list[str]:
        """Paths of its files, relative to it."""
        ...

    def read(self, name: str) -> bytes: ...

    def download(self, name: str, target: Path) -> None: ...


class S3Folder:
    """A prefix in a bucket."""

    def __init__(self, uri: str, client: Any = None) -> None:
        parts = urlsplit(uri)
        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/") + "/"
        self._client = client or boto3.client(
            "s3", config=Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 3, "mode": "standard"})
        )

    def names(self) -> list[str]:
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            return [item["Key"][len(self._prefix) :] for page in pages for item in page.get("Contents", [])]
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"{self.uri} cannot be listed: {error}") from error

    def read(self, name: str) -> bytes:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            body: bytes = answer["Body"].read()
            return body
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"{self.uri}/{name} cannot be read: {error}") from error

    def download(self, name: str, target: Path) -> None:
        try:
            self._client.download_file(self._bucket, self._prefix + name, str(target))
        except (BotoCoreError, ClientError, Boto3Error, OSError) as error:
            raise StoreError(f"{self.uri}/{name} cannot be read: {error}") from error


class LocalFolder:
    """A file:// folder, for a laptop."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._root = Path(urlsplit(uri).path)

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self._root)) for path in self._root.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            raise StoreError(f"{self.uri}/{name} cannot be read: {error.strerror}") from error

    def download(self, name: str, target: Path) -> None:
        try:
            shutil.copyfile(self._root / name, target)
        except OSError as error:
            raise StoreError(f"{self.uri}/{name} cannot be read: {error.strerror}") from error


def open_folder(uri: str) -> Folder:
    """The folder behind an s3:// or file:// URI."""
    return S3Folder(uri) if uri.startswith("s3://") else LocalFolder(uri)


def fetch_adapter(folder: Folder, digest: str, target: Path) -> None:
    """Downloads an adapter whose manifest has ``digest``; raises VerificationError when a byte differs. Blocks: run it in a thread."""
    raw = folder.read(MANIFEST)
    found = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    if found != digest:
        raise VerificationError(f"{folder.uri}/{MANIFEST} has digest {found}, declared is {digest}")
    files = {name: entry for name, entry in _parse(folder, raw).files.items() if "/" not in name}
    if "adapter_config.json" not in files:
        raise VerificationError(f"{folder.uri}/{MANIFEST} names no adapter_config.json; it is no adapter's")
    _fetch(folder, files, target)


def fetch_model(folder: Folder, target: Path) -> None:
    """Downloads a base model, verified where it has a manifest; does nothing when ``target`` is there already."""
    if target.exists():
        return
    names = folder.names()
    wanted = [n for n in names if "/" not in n and n != MANIFEST and _is_checkpoint_file(n)]
    if "config.json" not in wanted:
        raise StoreError(f"{folder.uri} holds no config.json; give the prefix of a Hugging Face checkpoint")
    manifest = _parse(folder, folder.read(MANIFEST)) if MANIFEST in names else None
    if manifest is None:
        _fetch(folder, dict.fromkeys(wanted), target)
    else:
        _fetch(folder, {n: e for n, e in manifest.files.items() if "/" not in n and _is_checkpoint_file(n)}, target)


def _is_checkpoint_file(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in CHECKPOINT_FILES)


def _parse(folder: Folder, raw: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise VerificationError(f"{folder.uri}/{MANIFEST} is no manifest: {error.errors()[0]['msg']}") from error


def _fetch(folder: Folder, files: dict[str, FileEntry] | dict[str, None], target: Path) -> None:
    """All files, verified, then the folder under its name in one step."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name, entry in files.items():
            folder.download(name, partial / name)
            if entry is not None:
                _verify(folder, name, entry, partial / name)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _verify(folder: Folder, name: str, entry: FileEntry, path: Path) -> None:
    digest = sha256(path)
    if digest != entry.sha256:
        raise VerificationError(f"{folder.uri}/{name} has sha256 {digest}, its manifest says {entry.sha256}")


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
