"""A result counts with the artifacts that it names, a version with every byte of its files."""

import hashlib

import pytest

from support.jobs import make_prepared, make_result
from tuningfork.api.artifacts import FileEntry, Manifest
from tuningfork.planning.storage import ObjectNotFoundError, StorageUnavailableError, StoredRun, Verification
from tuningfork.providers.artifacts import read_run, verify_version

OUT = "s3://models/runs/ml/a/h"
FILES = {"adapter.safetensors": b"weights", "report/report.json": b"{}"}


class FakeObjects:
    """Objects in memory; counts what is downloaded."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.hashed: list[str] = []

    async def read(self, uri: str) -> bytes:
        if uri not in self.objects:
            raise ObjectNotFoundError(f"there is no {uri}")
        return self.objects[uri]

    async def sizes(self, prefix: str) -> dict[str, int]:
        start = prefix.rstrip("/") + "/"
        return {uri.removeprefix(start): len(c) for uri, c in self.objects.items() if uri.startswith(start)}

    async def sha256(self, uri: str) -> str:
        self.hashed.append(uri)
        return hashlib.sha256(await self.read(uri)).hexdigest()


def make_manifest(files: dict[str, bytes]) -> Manifest:
    entries = {name: FileEntry(sha256=hashlib.sha256(c).hexdigest(), size=len(c)) for name, c in files.items()}
    return Manifest(kind="adapter", files=entries)


def finished_run() -> FakeObjects:
    store = FakeObjects()
    manifest = make_manifest(FILES)
    result = make_result(output=OUT).model_copy(update={"digest": manifest.digest()})
    store.objects[f"{OUT}/prepared/manifest.json"] = b"{}"
    store.objects[f"{OUT}/prepared/data.json"] = make_prepared().model_dump_json(by_alias=True).encode()
    store.objects[f"{result.uri}/manifest.json"] = manifest.canonical()
    for name, content in FILES.items():
        store.objects[f"{result.uri}/{name}"] = content
    store.objects[f"{OUT}/result.json"] = result.model_dump_json(by_alias=True).encode()
    return store


ARTIFACTS = f"{OUT}/artifacts/1"
DIGEST = make_manifest(FILES).digest()


async def test_a_finished_run_is_read_without_downloading_it() -> None:
    store = finished_run()
    result = make_result(output=OUT).model_copy(update={"digest": DIGEST})
    assert await read_run(store, OUT) == StoredRun(make_prepared(), result)
    assert store.hashed == []


async def test_an_empty_folder_is_a_run_that_has_not_begun() -> None:
    assert await read_run(FakeObjects(), OUT) == StoredRun()


async def test_prepared_data_counts_with_its_manifest_only() -> None:
    store = finished_run()
    del store.objects[f"{OUT}/prepared/manifest.json"]
    assert (await read_run(store, OUT)).prepared is None


@pytest.mark.parametrize(
    ("uri", "content", "problem"),
    [
        pytest.param(f"{ARTIFACTS}/adapter.safetensors", b"w", "adapter.safetensors has 1 bytes, its manifest says 7",
                     id="a shorter file"),
        pytest.param(f"{ARTIFACTS}/adapter.safetensors", None, "adapter.safetensors has no bytes", id="a missing file"),
        pytest.param(f"{ARTIFACTS}/manifest.json", None, "has no manifest.json", id="no manifest"),
        pytest.param(f"{ARTIFACTS}/manifest.json", make_manifest({}).canonical(), "manifest.json has digest sha256:",
                     id="another manifest"),
        pytest.param(f"{OUT}/result.json", b"{}", "result.json cannot be read as a result", id="a broken result"),
    ],
)  # fmt: skip
async def test_artifacts_that_do_not_match_are_a_problem(uri: str, content: bytes | None, problem: str) -> None:
    store = finished_run()
    if content is None:
        del store.objects[uri]
    else:
        store.objects[uri] = content
    assert problem in (await read_run(store, OUT)).problem


async def test_a_version_is_verified_by_hashing_every_file() -> None:
    store = finished_run()
    assert await verify_version(store, ARTIFACTS, DIGEST) == Verification(files=2, bytes=9)
    assert sorted(store.hashed) == [f"{ARTIFACTS}/adapter.safetensors", f"{ARTIFACTS}/report/report.json"]


async def test_a_file_of_the_same_size_and_other_content_is_found() -> None:
    store = finished_run()
    store.objects[f"{ARTIFACTS}/adapter.safetensors"] = b"weightz"
    found = await verify_version(store, ARTIFACTS, DIGEST)
    assert "adapter.safetensors has sha256" in found.problem


async def test_a_manifest_that_points_outside_of_its_folder_is_refused() -> None:
    store = finished_run()
    manifest = make_manifest({"../../secret": b"x"})
    store.objects[f"{ARTIFACTS}/manifest.json"] = manifest.canonical()
    found = await verify_version(store, ARTIFACTS, manifest.digest())
    assert "names '../../secret', which lies outside" in found.problem
    assert store.hashed == []


async def test_a_version_without_manifest_is_not_found_rather_than_wrong() -> None:
    with pytest.raises(ObjectNotFoundError, match=r"there is no s3://nowhere/x/manifest\.json"):
        await verify_version(FakeObjects(), "s3://nowhere/x", DIGEST)


async def test_a_silent_store_is_an_error_and_no_verdict() -> None:
    class Silent(FakeObjects):
        async def sha256(self, uri: str) -> str:
            raise StorageUnavailableError("no route")

    store = Silent()
    store.objects = finished_run().objects
    with pytest.raises(StorageUnavailableError):
        await verify_version(store, ARTIFACTS, DIGEST)
