"""Which files of a checkpoint are fetched from an object store."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tuningfork_trainer.errors import ModelUnusable
from tuningfork_trainer.model import BaseModel
from tuningfork_trainer.store import DirectoryStore


class Remote:
    """A store that is not on this machine, as far as the trainer can tell; notes what is downloaded."""

    def __init__(self, folder: Path):
        self._inner = DirectoryStore(folder)
        self.uri = "s3://models/base"
        self.downloaded: list[str] = []

    def at(self, path: str) -> DirectoryStore:
        return self._inner.at(path)

    def sizes(self) -> dict[str, int]:
        return self._inner.sizes()

    def read(self, path: str) -> bytes:
        return self._inner.read(path)

    def write(self, path: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        return self._inner.write(path, data, only_if_absent=only_if_absent)

    def download(self, path: str, target: Path) -> None:
        self.downloaded.append(path)
        self._inner.download(path, target)

    def upload(self, source: Path, path: str) -> None:
        self._inner.upload(source, path)

    def delete(self, paths: Iterable[str]) -> None:
        self._inner.delete(paths)


SMALL = {"config.json": "{}", "tokenizer.json": "{}", "chat_template.jinja": "x"}


def checkpoint(folder: Path, **files: str) -> Remote:
    folder.mkdir()
    for name, content in {**SMALL, **files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    return Remote(folder)


def test_two_shards_are_found_by_their_index(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}})
    files = {
        "model.safetensors.index.json": index,
        "1.safetensors": "1",
        "2.safetensors": "22",
        "consolidated.safetensors": "the same weights once more",
        "pytorch_model.bin": "pickle",
        "modeling_own.py": "raise SystemExit",
        "onnx/config.json": "{}",
    }
    remote = checkpoint(tmp_path / "store", **files)
    model = BaseModel(remote, tmp_path / "local")
    model.fetch_small()
    assert model.weight_files() == {"1.safetensors": 1, "2.safetensors": 2}
    assert sorted(remote.downloaded) == sorted([*SMALL, "model.safetensors.index.json"])
    model.fetch_weights()
    assert sorted(remote.downloaded[-2:]) == ["1.safetensors", "2.safetensors"]
    remote.downloaded.clear()
    model.fetch_weights()
    assert remote.downloaded == []


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    files = {"model.safetensors": "111", "consolidated.safetensors": "222"}
    model = BaseModel(checkpoint(tmp_path / "store", **files), tmp_path / "local")
    assert model.weight_files() == {"model.safetensors": 3}


def test_a_damaged_download_is_not_kept(tmp_path: Path) -> None:
    entry = {"sha256": "0" * 64, "size": 3}
    manifest = json.dumps({"kind": "model", "files": {"model.safetensors": entry}})
    files = {"model.safetensors": "111", "manifest.json": manifest}
    model = BaseModel(checkpoint(tmp_path / "store", **files), tmp_path / "local")
    model.fetch_small()
    with pytest.raises(ModelUnusable, match=r"s3://models/base/model.safetensors: the manifest says 3 bytes"):
        model.fetch_weights()
    assert not (tmp_path / "local" / "model.safetensors").exists()


def test_the_fingerprint_is_of_what_decides_the_tokens(tmp_path: Path) -> None:
    def fingerprint(name: str, **files: str) -> str:
        model = BaseModel(checkpoint(tmp_path / name, **files), tmp_path / f"{name}-local")
        model.fetch_small()
        return model.fingerprint()

    first = fingerprint("a", **{"model.safetensors": "1"})
    assert fingerprint("b", **{"model.safetensors": "2"}) == first
    assert fingerprint("c", **{"model.safetensors": "1", "chat_template.jinja": "y"}) != first
