"""The engine comes to hold exactly what is declared, every byte verified, whatever restarts or breaks on the way."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from botocore.response import StreamingBody
from botocore.stub import Stubber

from tuningfork.api.artifacts import FileEntry, Manifest
from tuningfork.api.routes import AdapterEntry, AdapterState, AdapterTable, LoaderState
from tuningfork_serving.loader.engine import EngineAway, EngineClient
from tuningfork_serving.loader.metrics import LoaderMetrics
from tuningfork_serving.loader.store import (
    LocalFolder,
    S3Folder,
    StoreError,
    VerificationError,
    fetch_adapter,
    fetch_model,
)
from tuningfork_serving.loader.sync import Sync, Turn, plan_turn

FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights", "report.json": b"{}"}


def write(folder: Path, files: dict[str, bytes]) -> AdapterEntry:
    """A folder with a manifest; the entry that declares it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    entries = {n: FileEntry(sha256=hashlib.sha256(c).hexdigest(), size=len(c)) for n, c in files.items()}
    manifest = Manifest(kind="adapter", files=entries)
    (folder / "manifest.json").write_bytes(manifest.canonical())
    return AdapterEntry(
        name=f"{folder.name}-x", version=folder.name, uri=f"file://{folder}", digest=manifest.digest(), required=False
    )


def table(*entries: AdapterEntry) -> AdapterTable:
    return AdapterTable(base_uri="file:///base", adapters=list(entries))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


