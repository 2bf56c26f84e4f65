"""What every object store promises, how S3's errors become sentences, and what a manifest protects."""

import contextlib
import hashlib
import io
import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.response import StreamingBody
from botocore.stub import Stubber

from support.api_server import ROOT
from tuningfork_trainer.errors import (
    DigestMismatch,
    InvalidSpec,
    ObjectNotFound,
    StorageDenied,
    StorageUnavailable,
    TrainerError,
)
from tuningfork_trainer.folders import fetch_folder, read_manifest, remove_folder, save_folder
from tuningfork_trainer.s3 import RETRY_PAUSES, S3Store
from tuningfork_trainer.store import DirectoryStore, ObjectStore, open_object, open_store


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.cluster)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store; s3 is the development cluster's versitygw."""
    if request.param == "directory":
        yield DirectoryStore(tmp_path / "store")
        return
    client = cluster_client()
    bucket = f"trainer-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    found = S3Store(bucket, "some/prefix", client=client)
    yield found
    found.delete(found.sizes())
    client.delete_bucket(Bucket=bucket)


def cluster_client(**credentials: str) -> Any:
    path = ROOT / ".cluster" / "info.json"
    assert path.exists(), "this test needs the development cluster: run `make cluster`"
    info = json.loads(path.read_text())["s3"]
    return boto3.client(
        "s3",
        endpoint_url=info["endpoint"],
        region_name=info["region"],
        aws_access_key_id=credentials.get("key", info["accessKey"]),
        aws_secret_access_key=credentials.get("secret", info["secretKey"]),
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


def test_what_is_written_is_read(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 9_000_000)  # more than one part for S3
    assert store.sizes() == {}
    assert store.write("a/b.json", b"{}")
    store.upload(tmp_path / "big", "big")
    assert store.sizes() == {"a/b.json": 2, "big": 9_000_000}
    assert store.read("a/b.json") == b"{}"
    store.download("big", tmp_path / "new" / "copy")
    assert (tmp_path / "new/copy").read_bytes() == (tmp_path / "big").read_bytes()
    assert store.at("a").sizes() == {"b.json": 2}
    assert store.at("a").read("b.json") == b"{}"


def test_the_first_writer_wins(store: ObjectStore) -> None:
    assert store.write("result.json", b"first", only_if_absent=True)
    assert not store.write("result.json", b"second", only_if_absent=True)
    assert store.read("result.json") == b"first"
    assert store.write("result.json", b"third")
    assert store.read("result.json") == b"third"
    assert store.sizes() == {"result.json": 5}


def test_what_is_missing_is_named(store: ObjectStore, tmp_path: Path) -> None:
    for attempt in (lambda: store.read("a/none"), lambda: store.download("a/none", tmp_path / "x")):
        with pytest.raises(ObjectNotFound, match=f"{store.uri}/a/none does not exist"):
            attempt()
    assert not (tmp_path / "x").exists()


def test_deleting_twice_is_no_error(store: ObjectStore) -> None:
    store.write("a/b", b"1")
    store.write("c", b"2")
    store.delete(["a/b", "never"])
    store.delete(["a/b"])
    assert store.sizes() == {"c": 1}


def test_a_folder_exists_once_its_manifest_does(store: ObjectStore, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"one")
    (folder / "sub" / "b.txt").write_bytes(b"two")
    saved = save_folder(store.at("f"), folder, "prepared", {"step": 3})
    assert saved.files.keys() == {"a.txt", "sub/b.txt"}
    assert saved.digest() == f"sha256:{hashlib.sha256(store.read('f/manifest.json')).hexdigest()}"
    found = read_manifest(store.at("f"))
    assert found == saved
    fetch_folder(store.at("f"), found, tmp_path / "copy")
    assert (tmp_path / "copy/sub/b.txt").read_bytes() == b"two"
    remove_folder(store.at("f"))
    assert store.sizes() == {}
    assert read_manifest(store.at("f")) is None


class Dying(DirectoryStore):
    """Dies instead of its n-th change."""

    def __init__(self, root: Path, changes: int):
        super().__init__(root)
        self._left = changes

    def _change(self) -> None:
        if not self._left:
            raise SystemExit("killed")
        self._left -= 1

    def upload(self, source: Path, path: str) -> None:
        self._change()
        super().upload(source, path)

    def write(self, path: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        self._change()
        return super().write(path, data, only_if_absent=only_if_absent)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._change()
            super().delete([path])


@pytest.mark.parametrize("changes", range(8))
@pytest.mark.parametrize("action", ["replaced", "removed"])
def test_a_folder_whose_writer_dies_is_whole_or_absent(tmp_path: Path, changes: int, action: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        for name in ("a.txt", "b.txt", "c.txt"):
            (folder / name).write_text(f"{folder.name} {name}")
    store = DirectoryStore(tmp_path / "store")
    save_folder(store, old, "prepared", {})
    dying = Dying(tmp_path / "store", changes)
    with contextlib.suppress(SystemExit):
        save_folder(dying, new, "prepared", {}) if action == "replaced" else remove_folder(dying)
    found = read_manifest(store)
    if found:
        fetch_folder(store, found, tmp_path / "copy")
        contents = {path.read_text().split()[0] for path in (tmp_path / "copy").iterdir()}
        assert contents in ({"old"}, {"new"})
    assert (found is None) == (0 < changes < (5 if action == "replaced" else 8))


@pytest.mark.parametrize("content", [b"other", b"on"], ids=["changed", "cut"])
def test_a_file_that_differs_from_its_manifest_is_not_kept(tmp_path: Path, content: bytes) -> None:
    store, folder = DirectoryStore(tmp_path / "store"), tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"one")
    manifest = save_folder(store, folder, "prepared", {})
    store.write("a.txt", content)
    with pytest.raises(DigestMismatch, match=r"a.txt: the manifest says 3 bytes"):
        fetch_folder(store, manifest, tmp_path / "copy")
    assert not (tmp_path / "copy" / "a.txt").exists()


def test_what_is_here_already_is_not_fetched_again(tmp_path: Path) -> None:
    store, folder = DirectoryStore(tmp_path / "store"), tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"one")
    manifest = save_folder(store, folder, "prepared", {})
    store.delete(["a.txt"])
    fetch_folder(store, manifest, folder)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b"])
def test_a_manifest_cannot_point_outside(tmp_path: Path, name: str) -> None:
    store = DirectoryStore(tmp_path)
    entry = {"sha256": "0" * 64, "size": 1}
    store.write("manifest.json", json.dumps({"kind": "adapter", "files": {name: entry}}).encode())
    with pytest.raises(DigestMismatch, match="outside its folder"):
        read_manifest(store)


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"kind": "adapter"}', b"\xff"])
def test_a_manifest_that_is_none(tmp_path: Path, raw: bytes) -> None:
    DirectoryStore(tmp_path).write("manifest.json", raw)
    with pytest.raises(DigestMismatch, match="is no manifest"):
        read_manifest(DirectoryStore(tmp_path))


