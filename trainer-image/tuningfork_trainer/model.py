"""The base model: which of its files are needed, and what is refused.

Only safetensors are loaded. Pickled weights can run code when they are opened, and so can a repository's own modelling code, so
neither is ever downloaded.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tuningfork.api.artifacts import MANIFEST, Manifest
from tuningfork_trainer.chat import ChatEncoder
from tuningfork_trainer.errors import DigestMismatch, ModelNotFound, ModelUnusable, ObjectNotFound
from tuningfork_trainer.folders import fetch_file, read_manifest, verify
from tuningfork_trainer.store import DirectoryStore, ObjectStore

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SMALL_SUFFIXES = {".json", ".jinja", ".txt", ".model"}
"""Configuration, chat template and tokeniser files."""
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


class BaseModel:
    """The checkpoint at ``store.uri``, fetched into ``folder`` as far as needed; one on this machine is used where it lies."""

    def __init__(self, store: ObjectStore, folder: Path):
        self.uri, self._store = store.uri, store
        self.folder = store.root if isinstance(store, DirectoryStore) else folder
        try:
            self._sizes = store.sizes()
        except ObjectNotFound as error:
            raise self._missing() from error
        if not self._sizes:
            raise self._missing()
        if CONFIG not in self._sizes:
            raise ModelUnusable(
                f"{self.uri} holds {len(self._sizes)} files but no config.json; point at the checkpoint's folder"
            )

    def fetch_small(self) -> None:
        """Everything but the weights."""
        manifest = self._manifest()
        for name in self._small_files():
            self._fetch(name, manifest)

    def fingerprint(self) -> str:
        """Of everything that decides how a conversation becomes tokens (and a little more: it is cheap)."""
        digest = hashlib.sha256()
        for name in self._small_files():
            digest.update(name.encode() + b"\0" + hashlib.sha256((self.folder / name).read_bytes()).digest())
        return digest.hexdigest()[:16]

    def fetch_weights(self) -> None:
        """The safetensors files; call `fetch_small` first."""
        manifest = self._manifest()
        for name in self.weight_files():
            self._fetch(name, manifest)

    def weight_files(self) -> dict[str, int]:
        """Bytes by name. The index decides when there is one, since a folder may hold the same weights in two layouts."""
        found = {name: size for name, size in self._sizes.items() if name.endswith(".safetensors") and "/" not in name}
        if INDEX in self._sizes:
            wanted = sorted(set(self._read_json(INDEX).get("weight_map", {}).values()))
            missing = [name for name in wanted if name not in found]
            if missing or not wanted:
                raise ModelUnusable(
                    f"{self.uri}: {INDEX} names {', '.join(missing) or 'no file'}; upload the checkpoint whole"
                )
            return {name: found[name] for name in wanted}
        if SINGLE in found:
            return {SINGLE: found[SINGLE]}
        if found:
            return found
        pickled = next((name for name in self._sizes if PurePosixPath(name).suffix in _PICKLED), None)
        if pickled:
            raise ModelUnusable(
                f"{self.uri} has only pickled weights ({pickled}), which can run code when opened; convert them to safetensors"
            )
        raise ModelUnusable(f"{self.uri} has a config.json but no .safetensors file; upload the checkpoint whole")

    def config(self) -> dict[str, Any]:
        return self._read_json(CONFIG)

    def load_tokenizer(self) -> Any:
        """The model's tokeniser; raises `ModelUnusable`."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever breaks here, the files are to blame
            raise ModelUnusable(f"{self.uri}: its tokenizer does not load: {first_line(error)}") from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise ModelUnusable(f"{self.uri}: its tokenizer has neither a padding nor an end token; set eos_token")
        return tokenizer

    def encoder(self, tokenizer: Any) -> ChatEncoder:
        return ChatEncoder(tokenizer, self._stop_ids(tokenizer), self.uri)

    def load_weights(self, dtype: Any) -> Any:
        """The model on the CPU; raises `ModelUnusable`."""
        from transformers import AutoModelForCausalLM

        try:
            return AutoModelForCausalLM.from_pretrained(
                self.folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        except MemoryError:
            raise
        except Exception as error:  # likewise
            raise ModelUnusable(f"{self.uri}: the model does not load: {first_line(error)}") from error

    def _stop_ids(self, tokenizer: Any) -> list[int]:
        """What ends a generation: an engine stops at these and at nothing else."""
        generation = self._read_json("generation_config.json") if "generation_config.json" in self._sizes else {}
        ids: set[int] = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
        for source in (generation, self.config()):
            value = source.get("eos_token_id")
            ids.update(value if isinstance(value, list) else [] if value is None else [value])
        return sorted(ids)

    def _fetch(self, name: str, manifest: Manifest | None) -> None:
        target = self.folder / name
        entry = manifest.files.get(name) if manifest else None
        try:
            if isinstance(self._store, DirectoryStore):
                verify(target, entry, f"{self.uri}/{name}")
            elif not (target.is_file() and target.stat().st_size == self._sizes[name]):
                fetch_file(self._store, name, entry, target)
        except ObjectNotFound as error:
            raise self._missing() from error
        except DigestMismatch as error:
            raise ModelUnusable(f"{error}; upload the checkpoint again") from error

    def _manifest(self) -> Manifest | None:
        try:
            return read_manifest(self._store) if MANIFEST in self._sizes else None
        except DigestMismatch as error:
            raise ModelUnusable(f"{error}; upload the checkpoint again") from error

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.folder / name).read_bytes())
        except (OSError, ValueError) as error:
            raise ModelUnusable(f"{self.uri}/{name} is no JSON: {first_line(error)}") from error
        if not isinstance(value, Mapping):
            raise ModelUnusable(f"{self.uri}/{name} holds no object")
        return dict(value)

    def _small_files(self) -> list[str]:
        return sorted(
            n for n in self._sizes if PurePosixPath(n).suffix in _SMALL_SUFFIXES and "/" not in n and n != MANIFEST
        )

    def _missing(self) -> ModelNotFound:
        return ModelNotFound(
            f"spec.model.uri: nothing lies at {self.uri}; upload the checkpoint there, or correct the URI"
        )


def first_line(error: BaseException) -> str:
    """An error in one short line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
