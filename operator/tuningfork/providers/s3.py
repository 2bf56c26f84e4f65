"""Reading the object store: boto3 in threads of its own, errors converted to what planners decide by.

boto3 is synchronous; a pool of its own keeps a slow store from holding the threads of anything else. Nothing is written here: the
operator only reads results, pods write them. Rejected: aioboto3, which pins botocore.
"""

import asyncio
import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from tuningfork.api.settings import S3Settings
from tuningfork.planning.storage import (
    ObjectNotFoundError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

THREADS: Final = 16
CHUNK: Final = 1024 * 1024
READ_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of a JSON file; anything longer is not one of ours."""
TEXT_LIMIT: Final = 200
"""Characters of a server's words in our message."""

_NOT_FOUND = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_DENIED = frozenset(
    {
        "401",
        "403",
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "Unauthorized",
    }
)

_TRANSIENT = frozenset({408, 429})
"""Client errors that go away by themselves: too slow, too many."""


class Location(NamedTuple):
    """Where an s3:// URI points."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def locate(uri: str) -> Location:
    """The bucket and key of a URI."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ObjectNotFoundError(f"{uri} is no s3:// URI")
    return Location(bucket, key)


class S3:
    """Reads by URI. Credentials come from the environment, as boto3 finds them."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")

    async def read(self, uri: str) -> bytes:
        """A small object."""
        return await self._run(functools.partial(self._read, locate(uri)))

    async def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of every object below a prefix, by the path below it."""
        return await self._run(functools.partial(self._sizes, locate(prefix.rstrip("/") + "/")))

    async def sha256(self, uri: str) -> str:
        """The digest of an object of any size, read as a stream; stops early when the caller is gone."""
        gone = threading.Event()
        try:
            return await self._run(functools.partial(self._sha256, locate(uri), gone))
        finally:
            gone.set()

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    @functools.cached_property
    def _client(self) -> "S3Client":
        """Made at the first read, so that a process without S3 needs no credentials."""
        config = Config(
            connect_timeout=3,
            read_timeout=10,
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=THREADS,
            s3={"addressing_style": "path" if self._settings.endpoint else "auto"},
        )
        return boto3.session.Session().client(
            "s3", endpoint_url=self._settings.endpoint, region_name=self._settings.region, config=config
        )

    def _read(self, at: Location) -> bytes:
        with converted(at):
            body = self._client.get_object(Bucket=at.bucket, Key=at.key)["Body"]
            content = body.read(READ_LIMIT + 1)
        if len(content) > READ_LIMIT:
            raise StorageError(f"{at} is larger than {READ_LIMIT} bytes")
        return content

    def _sizes(self, at: Location) -> dict[str, int]:
        found: dict[str, int] = {}
        with converted(at):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=at.bucket, Prefix=at.key)
            for page in pages:
                found.update({o["Key"][len(at.key) :]: o["Size"] for o in page.get("Contents", ())})
        return found

    def _sha256(self, at: Location, gone: threading.Event) -> str:
        digest = hashlib.sha256()
        with converted(at):
            for chunk in self._client.get_object(Bucket=at.bucket, Key=at.key)["Body"].iter_chunks(CHUNK):
                if gone.is_set():
                    break
                digest.update(chunk)
        return digest.hexdigest()


@contextmanager
def converted(at: Location) -> Iterator[None]:
    """boto3's errors as ours, the cause chained; texts are cut, since servers quote requests in them."""
    try:
        yield
    except ClientError as error:
        raise _by_code(at, error.response) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageDeniedError(
            f"{at}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        ) from error
    except (BotoCoreError, OSError) as error:
        raise StorageUnavailableError(_no_answer(at, error)) from error


def _by_code(at: Location, response: Any) -> StorageError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return ObjectNotFoundError(f"there is no bucket {at.bucket}")
    if code in _NOT_FOUND:
        return ObjectNotFoundError(f"there is no {at}")
    if code in _DENIED or status in (401, 403):
        return StorageDeniedError(f"the object store refuses access to {at} ({code})")
    words = _cut(str(response.get("Error", {}).get("Message", ""))).rstrip(".")
    text = f"the object store answers {status} {code} for {at}: {words}"
    if 400 <= status < 500 and status not in _TRANSIENT:
        return StorageDeniedError(text)  # the same request is refused again, such as a bucket name that cannot be
    return StorageUnavailableError(text)


def _no_answer(at: Location, error: Exception) -> str:
    """boto3 puts the whole request's URL into its text; the server's address is what helps."""
    url = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url") or ""))
    if url.netloc:
        return f"the object store at {url.scheme}://{url.netloc} does not answer ({type(error).__name__})"
    return f"{at}: {_cut(str(error))}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 3] + "..."