class Engine:
    """A stand-in with vLLM's runtime LoRA API."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.calls: list[str] = []
        self.refuse: dict[str, str] = {}
        self.away = False

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/load_lora_adapter", self.load)
        app.router.add_post("/v1/unload_lora_adapter", self.unload)
        return app

    async def models(self, _: web.Request) -> web.Response:
        cards = [
            {"id": "base", "parent": None},
            *({"id": n, "root": p, "parent": "base"} for n, p in self.held.items()),
        ]
        return web.json_response({"data": cards}, status=503 if self.away else 200)

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["lora_name"]
        self.calls.append(f"load {name}")
        if name in self.refuse:
            return web.Response(status=500, text=self.refuse[name])
        assert (Path(body["lora_path"]) / "adapter_config.json").is_file()
        self.held[name] = body["lora_path"]
        return web.Response()

    async def unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        self.calls.append(f"unload {name}")
        self.held.pop(name)
        return web.Response()


@asynccontextmanager
async def beside(engine: Engine, directory: Path) -> AsyncIterator[Sync]:
    directory.mkdir(exist_ok=True)
    async with TestServer(engine.app()) as server, aiohttp.ClientSession() as session:
        client = EngineClient(session, f"http://127.0.0.1:{server.port}")
        yield Sync(client, directory, LocalFolder, LoaderMetrics())


async def turn(sync: Sync, table: AdapterTable | None = None) -> None:
    """One turn of the loop, with a new table if there is one."""
    if table is not None:
        sync.set_table(table)
    sync._changed.clear()
    await sync.turn()


@pytest.fixture
def v1(tmp_path: Path) -> AdapterEntry:
    return write(tmp_path / "store" / "v1", FILES).model_copy(update={"required": True})


@pytest.fixture
def v2(tmp_path: Path) -> AdapterEntry:
    return write(tmp_path / "store" / "v2", {**FILES, "adapter_model.safetensors": b"other"})


def loaded(*entries: AdapterEntry) -> LoaderState:
    return LoaderState(engine_up=True, adapters={entry.name: AdapterState(state="Loaded") for entry in entries})


async def test_the_engine_comes_to_equal_the_table(v1: AdapterEntry, v2: AdapterEntry, tmp_path: Path) -> None:
    engine = Engine()
    async with beside(engine, tmp_path / "local") as sync:
        await turn(sync, table(v2, v1))
        assert engine.calls == ["load v1-x", "load v2-x"], "required adapters come first"
        assert (sync.state(), sync.ready()) == (loaded(v1, v2), True)
        await turn(sync, table(v1))
        assert (engine.calls[2:], list(engine.held), names(tmp_path / "local")) == (["unload v2-x"], ["v1-x"], ["v1-x"])
        await turn(sync)
        assert len(engine.calls) == 3, "nothing is left to do"


async def test_an_engine_that_restarted_gets_everything_again_without_a_download(
    v1: AdapterEntry, tmp_path: Path
) -> None:
    engine = Engine()
    async with beside(engine, tmp_path / "local") as sync:
        await turn(sync, table(v1))
        engine.held.clear()
        (tmp_path / "store" / "v1" / "manifest.json").unlink()
        await turn(sync)
        assert engine.calls == ["load v1-x"] * 2
        assert sync.state() == loaded(v1)


async def test_readiness_waits_for_required_adapters_only(v1: AdapterEntry, v2: AdapterEntry, tmp_path: Path) -> None:
    engine = Engine()
    engine.refuse = {"v1-x": "no room", "v2-x": "no room"}
    async with beside(engine, tmp_path / "local") as sync:
        ready = [sync.ready()]
        for wanted in (table(v1, v2), table(v2), table()):
            await turn(sync, wanted)
            ready.append(sync.ready())
        engine.away = True
        with pytest.raises(EngineAway):
            await turn(sync)
        assert [*ready, sync.ready()] == [False, False, True, True, False]
        assert sync.state() == LoaderState(engine_up=False)


async def test_a_failure_says_why_and_is_tried_again_later(v1: AdapterEntry, tmp_path: Path) -> None:
    engine = Engine()
    engine.refuse = {"v1-x": "LoRA rank 64 is greater than max_lora_rank 16"}
    async with beside(engine, tmp_path / "local") as sync:
        await turn(sync, table(v1))
        message = "the engine answered 500: LoRA rank 64 is greater than max_lora_rank 16"
        assert sync.state().adapters == {"v1-x": AdapterState(state="Failed", message=message)}
        await turn(sync)
        assert engine.calls == ["load v1-x"], "not before its pause is over"
        sync.clock = lambda: 1e9
        engine.refuse = {}
        await turn(sync)
        assert sync.state() == loaded(v1)


async def test_wrong_bytes_never_reach_the_engine(v1: AdapterEntry, tmp_path: Path) -> None:
    (tmp_path / "store" / "v1" / "adapter_model.safetensors").write_bytes(b"evil")
    engine = Engine()
    async with beside(engine, tmp_path / "local") as sync:
        await turn(sync, table(v1))
        state = sync.state().adapters["v1-x"]
        assert (state.state, engine.calls, names(tmp_path / "local")) == ("Failed", [], [])
        assert "adapter_model.safetensors has sha256" in state.message


def test_before_the_first_try_an_adapter_is_loading(v1: AdapterEntry, tmp_path: Path) -> None:
    sync = Sync(None, tmp_path, LocalFolder, LoaderMetrics())  # type: ignore[arg-type]
    sync.set_table(table(v1))
    assert sync.state() == LoaderState(engine_up=False, adapters={"v1-x": AdapterState(state="Loading")})


def test_a_turn_keeps_copies_of_what_the_engine_still_holds(v1: AdapterEntry) -> None:
    turn = plan_turn(table(v1), held=["old", "older"], copies=["older", "leftover", "v1-x"])
    assert turn == Turn(load=[v1], unload=["old", "older"], remove=["leftover"])


def manifest_of(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            lambda f: (f / "adapter_config.json").write_bytes(b"[]"),
            "adapter_config.json has sha256",
            id="another file",
        ),
        pytest.param(manifest_of(lambda m: m["files"].clear()), "manifest.json has digest", id="another manifest"),
        pytest.param(lambda f: (f / "report.json").unlink(), "report.json cannot be read", id="a missing file"),
        pytest.param(lambda f: (f / "manifest.json").unlink(), "manifest.json cannot be read", id="no manifest"),
    ],
)
def test_an_adapter_that_is_not_what_was_declared(
    v1: AdapterEntry, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(tmp_path / "store" / "v1")
    with pytest.raises(StoreError, match=message):
        fetch_adapter(LocalFolder(v1.uri), v1.digest, tmp_path / "local" / "v1")
    assert names(tmp_path / "local") == []


def test_a_manifest_without_an_adapter_is_refused(tmp_path: Path) -> None:
    entry = write(tmp_path / "v1", {"train.jsonl": b""})
    with pytest.raises(VerificationError, match=r"names no adapter_config\.json"):
        fetch_adapter(LocalFolder(entry.uri), entry.digest, tmp_path / "target")


def test_of_an_artifact_only_the_adapter_itself_is_fetched(tmp_path: Path) -> None:
    entry = write(tmp_path / "v1", {**FILES, "merged/model.safetensors": b"large"})
    fetch_adapter(LocalFolder(entry.uri), entry.digest, tmp_path / "target")
    assert names(tmp_path / "target") == sorted(FILES)


CHECKPOINT = {"config.json": b"{}", "model.safetensors": b"w", "tokenizer.json": b"{}", "chat_template.jinja": b""}


def test_a_base_model_is_fetched_without_pickles(tmp_path: Path) -> None:
    write(tmp_path / "base", {**CHECKPOINT, "pytorch_model.bin": b"pickle", "model.gguf": b"other"})
    (tmp_path / "base" / "manifest.json").unlink()
    fetch_model(LocalFolder(f"file://{tmp_path}/base"), tmp_path / "target")
    assert names(tmp_path / "target") == sorted(CHECKPOINT)


def test_a_base_model_with_a_manifest_is_verified(tmp_path: Path) -> None:
    write(tmp_path / "base", CHECKPOINT)
    (tmp_path / "base" / "model.safetensors").write_bytes(b"v")
    with pytest.raises(VerificationError, match=r"model\.safetensors has sha256"):
        fetch_model(LocalFolder(f"file://{tmp_path}/base"), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_folder_that_is_there_is_whole_and_not_fetched_again(tmp_path: Path) -> None:
    write(tmp_path / "base", CHECKPOINT)
    (tmp_path / "target").mkdir()
    fetch_model(LocalFolder(f"file://{tmp_path}/base"), tmp_path / "target")
    assert names(tmp_path / "target") == []


def test_a_prefix_without_a_model_says_what_to_give(tmp_path: Path) -> None:
    write(tmp_path / "base", {"readme.txt": b""})
    with pytest.raises(StoreError, match=r"holds no config\.json; give the prefix of a Hugging Face checkpoint"):
        fetch_model(LocalFolder(f"file://{tmp_path}/base"), tmp_path / "target")


@pytest.fixture
def s3() -> Iterator[tuple[S3Folder, Stubber]]:
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="-", aws_secret_access_key="-")
    with Stubber(client) as stub:
        yield S3Folder("s3://bucket/some/prefix/", client), stub
        stub.assert_no_pending_responses()


def test_a_prefix_is_listed_over_pages(s3: tuple[S3Folder, Stubber]) -> None:
    folder, stub = s3
    asked = {"Bucket": "bucket", "Prefix": "some/prefix/"}
    first = {"IsTruncated": True, "NextContinuationToken": "more", "Contents": [{"Key": "some/prefix/config.json"}]}
    stub.add_response("list_objects_v2", first, asked)
    stub.add_response(
        "list_objects_v2",
        {"IsTruncated": False, "Contents": [{"Key": "some/prefix/merged/config.json"}]},
        {**asked, "ContinuationToken": "more"},
    )
    assert folder.names() == ["config.json", "merged/config.json"]


def test_an_object_is_read_below_its_prefix(s3: tuple[S3Folder, Stubber]) -> None:
    folder, stub = s3
    asked = {"Bucket": "bucket", "Key": "some/prefix/manifest.json"}
    stub.add_response("get_object", {"Body": StreamingBody(BytesIO(b"{}"), 2)}, asked)
    assert folder.read("manifest.json") == b"{}"


def test_a_refusal_of_the_store_names_what_could_not_be_read(s3: tuple[S3Folder, Stubber]) -> None:
    folder, stub = s3
    stub.add_client_error("get_object", "AccessDenied", "Access Denied", 403)
    with pytest.raises(StoreError, match=r"s3://bucket/some/prefix/manifest\.json cannot be read: .*AccessDenied"):
        folder.read("manifest.json")