@pytest.mark.parametrize(
    ("uri", "store_uri", "name"),
    [
        ("s3://bucket/a/b.jsonl", "s3://bucket/a", "b.jsonl"),
        ("s3://bucket/b.jsonl", "s3://bucket", "b.jsonl"),
        ("file:///data/with%20space/b%20c.jsonl", "file:///data/with space", "b c.jsonl"),
    ],
)
def test_an_object_is_found_by_its_uri(uri: str, store_uri: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found, path = open_object(uri)
    assert (found.uri, path) == (store_uri, name)


def test_another_scheme_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="s3:// and file:// only"):
        open_store("gs://bucket/a")


@pytest.fixture
def stubbed() -> Iterator[tuple[Stubber, S3Store, list[float]]]:
    """A store on a stubbed client, and the pauses that it made."""
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="s",
        endpoint_url="http://store:9000",
    )
    pauses = list[float]()
    with Stubber(client) as stubber:
        yield stubber, S3Store("bucket", "p", client=client, sleep=pauses.append), pauses


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("NoSuchKey", 404, ObjectNotFound),
        ("NoSuchBucket", 404, ObjectNotFound),
        ("404", 404, ObjectNotFound),
        ("AccessDenied", 403, StorageDenied),
        ("403", 403, StorageDenied),
        ("InvalidAccessKeyId", 403, StorageDenied),
        ("SignatureDoesNotMatch", 403, StorageDenied),
        ("ExpiredToken", 400, StorageDenied),
    ],
)
def test_an_answer_that_will_not_change_ends_at_once(
    stubbed: tuple[Stubber, S3Store, list[float]], code: str, status: int, expected: type[TrainerError]
) -> None:
    stubber, store, pauses = stubbed
    stubber.add_client_error("get_object", code, http_status_code=status)
    with pytest.raises(expected, match="s3://bucket/p/a"):
        store.read("a")
    assert pauses == []


