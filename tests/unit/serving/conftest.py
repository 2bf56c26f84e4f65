"""A tiny real model with two real adapters, made once; builders of tables; stand-ins for engines are in the tests that count with them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tuningfork.api.routes import RouteTable

END = 256
CHAT_TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on two threads, and other tests want the second core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 2 layers that reads bytes."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=END,
        bos_token_id=None,
        pad_token_id=None,
        initializer_range=0.5,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    _byte_tokenizer().save_pretrained(folder)
    return folder


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture(scope="session")
def make_adapter(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_adapter(seed=1, r=4, …): a LoRA adapter that changes the answers."""

    def make(seed: int = 1, **config: Any) -> Path:
        folder = tmp_path_factory.mktemp("adapter")
        torch.manual_seed(seed)
        fields = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **config}
        model = get_peft_model(LlamaForCausalLM.from_pretrained(base_dir), LoraConfig(**fields))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def adapter_dirs(make_adapter: Callable[..., Path]) -> dict[str, Path]:
    return {"one": make_adapter(seed=1), "two": make_adapter(seed=2, r=2, target_modules=["q_proj", "down_proj"])}


@pytest.fixture
def table() -> Callable[..., RouteTable]:
    """table(candidate=…, pins=…): version v1 is stable; adapters are named <version>-adapter."""

    def build(generation: int = 1, **fields: Any) -> RouteTable:
        return RouteTable.model_validate(
            {
                "generation": generation,
                "namespace": "ml",
                "rollout": "support",
                "model": "support",
                "engine_service": "support-engine.ml",
                "stable": target("v1"),
                **fields,
            }
        )

    return build


def target(version: str, **more: Any) -> dict[str, Any]:
    return {"version": version, "adapter": f"{version}-adapter", **more}


@pytest.fixture
def lane_target() -> Callable[..., dict[str, Any]]:
    """lane_target("v2", track="canary", weight=20, salt="s")."""
    return target


@pytest.fixture
def as_data() -> Callable[[RouteTable], dict[str, str]]:
    """A ConfigMap's data with this route table."""
    return lambda table: {"routes.json": json.dumps(table.dump())}
