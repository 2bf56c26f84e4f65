"""Which public adapter names the engine answers for, as vLLM's runtime LoRA API defines it.

A handle is new with every load, so that a name which is unloaded and loaded again never meets the old weights; requests that
already hold the old handle finish on it.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tuningfork_serving.engine.batcher import Batcher
from tuningfork_serving.engine.model import BASE, AdapterError, LoraModel
from tuningfork_serving.openai import ApiError, bad_request


@dataclass(frozen=True)
class Adapter:
    """A loaded adapter."""

    name: str
    path: str
    handle: str


class Adapters:
    """The registry; used on the event loop only."""

    def __init__(self, base_name: str, model: LoraModel, batcher: Batcher) -> None:
        self.base_name = base_name
        self.loaded: dict[str, Adapter] = {}
        self._loading: set[str] = set()
        self._model = model
        self._batcher = batcher

    def handle(self, name: str) -> str:
        """What the batch calls this model; a 404 for anything unknown, never the base in its place."""
        if name in ("", self.base_name):
            return BASE
        if name in self.loaded:
            return self.loaded[name].handle
        raise ApiError(404, f"The model `{name}` does not exist.", "NotFoundError", param="model")

    def name_of(self, handle: str) -> str:
        """The public name, for metrics; "" for the base and for what is no longer loaded."""
        return next((a.name for a in self.loaded.values() if a.handle == handle), "")

    async def load(self, name: str, path: str) -> None:
        """Loads an adapter beside the running requests; they wait for one iteration."""
        self._check_new(name, path)
        self._loading.add(name)
        try:
            handle = await asyncio.wrap_future(self._batcher.call(lambda: self._model.load_adapter(Path(path))))
        except AdapterError as error:
            raise ApiError(
                500, f"Loading adapter `{name}` from {path} failed: {error}", "InternalServerError"
            ) from error
        finally:
            self._loading.discard(name)
        self.loaded[name] = Adapter(name, path, handle)

    def unload(self, name: str) -> None:
        """Forgets the name at once and frees the weights when the last request that has them ends."""
        if not name:
            raise bad_request("lora_name must be given", "lora_name")
        if name not in self.loaded:
            raise ApiError(404, f"The adapter `{name}` is not loaded.", "NotFoundError", param="lora_name")
        self._batcher.retire(self.loaded.pop(name).handle)

    def _check_new(self, name: str, path: str) -> None:
        if not name or not path:
            raise bad_request("both lora_name and lora_path must be given", "lora_path" if name else "lora_name")
        if name == self.base_name:
            raise bad_request(f"`{name}` is the base model's name; give the adapter another", "lora_name")
        if name in self.loaded or name in self._loading:
            raise bad_request(f"The adapter `{name}` has already been loaded; unload it first", "lora_name")
        if not Path(path).is_dir():
            raise ApiError(404, f"No adapter found at {path}", "NotFoundError", param="lora_path")
