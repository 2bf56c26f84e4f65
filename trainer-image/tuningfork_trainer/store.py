"""Where files come from and go to: one narrow protocol, a folder and S3.

A store is rooted at a URI and knows relative paths only. It was written instead of using fsspec because three things matter here
and are not in it: conditional writes, one error tree, and a bounded retry that ends in a sentence.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from tuningfork_trainer.errors import InvalidSpec, ObjectNotFound, StorageDenied


class ObjectStore(Protocol):
    """Files below one URI."""

    uri: str

    def at(self, path: str) -> "ObjectStore":
        """The part of this store below ``path``."""
        ...

    def sizes(self) -> dict[str, int]:
        """Bytes of every object, by path; empty when there is none."""
        ...

    def read(self, path: str) -> bytes:
        """Raises `ObjectNotFound`."""
        ...

    def write(self, path: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        """False when ``only_if_absent`` and the object exists, which is then unchanged."""
        ...

    def download(self, path: str, target: Path) -> None:
        """``target`` appears when it is complete. Raises `ObjectNotFound`."""
        ...

    def upload(self, source: Path, path: str) -> None: ...

    def delete(self, paths: Iterable[str]) -> None:
        """Objects that do not exist count as deleted."""
        ...


def open_store(uri: str) -> ObjectStore:
    """The store for a ``file://`` or ``s3://`` URI."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        from tuningfork_trainer.s3 import S3Store  # boto3 takes a second to import, and a laptop run may not need it

        return S3Store(parts.netloc, parts.path.strip("/"))
    raise InvalidSpec(f"{uri}: the trainer reads s3:// and file:// only; copy the files to one of them")


def open_object(uri: str) -> tuple[ObjectStore, str]:
    """The store that holds a single object, and the object's path in it."""
    folder, _, name = uri.rstrip("/").rpartition("/")
    return open_store(folder), unquote(name) if uri.startswith("file:") else name


class DirectoryStore:
    """A folder of this machine. Files appear by rename, so a reader never sees half of one."""

    def __init__(self, root: Path):
        self.root = root
        self.uri = f"file://{root}"

    def at(self, path: str) -> "DirectoryStore":
        return DirectoryStore(self.root / path)

    def sizes(self) -> dict[str, int]:
        files = (p for p in self.root.rglob("*") if p.is_file() and not p.name.startswith(".tmp-"))
        return {p.relative_to(self.root).as_posix(): p.stat().st_size for p in sorted(files)}

    def read(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectNotFound(f"{self.uri}/{path}") from None
        except PermissionError as error:
            raise self._denied(path) from error

    def write(self, path: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        target = self.root / path
        temporary = self._temporary(target)
        temporary.write_bytes(data)
        return self._publish(temporary, target, only_if_absent)

    def download(self, path: str, target: Path) -> None:
        try:
            DirectoryStore(target.parent).upload(self.root / path, target.name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectNotFound(f"{self.uri}/{path}") from None
        except PermissionError as error:
            raise self._denied(path) from error

    def upload(self, source: Path, path: str) -> None:
        target = self.root / path
        temporary = self._temporary(target)
        try:
            shutil.copyfile(source, temporary)
            self._publish(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            target = self.root / path
            target.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a folder exists as long as there is something in it
                target.parent.rmdir()

    def _temporary(self, target: Path) -> Path:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".tmp-", dir=target.parent)
        except PermissionError as error:
            raise self._denied(target.name) from error
        os.close(handle)
        Path(name).chmod(0o644)
        return Path(name)

    @staticmethod
    def _publish(temporary: Path, target: Path, only_if_absent: bool = False) -> bool:
        if not only_if_absent:
            temporary.replace(target)
            return True
        try:
            target.hardlink_to(temporary)  # unlike rename, a link refuses to replace
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _denied(self, path: str) -> StorageDenied:
        return StorageDenied(f"{self.uri}/{path}: permission denied; let user {os.getuid()} read and write it")
