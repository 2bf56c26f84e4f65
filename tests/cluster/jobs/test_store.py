"""Reading a real S3 server."""

import hashlib
from typing import Any

import pytest

from tuningfork.api.settings import S3Settings
from tuningfork.planning.storage import ObjectNotFoundError, StorageDeniedError, StorageError
from tuningfork.providers.s3 import READ_LIMIT, S3

pytestmark = pytest.mark.cluster


@pytest.fixture
def s3(s3_info: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> S3:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_info["accessKey"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_info["secretKey"])
    return S3(S3Settings(endpoint=s3_info["endpoint"], region=s3_info["region"]))


async def test_objects_are_read_listed_and_hashed(s3: S3, bucket: Any) -> None:
    content = bytes(range(256)) * 20_000
    bucket.put_object(Key="run/artifacts/1/weights", Body=content)
    bucket.put_object(Key="run/artifacts/1/report/a.json", Body=b"{}")
    bucket.put_object(Key="run/artifacts/10/weights", Body=b"another attempt's")
    prefix = f"s3://{bucket.name}/run/artifacts/1"
    assert await s3.sizes(prefix) == {"weights": len(content), "report/a.json": 2}
    assert await s3.read(f"{prefix}/report/a.json") == b"{}"
    assert await s3.sha256(f"{prefix}/weights") == hashlib.sha256(content).hexdigest()


async def test_what_is_not_there_is_not_found(s3: S3, bucket: Any) -> None:
    with pytest.raises(ObjectNotFoundError, match=f"there is no s3://{bucket.name}/nothing"):
        await s3.read(f"s3://{bucket.name}/nothing")
    with pytest.raises(ObjectNotFoundError, match="there is no bucket tuningfork-nowhere"):
        await s3.read("s3://tuningfork-nowhere/nothing")
    assert await s3.sizes(f"s3://{bucket.name}/nothing") == {}


async def test_wrong_credentials_are_denied(
    s3_info: dict[str, str], bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_info["accessKey"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    stranger = S3(S3Settings(endpoint=s3_info["endpoint"], region=s3_info["region"]))
    with pytest.raises(StorageDeniedError, match="refuses access"):
        await stranger.read(f"s3://{bucket.name}/x")


async def test_a_file_that_is_too_large_to_be_ours_is_not_read_into_memory(s3: S3, bucket: Any) -> None:
    bucket.put_object(Key="large", Body=b"\0" * (READ_LIMIT + 1))
    with pytest.raises(StorageError, match="larger than"):
        await s3.read(f"s3://{bucket.name}/large")
