"""One base model with many LoRA adapters, any mix of them in one forward pass.

peft lets a batch name an adapter for each row, but its own entry point walks all modules and registers 210 hooks at every step
(6-10 ms of 50 for SmolLM2-135M on two cores). Here the hooks stay registered and read the current batch's names. Loading each
adapter into a model of its own, or switching the active adapter, would leak one client's adapter into another's answer.

Not thread-safe: everything here runs on the inference thread.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tuningfork_serving.engine.kv_cache import RowCache

BASE = "__base__"
"""peft's name for a row without an adapter."""
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
        # The rank-1 adapter is never named by a batch: it only wraps the layers before the first real one comes.
        wrapper = LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM")
        self._peft = get_peft_model(base, wrapper, adapter_name="wrapper", autocast_adapter_dtype=False).eval()
        self._names: list[str] = []
        self._hooked: set[int] = set()
        self._numbers = itertools.count(1)
        self._hook_layers()

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
        if result.missing_keys or result.unexpected_keys:
            self.unload_adapter(handle)
            raise AdapterError(
                f"{directory}: its weights do not fit the base model: {(result.missing_keys + result.unexpected_keys)[:3]}"
            )
        self._peft.eval()
        self._hook_layers()
        return handle

    def unload_adapter(self, handle: str) -> None:
        """Frees an adapter that no running row names any more."""
        if handle in self._peft.peft_config:
            self._peft.delete_adapter(handle)

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
        if unknown := set(handles) - self._peft.peft_config.keys() - {BASE}:
            raise AdapterError(f"not loaded: {sorted(unknown)}")  # peft would answer from the base
        longest = max(map(len, tokens))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in tokens])
        positions = torch.tensor(starts).unsqueeze(1) + torch.arange(longest)
        ends = torch.tensor([len(row) - 1 for row in tokens])
        kept, where = torch.unique(ends, return_inverse=True)
        self._names[:] = handles
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
            self.forward(0, [tokens] * 2, [start] * 2, [BASE, "wrapper"])

    @torch.inference_mode()
    def move_row(self, source: int, target: int) -> None:
        """Copies one row of the cache over another."""
        self.cache.move(source, target)

    @torch.inference_mode()
    def rest(self) -> None:
        """Nothing runs: gives memory back."""
        self.cache.rest()

    def _hook_layers(self) -> None:
        for module in self._peft.modules():
            if isinstance(module, LoraLayer) and id(module) not in self._hooked:
                module.register_forward_pre_hook(self._name_rows, with_kwargs=True)
                self._hooked.add(id(module))

    def _name_rows(
        self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "adapter_names": self._names}


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
