"""The estimate against peaks that were measured on real cards, and against what must hold for any shape."""

import pytest

from support.jobs import SMOL
from tuningfork.sizing._catalogue import MIB
from tuningfork.sizing._memory import Workload, estimate
from tuningfork.sizing._model import lora_parameters, read_shape

QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
TINYLLAMA = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
             "num_key_value_heads": 4, "vocab_size": 32000, "model_type": "llama"}  # fmt: skip
QWEN_1_5B = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
             "num_key_value_heads": 2, "vocab_size": 151936, "model_type": "qwen2", "tie_word_embeddings": True}  # fmt: skip
LLAMA_3B = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
            "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "model_type": "llama",
            "tie_word_embeddings": True}  # fmt: skip
LLAMA_2_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
              "vocab_size": 32000, "model_type": "llama"}  # fmt: skip


def make_work(config: dict[str, object], *, rank: int, targets: tuple[str, ...], tokens: int, batch: int) -> Workload:
    shape = read_shape(config)
    return Workload(shape, shape.parameters, rank, targets, dropout=0.0, tokens=tokens, effective_batch=batch)


@pytest.mark.parametrize(
    ("config", "rank", "targets", "batch", "tokens", "checkpointing", "measured"),
    [
        pytest.param(TINYLLAMA, 32, QKVO, 2, 512, True, 2757.2, id="r169: TinyLlama, 512 tokens, T4"),
        pytest.param(TINYLLAMA, 32, QKVO, 2, 1024, True, 3287.8, id="r151: TinyLlama, 1024 tokens, T4"),
        pytest.param(TINYLLAMA, 32, QKVO, 2, 2048, True, 4354.1, id="r163: TinyLlama, 2048 tokens, T4"),
        pytest.param(QWEN_1_5B, 32, QKVO, 2, 1024, True, 7401.8, id="r097: Qwen2.5-1.5B, T4"),
        pytest.param(LLAMA_3B, 64, ("q_proj", "v_proj"), 4, 768, False, 21.004 * 1024, id="r246: Llama-3.2-3B, L40S"),
        pytest.param(LLAMA_3B, 14, MLP, 4, 768, False, 22.99 * 1024, id="r234: Llama-3.2-3B, MLP only, L40S"),
    ],
)
def test_allocated_memory_is_within_five_per_cent_of_what_was_measured(
    config: dict[str, object],
    rank: int,
    targets: tuple[str, ...],
    batch: int,
    tokens: int,
    checkpointing: bool,
    measured: float,
) -> None:
    work = make_work(config, rank=rank, targets=targets, tokens=tokens, batch=batch)
    found = estimate(work, batch, checkpointing=checkpointing, cpu=False)
    assert (found.total - found.overhead) / MIB == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    ("config", "rank", "targets", "parameters"),
    [
        pytest.param(LLAMA_2_7B, 8, QKVO, 8_388_608, id="Llama-2-7B has 8.39 M, not 4.19 M"),
        pytest.param(TINYLLAMA, 32, QKVO, 9_011_200, id="grouped queries have smaller keys and values"),
        pytest.param(QWEN_1_5B, 32, QKVO, 8_716_288, id="Qwen2.5-1.5B as peft counts it"),
    ],
)
def test_adapters_are_counted_on_the_real_shapes(
    config: dict[str, object], rank: int, targets: tuple[str, ...], parameters: int
) -> None:
    assert lora_parameters(read_shape(config), targets, rank) == parameters


def test_activations_grow_with_tokens_and_not_with_parameters() -> None:
    short, long = (make_work(TINYLLAMA, rank=8, targets=QKVO, tokens=n, batch=1) for n in (512, 1024))
    one, two = (estimate(work, 1, checkpointing=False, cpu=False) for work in (short, long))
    assert (two.activations, two.logits, two.weights) == (2 * one.activations, 2 * one.logits, one.weights)


def test_the_breakdown_adds_up() -> None:
    work = make_work(LLAMA_3B, rank=8, targets=QKVO, tokens=512, batch=4)
    for cpu in (False, True):
        found = estimate(work, 4, checkpointing=True, cpu=cpu)
        assert sum(found.breakdown().values()) == found.total
        assert min(found.breakdown().values()) >= 0


def test_recomputation_costs_less_memory() -> None:
    work = make_work(LLAMA_3B, rank=8, targets=QKVO, tokens=2048, batch=1)
    whole, recomputed = (estimate(work, 1, checkpointing=flag, cpu=False).total for flag in (False, True))
    assert recomputed < 0.7 * whole


def test_a_fused_model_counts_its_fused_layers() -> None:
    phi = read_shape({**TINYLLAMA, "model_type": "phi3"})
    llama = read_shape(TINYLLAMA)
    assert phi.parameters == llama.parameters
    assert [linear.name for linear in phi.targets(["all-linear"])] == [
        "qkv_proj",
        "o_proj",
        "gate_up_proj",
        "down_proj",
    ]


def test_an_unknown_model_type_is_said_to_be_assumed() -> None:
    shape = read_shape({**TINYLLAMA, "model_type": "novel"})
    assert shape.assumed == ("model type 'novel' is not known and is sized as a Llama of the same dimensions",)


def test_a_config_without_dimensions_names_what_it_lacks() -> None:
    with pytest.raises(KeyError, match="has no hidden_size"):
        read_shape({"model_type": "llama"})


@pytest.mark.parametrize(("tokens", "peak_rss"), [(116, 4_860_637_184), (109, 4_359_692_288), (110, 4_465_815_552)])
def test_a_cpu_run_takes_what_was_measured(tokens: int, peak_rss: int) -> None:
    """SmolLM2-135M, rank 8 on all linear layers with dropout, 8 examples, in a pod of the development cluster."""
    shape = read_shape(SMOL)
    work = Workload(shape, shape.parameters, 8, ("all-linear",), dropout=0.05, tokens=tokens, effective_batch=8)
    assert estimate(work, 8, checkpointing=False, cpu=True).total == pytest.approx(peak_rss, rel=0.10)
