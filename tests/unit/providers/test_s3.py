"""Every error that boto3 knows becomes one of ours; a real server is met in tests/cluster/jobs."""

import asyncio
import inspect

import pytest
from botocore import exceptions

from tuningfork.api.settings import S3Settings
from tuningfork.planning.storage import (
    ObjectNotFoundError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)
from tuningfork.providers.s3 import S3, converted, locate

AT = locate("s3://models/runs/a")


def convert(error: Exception) -> StorageError:
    with pytest.raises(StorageError) as found, converted(AT):
        raise error
    assert found.value.__cause__ is error
    return found.value


def client_error(code: str, status: int, message: str = "") -> exceptions.ClientError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return exceptions.ClientError(response, "GetObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "status", "kind", "sentence"),
    [
        ("NoSuchKey", 404, ObjectNotFoundError, "there is no s3://models/runs/a"),
        ("404", 404, ObjectNotFoundError, "there is no s3://models/runs/a"),
        ("NoSuchBucket", 404, ObjectNotFoundError, "there is no bucket models"),
        ("AccessDenied", 403, StorageDeniedError, "refuses access to s3://models/runs/a (AccessDenied)"),
        ("InvalidAccessKeyId", 403, StorageDeniedError, "(InvalidAccessKeyId)"),
        ("SignatureDoesNotMatch", 403, StorageDeniedError, "(SignatureDoesNotMatch)"),
        ("Novel", 403, StorageDeniedError, "(Novel)"),
        ("SlowDown", 503, StorageUnavailableError, "answers 503 SlowDown"),
        ("InternalError", 500, StorageUnavailableError, "answers 500 InternalError"),
        ("InvalidBucketName", 400, StorageDeniedError, "answers 400 InvalidBucketName"),
        ("TooManyRequests", 429, StorageUnavailableError, "answers 429"),
    ],
)
def test_answers_are_told_apart(code: str, status: int, kind: type[StorageError], sentence: str) -> None:
    error = convert(client_error(code, status))
    assert type(error) is kind
    assert sentence in str(error)


def test_every_error_of_the_library_is_converted() -> None:
    kinds = [
        kind
        for _, kind in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(kind, exceptions.BotoCoreError | exceptions.ClientError)
    ]
    assert len(kinds) > 50
    denied = {exceptions.NoCredentialsError, exceptions.PartialCredentialsError}
    for kind in kinds:
        error = kind.__new__(kind)
        error.response = {}
        error.args = ("text",)
        expected = StorageDeniedError if kind in denied else StorageUnavailableError
        assert type(convert(error)) is expected, kind


def test_a_servers_words_are_cut() -> None:
    assert len(str(convert(client_error("InternalError", 500, "<html>" * 1000)))) < 300


def test_missing_credentials_say_which_variables_to_set() -> None:
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(convert(exceptions.NoCredentialsError()))


@pytest.mark.parametrize("uri", ["file:///x", "s3://", "models/runs"])
def test_other_uris_are_refused_with_their_text(uri: str) -> None:
    with pytest.raises(ObjectNotFoundError, match=f"{uri} is no s3:// URI"):
        locate(uri)


async def test_a_dead_server_is_unavailable_and_the_loop_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    s3 = S3(S3Settings(endpoint="http://127.0.0.1:9"))
    reading = asyncio.ensure_future(s3.read("s3://models/x"))
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0.01)
    with pytest.raises(StorageUnavailableError, match=r"the object store at http://127\.0\.0\.1:9 does not answer"):
        await reading
    assert turns > 1
