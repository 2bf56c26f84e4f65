"""The object store behind S3's protocol.

Endpoint, region and credentials come from the usual AWS_* environment variables. botocore's own retries are switched off: ours
cover broken downloads too and end after about half a minute in a sentence, since the pod's next attempt is the better retry.
"""

import os
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import botocore.exceptions as botocore_errors
from boto3.exceptions import Boto3Error
from boto3.session import Session
from botocore.config import Config
from urllib3.exceptions import HTTPError

from tuningfork_trainer.errors import InvalidSpec, ObjectNotFound, StorageDenied, StorageUnavailable, TrainerError

T = TypeVar("T")

RETRY_PAUSES = (0.5, 1, 2, 4, 8, 8, 8)
"""Seconds between tries: 31.5 in all, which outlasts the restart of a storage server, without jitter."""

_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_DENIED = {
    *("401", "403", "AccessDenied", "AllAccessDisabled", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("ExpiredToken", "InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException"),
}
_EXISTS = {"412", "PreconditionFailed"}
_NO_CREDENTIALS = (
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.CredentialRetrievalError,
    botocore_errors.ProfileNotFound,
)


class S3Store:
    """Objects below ``s3://bucket/prefix``."""

    def __init__(self, bucket: str, prefix: str, *, client: Any = None, sleep: Callable[[float], None] = time.sleep):
        self.bucket, self.prefix = bucket, prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client = client or _build_client()
        self._sleep = sleep

    def at(self, path: str) -> "S3Store":
        return S3Store(self.bucket, self._key(path), client=self._client, sleep=self._sleep)

    def sizes(self) -> dict[str, int]:
        prefix = f"{self.prefix}/" if self.prefix else ""

        def list_all() -> dict[str, int]:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            found = (entry for page in pages for entry in page.get("Contents", []))
            return {e["Key"].removeprefix(prefix): e["Size"] for e in found if not e["Key"].endswith("/")}

        return self._try("", list_all)

    def read(self, path: str) -> bytes:
        def get() -> bytes:
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(path))
            body: bytes = answer["Body"].read()
            return body

        return self._try(path, get)

    def write(self, path: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        condition = {"IfNoneMatch": "*"} if only_if_absent else {}

        def put() -> bool:
            try:
                self._client.put_object(
                    Bucket=self.bucket, Key=self._key(path), Body=data, ChecksumAlgorithm="SHA256", **condition
                )
            except botocore_errors.ClientError as error:
                if only_if_absent and _code(error) in _EXISTS:
                    return False
                raise
            return True

        return self._send(path, put)

    def download(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._try(path, lambda: self._client.download_file(self.bucket, self._key(path), str(target)))

    def upload(self, source: Path, path: str) -> None:
        extra = {"ChecksumAlgorithm": "SHA256"}
        self._send(path, lambda: self._client.upload_file(str(source), self.bucket, self._key(path), ExtraArgs=extra))

    def delete(self, paths: Iterable[str]) -> None:
        # One by one: bulk deletion needs a Content-MD5 on some servers, and a folder of ours has a dozen files.
        for path in paths:
            self._try(path, partial(self._client.delete_object, Bucket=self.bucket, Key=self._key(path)))

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    def _send(self, path: str, action: Callable[[], T]) -> T:
        """`_try` for what is written: there only a bucket can be missing."""
        try:
            return self._try(path, action)
        except ObjectNotFound as error:
            raise InvalidSpec(
                f"spec.output.uri: there is no bucket {self.bucket}; create it, or correct the URI"
            ) from error

    def _try(self, path: str, action: Callable[[], T]) -> T:
        """Runs the action until it succeeds, is refused, or the pauses are used up."""
        uri = f"{self.uri}/{path}" if path else self.uri
        for pause in (*RETRY_PAUSES, None):
            try:
                return action()
            except (botocore_errors.BotoCoreError, botocore_errors.ClientError, Boto3Error, HTTPError) as error:
                permanent = _permanent(error, uri)
                if permanent:
                    raise permanent from error
                if pause is None:
                    raise StorageUnavailable(
                        f"{uri}: the object store at {self._client.meta.endpoint_url} does not answer ({_short(error)}); "
                        "check that it runs and that AWS_ENDPOINT_URL is right"
                    ) from error
                self._sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
        raise AssertionError("unreachable")


def _build_client() -> Any:
    """A client by the environment. AWS_REGION is what Kubernetes' identity webhooks set, and boto3 does not read it."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"total_max_attempts": 1},
        # bucket.host resolves for AWS alone; other servers are asked for host/bucket
        s3={"addressing_style": "path"} if own_endpoint else None,
    )
    return Session().client("s3", region_name=region, config=config)


def _permanent(error: Exception, uri: str) -> TrainerError | None:
    """The error to end with, or None when another try may help."""
    if isinstance(error, _NO_CREDENTIALS):
        return StorageDenied(
            f"{uri}: there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (in a cluster: the Secret "
            "of the object store in the job's namespace)"
        )
    code = _code(error)
    if code in _MISSING:
        return ObjectNotFound(uri)
    if code in _DENIED:
        return StorageDenied(
            f"{uri}: the object store refuses access ({code}); check the credentials and what the bucket's policy allows them"
        )
    if isinstance(error, botocore_errors.ParamValidationError):
        return TrainerError(f"{uri}: {error}")
    return None


def _code(error: Exception) -> str:
    """S3's error code; upload_file hides it in the cause's text."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, botocore_errors.ClientError):
            return str(cause.response.get("Error", {}).get("Code", ""))
        cause = cause.__cause__ or cause.__context__
    return ""


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
