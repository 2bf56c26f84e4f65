"""Which token comes next. Each request has its own generator, so that its answer does not depend on its neighbours' dice."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

SHORTLIST = 1024
"""Tokens that top_p looks at first: sorting a vocabulary of 49,152 takes 3 ms, and the top 1,024 nearly always hold the mass."""


@dataclass
class Sampling:
    """How one request chooses."""

    temperature: float = 1.0
    """0 takes the most likely token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means all."""
    seed: int | None = None
    generator: torch.Generator | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.seed is not None:
            self.generator = torch.Generator().manual_seed(self.seed % 2**63)


def choose(logits: Tensor, samplings: Sequence[Sampling]) -> list[int]:
    """The next token of each row."""
    tokens: list[int] = logits.argmax(-1).tolist()
    for row, sampling in enumerate(samplings):
        if sampling.temperature > 0:
            tokens[row] = _draw(logits[row] / sampling.temperature, sampling)
    return tokens


def _draw(logits: Tensor, sampling: Sampling) -> int:
    if sampling.top_p >= 1 and not sampling.top_k:
        return int(torch.multinomial(logits.softmax(-1), 1, generator=sampling.generator))
    size = min(sampling.top_k or SHORTLIST, len(logits))
    probabilities, ids = _most_likely(logits, size, among=size if sampling.top_k else len(logits))
    if not sampling.top_k and float(probabilities.sum()) < sampling.top_p:
        probabilities, ids = _most_likely(logits, len(logits), among=len(logits))
    before = probabilities.cumsum(-1) - probabilities
    nucleus = torch.where(before < sampling.top_p, probabilities, 0.0)
    return int(ids[torch.multinomial(nucleus, 1, generator=sampling.generator)])


def _most_likely(logits: Tensor, size: int, *, among: int) -> tuple[Tensor, Tensor]:
    """The ``size`` most likely tokens, most likely first, with probabilities among the first ``among``."""
    values, ids = logits.topk(size)
    return (values - (values if among == size else logits).logsumexp(-1)).exp(), ids
