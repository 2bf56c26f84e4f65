"""Peak memory of a LoRA run, analytically: weights + adapters and their states + activations + the logits hump + overhead.

Activations go with layers x width x tokens, not with parameters x tokens. Per token and layer a frozen Llama layer in 16 bit keeps
8 bytes per hidden unit (the fp32 input of two norms), 8 per query unit (query, repeated key and value, output of fused attention)
and 6 per MLP unit (gate, its activation, up); every adapted layer adds its input in fp32, and with dropout the dropped copy and a
mask. With gradient checkpointing only each layer's input stays, and one layer at a time is recomputed. Against measured peaks of
LoRA on Llama-3.2-3B, Qwen2.5-1.5B and TinyLlama (T4, L40S; max_memory_allocated or reserved) this is within 5 %; tests hold
those rows. Rejected: a multiple of the model's size (x4, x6), which knows neither length nor batch.
"""

from dataclasses import dataclass

from tuningfork.sizing._catalogue import GIB, MIB
from tuningfork.sizing._model import ModelShape, lora_parameters

ADAPTER_BYTES = 4
"""peft keeps adapters in fp32."""
GRADIENT_BYTES = 4
OPTIMIZER_BYTES = 8
"""AdamW: two fp32 moments a trainable parameter."""
LOGIT_BYTES = 14
"""Per token and vocabulary entry: 16-bit logits, their fp32 copy, the loss's copy and the gradient; fitted to the rows above."""
FRAGMENTATION = 0.12
"""Reserved over allocated memory of what comes and goes with each step: median of 59 measured runs."""
CUDA_CONTEXT = 512 * MIB
"""CUDA context, cuBLAS workspaces and NCCL buffers of one process: 140 MiB (T4) to 500 MiB (H100)."""
CPU_PROCESS = int(1.5 * GIB)
"""Python with torch, transformers, peft and trl, their libraries included; fitted with the fragmentation to three runs of
SmolLM2-135M whose peak resident memory was 4.4 to 4.9 GB (8 examples of 109 to 116 tokens)."""


@dataclass(frozen=True)
class Workload:
    """What is trained; what may still be chosen is an argument of `estimate`."""

    shape: ModelShape
    parameters: int
    """Of the base model."""
    rank: int
    target_modules: tuple[str, ...]
    dropout: float
    tokens: int
    """Length of an example: the longest, since one batch may hold only such."""
    effective_batch: int


@dataclass(frozen=True)
class Estimate:
    """Bytes by part, for one micro batch on one device."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    def breakdown(self) -> dict[str, int]:
        return dict(vars(self))


def estimate(work: Workload, micro_batch: int, *, checkpointing: bool, cpu: bool) -> Estimate:
    """Peak memory of one training step.

    On cpu weights are counted in fp32, because the trainer uses 16 bit only where the hardware has it.
    """
    trainable = lora_parameters(work.shape, work.target_modules, work.rank)
    tokens = micro_batch * work.tokens
    width = 4 if cpu else 2
    layer = tokens * _layer_bytes(work)
    stored = work.shape.layers * (tokens * width * work.shape.hidden if checkpointing else layer)
    logits = tokens * work.shape.vocabulary * LOGIT_BYTES
    hump = max(logits, layer) if checkpointing else logits
    passing = stored + hump
    return Estimate(
        weights=work.parameters * width,
        adapters=trainable * ADAPTER_BYTES,
        gradients=trainable * GRADIENT_BYTES,
        optimizer=trainable * OPTIMIZER_BYTES,
        activations=passing - logits,
        logits=logits,
        overhead=(CPU_PROCESS if cpu else CUDA_CONTEXT) + int(FRAGMENTATION * passing),
    )


def _layer_bytes(work: Workload) -> int:
    """Bytes a token that one decoder layer keeps for its backward pass."""
    shape = work.shape
    kept = 8 * shape.hidden + 8 * shape.attention_size + 6 * shape.intermediate
    per_input = 9 if work.dropout > 0 else 4
    return kept + per_input * sum(linear.inputs for linear in shape.targets(work.target_modules))
