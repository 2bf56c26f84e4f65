"""One base model with many LoRA adapters, its tokenizer and its cache.

There is one PeftModel for all: it reads and places the adapters' weights, `lora` computes with them. A model for each adapter would load
the base again and again, and one whose active adapter is switched leaks one client's adapter into another's answer.

Not thread-safe: everything here runs on the inference thread.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tuningfork_serving.engine.kv_cache import RowCache
from tuningfork_serving.engine.lora import Mix, StackedLayer, foreign_layers

BASE = "__base__"
"""The handle of rows without an adapter."""
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class AdapterError(Exception):
    """The adapter cannot be served; the message says why."""


class LoraModel:
    """The model, its tokenizer and its cache."""

    def __init__(self, directory: Path, *, dtype: torch.dtype = torch.bfloat16, max_rank: int = 16) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        base = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa").eval()
        self.config = base.config.get_text_config()
        self.max_length: int = self.config.max_position_embeddings
        self.end_tokens = _end_tokens(base, self.tokenizer)
        self.cache = RowCache(self.config.num_hidden_layers)
        self.max_rank = max_rank
        # Never named by a batch: it only makes the PeftModel before the first real adapter comes.
        wrapper = LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM")
        self._peft = get_peft_model(base, wrapper, adapter_name="wrapper", autocast_adapter_dtype=False).eval()
        self._handles: list[str] = []
        self._numbers = itertools.count(1)
        self._mix = Mix()
        self._layers: dict[str, StackedLayer] = {}
        self._stack()

    def load_adapter(self, directory: Path) -> str:
        """Loads an adapter and returns the handle that batches name; takes 0.2 s for SmolLM2 at rank 8."""
        self.check_adapter(directory)
        handle = f"adapter{next(self._numbers)}"
        try:
            result = self._peft.load_adapter(
                directory, adapter_name=handle, autocast_adapter_dtype=False, low_cpu_mem_usage=True
            )
        except Exception as error:
            self.unload_adapter(handle)
            raise AdapterError(f"{directory}: {error}") from error
        unfit = [*result.missing_keys, *result.unexpected_keys, *foreign_layers(self._peft, handle)]
        if unfit:
            self.unload_adapter(handle)
            raise AdapterError(
                f"{directory}: this engine serves plain LoRA on linear layers of its base, not {unfit[0]}"
            )
        self._peft.eval()
        self._handles.append(handle)
        self._stack()
        return handle

    def unload_adapter(self, handle: str) -> None:
        """Frees an adapter that no running row names any more."""
        if handle in self._peft.peft_config:
            self._peft.delete_adapter(handle)
        if handle in self._handles:
            self._handles.remove(handle)
            self._stack()

    def check_adapter(self, directory: Path) -> None:
        """Raises AdapterError for what this engine would answer wrongly."""
        path = directory / "adapter_config.json"
        if not path.is_file():
            raise AdapterError(f"{directory} holds no adapter_config.json")
        config: dict[str, Any] = json.loads(path.read_text())
        if config.get("peft_type") != "LORA":
            raise AdapterError(f"peft_type is {config.get('peft_type')}; this engine serves LORA")
        rank = max([config.get("r", 0), *config.get("rank_pattern", {}).values()])
        if rank > self.max_rank:
            raise AdapterError(f"LoRA rank {rank} is greater than max_lora_rank {self.max_rank}")
        for field in ("use_dora", "modules_to_save", "alora_invocation_tokens"):
            if config.get(field):
                raise AdapterError(f"{field} is set, which cannot be mixed in one batch; train without it or merge it")
        if config.get("bias", "none") != "none":
            raise AdapterError(f"bias is {config['bias']}, which changes the base for everybody; train with bias: none")

    @torch.inference_mode()
    def forward(self, first_row: int, tokens: list[list[int]], starts: list[int], handles: list[str]) -> Tensor:
        """Next-token logits, one line a row, for rows ``first_row`` onwards.

        Row i gets ``tokens[i]`` at positions from ``starts[i]``. Shorter rows are padded on the right: what the padding writes
        lies behind the row's end, is masked, and is overwritten by the row's next tokens.
        """
        if unknown := set(handles) - {BASE, *self._handles}:
            raise AdapterError(f"not loaded: {sorted(unknown)}")  # else the base would answer
        longest = max(map(len, tokens))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in tokens])
        positions = torch.tensor(starts).unsqueeze(1) + torch.arange(longest)
        ends = torch.tensor([len(row) - 1 for row in tokens])
        kept, where = torch.unique(ends, return_inverse=True)
        self._mix.aim(handles)
        logits: Tensor = self._peft.base_model.model(
            input_ids=ids,
            attention_mask=self.cache.aim(first_row, positions),
            position_ids=positions,
            cache=self.cache,
            use_cache=True,
            logits_to_keep=kept,
        ).logits
        rows: Tensor = logits[torch.arange(len(tokens)), where]
        return rows.float()

    def warm_up(self) -> None:
        """Makes the first request as fast as the next: kernels are compiled for their shapes at first use (3 s)."""
        for start, tokens in ((0, [0] * 64), (64, [0])):
            self.forward(0, [tokens] * 2, [start] * 2, [BASE, BASE])

    @torch.inference_mode()
    def move_row(self, source: int, target: int) -> None:
        """Copies one row of the cache over another."""
        self.cache.move(source, target)

    @torch.inference_mode()
    def rest(self) -> None:
        """Nothing runs: gives memory back."""
        self.cache.rest()

    @torch.inference_mode()
    def _stack(self) -> None:
        for name, module in self._peft.named_modules():
            if isinstance(module, Linear):
                layer = self._layers.get(name) or StackedLayer(module, self._mix)
                self._layers[name] = layer
                layer.stack(self._handles)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
