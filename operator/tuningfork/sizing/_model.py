"""The shape of a decoder model, read from its config.json: what memory depends on, and nothing else.

Adapters are counted on the real shapes of the linear layers (grouped-query attention and the MLP differ from hidden x hidden by up
to eight times), which is why a fixed "layers x 4096 x 2" was rejected. A model type that is not known is sized as a Llama of the
same dimensions, and the estimate says so.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ALL_LINEAR = "all-linear"

LLAMA_LIKE = frozenset(
    ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "olmo2", "granite"]
)
"""Model types whose layers have q, k, v, o and gate, up, down projections."""


class Linear(NamedTuple):
    """A linear layer of every decoder layer."""

    name: str
    inputs: int
    outputs: int


class UnknownModuleError(ValueError):
    """A target module that the model does not have."""


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of a decoder; ``assumed`` has a sentence for everything that config.json did not say."""

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied_embeddings: bool
    linears: tuple[Linear, ...]
    assumed: tuple[str, ...] = field(default=())

    @property
    def attention_size(self) -> int:
        """Width of the queries over all heads; not the hidden size in every model."""
        return self.heads * self.head_size

    @property
    def parameters(self) -> int:
        """All parameters but biases and norms, which are under 0.1 %."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)
        return embeddings + self.layers * sum(linear.inputs * linear.outputs for linear in self.linears)

    def targets(self, modules: Sequence[str]) -> tuple[Linear, ...]:
        """The linear layers that get an adapter; as peft matches, a name is the last part of a module's path."""
        if ALL_LINEAR in modules:
            return self.linears
        known = {linear.name for linear in self.linears}
        unknown = [module for module in modules if module.rsplit(".", 1)[-1] not in known]
        if unknown:
            raise UnknownModuleError(
                f"spec.method.lora.targetModules: {unknown[0]!r} is no linear layer of a {self.model_type} model;"
                f" use {', '.join(sorted(known))} or {ALL_LINEAR}"
            )
        wanted = {module.rsplit(".", 1)[-1] for module in modules}
        return tuple(linear for linear in self.linears if linear.name in wanted)


def lora_parameters(shape: ModelShape, modules: Sequence[str], rank: int) -> int:
    """r (d + k) for each adapted layer."""
    return shape.layers * sum(rank * (linear.inputs + linear.outputs) for linear in shape.targets(modules))


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a config.json describes; raises KeyError naming what it lacks."""
    config = {**config, **config.get("text_config", {})}
    model_type = str(config.get("model_type", "unknown"))
    assumed: list[str] = []
    hidden = _integer(config, "hidden_size", "n_embd", "d_model")
    heads = _integer(config, "num_attention_heads", "n_head")
    head_size = int(config.get("head_dim") or hidden // heads)
    intermediate = _optional(config, "intermediate_size", "n_inner", "ffn_dim")
    if intermediate is None:
        intermediate = 4 * hidden
        assumed.append("intermediate_size is taken as 4 x hidden_size")
    kv_heads = _optional(config, "num_key_value_heads") or heads
    linears = _linears(model_type, hidden, intermediate, heads * head_size, kv_heads * head_size)
    if model_type not in LLAMA_LIKE | _FUSED.keys():
        assumed.append(f"model type {model_type!r} is not known and is sized as a Llama of the same dimensions")
    return ModelShape(
        model_type=model_type,
        layers=_integer(config, "num_hidden_layers", "n_layer"),
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        vocabulary=_integer(config, "vocab_size"),
        tied_embeddings=bool(config.get("tie_word_embeddings", model_type in {"gemma", "gemma2", "gpt2"})),
        linears=linears,
        assumed=tuple(assumed),
    )


_FUSED: dict[str, tuple[str, ...]] = {
    "phi3": ("qkv_proj:h>qkv", "o_proj:q>h", "gate_up_proj:h>2f", "down_proj:f>h"),
    "gpt2": ("c_attn:h>qkv", "c_proj:q>h", "c_fc:h>f", "c_proj:f>h"),
    "gpt_neox": ("query_key_value:h>qkv", "dense:q>h", "dense_h_to_4h:h>f", "dense_4h_to_h:f>h"),
}
_SEPARATE = ("q_proj:h>q", "k_proj:h>kv", "v_proj:h>kv", "o_proj:q>h", "gate_proj:h>f", "up_proj:h>f", "down_proj:f>h")


def _linears(model_type: str, hidden: int, intermediate: int, query: int, key_value: int) -> tuple[Linear, ...]:
    """The layers as a small table says: name:inputs>outputs, in widths of this model."""
    width = {
        "h": hidden,
        "f": intermediate,
        "2f": 2 * intermediate,
        "q": query,
        "kv": key_value,
        "qkv": query + 2 * key_value,
    }
    rows = (re.split("[:>]", row) for row in _FUSED.get(model_type, _SEPARATE))
    return tuple(Linear(name, width[inputs], width[outputs]) for name, inputs, outputs in rows)


def _optional(config: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        if config.get(name) is not None:
            return int(config[name])
    return None


def _integer(config: Mapping[str, Any], *names: str) -> int:
    value = _optional(config, *names)
    if value is None or value <= 0:
        raise KeyError(f"config.json has no {names[0]}")
    return value