def test_a_store_that_recovers_is_waited_for(stubbed: tuple[Stubber, S3Store, list[float]]) -> None:
    stubber, store, pauses = stubbed
    for code in ("InternalError", "SlowDown", "ServiceUnavailable"):
        stubber.add_client_error("get_object", code, http_status_code=503)
    stubber.add_response("get_object", {"Body": StreamingBody(io.BytesIO(b"ok"), 2)})
    assert store.read("a") == b"ok"
    assert [0.8 * p <= q <= 1.2 * p for p, q in zip(RETRY_PAUSES, pauses, strict=False)] == [True] * 3


def test_a_body_that_breaks_off_is_fetched_again(stubbed: tuple[Stubber, S3Store, list[float]]) -> None:
    stubber, store, pauses = stubbed
    stubber.add_response("get_object", {"Body": StreamingBody(io.BytesIO(b"half"), 8)})
    stubber.add_response("get_object", {"Body": StreamingBody(io.BytesIO(b"complete"), 8)})
    assert store.read("a") == b"complete"
    assert len(pauses) == 1


def test_a_store_that_stays_away_is_given_up_after_half_a_minute(
    stubbed: tuple[Stubber, S3Store, list[float]],
) -> None:
    stubber, store, pauses = stubbed
    for _ in range(len(RETRY_PAUSES) + 1):
        stubber.add_client_error("get_object", "ServiceUnavailable", http_status_code=503)
    with pytest.raises(StorageUnavailable, match=r"http://store:9000 does not answer .*AWS_ENDPOINT_URL"):
        store.read("a")
    assert 25 < sum(pauses) < 38


def test_a_race_for_the_result_is_lost_quietly(stubbed: tuple[Stubber, S3Store, list[float]]) -> None:
    stubber, store, pauses = stubbed
    stubber.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    stubber.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    assert store.write("result.json", b"{}", only_if_absent=True) is False
    assert len(pauses) == 1


@pytest.mark.cluster
def test_a_real_store_refuses_a_wrong_key(tmp_path: Path) -> None:
    refused = S3Store("tuningfork-none", "a", client=cluster_client(secret="wrong"))
    for attempt in (
        refused.sizes,
        lambda: refused.read("b"),
        lambda: refused.download("b", tmp_path / "x"),
        lambda: refused.write("b", b""),
    ):
        with pytest.raises(StorageDenied):
            attempt()
    upload = tmp_path / "file"
    upload.write_bytes(b"x")
    with pytest.raises(StorageDenied):
        refused.upload(upload, "b")


def test_a_bucket_to_write_to_is_part_of_the_spec(stubbed: tuple[Stubber, S3Store, list[float]]) -> None:
    stubber, store, _ = stubbed
    stubber.add_client_error("put_object", "NoSuchBucket", http_status_code=404)
    with pytest.raises(InvalidSpec, match=r"spec\.output\.uri: there is no bucket bucket; create it"):
        store.write("a", b"")


@pytest.mark.cluster
def test_a_bucket_that_does_not_exist(tmp_path: Path) -> None:
    missing = S3Store("tuningfork-none", "a", client=cluster_client())
    with pytest.raises(ObjectNotFound, match="s3://tuningfork-none/a"):
        missing.sizes()
    with pytest.raises(ObjectNotFound):
        missing.download("b", tmp_path / "x")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InvalidSpec):
        missing.upload(tmp_path / "file", "b")
